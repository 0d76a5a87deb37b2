"""Every way to split a piece into two pieces: the merges that a SentencePiece model implies.

103,168 pieces are split in 20 ms; with strings and a dict it took 0.3 s, at the start of every run.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np

from tinydata.core.kernels import cached, inlined

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


class CodePoints(NamedTuple):
    """Texts, concatenated."""

    chars: np.ndarray  # int32[sum]
    offsets: np.ndarray  # int64[n + 1]


def code_points(texts: list[str]) -> CodePoints:
    """list of str -> CodePoints."""
    chars = np.frombuffer("".join(texts).encode("utf-32-le"), np.int32)
    return CodePoints(chars, np.fromiter(accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1))


def splits(texts: CodePoints, symbols: np.ndarray, is_result: np.ndarray) -> np.ndarray:
    """Texts and symbols int64[n] of the pieces, is_result bool[n]: pieces that merges produce -> int64[m, 3].

    A row is (left, right, result) of a merge.
    """
    table = np.zeros(1 << int(2 * len(symbols)).bit_length(), np.int64)  # open addressing: piece + 1, 0: free
    out = np.empty((len(texts.chars), 3), np.int64)  # a piece of k characters has k - 1 splits
    return out[: _splits(*texts, symbols, is_result, table, out)]


@inlined()
def _find(chars, start, stop, offsets, table):
    """Slot of the piece chars[start:stop]: its own, or the free one where it belongs."""
    h = np.uint64(stop - start)
    for i in range(start, stop):
        h = (h ^ np.uint64(chars[i])) * _PRIME
    h = (h ^ (h >> np.uint64(32))) * _MIX
    mask = np.uint64(len(table) - 1)
    slot = (h >> np.uint64(24)) & mask
    while table[slot]:
        a, b = offsets[table[slot] - 1], offsets[table[slot]]
        if b - a == stop - start:
            k = 0
            while k < b - a and chars[a + k] == chars[start + k]:
                k += 1
            if k == b - a:
                break
        slot = (slot + np.uint64(1)) & mask
    return slot


@cached()
def _splits(chars, offsets, symbols, is_result, table, out):
    for i in range(len(symbols)):
        table[_find(chars, offsets[i], offsets[i + 1], offsets, table)] = i + 1
    m = 0
    for i in range(len(symbols)):
        if is_result[i]:
            for k in range(offsets[i] + 1, offsets[i + 1]):
                left = table[_find(chars, offsets[i], k, offsets, table)]
                right = table[_find(chars, k, offsets[i + 1], offsets, table)]
                if left and right:
                    out[m, 0] = symbols[left - 1]
                    out[m, 1] = symbols[right - 1]
                    out[m, 2] = symbols[i]
                    m += 1
    return m
