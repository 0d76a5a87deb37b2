"""Opening an engine for a command, and recording the command's time."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


@contextmanager
def connected(engine: str, workers: int, pandas: bool = False) -> Iterator[Any]:
    """The engine of that name, closed at the end; pandas: on Spark, through mapInPandas."""
    if engine == "spark":
        from tinydata.engines.spark import SparkEngine

        spark = SparkEngine(workers, pandas=pandas)
        try:
            yield spark
        finally:
            spark.close()
    else:
        from tinydata.engines.local import LocalEngine

        yield LocalEngine(workers)


def record(out: str, began: float, **facts: Any) -> None:
    """Writes the run's time and command next to the manifest, which does not depend on either."""
    from tinydata.core.location import Location, to_json

    command = shlex.join(["tinydata", *(click.get_current_context().obj or [])])
    (Location.of(out) / ".run.json").write(to_json({"command": command, "seconds": time.time() - began, **facts}))
