"""words -> merges: compiled BPE training that starts from any vocabulary.

The most frequent adjacent pair becomes a symbol, repeatedly, until no pair is worth its price. The index has the count
of every pair and a list of the positions where it may occur; the heap may contain outdated counts, so what is taken
from it is compared with the current count. A merge visits only the positions of its pair.

Two bit sets say which symbols must not merge: `ends` of the left one and `begins` of the right one have a bit in
common. If two pairs give the same bytes, only the first is learned, since a vocabulary contains a piece once; where
merges are implied by the pieces (SentencePiece), the second one gives the same piece.

Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units".
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

from tinydata.core.kernels import inlined
from tinydata.tokenizers.base import BYTE, NORMAL, Tokenizer
from tinydata.tokenizers.kernels.bpe import encode
from tinydata.tokenizers.kernels.cutters import LETTER, NUMBER, OTHER, SPACE
from tinydata.verbs.compact.pair_heap import Heap, pop, push
from tinydata.verbs.compact.pair_index import (
    EMPTY,
    LONGEST,
    count_pairs,
    find_slot,
    frequent_pairs,
    pair_key,
    positions_of,
    symbols_of_pair,
    with_pair,
    with_position,
    with_positions,
    without_positions,
)
from tinydata.verbs.compact.word_collector import Words, character_classes

ALL = 0b1111  # one bit per class of characters
BREAK = np.int32(-1)  # an id: the end of a word
MERGED = np.int32(-2)  # an id: this position is now part of the symbol on its left
BASE = np.uint64(0x5851F42D4C957F2D)  # of the polynomial hash of a piece's bytes


class TrainingSymbols(NamedTuple):
    """What may be merged; one entry per id."""

    hashes: np.ndarray  # uint64[ids]: of the bytes
    lengths: np.ndarray  # int64[ids], bytes; LONGEST + 1: never merges
    begins: np.ndarray  # uint8[ids]: bits of the class of the first character
    ends: np.ndarray  # uint8[ids]: bits of the classes that must not follow the last character


class Merges(NamedTuple):
    """In the order in which they were learned; merge k has the id `ids` + k."""

    left: np.ndarray  # int32[m]
    right: np.ndarray  # int32[m]
    gain: np.ndarray  # int64[m]: how often the pair occurred


class Spelling(NamedTuple):
    """Words as ids, end to end."""

    ids: np.ndarray  # int32[n]: the ids of each word, and a BREAK behind it
    word: np.ndarray  # int32[n]: number of the word that each belongs to


class Text(NamedTuple):
    """A Spelling in which symbols are merged in place, and how often each word occurs."""

    ids: np.ndarray  # int32[n]; MERGED in place of what became part of the symbol on its left
    word: np.ndarray  # int32[n]
    count: np.ndarray  # int64[words]


def spelled(words: Words, tokenizer: Tokenizer) -> Spelling:
    """Words -> their ids under the tokenizer."""
    cutter = tokenizer.cutter
    prefix = cutter.prefix if cutter else -1
    longest = int(np.diff(words.offsets).max(initial=0)) + 2
    return Spelling(
        *_spelled(words.data, words.offsets, words.first, prefix, tokenizer.symbols, tokenizer.pairs, longest)
    )


@njit(cache=True)
def _spelled(data, offsets, first, prefix, symbols, pairs, longest):
    sym = np.empty(4 * longest, np.int32)
    value = np.empty(4 * longest, np.int64)
    chars = np.empty(4 * longest, np.int32)
    out = np.empty(len(data) // 2 + 2 * len(first) + 16 * longest, np.int32)
    word = np.empty(len(out), np.int32)
    at = 0
    for w in range(len(first)):
        lead = prefix if first[w] else -1
        n = encode(data, offsets[w], offsets[w + 1], lead, symbols, pairs, sym, value, chars, -1)
        if at + n + 1 > len(out):
            out = np.concatenate((out, np.empty(len(out), np.int32)))
            word = np.concatenate((word, np.empty(len(word), np.int32)))
        for k in range(n):
            out[at] = sym[k]
            word[at] = w
            at += 1
        out[at] = BREAK
        word[at] = w
        at += 1
    return out[:at].copy(), word[:at].copy()


@njit(cache=True)
def tally(ids, word, count, size):
    """ids, word as in Spelling, count int64[words] -> int64[size]: how often each id occurs."""
    out = np.zeros(size, np.int64)
    for i in range(len(ids)):
        if ids[i] >= 0:
            out[ids[i]] += count[word[i]]
    return out


def symbols_of(tokenizer: Tokenizer) -> TrainingSymbols:
    """Which pieces may merge: with a pre-tokenizer all, within words; in SentencePiece what its trainer would merge.

    Those are characters of the same class, and a blank with what follows it; digits only where an old piece contains
    them in this way; bytes never.
    """
    n = tokenizer.size
    hashes, begins, ends = np.zeros(n, np.uint64), np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    lengths = np.array([len(p) for p in tokenizer.pieces], np.int64)
    data = np.frombuffer(b"".join(tokenizer.pieces), np.uint8)
    _hash_all(data, np.concatenate([[0], np.cumsum(lengths)]), hashes)
    implied = merges_are_implied(tokenizer)
    may = tokenizer.kinds == NORMAL if implied else (tokenizer.kinds == NORMAL) | (tokenizer.kinds == BYTE)
    if implied:
        kinds = character_classes()
        texts = {int(i): tokenizer.pieces[i].decode() for i in np.flatnonzero(may)}
        pairs = {(a, b) for t in texts.values() for a, b in pairwise(t) if b.isdigit()}
        behind = {k: ALL & ~(1 << k) for k in (OTHER, LETTER, NUMBER, SPACE)}  # what must not follow
        if not any(a.isdigit() for a, _ in pairs):
            behind[NUMBER] = ALL
        blank = 0 if any(a == " " for a, _ in pairs) else 1 << NUMBER
        for i, text in texts.items():
            if text:
                begins[i] = 1 << int(kinds[ord(text[0])])
                ends[i] = blank if text[-1] == " " else behind[int(kinds[ord(text[-1])])]
    lengths[~may] = LONGEST + 1
    return TrainingSymbols(hashes, lengths, begins, ends)


def merges_are_implied(tokenizer: Tokenizer) -> bool:
    """Whether two symbols merge because their concatenation is a piece (SentencePiece), not by a list."""
    return len(tokenizer.symbols.by_char) > 0


@njit(cache=True)
def _hash_all(data, offsets, out):
    for i in range(len(out)):
        h = np.uint64(0)
        for k in range(offsets[i], offsets[i + 1]):
            h = h * BASE + np.uint64(data[k]) + np.uint64(1)
        out[i] = h


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


@njit(cache=True)
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
            _add(Merge(left, right, whole), pieces, symbols)
            merges.left[m], merges.right[m], merges.gain[m] = left, right, top
            m += 1
        elif implied and symbols.lengths[known] <= LONGEST:
            whole = known
        else:
            index.counts[s] = 0
            continue
        positions = positions_of(index, s)
        index = without_positions(index, s)
        if left == right:
            positions.sort()  # where they overlap, the left one is merged
        index, new = _merge(text, symbols, index, Merge(left, right, whole), positions, least, implied)
        index, heap = _queue(index, heap, new, least, implied)
    return m


class Merge(NamedTuple):
    """left + right -> whole, as ids."""

    left: int
    right: int
    whole: int


@njit(cache=True)
def _merge(text, symbols, index, merge, positions, least, implied):
    """Merges the pair at the given positions, where it still exists -> (Index, uint64[n]: new pairs for the heap)."""
    left, right, whole = merge
    ids, merged = text.ids, pair_key(left, right, symbols)
    new, n = np.empty(2 * len(positions), np.uint64), 0
    for p in positions:
        i = np.int64(p)
        if ids[i] != left:
            continue
        j = _next(ids, i)
        if ids[j] != right:
            continue
        count = text.count[text.word[i]]
        h, k = _previous(ids, i), _next(ids, j)
        before, behind = np.int64(ids[h]) if h >= 0 else np.int64(BREAK), np.int64(ids[k])
        ids[i], ids[j] = whole, MERGED
        for place, old, now in (
            (h, pair_key(before, left, symbols), pair_key(before, whole, symbols)),
            (i, pair_key(right, behind, symbols), pair_key(whole, behind, symbols)),
        ):
            if old != EMPTY and old != merged:
                s = find_slot(index.keys, old)
                if index.keys[s] != EMPTY:
                    index.counts[s] -= count
            if now != EMPTY:
                index = with_pair(index, now, least)
                s = find_slot(index.keys, now)
                if index.counts[s] == 0 or implied:
                    new[n] = now
                    n += 1
                index.counts[s] += count
                index = with_position(index, s, place)
    return index, new[:n]


@njit(cache=True)
def _queue(index, heap, new, least, implied):
    """Pairs uint64[n] that a merge added -> (Index, Heap): each gets an entry, or is forgotten if it is too rare."""
    for key in new:
        s = find_slot(index.keys, key)
        if index.counts[s] > least:
            heap = push(heap, index.counts[s], key)
        elif not implied:
            index = without_positions(index, s)
    return index, heap


@njit(cache=True)
def _heap_of(index):
    """Index -> Heap with an entry for each pair."""
    heap = Heap(np.empty((1 << 12, 2), np.int64), 0)
    for s in range(len(index.keys)):
        if index.keys[s] != EMPTY:
            heap = push(heap, index.counts[s], index.keys[s])
    return heap


class _Pieces(NamedTuple):
    """A hash table of pieces by the hash of their bytes, with room for all that may be learned."""

    hashes: np.ndarray  # uint64[slots]; EMPTY: free
    ids: np.ndarray  # int64[slots]; -1: free
    power: np.ndarray  # uint64[LONGEST + 2]: BASE ** k


@njit(cache=True)
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
def _add(merge, pieces, symbols):
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
