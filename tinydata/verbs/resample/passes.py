"""Passes over the groups of candidates: how they run on an engine, and those that count priors and losses."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinydata.core.output import Output
from tinydata.engines.base import Engine, Stage, Tell, Unit, Units, grouped, map
from tinydata.verbs.resample.candidates import REASONS, Source, apply_guards, bounds, no_bounds, read, tally_priors
from tinydata.verbs.resample.gumbel import BINS, middles, tally

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
            return map(
                self.engine,
                units,
                do,
                kind=kind,
                parts=output.parts,
                progress=progress,
                partitions=self.partitions,
                label=self.label,
            )


def units_of_groups(source: Source) -> list[Unit]:
    """Source -> one unit per group."""
    return [Unit(k, k, source.rows(k) * ROW) for k in range(len(source.groups))]


class LossHistogram(NamedTuple):
    """Histogram of the losses of all candidates."""

    counts: np.ndarray  # int64[domains, bins]
    middles: np.ndarray  # float64[bins]: nats
    bins: np.ndarray  # int64[bins]: their numbers
    reasons: np.ndarray  # int64[domains, REASONS]: rows that can be drawn, and those that cannot
    units: int

    @property
    def with_loss(self) -> np.ndarray:
        """int64[domains]: sequences that have a loss, whether they are eligible or not."""
        return self.reasons.sum(1) - self.reasons[:, REASONS.index("no loss")]


class Sparse(NamedTuple):
    """The entries of an array that are not 0."""

    at: np.ndarray  # int64[n]: indices into the flat array
    values: np.ndarray  # int64[n]


class TaskLosses(NamedTuple):
    """Result of one task of the pass over the losses."""

    counts: Sparse  # of [domains, BINS]
    reasons: np.ndarray  # int64[domains, REASONS]
    units: int


def prior_limits(passes: Passes, source: Source) -> np.ndarray:
    """-> limits int64[domains, 4] of the priors: see candidates.bounds. A pass, if that guard is on."""
    if "prior" not in source.limits:
        return no_bounds(len(source.domains))
    counts = np.zeros((len(source.domains), 2, 65536), np.int64)
    for result in passes.run("priors", source, partial(count_priors, source)):
        counts.ravel()[result.at] += result.values
    return bounds(counts, source.limits["prior"])


def count_priors(source: Source, task: Units, tell: Tell) -> Sparse:
    """Groups -> counts int64[domains, 2, 65536] of priors and of their standard deviations."""
    counts = np.zeros((len(source.domains), 2, 65536), np.int64)
    for unit in task.units:
        rows = read(source, unit.about)
        tally_priors(rows.prior, rows.spread, rows.reason, rows.domain, counts)
        tell(unit.bytes)
    return _sparse(counts)


def loss_histogram(passes: Passes, source: Source, limits: np.ndarray) -> LossHistogram:
    """Limits of the priors -> LossHistogram, in one pass."""
    results = passes.run("losses", source, partial(count_losses, source, limits))
    bins = np.unique(np.concatenate([r.counts.at % BINS for r in results]))
    if not len(bins):
        bins = np.zeros(1, np.int64)
    counts = np.zeros((len(source.domains), len(bins)), np.int64)
    for result in results:
        index, values = result.counts
        counts[index // BINS, np.searchsorted(bins, index % BINS)] += values
    reasons = np.sum([r.reasons for r in results], axis=0)
    return LossHistogram(counts, middles(bins), bins, reasons, sum(r.units for r in results))


def count_losses(source: Source, limits: np.ndarray, task: Units, tell: Tell) -> TaskLosses:
    """Groups -> TaskLosses."""
    counts = np.zeros((len(source.domains), BINS), np.int64)
    reasons = np.zeros(len(source.domains) * len(REASONS), np.int64)
    units = 0
    for unit in task.units:
        candidates = apply_guards(source, unit.about, limits)
        tally(candidates.loss.view(np.uint32), candidates.reason, candidates.rows.domain, counts)
        code = candidates.rows.domain.astype(np.int64) * len(REASONS) + candidates.reason
        reasons += np.bincount(code, minlength=len(reasons))
        units += candidates.units
        tell(unit.bytes)
    return TaskLosses(_sparse(counts), reasons.reshape(-1, len(REASONS)), units)


def _sparse(counts: np.ndarray) -> Sparse:
    index = np.flatnonzero(counts)
    return Sparse(index, counts.ravel()[index])
