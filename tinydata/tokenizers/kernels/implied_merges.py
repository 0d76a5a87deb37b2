"""Every way to split a piece into two that are pieces too: the merges that a SentencePiece model implies.

103,168 pieces are split in 20 ms; with strings and a dict it took 0.3 s, and every run waits for it.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from numba import njit

from tinydata.core.kernels import inlined

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


def code_points(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """list of str -> (their code points int32[sum], offsets int64[n + 1])."""
    chars = np.frombuffer("".join(texts).encode("utf-32-le"), np.int32)
    return chars, np.fromiter(accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1)


def splits(chars: np.ndarray, offsets: np.ndarray, symbols: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Names as code_points, symbols int64[n], made bool[n] -> int64[m, 3]: (left, right, result) of each merge."""
    names = np.zeros(1 << int(2 * len(symbols)).bit_length(), np.int64)  # open addressing: name + 1, 0: free
    out = np.empty((len(chars), 3), np.int64)  # a piece of k characters has k - 1 splits
    return out[: _splits(chars, offsets, symbols, made, names, out)]


@inlined()
def _find(chars, start, stop, offsets, names):
    """Slot of the name chars[start:stop]: where it is, or the free one where it would go."""
    h = np.uint64(stop - start)
    for i in range(start, stop):
        h = (h ^ np.uint64(chars[i])) * _PRIME
    h = (h ^ (h >> np.uint64(32))) * _MIX
    mask = np.uint64(len(names) - 1)
    slot = (h >> np.uint64(24)) & mask
    while names[slot]:
        a, b = offsets[names[slot] - 1], offsets[names[slot]]
        if b - a == stop - start:
            k = 0
            while k < b - a and chars[a + k] == chars[start + k]:
                k += 1
            if k == b - a:
                break
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True)
def _splits(chars, offsets, symbols, made, names, out):
    for i in range(len(symbols)):
        names[_find(chars, offsets[i], offsets[i + 1], offsets, names)] = i + 1
    m = 0
    for i in range(len(symbols)):
        if made[i]:
            for k in range(offsets[i] + 1, offsets[i + 1]):
                left = names[_find(chars, offsets[i], k, offsets, names)]
                right = names[_find(chars, k, offsets[i + 1], offsets, names)]
                if left and right:
                    out[m, 0] = symbols[left - 1]
                    out[m, 1] = symbols[right - 1]
                    out[m, 2] = symbols[i]
                    m += 1
    return m
