"""The compiled index of BPE training: of each pair of adjacent symbols, its count and the list of its positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import inlined

LONGEST = 48  # bytes of a learned piece: 16 Chinese characters; longer pieces are boilerplate
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)  # key of a free slot, and of two symbols that must not merge
_LOW = np.uint64(0xFFFFFFFF)
_SLOTS, _NODES = 1 << 16, 1 << 16  # at the beginning


class Index(NamedTuple):
    """A hash table of pairs with linear probing, at most half full, and one linked list of positions per pair.

    Kernels change the arrays in place, and return a new Index where a number changes or an array has to grow.
    """

    keys: np.ndarray  # uint64[slots], a power of two: pair_key, or EMPTY
    counts: np.ndarray  # int64[slots]
    heads: np.ndarray  # int32[slots]: first node of the list; -1: empty list
    used: int  # slots
    position: np.ndarray  # int32[nodes]: in the ids, of the left symbol; it may have been merged since
    link: np.ndarray  # int32[nodes]: next node of the same list; -1: the last
    nodes: int  # nodes that were ever in a list
    free: int  # first node of the list of free ones; -1: empty list


@inlined()
def pair_key(left, right, symbols):
    """Two ids -> their pair as one number, or EMPTY if they must not merge; symbols: bpe_training.TrainingSymbols."""
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


@njit(cache=True)
def resized(index, slots, least):
    """Index -> the same with `slots` slots, without pairs of at most `least` occurrences that have no positions."""
    keys = np.full(slots, EMPTY, np.uint64)
    counts = np.zeros(slots, np.int64)
    heads = np.full(slots, -1, np.int32)
    used = 0
    for s in range(len(index.keys)):
        if index.keys[s] != EMPTY and (index.counts[s] > least or index.heads[s] >= 0):
            t = find_slot(keys, index.keys[s])
            keys[t], counts[t], heads[t] = index.keys[s], index.counts[s], index.heads[s]
            used += 1
    return Index(keys, counts, heads, used, index.position, index.link, index.nodes, index.free)


@njit(cache=True)
def count_pairs(text, symbols):
    """bpe_training.Text, TrainingSymbols -> Index of all pairs that may merge, with counts, without positions."""
    nothing = np.empty(0, np.int32)
    keys, counts = np.full(_SLOTS, EMPTY, np.uint64), np.zeros(_SLOTS, np.int64)
    index = Index(keys, counts, np.full(_SLOTS, -1, np.int32), 0, nothing, nothing, 0, -1)
    for i in range(len(text.ids) - 1):
        key = pair_key(text.ids[i], text.ids[i + 1], symbols)
        if key != EMPTY:
            index = with_pair(index, key, -1)
            index.counts[find_slot(index.keys, key)] += text.count[text.word[i]]
    return index


@njit(cache=True)
def frequent_pairs(index, least):
    """Index without positions -> a copy with the pairs of more than `least` occurrences, at most a quarter full."""
    used = (index.counts > least).sum()
    slots = 1 << 12
    while slots < 4 * used:
        slots *= 2
    return resized(index, slots, least)


@njit(cache=True)
def with_positions(index, text, symbols):
    """Index without positions -> the same with a list of all positions of each of its pairs, the last one first."""
    nodes = np.empty(_NODES, np.int32), np.empty(_NODES, np.int32)
    index = Index(index.keys, index.counts, index.heads, index.used, nodes[0], nodes[1], 0, -1)
    for i in range(len(text.ids) - 1):
        key = pair_key(text.ids[i], text.ids[i + 1], symbols)
        if key != EMPTY:
            s = find_slot(index.keys, key)
            if index.keys[s] != EMPTY:
                index = with_position(index, s, i)
    return index


@njit(cache=True, forceinline=True)
def with_pair(index, key, least):
    """Index -> the same with this pair; if it has to grow, pairs are left out as in `resized`."""
    s = find_slot(index.keys, key)
    if index.keys[s] != EMPTY:
        return index
    if 2 * (index.used + 1) > len(index.keys):
        index = resized(index, 2 * len(index.keys), least)
        s = find_slot(index.keys, key)
    index.keys[s] = key
    return Index(
        index.keys, index.counts, index.heads, index.used + 1, index.position, index.link, index.nodes, index.free
    )


@njit(cache=True, forceinline=True)
def with_position(index, slot, position):
    """Index -> the same with one more position of the pair in `slot`."""
    positions, link, nodes, node, free = index.position, index.link, index.nodes, index.free, index.free
    if node >= 0:
        free = np.int64(link[node])
    else:
        if nodes == len(positions):
            positions = np.concatenate((positions, np.empty_like(positions)))
            link = np.concatenate((link, np.empty_like(link)))
        node = nodes
        nodes += 1
    positions[node], link[node] = position, index.heads[slot]
    index.heads[slot] = node
    return Index(index.keys, index.counts, index.heads, index.used, positions, link, nodes, free)


@njit(cache=True)
def without_positions(index, slot):
    """Index -> the same with count 0 and no positions of the pair in `slot`: its nodes are free."""
    node, free = np.int64(index.heads[slot]), index.free
    while node >= 0:
        after = np.int64(index.link[node])
        index.link[node] = free
        node, free = after, node
    index.heads[slot], index.counts[slot] = -1, 0
    return Index(index.keys, index.counts, index.heads, index.used, index.position, index.link, index.nodes, free)


@njit(cache=True)
def positions_of(index, slot):
    """-> int32[n]: the positions of the pair in `slot`, the last added first."""
    n, node = 0, index.heads[slot]
    while node >= 0:
        n += 1
        node = index.link[node]
    out = np.empty(n, np.int32)
    n, node = 0, index.heads[slot]
    while node >= 0:
        out[n] = index.position[node]
        n += 1
        node = index.link[node]
    return out
