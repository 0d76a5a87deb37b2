"""Several short words merged at the same time, each in its lane: so waiting for memory overlaps.

The table of pairs does not fit into the processor's caches, and which pairs are looked up next depends on the merge
before: one word after the other, most of the time is waiting. Nothing is moved when two symbols become one: a
bit says which symbols are there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import compiled, inlined
from tinydata.tokenizers.kernels.bpe import EMPTY, NONE, as_ids, first_symbols
from tinydata.tokenizers.kernels.memory import highest_bit, lowest_bit, prefetch

COUNT = 16
_ROW = 64  # elements of a lane: a power of two from SHORT on, and one bit of a uint64 each
_ONE = np.uint64(1)


class Lanes(NamedTuple):
    """Working memory; lane k has the elements from k * _ROW on."""

    sym: np.ndarray  # int32[COUNT * _ROW]: symbols
    order: np.ndarray  # int64[COUNT * _ROW]: priority * _ROW + position of the pair that begins here; NONE: no merge
    result: np.ndarray  # int32[COUNT * _ROW]: what that pair becomes
    size: np.ndarray  # int64[COUNT]: symbols in the beginning
    there: np.ndarray  # uint64[COUNT]: bit i: symbol i is there
    at: np.ndarray  # int64[COUNT]: the symbol that was merged last; its two pairs are looked up next
    active: np.ndarray  # int64[COUNT]: lanes that still merge
    group: np.ndarray  # int64[COUNT]: for the caller
    times: np.ndarray  # int64[COUNT]: for the caller


def new_lanes() -> Lanes:
    """Memory for COUNT words of fewer than SHORT bytes: 17 kB."""
    n = COUNT * _ROW
    sizes = (np.zeros(COUNT, np.int64) for _ in range(4))
    return Lanes(
        np.zeros(n, np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, np.int32),
        np.zeros(COUNT, np.int64),
        np.zeros(COUNT, np.uint64),
        *sizes,
    )


@inlined()
def start(data, i, stop, prefix, bpe, lanes, k):
    """Bytes [i, stop) of a word, and the prefix or -1 -> the first symbols of lane k."""
    n = first_symbols(data, i, stop, prefix, bpe.symbols, lanes.sym[k * _ROW : (k + 1) * _ROW])
    lanes.size[k] = n
    lanes.there[k] = (_ONE << np.uint64(n)) - _ONE


@compiled()
def merge_all(n, pairs, lanes):
    """Merges the first n lanes as bpe.merge_short does."""
    active, m, width = lanes.active, 0, 8
    for k in range(n):
        width = max(width, lanes.size[k])
    width = (width + 7) & -8  # the same for all lanes: a loop of one length is predicted, and compiled to vectors
    for k in range(n):
        row, last = k * _ROW, k * _ROW + lanes.size[k] - 1
        for i in range(row, last):
            _look_up(i, i + 1, i - row, pairs, lanes)
        for i in range(max(last, row), row + width):
            lanes.order[i] = NONE
        if _merge_best(k, width, pairs, lanes):
            active[m] = k
            m += 1
    while m > 0:
        still = 0
        for a in range(m):
            k = active[a]
            row, at = k * _ROW, lanes.at[k]
            before, behind = _around(lanes.there[k], at)
            if before >= 0:
                _look_up(row + before, row + at, before, pairs, lanes)
            if behind >= 0:
                _look_up(row + at, row + behind, at, pairs, lanes)
            else:
                lanes.order[row + at] = NONE
            if _merge_best(k, width, pairs, lanes):
                active[still] = k
                still += 1
        m = still


@inlined()
def _look_up(i, j, position, pairs, lanes):
    """Elements i and j, two symbols in this order -> what is known of the pair, in element i."""
    key = _key(lanes.sym[i], lanes.sym[j])
    mask = np.uint64(len(pairs.table) // 2 - 1)
    s = (key * GOLDEN) >> pairs.shift
    k = pairs.table[np.uint64(2) * s]
    while k != key and k != EMPTY:
        s = (s + np.uint64(1)) & mask
        k = pairs.table[np.uint64(2) * s]
    v = np.int64(pairs.table[np.uint64(2) * s + np.uint64(1)])
    lanes.order[i] = NONE if k == EMPTY else (v >> 32) * _ROW + position
    lanes.result[i] = np.int32(v & 0xFFFFFFFF)


@inlined()
def _key(left, right):
    """A pair of symbols as in the table; a symbol below 0, a character in no piece, is in no pair."""
    return (np.uint64(left & 0x7FFFFFFF) << np.uint64(32)) | np.uint64(right & 0x7FFFFFFF)


@inlined()
def _around(there, at):
    """The symbols before and after symbol `at`; -1: there is none."""
    before = there & ((_ONE << np.uint64(at)) - _ONE)
    behind = there & ~((np.uint64(2) << np.uint64(at)) - _ONE)
    return highest_bit(before) if before else -1, lowest_bit(behind) if behind else -1


@inlined()
def _merge_best(k, width, pairs, lanes):
    """Merges the best pair of lane k and fetches what is known of the new symbol's pairs; False: there is no pair."""
    row, order = k * _ROW, lanes.order
    best = NONE
    for i in range(width):
        best = min(best, order[row + i])
    if best == NONE:
        return False
    at = best & (_ROW - 1)
    _, right = _around(lanes.there[k], at)
    lanes.sym[row + at] = lanes.result[row + at]
    order[row + right] = NONE
    there = lanes.there[k] ^ (_ONE << np.uint64(right))
    lanes.there[k], lanes.at[k] = there, at
    before, behind = _around(there, at)
    if before >= 0:
        prefetch(
            pairs.table, np.int64((_key(lanes.sym[row + before], lanes.sym[row + at]) * GOLDEN) >> pairs.shift) * 2
        )
    if behind >= 0:
        prefetch(
            pairs.table, np.int64((_key(lanes.sym[row + at], lanes.sym[row + behind]) * GOLDEN) >> pairs.shift) * 2
        )
    return True


@inlined()
def ids_of(k, symbols, scratch, lanes):
    """Symbols of lane k -> ids in scratch.sym[:n]; returns n."""
    n = 0
    there = lanes.there[k]
    while there:
        scratch.sym[n] = lanes.sym[k * _ROW + lowest_bit(there)]
        there &= there - _ONE
        n += 1
    return as_ids(scratch.sym, n, symbols, -1, scratch.chars)
