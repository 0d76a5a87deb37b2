"""Losses and seed -> threshold of each stratum: the k-th largest Gumbel key, without sorting all keys."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from tinydata.engines.base import Tell, Units
from tinydata.verbs.resample import gumbel as curves
from tinydata.verbs.resample.candidates import Candidates, apply_guards
from tinydata.verbs.resample.gumbel import LIMIT, STEPS, keys, sift
from tinydata.verbs.resample.passes import Passes
from tinydata.verbs.resample.plan import COLLECTED, FAR, Draw, Plan
from tinydata.verbs.resample.predict import log_weights_of


class Near(NamedTuple):
    """Keys near a threshold: how many lie above the window, a histogram of those inside, and, if few, the keys."""

    above: np.ndarray  # int64 [strata]
    counts: np.ndarray  # int64 [strata, STEPS]
    keys: np.ndarray | None  # int64 [n, 3]: stratum, key, sequence


def candidates_with_keys(draw: Draw, group: int) -> tuple[Candidates, np.ndarray]:
    """Group number -> its candidates, and keys int64[n]."""
    candidates = apply_guards(draw.source, group, draw.limits)
    out = np.empty(len(candidates.reason), np.int64)
    seed = np.uint64(draw.seed)
    keys(
        candidates.loss,
        candidates.reason,
        candidates.rows.domain,
        candidates.unit,
        draw.stratum_of,
        draw.scales,
        seed,
        out,
    )
    return candidates, out


def count_keys(draw: Draw, low: np.ndarray, high: np.ndarray, step: np.ndarray, task: Units, tell: Tell) -> Near:
    """One pass: compares the keys of a task with a window low..high, int64[strata] each, per stratum."""
    above, counts = np.zeros(len(low), np.int64), np.zeros((len(low), STEPS), np.int64)
    inside: list[np.ndarray] | None = [np.empty((0, 3), np.int64)]
    size = 0
    for unit in task.units:
        candidates, key = candidates_with_keys(draw, unit.about)
        at = np.empty(len(key), np.int64)
        n = sift(key, candidates.rows.domain, draw.stratum_of, low, high, step, above, counts, at)
        size += n
        at = at[:n]
        if size > COLLECTED:
            inside = None
        elif inside is not None:
            stratum = draw.stratum_of[candidates.rows.domain[at]]
            inside.append(np.stack([stratum, key[at], candidates.rows.sequence[at]], axis=1))
        tell(unit.bytes)
    return Near(above, counts, None if inside is None else np.concatenate(inside))


def search(plan: Plan, passes: Passes) -> Draw:
    """Plan -> Draw with each stratum's threshold: key and, among equal keys, sequence number of the last row kept.

    The losses predict the threshold, so one pass over a narrow window is nearly always enough; if the window misses
    it or contains too many keys, it is moved or narrowed. The number kept is exact, whatever was predicted.
    """
    draw, strata = plan.draw, len(plan.keep)
    threshold, last = np.full(strata, LIMIT + 1), np.full(strata, -1)  # keeps nothing
    eligible = np.zeros(strata, np.int64)
    np.add.at(eligible, draw.stratum_of, plan.losses.counts.sum(1))
    whole = np.array(plan.keep) >= eligible
    threshold[whole], last[whole] = -LIMIT, np.iinfo(np.int64).max
    low, high = _windows(plan)
    todo = [s for s in range(strata) if 0 < plan.keep[s] < eligible[s]]
    while todo:
        closed = np.ones(strata, np.bool_)
        closed[todo] = False
        low[closed] = high[closed] = LIMIT + 2
        step = np.maximum(1, -(-(high - low) // STEPS))
        partial_results = passes.run("keys", draw.source, partial(count_keys, draw, low, high, step))
        above = sum(n.above for n in partial_results)
        counts = sum(n.counts for n in partial_results)
        collected = [n.keys for n in partial_results if n.keys is not None]
        everything = np.concatenate(collected) if len(collected) == len(partial_results) else None
        for s in list(todo):
            rank = plan.keep[s] - int(above[s])  # among the keys inside
            if rank <= 0:
                low[s], high[s] = high[s], LIMIT + 1
            elif rank > counts[s].sum():
                low[s], high[s] = -LIMIT, low[s]
            elif everything is not None:
                mine = everything[everything[:, 0] == s]
                at = np.lexsort((mine[:, 2], -mine[:, 1]))[rank - 1]
                threshold[s], last[s] = mine[at, 1:]
                same = mine[mine[:, 1] == threshold[s]]
                cut = {"kept": int((same[:, 2] <= last[s]).sum()), "of": len(same)}
                plan.facts["strata"][s]["last_unit"] = cut
                todo.remove(s)
            else:
                from_top = np.cumsum(counts[s][::-1])
                k = STEPS - 1 - int(np.searchsorted(from_top, rank))
                low[s], high[s] = low[s] + k * step[s], min(low[s] + (k + 1) * step[s], high[s])
    return draw._replace(threshold=threshold, last=last)


def _windows(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """-> low, high int64[strata]: range of keys in which the threshold is expected, from the counts of losses."""
    draw, losses = plan.draw, plan.losses
    low, high = np.full(len(plan.keep), -LIMIT), np.full(len(plan.keep), LIMIT + 1)
    for s, k in enumerate(plan.keep):
        counts = losses.counts[draw.stratum_of == s].sum(0)
        total = int(counts.sum())
        if not 0 < k < total:
            continue
        together = max(1.0, total / max(losses.units, 1)) if draw.source.unit != "sequence" else 1.0
        far = FAR * math.sqrt(together * k * (1 - k / total)) + 16 * together + 100
        weights = log_weights_of(losses.middles, draw.scales[s])
        for ends, rank in ((low, k + far), (high, k - far)):
            t = curves.threshold(weights, counts, rank)
            if math.isfinite(t):
                ends[s] = int(min(max(t * 2.0**32, -LIMIT), LIMIT))
    return low, np.maximum(high, low + 1)
