"""Ragged copies: stretches of one array, gathered into another."""

from __future__ import annotations

import numpy as np
from numba import njit


def gather(values: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Documents end to end, their lengths int64[docs], order int64[docs] -> the documents in that order."""
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
