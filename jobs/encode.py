"""spark-submit jobs/encode.py [CORPUS… --vocab VOCAB -o SHARDS]: `tinydata encode` on Spark.

Same options, same shards byte for byte; without arguments it reads tinydata.toml.
"""

import sys

from tinydata.cli.main import main

if __name__ == "__main__":
    main(["encode", "--engine", "spark", *sys.argv[1:]])
