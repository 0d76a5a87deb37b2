"""ids [n, T + 1] -> features that need no model and reveal junk: repetition, unknown tokens, rarity of the ids.

The kernels read ids as stored in the shards, one sequence per row, and use the targets only: columns 1 and up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

PERIOD = 13  # tokens: the longest pattern whose repetition is looked for, as in OLMo-core's filter


class Guards(NamedTuple):
    """Features of n sequences."""

    periodic: np.ndarray  # int32[n]
    unknown: np.ndarray  # int32[n]
    prior: np.ndarray  # float32[n], nats
    prior_sd: np.ndarray  # float32[n], nats


def guards(rows: np.ndarray, rarity: np.ndarray, unknown: int) -> Guards:
    """ids [n, T + 1], rarity float64[vocab] of `rarity`, id of the unknown token or -1 -> Guards.

    An id outside the vocabulary counts for neither mean nor deviation.
    """
    n = len(rows)
    out = Guards(np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32))
    _guards(rows, rarity, unknown, *out)
    return out


def rarity(counts: np.ndarray) -> np.ndarray:
    """counts int64[vocab] of ids -> float64[vocab]: -ln of each one's share, in nats; absent ids count once."""
    return -np.log(np.maximum(counts, 1) / max(int(counts.sum()), 1))


def count(ids: np.ndarray, counts: np.ndarray) -> None:
    """Adds how often each id occurs to counts int64[vocab]; those outside it are left out."""
    _count(ids, counts)


@njit(cache=True, nogil=True)
def _count(ids, counts):
    size = len(counts)
    for i in ids:
        if 0 <= i < size:
            counts[i] += 1


@njit(cache=True, nogil=True)
def _guards(rows, rarity, unknown, periodic, unknowns, prior, prior_sd):
    size = len(rarity)
    for r in range(len(rows)):
        row = rows[r, 1:]
        total, squares, known, strange = 0.0, 0.0, 0, 0
        for i in row:
            if 0 <= i < size:
                x = rarity[i]
                total += x
                squares += x * x
                known += 1
            if i == unknown:
                strange += 1
        mean = total / max(known, 1)
        prior[r] = mean
        prior_sd[r] = np.sqrt(max(squares / max(known, 1) - mean * mean, 0.0))
        unknowns[r] = strange
        periodic[r] = longest_repetition(row)


@njit(cache=True, nogil=True)
def longest_repetition(row):
    """ids -> tokens of the longest run that is a pattern of at most PERIOD tokens, at least twice; 0 if there is none.

    A run of period p is a stretch of places where the id equals that p places before. One longer than the best so far
    has `need` such places, so only every need-th place is looked at, and from a hit backwards: 3 looks per token of
    ordinary text instead of 13.
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
