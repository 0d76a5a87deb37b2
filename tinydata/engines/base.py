"""The interface of an engine, which runs tasks and returns their results, and `map` and `reduce`, built on it.

A verb supplies a batch function (exactly what Spark's mapInArrow takes). Workers receive splits, not
rows, and read the files themselves. Each task writes its result atomically under the output's
`parts/`, with the list of the splits it covers. Running the same command again skips the splits that
are already covered, so a killed run resumes and nothing is counted twice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from tinydata.core import schema
from tinydata.core.location import Location, read_bytes, read_table, table_bytes
from tinydata.core.quarantine import Unusable, note, quarantined
from tinydata.formats.base import Split
from tinydata.formats.corpus import read

BatchFn = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Merge = Callable[[list[pa.Table]], pa.Table]
TASK_BYTES = (64 << 20, 1 << 30)  # least and most: a Spark task costs 0.1 s of CPU, a lost one must be read again
FAN_IN = 32  # partial results merged by one task


class Engine(Protocol):
    """Runs up to `slots` tasks in parallel; `run` yields (task number, result) in any order.

    All calls of `run` inside a `with engine.together()` block share the same worker processes.
    """

    name: str
    slots: int

    def run(
        self, tasks: list[Any], work: Callable[[Any], Any], *, progress: Callable[[int], None], label: str
    ) -> Iterator[tuple[int, Any]]: ...

    def together(self) -> AbstractContextManager[None]: ...


class Worker(NamedTuple):
    """A worker process: its number on its machine, and the GPU that the cluster assigned to it ("": none)."""

    number: int = 0
    gpu: str = ""


_worker = Worker()


def this_worker() -> Worker:
    """The Worker that this process is."""
    return _worker


def set_worker(worker: Worker) -> None:
    """Sets the Worker of this process; an engine calls it once in each worker process."""
    global _worker
    _worker = worker


class Task(NamedTuple):
    """Splits that one worker reads one after another, and the directory for its result."""

    splits: list[Split]
    parts: str

    @property
    def bytes(self) -> int:
        """Bytes on disk of all its splits."""
        return sum(s.bytes for s in self.splits)

    @property
    def name(self) -> str:
        """A hash of the splits: the same task has the same name in a resumed run."""
        return hashlib.blake2b(repr(self.splits).encode(), digest_size=12).hexdigest()


def reduce(
    engine: Engine,
    splits: list[Split],
    fn: BatchFn,
    *,
    merge: Merge,
    parts: Location,
    progress: Callable[[int], None],
    partitions: int = 0,
    label: str = "",
) -> pa.Table:
    """splits -> one table: applies fn to the batches of each task and merges the partial results in a tree.

    The result does not depend on how splits are grouped into tasks, provided that `merge` is
    associative and commutative. `partitions`: number of tasks; 0: chosen by size.
    """
    done = _finished(parts)
    covered = Counter(tuple(place) for _, got in done for place in got)
    todo = [s for s in splits if not _taken(covered, tuple(_place(s)))]
    progress(sum(s.bytes for s in splits) - sum(s.bytes for s in todo))
    tasks = [Task(group, parts.path) for group in grouped(todo, engine.slots, partitions)]
    names = [name for name, _ in done]
    for _, name in engine.run(tasks, partial(_work, fn), progress=progress, label=label):
        names.append(name)
    level = 0
    while len(names) > FAN_IN:
        groups = [(parts.path, sorted(names)[i : i + FAN_IN], level) for i in range(0, len(names), FAN_IN)]
        names = [n for _, n in engine.run(groups, partial(_fold, merge), progress=lambda n: None, label="merge")]
        level += 1
    return _merged(merge, parts, sorted(names))


Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]  # (name, total size) -> advance(n)


def silent(name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
    """A Stage that shows nothing."""
    return nullcontext(lambda n: None)


class Unit(NamedTuple):
    """A piece of work that writes its own output: its description (`about`) and its input size in bytes.

    How work is divided into units depends only on the data, never on the engine.
    """

    number: int
    about: Any
    bytes: int


class Units(NamedTuple):
    """Units that one worker processes one after another."""

    units: list[Unit]
    parts: str
    kind: str

    @property
    def bytes(self) -> int:
        """Input bytes of all its units."""
        return sum(u.bytes for u in self.units)


Result = dict[str, Any]  # serializable as JSON
Tell = Callable[[int], None]  # called with the bytes processed since the last call
Do = Callable[[Any, int, Tell], Result]  # (unit.about, unit.number, tell) -> result


def map(
    engine: Engine,
    units: list[Unit],
    do: Do,
    *,
    kind: str,
    parts: Location,
    progress: Callable[[int], None],
    partitions: int = 0,
    label: str = "",
    finished: Callable[[set[int]], None] = lambda numbers: None,
) -> list[Result]:
    """units -> the result of each, in order. `do` processes one unit and writes its output itself, atomically.

    The result of a unit is stored in parts/KIND-NUMBER.json; running the same command again skips the
    units that have one. `partitions`: number of tasks; 0: chosen by size. `finished` is called with the
    numbers of units as they complete.
    """
    done = {int(n.removeprefix(f"{kind}-")) for n, _ in _finished(parts) if n.startswith(f"{kind}-")}
    todo = [u for u in units if u.number not in done]
    progress(sum(u.bytes for u in units) - sum(u.bytes for u in todo))
    tasks = [Units(group, parts.path, kind) for group in grouped(todo, engine.slots, partitions)]
    finished(done)
    for i, _ in engine.run(tasks, partial(_do_units, do), progress=progress, label=label):
        finished({u.number for u in tasks[i].units})
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda u: json.loads(read_bytes(_mark(parts, kind, u.number))), units))


def _mark(parts: Location, kind: str, number: int) -> Location:
    return parts / f"{kind}-{number:07d}.json"


def _do_units(do: Do, task: Units, tell: Callable[[int], None]) -> int:
    for unit in task.units:
        result = do(unit.about, unit.number, tell)
        _mark(Location.of(task.parts), task.kind, unit.number).write(json.dumps(result).encode())
    return len(task.units)


def _place(split: Split) -> list[Any]:
    """Identifies a split within a run; if a file was given twice, each of its splits occurs twice."""
    return [split.path, split.format, split.start, split.stop]


def _taken(covered: Counter[tuple[Any, ...]], place: tuple[Any, ...]) -> bool:
    covered[place] -= 1
    return covered[place] >= 0


def _finished(parts: Location) -> list[tuple[str, list[list[Any]]]]:
    """[(task name, splits it covers)] of the tasks that have completed."""
    marks = [f for f in parts.children() if f.name.endswith(".json")] if parts.exists() else []
    return [(m.name.removesuffix(".json"), json.loads(read_bytes(m))) for m in marks]


def grouped(splits: list[Any], slots: int, partitions: int = 0) -> list[list[Any]]:
    """Splits or units -> groups of consecutive ones with about equal bytes; small files share a group."""
    if not splits:
        return []
    total = sum(s.bytes for s in splits)
    if partitions:
        target = max(1.0, total / partitions)
    else:
        low, high = TASK_BYTES
        # four tasks per slot, so that slots do not idle while the last task runs; with one slot none can
        target = min(max(total / (slots * 4), low), high) if slots > 1 else high
    groups: list[list[Any]] = [[]]
    size = 0
    for s in splits:
        if groups[-1] and size + s.bytes / 2 > target * len(groups) and (not partitions or len(groups) < partitions):
            groups.append([])
        groups[-1].append(s)
        size += s.bytes
    return groups


def _work(fn: BatchFn, task: Task, tell: Callable[[int], None]) -> str:
    """Reads the splits of one task, applies fn, writes the result, and then the file that marks it complete."""
    bad: list[Unusable] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for split in task.splits:
            yield from read(split, partial(note, bad, split.path))
            tell(split.bytes)

    out = list(fn(batches()))
    rows = quarantined(bad)
    table = pa.Table.from_batches([*out, *rows.to_batches()], schema.PARTIAL)
    parts = Location.of(task.parts)
    (parts / f"{task.name}.parquet").write(table_bytes(table, "none"))  # read once, soon: not worth compressing
    (parts / f"{task.name}.json").write(json.dumps([_place(s) for s in task.splits]).encode())
    return task.name


def _merged(merge: Merge, parts: Location, names: list[str]) -> pa.Table:
    """Merges partial results, at most 8 in memory at a time: each may contain 64 MB of held-out text."""
    tables: list[pa.Table] = []
    for name in names:
        tables.append(read_table(parts / f"{name}.parquet"))
        if len(tables) == 8:
            tables = [merge(tables)]
    return merge(tables)


def _fold(merge: Merge, group: tuple[str, list[str], int], tell: Callable[[int], None]) -> str:
    """Merges some partial results into one. It writes no completion mark: a killed merge is cheap to repeat."""
    parts, names, level = group
    where = Location.of(parts)
    name = f"merged-{level}-{hashlib.blake2b(repr(names).encode(), digest_size=12).hexdigest()}"
    table = _merged(merge, where, names)
    (where / f"{name}.parquet").write(table_bytes(table, "none"))
    return name
