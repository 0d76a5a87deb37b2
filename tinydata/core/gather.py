"""Reorders documents that are stored end to end in one array."""

from __future__ import annotations

import numpy as np
from numba import njit


def gather(values: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """values [n] (documents end to end), lengths int64[docs], order int64[docs] -> values in that document order."""
    starts = np.cumsum(lengths) - lengths
    out = np.empty(int(lengths[order].sum()), values.dtype)
    _gather(values, starts, lengths, order, out)
    return out


@njit(cache=True)
def _gather(values, starts, lengths, order, out):
    n = 0
    for d in order:
        out[n : n + lengths[d]] = values[starts[d] : starts[d] + lengths[d]]
        n += lengths[d]
