"""tokenizer -> Tree: which pieces each piece is merged from, determined by the merge procedure itself.

Piece i is encoded with i banned. If i is reachable, all merges up to the last one happen as they do
without the ban, so the result is its two parts (for a single character, its bytes). Any other result
means that encoding its own text does not produce the piece.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np

from tinydata.core.kernels import cached
from tinydata.tokenizers.kernels.bpe import BPE, Scratch, encode, new_scratch


def merge_parts(pieces: list[bytes], whole: np.ndarray, bpe: BPE) -> Tree:
    """Bytes of each id, whole bool[ids]: ids that are not merged -> Tree."""
    data, offsets = join(pieces)
    out = np.empty(2 * len(data) + len(pieces) + 8, np.int32)
    ends = np.zeros(len(pieces) + 1, np.int64)
    reachable = np.zeros(len(pieces), np.bool_)
    _parents(data, offsets, whole, bpe, scratch_for(offsets), out, ends, reachable)
    return Tree(ends, out[: ends[-1]].copy(), reachable)


def join(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """list of bytes -> (data uint8[sum], offsets int64[n + 1])."""
    offsets = np.array([0, *accumulate(map(len, pieces))], np.int64)
    return np.frombuffer(b"".join(pieces) or b"\0", np.uint8), offsets


def scratch_for(offsets: np.ndarray) -> Scratch:
    """offsets int64[n + 1] of pieces -> room for the longest."""
    return new_scratch(4 * (int(np.diff(offsets).max(initial=0)) + 8))


@cached()
def _parents(data, offsets, whole, bpe, scratch, out, ends, reachable):
    at = 0
    for i in range(len(offsets) - 1):
        a, b = offsets[i], offsets[i + 1]
        if whole[i] or a == b:
            reachable[i] = whole[i]
            out[at] = i
            at += 1
        else:
            n = encode(data, a, b, -1, bpe, scratch, -1)
            reachable[i] = n == 1 and scratch.sym[0] == i
            n = encode(data, a, b, -1, bpe, scratch, i)
            for k in range(n):
                out[at] = scratch.sym[k]
                at += 1
        ends[i + 1] = at


@cached()
def spell_all(data, offsets, bpe, scratch, out, ends):
    """Bytes of each piece -> its ids: out int32[n], ends int64[pieces + 1]."""
    at = 0
    for i in range(len(offsets) - 1):
        n = encode(data, offsets[i], offsets[i + 1], -1, bpe, scratch, -1)
        for k in range(n):
            out[at] = scratch.sym[k]
            at += 1
        ends[i + 1] = at


class Tree(NamedTuple):
    """parts[offsets[i]:offsets[i+1]] = the ids that spell piece i without piece i.

    Two parts: the pieces it is merged from. One part, itself: nothing else spells it. In families that
    match there may be more parts, all other pieces being available.
    `reachable[i]` is False for a piece that encoding its own text does not produce.
    """

    offsets: np.ndarray  # int64[size + 1]
    parts: np.ndarray  # int32[...]
    reachable: np.ndarray  # bool[size]
