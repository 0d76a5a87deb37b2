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
_ROW = 64  # elements of a lane: SHORT symbols between two that are in no pair; one bit of a uint64 each
_ONE = np.uint64(1)
_NOBODY = 0x7FFFFFFF  # a symbol in no pair, before the first and behind the last


class Lanes(NamedTuple):
    """Working memory; lane k has the elements from k * _ROW on, its symbols from the second on."""

    sym: np.ndarray  # int32[COUNT * _ROW]: symbols
    order: np.ndarray  # int64[COUNT * _ROW]: priority * _ROW + position of the pair that begins here; NONE: no merge
    result: np.ndarray  # int32[COUNT * _ROW]: what that pair becomes
    there: np.ndarray  # uint64[COUNT]: bit i: symbol i is there
    size: np.ndarray  # int64[COUNT]: symbols in the beginning
    active: np.ndarray  # int64[COUNT]: lanes that still merge
    at: np.ndarray  # int64[COUNT]: the symbol that was merged last
    before: np.ndarray  # int64[COUNT]: the one before it
    behind: np.ndarray  # int64[COUNT]: the one behind it
    group: np.ndarray  # int64[COUNT]: for the caller
    times: np.ndarray  # int64[COUNT]: for the caller


def new_lanes() -> Lanes:
    """Memory for COUNT words of fewer than SHORT bytes: 17 kB."""
    n = COUNT * _ROW
    rows = np.full(n, _NOBODY, np.int32), np.zeros(n, np.int64), np.zeros(n, np.int32)
    return Lanes(*rows, np.zeros(COUNT, np.uint64), *np.zeros((7, COUNT), np.int64))


@inlined()
def start(data, i, stop, prefix, bpe, lanes, k):
    """Bytes [i, stop) of a word, and the prefix or -1 -> the first symbols of lane k."""
    n = first_symbols(data, i, stop, prefix, bpe.symbols, lanes.sym[k * _ROW + 1 : (k + 1) * _ROW])
    lanes.sym[k * _ROW + 1 + n] = _NOBODY
    lanes.size[k] = n
    lanes.there[k] = (np.uint64(4) << np.uint64(n)) - _ONE


@compiled()
def merge_all(n, pairs, lanes):
    """Merges the first n lanes as bpe.merge_short does."""
    order, active, m, width = lanes.order, lanes.active, 0, 8
    for k in range(n):
        width = max(width, lanes.size[k])
    width = (width + 7) & -8  # the same for all lanes: the length of the loop in _merge_best is predicted
    for k in range(n):
        row, last = k * _ROW + 1, k * _ROW + lanes.size[k]
        for i in range(row, last):
            _look_up(i, i + 1, i - row + 1, pairs, lanes)
        for i in range(last, row + width):
            order[i] = NONE
        active[m] = k
        m += _merge_best(k, width, pairs, lanes)
    while m > 0:
        still = 0
        for a in range(m):
            k = active[a]
            row, at = k * _ROW, lanes.at[k]
            _look_up(row + lanes.before[k], row + at, lanes.before[k], pairs, lanes)
            _look_up(row + at, row + lanes.behind[k], at, pairs, lanes)
            active[still] = k
            still += _merge_best(k, width, pairs, lanes)
        m = still


@inlined()
def _slot(left, right, pairs):
    """Where the search for a pair of symbols begins: slot 0 for what is in no pair. As in bpe, without a branch."""
    key = (np.uint64(left & 0x7FFFFFFF) << np.uint64(32)) | np.uint64(right & 0x7FFFFFFF)
    known = np.uint64(left != _NOBODY and right != _NOBODY)
    return key, ((key * GOLDEN) >> pairs.shift) * known


@inlined()
def _look_up(i, j, position, pairs, lanes):
    """Elements i and j, two symbols in this order -> what is known of the pair, in element i."""
    mask = np.uint64(len(pairs.table) // 2 - 1)
    key, s = _slot(lanes.sym[i], lanes.sym[j], pairs)
    found = pairs.table[np.uint64(2) * s]
    while found != key and found != EMPTY:
        s = (s + np.uint64(1)) & mask
        found = pairs.table[np.uint64(2) * s]
    v = np.int64(pairs.table[np.uint64(2) * s + np.uint64(1)])
    lanes.order[i] = NONE if found == EMPTY else (v >> 32) * _ROW + position
    lanes.result[i] = np.int32(v & 0xFFFFFFFF)


@inlined()
def _merge_best(k, width, pairs, lanes):
    """Merges the best pair of lane k and fetches what is known of the new symbol's pairs; 0: there is no pair."""
    row, sym, order = k * _ROW, lanes.sym, lanes.order
    best = NONE
    for i in range(row + 1, row + 1 + width):
        best = min(best, order[i])
    if best == NONE:
        return 0
    at = best & (_ROW - 1)
    above = ~((np.uint64(2) << np.uint64(at)) - _ONE)
    right = lowest_bit(lanes.there[k] & above)
    sym[row + at] = lanes.result[row + at]
    order[row + right] = NONE
    there = lanes.there[k] ^ (_ONE << np.uint64(right))
    before, behind = highest_bit(there & ((_ONE << np.uint64(at)) - _ONE)), lowest_bit(there & above)
    lanes.there[k], lanes.at[k], lanes.before[k], lanes.behind[k] = there, at, before, behind
    prefetch(pairs.table, np.int64(_slot(sym[row + before], sym[row + at], pairs)[1]) * 2)
    prefetch(pairs.table, np.int64(_slot(sym[row + at], sym[row + behind], pairs)[1]) * 2)
    return 1


@inlined()
def ids_of(k, symbols, scratch, lanes):
    """Symbols of lane k -> ids in scratch.sym[:n]; returns n."""
    n = 0
    there = lanes.there[k] & ~((_ONE << np.uint64(lanes.size[k] + 1)) | _ONE)
    while there:
        scratch.sym[n] = lanes.sym[k * _ROW + lowest_bit(there)]
        there &= there - _ONE
        n += 1
    return as_ids(scratch.sym, n, symbols, -1, scratch.chars)
