"""spark-submit jobs/score.py [SHARDS --model MODEL -o SCORES]: `tinydata score` on Spark, a frozen model per worker.

Same options, same table; without arguments it reads tinydata.toml. On a cluster with GPUs, one for each task:

    spark-submit --conf spark.executor.cores=8 --conf spark.executor.resource.gpu.amount=8 \
        --conf spark.executor.resource.gpu.discoveryScript=jobs/find_gpus.sh --conf spark.task.resource.gpu.amount=1 \
        --conf spark.speculation=false jobs/score.py SHARDS --model MODEL -o SCORES

A standalone cluster's workers must know of them too: spark.worker.resource.gpu.amount and .discoveryScript in their
own configuration. On one machine (local[N]) leave all of these out: workers take its GPUs in turn.
"""

import sys

from tinydata.cli import main

if __name__ == "__main__":
    main(["score", "--engine", "spark", *sys.argv[1:]])
