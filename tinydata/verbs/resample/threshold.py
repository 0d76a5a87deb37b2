"""Losses and seed -> threshold of each stratum: the k-th largest Gumbel key, without sorting all keys."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from tinydata.engines.base import Tell, Units
from tinydata.verbs.resample.candidates import Candidates, apply_guards
from tinydata.verbs.resample.gumbel import LIMIT, STEPS, expected_threshold, keys, sift
from tinydata.verbs.resample.passes import Passes
from tinydata.verbs.resample.plan import COLLECTED, FAR, Draw
from tinydata.verbs.resample.selection import PredictedDraw


class Windows(NamedTuple):
    """A range of keys in each stratum, divided into STEPS bins."""

    low: np.ndarray  # int64[strata]
    high: np.ndarray  # int64[strata], exclusive
    step: np.ndarray  # int64[strata]: size of a bin


class KeysNearThreshold(NamedTuple):
    """How many keys are above the windows, a histogram of those inside and, if they are few, the keys."""

    above: np.ndarray  # int64[strata]
    counts: np.ndarray  # int64[strata, STEPS]
    keys: np.ndarray | None  # int64[n, 3]: columns STRATUM, KEY, SEQUENCE


STRATUM, KEY, SEQUENCE = range(3)


class Thresholds(NamedTuple):
    """The draw with its thresholds. Rows of one unit have equal keys; the last unit may be kept in part."""

    draw: Draw
    last_units: dict[int, dict[str, int]]  # stratum -> rows of the last unit that are kept, and all of its rows


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


def count_keys(draw: Draw, windows: Windows, task: Units, tell: Tell) -> KeysNearThreshold:
    """One pass over the groups of a task: compares their keys with the windows."""
    strata = len(windows.low)
    above, counts = np.zeros(strata, np.int64), np.zeros((strata, STEPS), np.int64)
    inside: list[np.ndarray] | None = [np.empty((0, 3), np.int64)]
    size = 0
    for unit in task.units:
        candidates, key = candidates_with_keys(draw, unit.about)
        at = np.empty(len(key), np.int64)
        n = sift(key, candidates.rows.domain, draw.stratum_of, *windows, above, counts, at)
        size += n
        at = at[:n]
        if size > COLLECTED:
            inside = None
        elif inside is not None:
            stratum = draw.stratum_of[candidates.rows.domain[at]]
            inside.append(np.stack([stratum, key[at], candidates.rows.sequence[at]], axis=1))
        tell(unit.bytes)
    return KeysNearThreshold(above, counts, None if inside is None else np.concatenate(inside))


def search(predicted: PredictedDraw, passes: Passes) -> Thresholds:
    """PredictedDraw -> the threshold of each stratum: key and, among equal keys, sequence number of the last row kept.

    The losses predict the threshold, so one pass over a narrow window is nearly always enough; if the window misses
    it or contains too many keys, it is moved or narrowed. The number kept is exact, whatever was predicted.
    """
    draw, strata = predicted.draw, len(predicted.keep)
    key, last = np.full(strata, LIMIT + 1), np.full(strata, -1)  # keeps nothing
    keep, eligible = np.array(predicted.keep), np.array(predicted.strata.eligible)
    whole = keep >= eligible
    key[whole], last[whole] = -LIMIT, np.iinfo(np.int64).max
    low, high = _expected_ranges(predicted)
    todo = [s for s in range(strata) if 0 < keep[s] < eligible[s]]
    last_units: dict[int, dict[str, int]] = {}
    while todo:
        windows = _windows(low, high, todo)
        near = _merged(passes.run("keys", draw.source, partial(count_keys, draw, windows)))
        for s in list(todo):
            rank = int(keep[s] - near.above[s])  # among the keys in the window
            if rank <= 0:
                low[s], high[s] = high[s], LIMIT + 1
            elif rank > near.counts[s].sum():
                low[s], high[s] = -LIMIT, low[s]
            elif near.keys is not None:
                mine = near.keys[near.keys[:, STRATUM] == s]
                at = np.lexsort((mine[:, SEQUENCE], -mine[:, KEY]))[rank - 1]
                key[s], last[s] = mine[at, KEY], mine[at, SEQUENCE]
                same = mine[mine[:, KEY] == key[s]]
                last_units[s] = {"kept": int((same[:, SEQUENCE] <= last[s]).sum()), "of": len(same)}
                todo.remove(s)
            else:
                from_top = np.cumsum(near.counts[s][::-1])
                k = STEPS - 1 - int(np.searchsorted(from_top, rank))
                step = windows.step[s]
                low[s], high[s] = low[s] + k * step, min(low[s] + (k + 1) * step, high[s])
    return Thresholds(draw._replace(threshold=key, last=last), last_units)


def _windows(low: np.ndarray, high: np.ndarray, strata: list[int]) -> Windows:
    """low, high int64[strata] -> windows that are empty for all but these strata."""
    is_open = np.isin(np.arange(len(low)), strata)
    low, high = np.where(is_open, low, LIMIT + 2), np.where(is_open, high, LIMIT + 2)
    return Windows(low, high, np.maximum(1, -(-(high - low) // STEPS)))


def _merged(results: list[KeysNearThreshold]) -> KeysNearThreshold:
    """Results of all tasks -> their sum; the keys only if all tasks returned theirs."""
    collected = [n.keys for n in results if n.keys is not None]
    keys = np.concatenate(collected) if len(collected) == len(results) else None
    above, counts = np.sum([n.above for n in results], axis=0), np.sum([n.counts for n in results], axis=0)
    return KeysNearThreshold(above, counts, keys)


def _expected_ranges(predicted: PredictedDraw) -> tuple[np.ndarray, np.ndarray]:
    """-> low, high int64[strata]: range of keys in which the threshold is expected, from the counts of losses."""
    draw, losses = predicted.draw, predicted.losses
    low, high = np.full(len(predicted.keep), -LIMIT), np.full(len(predicted.keep), LIMIT + 1)
    for s, k in enumerate(predicted.keep):
        counts = predicted.strata.counts[s]
        total = int(counts.sum())
        if not 0 < k < total:
            continue
        together = max(1.0, total / max(losses.units, 1)) if draw.source.unit != "sequence" else 1.0
        far = FAR * math.sqrt(together * k * (1 - k / total)) + 16 * together + 100
        for ends, rank in ((low, k + far), (high, k - far)):
            t = expected_threshold(predicted.weights[s], counts, rank)
            if math.isfinite(t):
                ends[s] = int(min(max(t * 2.0**32, -LIMIT), LIMIT))
    return low, np.maximum(high, low + 1)
