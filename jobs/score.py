"""spark-submit jobs/score.py [SHARDS --model MODEL -o SCORES]: `tinydata score` on Spark, a frozen model per worker.

Same options, same table; without arguments it reads tinydata.toml. On a cluster with GPUs, an executor for each:

    spark-submit --conf spark.executor.cores=1 --conf spark.executor.resource.gpu.amount=1 \
        --conf spark.executor.resource.gpu.discoveryScript=jobs/find_gpus.sh --conf spark.task.resource.gpu.amount=1 \
        --conf spark.speculation=false jobs/score.py SHARDS --model MODEL -o SCORES

(In an executor with several, a Python worker may be given another GPU for its next task, and loads the model anew.)
A standalone cluster's workers must know of them too: spark.worker.resource.gpu.amount and .discoveryScript in their
own configuration. On one machine (local[N]) leave all of these out: workers take its GPUs in turn.
"""

import sys

from tinydata.cli.main import main

if __name__ == "__main__":
    main(["score", "--engine", "spark", *sys.argv[1:]])
