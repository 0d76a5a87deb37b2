"""`python -m tinydata` is the command `tinydata`."""

from tinydata.cli.main import main

main()
