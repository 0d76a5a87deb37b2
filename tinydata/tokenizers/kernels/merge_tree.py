"""tokenizer -> Tree: which pieces each piece is merged from, asked of the merge procedure itself.

Piece i is encoded with i forbidden. If i is reachable, all merges up to the last one happen as
they would with it, so what is left are its two parents (a single character leaves its bytes).
Anything else means that encoding its own text never makes the piece.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numba import njit

from tinydata.tokenizers.kernels.bpe import Pairs, Symbols, encode


def merge_parts(pieces: list[bytes], whole: np.ndarray, symbols: Symbols, pairs: Pairs) -> Tree:
    """Bytes of each id, bool[ids] of those that are not merged -> Tree."""
    data, offsets = join(pieces)
    longest = int(np.diff(offsets).max(initial=0)) + 8
    out = np.empty(2 * len(data) + len(pieces) + 8, np.int32)
    ends = np.zeros(len(pieces) + 1, np.int64)
    reachable = np.zeros(len(pieces), np.bool_)
    _parents(data, offsets, whole, symbols, pairs, longest, out, ends, reachable)
    return Tree(ends, out[: ends[-1]].copy(), reachable)


def join(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """list of bytes -> (data uint8[sum], offsets int64[n + 1])."""
    offsets = np.array([0, *accumulate(map(len, pieces))], np.int64)
    return np.frombuffer(b"".join(pieces) or b"\0", np.uint8), offsets


@njit(cache=True)
def _parents(data, offsets, whole, symbols, pairs, longest, out, ends, reachable):
    sym = np.empty(4 * longest, np.int32)
    value = np.empty(4 * longest, np.int64)
    chars = np.empty(4 * longest, np.int32)
    at = 0
    for i in range(len(offsets) - 1):
        a, b = offsets[i], offsets[i + 1]
        if whole[i] or a == b:
            reachable[i] = whole[i]
            out[at] = i
            at += 1
        else:
            n = encode(data, a, b, -1, symbols, pairs, sym, value, chars, -1)
            reachable[i] = n == 1 and sym[0] == i
            n = encode(data, a, b, -1, symbols, pairs, sym, value, chars, i)
            for k in range(n):
                out[at] = sym[k]
                at += 1
        ends[i + 1] = at


@njit(cache=True)
def spell_all(data, offsets, symbols, pairs, longest, out, ends):
    sym = np.empty(4 * longest, np.int32)
    value = np.empty(4 * longest, np.int64)
    chars = np.empty(4 * longest, np.int32)
    at = 0
    for i in range(len(offsets) - 1):
        n = encode(data, offsets[i], offsets[i + 1], -1, symbols, pairs, sym, value, chars, -1)
        for k in range(n):
            out[at] = sym[k]
            at += 1
        ends[i + 1] = at


class Tree(NamedTuple):
    """parts[offsets[i]:offsets[i+1]] = the ids that the tokenizer makes of piece i without piece i.

    Two parts: the pieces it is merged from. One part (itself): nothing to fall back on. Families
    that match have as many parts as spell it, with all other pieces there.
    `reachable[i]` is False for a piece that encoding its own text never produces.
    """

    offsets: np.ndarray  # int64[size + 1]
    parts: np.ndarray  # int32[...]
    reachable: np.ndarray  # bool[size]
