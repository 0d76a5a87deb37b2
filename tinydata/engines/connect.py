"""What names an engine -> the engine: "local", "spark", a running SparkSession, or an engine that is open already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def connect(engine: Any = "local", workers: int = 0, *, pandas: bool = False) -> Iterator[Any]:
    """Yields the engine; closes at the end what was opened here, and nothing else.

    engine: "local" (processes on this machine), "spark" (spark-submit's session, or a new one on this machine),
    a SparkSession, or an object with the methods of `tinydata.engines.base.Engine`. workers: how many processes,
    0: one per core. pandas: on Spark, tasks go through mapInPandas.
    """
    if engine == "local":
        from tinydata.engines.local import LocalEngine

        yield LocalEngine(workers)
        return
    session = engine if type(engine).__module__.startswith("pyspark.") else None
    if engine != "spark" and session is None:
        yield engine
        return
    from tinydata.engines.spark import SparkEngine

    spark = SparkEngine(workers, pandas=pandas, session=session)
    try:
        yield spark
    finally:
        spark.close()
