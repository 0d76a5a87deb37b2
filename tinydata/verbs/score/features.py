"""ids [n, T + 1] -> features that need no model and reveal bad text: repetition, unknown tokens, rarity of the ids.

The kernels read ids as stored in the shards, one sequence per row, and use the targets only: columns 1 and up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.kernels import cached

PERIOD = 13  # tokens: the longest pattern whose repetition is looked for, as in OLMo-core's filter


class Features(NamedTuple):
    """Features of n sequences."""

    periodic: np.ndarray  # int32[n]: tokens of the longest repetition
    unknown: np.ndarray  # int32[n]: unknown tokens
    prior: np.ndarray  # float32[n], nats: mean rarity of the ids
    prior_sd: np.ndarray  # float32[n], nats: its standard deviation


def features(rows: np.ndarray, rarity: np.ndarray, unknown: int) -> Features:
    """ids [n, T + 1], rarity float64[vocab] of `rarity`, id of the unknown token or -1 -> Features.

    An id outside the vocabulary is ignored in mean and deviation.
    """
    n = len(rows)
    out = Features(np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32))
    _features(rows, rarity, unknown, *out)
    return out


def rarity(counts: np.ndarray) -> np.ndarray:
    """counts int64[vocab] of ids -> float64[vocab]: -ln of the share of each, in nats; absent ids count once."""
    return -np.log(np.maximum(counts, 1) / max(int(counts.sum()), 1))


def count(ids: np.ndarray, counts: np.ndarray) -> None:
    """Adds how often each id occurs to counts int64[vocab]; ids outside the vocabulary are ignored."""
    _count(ids, counts)


@cached(nogil=True)
def _count(ids, counts):
    size = len(counts)
    for i in ids:
        if 0 <= i < size:
            counts[i] += 1


@cached(nogil=True)
def _features(rows, rarity, unknown, periodic, unknowns, prior, prior_sd):
    size = len(rarity)
    for r in range(len(rows)):
        row = rows[r, 1:]
        total, squares, known, unknowns_of_row = 0.0, 0.0, 0, 0
        for i in row:
            if 0 <= i < size:
                x = rarity[i]
                total += x
                squares += x * x
                known += 1
            if i == unknown:
                unknowns_of_row += 1
        mean = total / max(known, 1)
        prior[r] = mean
        prior_sd[r] = np.sqrt(max(squares / max(known, 1) - mean * mean, 0.0))
        unknowns[r] = unknowns_of_row
        periodic[r] = longest_repetition(row)


@cached(nogil=True)
def longest_repetition(row):
    """ids -> length of the longest run that repeats a pattern of at most PERIOD tokens at least once; 0 without one.

    In a run of period p, each id equals the one p positions before. A run that is longer than the best so far has
    `need` consecutive such positions, so only every need-th position is compared, and after a match those before it:
    3 comparisons per token of ordinary text instead of 13.
    """
    n, best = len(row), 0
    for p in range(1, PERIOD + 1):
        need = max(p, best - p + 1)
        begin = p
        while begin + need <= n:
            i = begin + need - 1
            while i >= begin and row[i] == row[i - p]:
                i -= 1
            if i >= begin:
                begin = i + 1
                continue
            end = begin + need
            while end < n and row[end] == row[end - p]:
                end += 1
            best = end - begin + p
            need = max(p, best - p + 1)
            begin = end + 1
    return best
