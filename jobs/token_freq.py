"""spark-submit jobs/token_freq.py [CORPUS… --tokenizer T -o COUNTS]: `tinydata count` on Spark.

Same options, same result byte for byte; without arguments it reads tinydata.toml.
"""

import sys

from tinydata.cli.main import main

if __name__ == "__main__":
    main(["count", "--engine", "spark", *sys.argv[1:]])
