"""The checks of Spark for `tinydata doctor`: Java, then a small job that looks at each executor."""

from __future__ import annotations

import platform
import shutil
import tempfile
from typing import Any

from tinydata.cli.checks import Check, check, installed_version
from tinydata.core.errors import TinydataError

_PACKAGES = ("tinydata", "pyarrow", "numpy", "numba", "tokenizers")


def spark_checks() -> list[Check]:
    """Java, then each executor."""
    try:
        from tinydata.engines.spark import SparkEngine, java

        home = java()
        checks = [check("java", True, home or shutil.which("java") or "")]
        engine = SparkEngine()
    except TinydataError as e:
        return [check("spark", False, e.what, e.fix)]
    tasks = list(range(2 * engine.slots))
    try:
        seen = [r for _, r in engine.run(tasks, look, progress=lambda n: None, label="tinydata doctor")]
    except TinydataError as e:
        return [*checks, check("executors", False, e.what, e.fix)]
    finally:
        engine.close()
    driver = look(0, lambda n: None)
    by_host = {r["host"]: r for r in reversed(seen)}
    return [*checks, *(_executor(by_host[host], driver) for host in sorted(by_host))]


def _executor(facts: dict[str, Any], driver: dict[str, Any]) -> Check:
    """What is installed on an executor, against the driver."""
    other = {k: v for k, v in facts.items() if k not in ("host", "free") and v != driver[k]}
    found = f"{facts['host']}: python {facts['python']}, {facts['free'] / 1e9:.0f} GB free"
    if other:
        found += "; differs from the driver: " + ", ".join(f"{k} {v} (driver {driver[k]})" for k, v in other.items())
    return check("executor", not other, found, "give the executors the driver's environment with --archives")


def look(task: int, tell: Any) -> dict[str, Any]:
    """On an executor: what is installed there."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    found = {name: installed_version(name) for name in _PACKAGES}
    return {"host": platform.node(), "free": free, "python": platform.python_version(), **found}
