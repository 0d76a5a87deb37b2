"""spark-submit jobs/resample.py [SCORES --keep F -o ROUND]: `tinydata resample` on Spark.

Same options, same round byte for byte; without arguments it reads tinydata.toml.
"""

import sys

from tinydata.cli.main import main

if __name__ == "__main__":
    main(["resample", "--engine", "spark", *sys.argv[1:]])
