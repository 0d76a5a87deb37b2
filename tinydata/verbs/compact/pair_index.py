"""The compiled index of BPE training: of each pair of adjacent symbols, its count and the list of its positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import cached, compiled, inlined

LONGEST = 48  # bytes of a learned piece: 16 Chinese characters; longer pieces are boilerplate
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)  # key of a free slot, and of two symbols that must not merge
_LOW = np.uint64(0xFFFFFFFF)
_FIRST = 1 << 16  # slots, and nodes, at the beginning


class Index(NamedTuple):
    """A hash table of pairs with linear probing, at most half full, and one linked list of positions per pair.

    Kernels without reference counting change the arrays in place and stop when one is full: counting references to
    the arrays in every step took half of the time. `with_room` then returns a larger Index.
    """

    keys: np.ndarray  # uint64[slots], a power of two: pair_key, or EMPTY
    counts: np.ndarray  # int64[slots]
    heads: np.ndarray  # int32[slots]: first node of the list; -1: empty list
    position: np.ndarray  # int32[nodes]: in the ids, of the left symbol; it may have been merged since
    link: np.ndarray  # int32[nodes]: next node of the same list; -1: the last
    state: np.ndarray  # int64[3]: used slots, nodes that were ever in a list, first free node or -1


_USED, _NODES, _FREE = range(3)  # in state


@inlined()
def pair_key(left, right, symbols):
    """Two ids -> their pair as one number, or EMPTY if they must not merge; symbols: training_text.TrainingSymbols."""
    if left < 0 or right < 0 or symbols.lengths[left] + symbols.lengths[right] > LONGEST:
        return EMPTY
    if symbols.ends[left] & symbols.begins[right]:
        return EMPTY
    return (np.uint64(left) << np.uint64(32)) | np.uint64(right)


@inlined()
def symbols_of_pair(key):
    """pair_key -> (left id, right id)."""
    return np.int64(key >> np.uint64(32)), np.int64(key & _LOW)


@inlined()
def find_slot(keys, key):
    """Slot of the key, or the free slot where it belongs."""
    mask = np.uint64(len(keys) - 1)
    h = key * GOLDEN
    s = (h ^ (h >> np.uint64(32))) & mask
    while keys[s] != key and keys[s] != EMPTY:
        s = (s + np.uint64(1)) & mask
    return np.int64(s)


@cached()
def count_pairs(text, symbols):
    """training_text.Text, TrainingSymbols -> Index of all pairs that may merge, with counts, without positions."""
    nodes, i = np.empty(0, np.int32), 0
    keys, counts, heads = np.full(_FIRST, EMPTY, np.uint64), np.zeros(_FIRST, np.int64), np.full(_FIRST, -1, np.int32)
    index = Index(keys, counts, heads, nodes, nodes, np.array([0, 0, -1]))
    while i < len(text.ids) - 1:
        i = _count(text, symbols, index, i)
        if is_full(index):
            index = _resized(index, 2 * len(index.keys), -1)
    return index


@compiled()
def _count(text, symbols, index, begin):
    """Counts the pairs from `begin` on -> where it stopped: at the end, or because the table is full."""
    for i in range(begin, len(text.ids) - 1):
        key = pair_key(text.ids[i], text.ids[i + 1], symbols)
        if key != EMPTY:
            if is_full(index):
                return i
            index.counts[slot_of(index, key)] += text.counts[text.word[i]]
    return len(text.ids) - 1


@cached()
def frequent_pairs(index, least):
    """Index without positions -> a copy with the pairs of more than `least` occurrences, at most a quarter full."""
    used = (index.counts > least).sum()
    slots = 1 << 12
    while slots < 4 * used:
        slots *= 2
    return _resized(index, slots, least)


@cached()
def with_positions(index, text, symbols):
    """Index without positions -> the same with a list of all positions of each of its pairs, the last one first."""
    i = 0
    while i < len(text.ids) - 1:
        index = _with_more_nodes(index)
        i = _list(text, symbols, index, i)
    return index


@compiled()
def _list(text, symbols, index, begin):
    """Adds the positions of pairs from `begin` on -> where it stopped: at the end, or because all nodes are used."""
    for i in range(begin, len(text.ids) - 1):
        key = pair_key(text.ids[i], text.ids[i + 1], symbols)
        if key != EMPTY:
            s = find_slot(index.keys, key)
            if index.keys[s] != EMPTY:
                if index.state[_NODES] == len(index.position):
                    return i
                add_position(index, s, i)
    return len(text.ids) - 1


@cached()
def with_room(index, least):
    """Index -> the same with room for two more pairs and two more positions; pairs are dropped as in `_resized`."""
    if is_full(index):
        index = _resized(index, 2 * len(index.keys), least)
    return _with_more_nodes(index) if lacks_nodes(index) else index


@cached()
def _resized(index, slots, least):
    """Index -> the same with `slots` slots, without pairs of at most `least` occurrences that have no positions."""
    keys, counts, heads = np.full(slots, EMPTY, np.uint64), np.zeros(slots, np.int64), np.full(slots, -1, np.int32)
    new = Index(keys, counts, heads, index.position, index.link, index.state.copy())
    new.state[_USED] = 0
    _move(index, new, least)
    return new


@compiled()
def _move(index, new, least):
    for s in range(len(index.keys)):
        if index.keys[s] != EMPTY and (index.counts[s] > least or index.heads[s] >= 0):
            t = slot_of(new, index.keys[s])
            new.counts[t], new.heads[t] = index.counts[s], index.heads[s]


@cached()
def _with_more_nodes(index):
    """Index -> the same with room for twice as many positions."""
    more = np.empty(max(len(index.position), _FIRST), np.int32)
    position, link = np.concatenate((index.position, more)), np.concatenate((index.link, more))
    return Index(index.keys, index.counts, index.heads, position, link, index.state)


@inlined()
def is_full(index):
    """Whether there may be no room for two more pairs."""
    return 2 * (index.state[_USED] + 2) > len(index.keys)


@inlined()
def lacks_nodes(index):
    """Whether there may be no room for two more positions."""
    free = index.state[_FREE]
    return index.state[_NODES] + 2 > len(index.position) and (free < 0 or index.link[free] < 0)


@inlined()
def slot_of(index, key):
    """Slot of the pair, which is inserted with count 0 if the table does not contain it."""
    s = find_slot(index.keys, key)
    if index.keys[s] == EMPTY:
        index.keys[s] = key
        index.state[_USED] += 1
    return s


@inlined()
def add_position(index, slot, position):
    """Adds a position to the list of the pair in `slot`."""
    node = index.state[_FREE]
    if node >= 0:
        index.state[_FREE] = index.link[node]
    else:
        node = index.state[_NODES]
        index.state[_NODES] += 1
    index.position[node], index.link[node] = position, index.heads[slot]
    index.heads[slot] = node


@compiled()
def forget(index, slot):
    """The pair in `slot` has count 0 and no positions afterwards; its nodes are free."""
    node = np.int64(index.heads[slot])
    while node >= 0:
        after = np.int64(index.link[node])
        index.link[node] = index.state[_FREE]
        index.state[_FREE] = node
        node = after
    index.heads[slot], index.counts[slot] = -1, 0


@cached()
def positions_of(index, slot):
    """-> int32[n]: the positions of the pair in `slot`, the last added first."""
    out = np.empty(_copy_positions(index, slot, np.empty(0, np.int32)), np.int32)
    _copy_positions(index, slot, out)
    return out


@compiled()
def _copy_positions(index, slot, out):
    """-> how many positions the pair has; they are written to `out` as far as there is room."""
    n, node = 0, index.heads[slot]
    while node >= 0:
        if n < len(out):
            out[n] = index.position[node]
        n += 1
        node = index.link[node]
    return n
