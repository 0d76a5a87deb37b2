"""A binary heap of (count, pair): the pair with the highest count comes first; of equal counts, the lower pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.kernels import cached, inlined


class Heap(NamedTuple):
    """The first `size` rows of `entries` are a binary heap."""

    entries: np.ndarray  # int64[capacity, 2]: count, pair
    size: int


@inlined()
def _precedes(entries, i, j):
    """Whether entry i comes before entry j."""
    if entries[i, 0] != entries[j, 0]:
        return entries[i, 0] > entries[j, 0]
    return entries[i, 1] < entries[j, 1]


@inlined()
def _swap(entries, i, j):
    for k in range(2):
        entries[i, k], entries[j, k] = entries[j, k], entries[i, k]


@cached()
def push(heap, count, pair):
    """Heap, count int64, pair uint64 -> Heap with one more entry; its entries are changed in place or moved."""
    entries, i = heap.entries, heap.size
    if i == len(entries):
        entries = np.concatenate((entries, np.empty_like(entries)))
    entries[i, 0], entries[i, 1] = count, np.int64(pair)
    while i > 0 and _precedes(entries, i, (i - 1) >> 1):
        _swap(entries, i, (i - 1) >> 1)
        i = (i - 1) >> 1
    return Heap(entries, heap.size + 1)


@cached()
def pop(heap):
    """Heap -> Heap without its first entry, in the same memory."""
    entries, size = heap.entries, heap.size - 1
    entries[0, 0], entries[0, 1] = entries[size, 0], entries[size, 1]
    i = 0
    while 2 * i + 1 < size:
        j = 2 * i + 1
        if j + 1 < size and _precedes(entries, j + 1, j):
            j += 1
        if not _precedes(entries, j, i):
            break
        _swap(entries, i, j)
        i = j
    return Heap(entries, size)
