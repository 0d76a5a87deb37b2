"""Groups of candidates -> results of one pass over all of them on an engine."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinydata.core.output import Output
from tinydata.engines.base import Engine, Stage, Unit, Units, grouped, map
from tinydata.verbs.resample.candidates import Source

ROW = 24  # bytes of a row, for progress and for the size of tasks


class Passes(NamedTuple):
    """The engine and how passes over the groups run on it."""

    engine: Engine
    partitions: int
    stage: Stage
    label: str

    def run(self, name: str, source: Source, work: Any) -> list[Any]:
        """work(groups, tell) -> its result for each task, in any order."""
        units = units_of_groups(source)
        tasks = [Units(g, "", "") for g in grouped(units, self.engine.slots, self.partitions)]
        with self.stage(name, sum(u.bytes for u in units)) as progress:
            return [result for _, result in self.engine.run(tasks, work, progress=progress, label=self.label)]

    def map(self, kind: str, output: Output, units: list[Unit], do: Any) -> list[dict[str, Any]]:
        """Runs each unit once, even if the command is interrupted and repeated -> results in order."""
        with self.stage(kind, sum(u.bytes for u in units)) as progress:
            ways: dict[str, Any] = {"partitions": self.partitions, "label": self.label}
            return map(self.engine, units, do, kind=kind, parts=output.parts, progress=progress, **ways)


def units_of_groups(source: Source) -> list[Unit]:
    """Source -> one unit per group."""
    return [Unit(k, k, source.rows(k) * ROW) for k in range(len(source.groups))]
