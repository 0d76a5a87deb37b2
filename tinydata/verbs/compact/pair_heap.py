"""The compiled data structures of BPE training: a table of pairs, a heap of their counts, and neighbours in a text."""

from __future__ import annotations

import numpy as np
from numba import njit

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import inlined

BREAK = np.int32(-1)  # between two words, and in place of a symbol that never merges
MERGED = np.int32(-2)  # now part of the symbol on its left
LONGEST = 48  # bytes of a learned piece: 16 Chinese characters; what is longer is boilerplate
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
BASE = np.uint64(0x5851F42D4C957F2D)  # of the polynomial hash of a piece's bytes


@inlined()
def find_pair(keys, key):
    """Slot of the key, or the free one where it would go."""
    mask = np.uint64(len(keys) - 1)
    h = key * GOLDEN
    s = (h ^ (h >> np.uint64(32))) & mask
    while keys[s] != key and keys[s] != EMPTY:
        s = (s + np.uint64(1)) & mask
    return np.int64(s)


@njit(cache=True)
def grown_table(keys, counts, heads, slots, least):
    """The table with as many slots, without the pairs of `least` and fewer that have no places."""
    keys2 = np.full(slots, EMPTY, np.uint64)
    counts2 = np.zeros(slots, np.int64)
    heads2 = np.full(slots, -1, np.int32)
    used = 0
    for s in range(len(keys)):
        if keys[s] != EMPTY and (counts[s] > least or heads[s] >= 0):
            t = find_pair(keys2, keys[s])
            keys2[t], counts2[t], heads2[t] = keys[s], counts[s], heads[s]
            used += 1
    return keys2, counts2, heads2, used


@inlined()
def comes_before(heap, i, j):
    """Whether entry i comes first: more, then the lower pair."""
    if heap[i, 0] != heap[j, 0]:
        return heap[i, 0] > heap[j, 0]
    return heap[i, 1] < heap[j, 1]


@njit(cache=True)
def push(heap, n, count, key):
    if n == len(heap):
        heap = np.concatenate((heap, np.empty_like(heap)))
    heap[n, 0], heap[n, 1] = count, np.int64(key)
    i = n
    while i > 0 and comes_before(heap, i, (i - 1) >> 1):
        j = (i - 1) >> 1
        for k in range(2):
            heap[i, k], heap[j, k] = heap[j, k], heap[i, k]
        i = j
    return heap, n + 1


@njit(cache=True)
def pop(heap, n):
    """Removes the first -> n - 1."""
    n -= 1
    heap[0, 0], heap[0, 1] = heap[n, 0], heap[n, 1]
    i = 0
    while 2 * i + 1 < n:
        j = 2 * i + 1
        if j + 1 < n and comes_before(heap, j + 1, j):
            j += 1
        if not comes_before(heap, j, i):
            break
        for k in range(2):
            heap[i, k], heap[j, k] = heap[j, k], heap[i, k]
        i = j
    return n


@inlined()
def pair_key(a, b, lengths, begins, ends):
    """Two symbols -> their pair as one number, or EMPTY if they may not merge."""
    if a < 0 or b < 0 or lengths[a] + lengths[b] > LONGEST or ends[a] & begins[b]:
        return EMPTY
    return (np.uint64(a) << np.uint64(32)) | np.uint64(b)


@inlined()
def next_id(ids, i):
    """Place of the symbol on the right, or of the BREAK."""
    i += 1
    while ids[i] == MERGED:
        i += 1
    return i


@inlined()
def previous_id(ids, i):
    i -= 1
    while i >= 0 and ids[i] == MERGED:
        i -= 1
    return i
