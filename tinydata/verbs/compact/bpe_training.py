"""words -> merges: compiled BPE training that starts from any vocabulary.

The most frequent adjacent pair becomes a symbol, repeatedly, until no pair is worth its price. The index has the count
of every pair and a list of the positions where it may occur; the heap may contain outdated counts, so what is taken
from it is compared with the current count. A merge visits only the positions of its pair.

If two pairs give the same bytes, only the first is learned, since a vocabulary contains a piece once; where
merges are implied by the pieces (SentencePiece), the second one gives the same piece.

Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.kernels import cached, compiled, inlined
from tinydata.verbs.compact.pair_heap import Heap, pop, push
from tinydata.verbs.compact.pair_index import (
    EMPTY,
    LONGEST,
    add_position,
    count_pairs,
    find_slot,
    forget,
    frequent_pairs,
    is_full,
    lacks_nodes,
    pair_key,
    positions_of,
    slot_of,
    symbols_of_pair,
    with_positions,
    with_room,
)
from tinydata.verbs.compact.training_text import BASE, BREAK, MERGED, Text, TrainingSymbols


class Merges(NamedTuple):
    """In the order in which they were learned; merge k has the id `ids` + k."""

    left: np.ndarray  # int32[m]
    right: np.ndarray  # int32[m]
    gain: np.ndarray  # int64[m]: how often the pair occurred


def learn(
    ids: np.ndarray,
    word: np.ndarray,
    count: np.ndarray,
    symbols: TrainingSymbols,
    price: np.ndarray,
    implied: bool = False,
) -> Merges:
    """ids, word as in Spelling (ids is changed in place), count int64[words] -> Merges.

    price int64[m], ascending: the k-th merge is learned as long as its pair occurs more often than price[k]; so at
    most m are learned. Of equal counts the lower left id comes first, then the lower right id.
    """
    size, most = len(symbols.lengths), len(price)
    merges = Merges(np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int64))
    if not most:
        return merges
    symbols = TrainingSymbols(*(np.concatenate([a, np.zeros(most, a.dtype)]) for a in symbols))
    pairs = frequent_pairs(count_pairs(Text(ids, word, count), symbols), price[0])
    for least in (guess_of_least(pairs.counts, price), price[0]):
        text = Text(ids.copy(), word, count)
        m = _learn(text, symbols, size, frequent_pairs(pairs, least), price, least, implied, merges)
        if m == most or price[m] >= least:
            break
    ids[:] = text.ids
    return Merges(*(a[:m].copy() for a in merges))


def guess_of_least(counts: np.ndarray, price: np.ndarray) -> int:
    """counts int64[slots] of pairs -> a count that each merge will probably exceed: most pairs need no positions then.

    It is half of the price where the prices, ascending, meet the counts before any merge, descending.
    """
    descending = np.sort(counts)[::-1][: len(price)]
    met = np.flatnonzero(descending <= price[: len(descending)])
    return int(max(price[0], price[met[0]] // 2) if len(met) else price[0])


@cached()
def _learn(text, symbols, size, index, price, least, implied, merges):
    """Index of the pairs that occur more than `least` times -> number of merges, which are written to `merges`.

    symbols: with room for the new ones from `size` on. If the last price is below `least`, pairs that should have been
    merged may be missing from the index.
    """
    index = with_positions(index, text, symbols)
    heap = _heap_of(index)
    pieces = _pieces_of(symbols, size)
    m = 0
    while heap.size > 0 and m < len(price):
        top, key = heap.entries[0, 0], np.uint64(heap.entries[0, 1])
        if top <= price[m]:
            break
        heap = pop(heap)
        s = find_slot(index.keys, key)
        if index.keys[s] == EMPTY or index.counts[s] <= least:
            continue
        if index.counts[s] < top:
            heap = push(heap, index.counts[s], key)
            continue
        left, right = symbols_of_pair(key)
        whole = size + m
        known = pieces.ids[find_slot(pieces.hashes, _hash_of(left, right, pieces, symbols))]
        if known < 0:
            _add_symbol(Merge(left, right, whole), pieces, symbols)
            merges.left[m], merges.right[m], merges.gain[m] = left, right, top
            m += 1
        elif implied and symbols.lengths[known] <= LONGEST:
            whole = known
        else:
            index.counts[s] = 0
            continue
        positions = positions_of(index, s)
        forget(index, s)
        if left == right:
            positions.sort()  # where they overlap, the left one is merged
        merge, progress, new = Merge(left, right, whole), Progress(0, 0), np.empty(2 * len(positions), np.uint64)
        while progress.done < len(positions):
            index = with_room(index, least)
            progress = _merge(text, symbols, index, merge, positions, progress, new, implied)
        heap = _queue(index, heap, new[: progress.new], least, implied)
    return m


class Merge(NamedTuple):
    """left + right -> whole, as ids."""

    left: int
    right: int
    whole: int


class Progress(NamedTuple):
    """How far a merge is."""

    done: int  # positions
    new: int  # pairs that were added


@compiled()
def _merge(text, symbols, index, merge, positions, progress, new, implied):
    """Merges the pair where it still exists, at positions from `progress` on -> Progress; it stops if index is full.

    new uint64[...]: pairs that were added and need an entry in the heap.
    """
    left, right, whole = merge
    ids, merged, n = text.ids, pair_key(left, right, symbols), progress.new
    for p in range(progress.done, len(positions)):
        if is_full(index) or lacks_nodes(index):
            return Progress(p, n)
        i = np.int64(positions[p])
        if ids[i] != left:
            continue
        j = _next(ids, i)
        if ids[j] != right:
            continue
        count = text.counts[text.word[i]]
        h, k = _previous(ids, i), _next(ids, j)
        before, behind = np.int64(ids[h]) if h >= 0 else np.int64(BREAK), np.int64(ids[k])
        ids[i], ids[j] = whole, MERGED
        _subtract(index, pair_key(before, left, symbols), merged, count)
        n = _add(index, pair_key(before, whole, symbols), h, count, new, n, implied)
        _subtract(index, pair_key(right, behind, symbols), merged, count)
        n = _add(index, pair_key(whole, behind, symbols), i, count, new, n, implied)
    return Progress(len(positions), n)


@inlined()
def _subtract(index, key, merged, count):
    """A pair next to the merged one does not occur there any more."""
    if key != EMPTY and key != merged:
        s = find_slot(index.keys, key)
        if index.keys[s] != EMPTY:
            index.counts[s] -= count


@inlined()
def _add(index, key, position, count, new, n, implied):
    """A pair occurs at a new position -> number of pairs in `new`."""
    if key == EMPTY:
        return n
    s = slot_of(index, key)
    if index.counts[s] == 0 or implied:
        new[n] = key
        n += 1
    index.counts[s] += count
    add_position(index, s, position)
    return n


@cached()
def _queue(index, heap, new, least, implied):
    """Pairs uint64[n] that a merge added -> Heap: each gets an entry, or is forgotten if it is too rare."""
    counts = np.empty(len(new), np.int64)
    _current_counts(index, new, least, implied, counts)
    for k in range(len(new)):
        if counts[k] > least:
            heap = push(heap, counts[k], new[k])
    return heap


@compiled()
def _current_counts(index, new, least, implied, counts):
    """-> counts int64[n] of the pairs; those of at most `least` are forgotten, unless merges are implied."""
    for k in range(len(new)):
        s = find_slot(index.keys, new[k])
        counts[k] = index.counts[s]
        if counts[k] <= least and not implied:
            forget(index, s)


@cached()
def _heap_of(index):
    """Index -> Heap with an entry for each pair."""
    heap = Heap(np.empty((1 << 12, 2), np.int64), 0)
    keys, counts = index.keys, index.counts
    for s in range(len(keys)):
        if keys[s] != EMPTY:
            heap = push(heap, counts[s], keys[s])
    return heap


class _Pieces(NamedTuple):
    """A hash table of pieces by the hash of their bytes, with room for all that may be learned."""

    hashes: np.ndarray  # uint64[slots]; EMPTY: free
    ids: np.ndarray  # int64[slots]; -1: free
    power: np.ndarray  # uint64[LONGEST + 2]: BASE ** k


@cached()
def _pieces_of(symbols, size):
    """The first `size` symbols -> _Pieces."""
    slots = 1 << 12
    while slots < 4 * len(symbols.hashes):
        slots *= 2
    power = np.ones(LONGEST + 2, np.uint64)
    for k in range(1, len(power)):
        power[k] = power[k - 1] * BASE
    pieces = _Pieces(np.full(slots, EMPTY, np.uint64), np.full(slots, -1, np.int64), power)
    for i in range(size):
        s = find_slot(pieces.hashes, symbols.hashes[i])
        pieces.hashes[s], pieces.ids[s] = symbols.hashes[i], i
    return pieces


@inlined()
def _hash_of(left, right, pieces, symbols):
    """Two ids -> hash of the bytes of both together."""
    return symbols.hashes[left] * pieces.power[symbols.lengths[right]] + symbols.hashes[right]


@inlined()
def _add_symbol(merge, pieces, symbols):
    """Makes merge.whole a symbol and a piece."""
    left, right, whole = merge
    h = _hash_of(left, right, pieces, symbols)
    s = find_slot(pieces.hashes, h)
    pieces.hashes[s], pieces.ids[s] = h, whole
    symbols.hashes[whole], symbols.lengths[whole] = h, symbols.lengths[left] + symbols.lengths[right]
    symbols.begins[whole], symbols.ends[whole] = symbols.begins[left], symbols.ends[right]


@inlined()
def _next(ids, i):
    """Position of the next symbol, or of the BREAK."""
    i += 1
    while ids[i] == MERGED:
        i += 1
    return i


@inlined()
def _previous(ids, i):
    """Position of the previous symbol or BREAK; -1 before the first one."""
    i -= 1
    while i >= 0 and ids[i] == MERGED:
        i -= 1
    return i
