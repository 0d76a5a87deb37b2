"""Opens an engine by name ("local", "spark"), from a running SparkSession, or passes through an engine object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def connect(engine: Any = "local", workers: int = 0, *, pandas: bool = False) -> Iterator[Any]:
    """Yields the engine; on exit closes a Spark session only if it was started here.

    engine: "local" (processes on this machine), "spark" (the session of spark-submit, or a new one on this machine),
    a SparkSession, or an object with the methods of `tinydata.engines.base.Engine`. workers: number of processes;
    0: one per core. pandas: on Spark, use mapInPandas instead of mapInArrow.
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
