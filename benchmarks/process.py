"""What a piece of work costs: CPU-seconds of all processes it starts, wall seconds, peak memory.

`command` and `call` run it in a fresh process; this one imports nothing heavy, because a child's
peak memory begins with what its parent held. `cpu` is the clock for work inside a process.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

ONE_CORE = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_GUARD, _MAKING = Lock(), dict[str, Lock]()  # what is being made, by path
_ADOPT_ORPHANS = 36  # prctl(PR_SET_CHILD_SUBREAPER): Spark's JVM outlives the Python that started it


class Run(NamedTuple):
    """`peak` is that of the largest single process."""

    value: Any
    cpu: float  # seconds, user + system
    wall: float  # seconds
    peak: int  # bytes


def command(args: list[str]) -> Run:
    """Runs a command to the end, with all it leaves behind; raises RuntimeError with its output if it fails."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(args, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **ONE_CORE})
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace")[-4000:]
            raise RuntimeError(f"exit code {process.returncode} of {' '.join(args)}\n{text}")
    all_used = [used, *_orphans()]
    cpu_seconds = sum(u.ru_utime + u.ru_stime for u in all_used)
    return Run(None, cpu_seconds, wall, max(u.ru_maxrss for u in all_used) << 10)


def _orphans() -> list[Any]:
    """Resources of the processes the command left behind, once they have ended."""
    used = []
    while True:
        try:
            used.append(os.wait4(-1, 0)[2])
        except ChildProcessError:
            return used


def call(function: str, *args: Any) -> Run:
    """`module:function` on JSON arguments in a fresh process; its JSON result is the value."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        run = command([sys.executable, "-m", "benchmarks.process", function, json.dumps(args), result.name])
        return run._replace(value=json.loads(result.read()))


def tinydata(*args: str) -> Run:
    """A tinydata command in a fresh process."""
    return command([sys.executable, "-c", "from tinydata.cli.main import main; main()", *args])


def make(folder: Path, done: str, *args: str) -> None:
    """Runs Python with these arguments in `folder`, on one core, unless what it makes is there. Its output goes to
    stderr only if it fails, with a RuntimeError. Threads that want the same wait for the first."""
    with _GUARD:
        lock = _MAKING.setdefault(str(folder / done), Lock())
    with lock:
        if not (folder / done).exists():
            _make(folder, args)


def _make(folder: Path, args: tuple[str, ...]) -> None:
    print(" ".join(a for a in args if "\n" not in a), file=sys.stderr, flush=True)
    env = {**os.environ, **ONE_CORE, "PYTHONPATH": str(Path(__file__).parents[1])}
    found = subprocess.run([sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(f"exit code {found.returncode} of {' '.join(args)}\n{found.stderr[-4000:]}")


def cpu() -> float:
    """CPU-seconds so far of this process and of all its descendants, ended or not."""
    spent = sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(name)] = int(fields[1])
        seconds[int(name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    here = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in here} - here:
        here |= more
    return spent + sum(seconds[p] for p in here - {os.getpid()})


def speed(work: Callable[[], int], clock: Callable[[], float] = time.process_time) -> float:
    """work() -> units done. Millions of units per CPU-second."""
    began = clock()
    return work() / (clock() - began) / 1e6


def marginal(
    work: Callable[[str], int], small: str, large: str, clock: Callable[[], float] = time.process_time
) -> float:
    """work(path) -> units done. Millions of units per CPU-second from the difference: what is fixed falls out."""
    began = clock()
    few = work(small)
    between = clock()
    many = work(large)
    return (many - few) / max(clock() - between - (between - began), 1e-9) / 1e6


def alternate(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """{name: -> speed} -> {name: speed in each round}: neighbours in time share the machine's mood."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            speeds[name].append(contender())
    return speeds


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    result = getattr(import_module(module), name)(*json.loads(sys.argv[2]))
    with open(sys.argv[3], "w") as f:
        json.dump(result, f)
