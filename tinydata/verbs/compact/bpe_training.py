"""words -> merges: compiled BPE training that starts from any vocabulary.

The most frequent adjacent pair becomes a symbol, repeatedly, until no pair is worth its price. Every pair
has its count and a list of the places where it may occur; a heap contains possibly outdated counts, so
whatever is taken from it is checked against the current count. A merge touches only the places of its pair.

Two symbols that no merge may join are kept apart by two bit sets: `ends` of the left one and
`begins` of the right one must have no bit in common. Of two ways to the same bytes only the first
is learned, since a vocabulary holds a piece once; where merges follow from pieces (SentencePiece)
the second way leads to the same piece.

Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units".
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

from tinydata.tokenizers.base import BYTE, NORMAL, Tokenizer
from tinydata.tokenizers.kernels.bpe import encode
from tinydata.tokenizers.kernels.cutters import LETTER, NUMBER, OTHER, SPACE
from tinydata.tokenizers.kernels.merge_tree import scratch_for
from tinydata.verbs.compact.pair_heap import (
    BASE,
    BREAK,
    EMPTY,
    LONGEST,
    MERGED,
    find_pair,
    grown_table,
    next_id,
    pair_key,
    pop,
    previous_id,
    push,
)
from tinydata.verbs.compact.word_collector import Collected, character_classes

ALL = 0b1111  # classes of characters, a bit each


class Symbols(NamedTuple):
    """What a merge may be made of, one entry an id."""

    hashes: np.ndarray  # uint64[ids]: of the bytes
    lengths: np.ndarray  # int64[ids], bytes; LONGEST + 1: never merges
    begins: np.ndarray  # uint8[ids]
    ends: np.ndarray  # uint8[ids]


class Merges(NamedTuple):
    """In the order they were learned; merge k makes the symbol ids + k."""

    left: np.ndarray  # int32[m]
    right: np.ndarray  # int32[m]
    gain: np.ndarray  # int64[m]: how often the pair stood side by side


def spelled(words: Collected, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """-> (ids of all words, BREAK behind each; int32[n]: which word each belongs to)."""
    cutter = tokenizer.cutter
    prefix = cutter.prefix if cutter else -1
    return _spelled(words.data, words.offsets, words.first, prefix, tokenizer.bpe, scratch_for(words.offsets))


@njit(cache=True)
def _spelled(data, offsets, first, prefix, bpe, scratch):
    out = np.empty(len(data) // 2 + 2 * len(first) + 4 * len(scratch.sym), np.int32)
    word = np.empty(len(out), np.int32)
    at = 0
    for w in range(len(first)):
        lead = prefix if first[w] else -1
        n = encode(data, offsets[w], offsets[w + 1], lead, bpe, scratch, -1)
        if at + n + 1 > len(out):
            out = np.concatenate((out, np.empty(len(out), np.int32)))
            word = np.concatenate((word, np.empty(len(word), np.int32)))
        for k in range(n):
            out[at] = scratch.sym[k]
            word[at] = w
            at += 1
        out[at] = BREAK
        word[at] = w
        at += 1
    return out[:at].copy(), word[:at].copy()


@njit(cache=True)
def tally(ids, word, count, size):
    """ids int32[n] as `spelled` gives them, count int64[words] -> int64[size]: how often each id occurs."""
    out = np.zeros(size, np.int64)
    for i in range(len(ids)):
        if ids[i] >= 0:
            out[ids[i]] += count[word[i]]
    return out


def symbols_of(tokenizer: Tokenizer) -> Symbols:
    """Which pieces may merge: with a pre-tokenizer all, within words; in SentencePiece what its training would join.

    That is characters of one kind, and the blank with what follows it; digits only where old pieces
    have them so; bytes with nothing.
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
        behind = {k: ALL & ~(1 << k) for k in (OTHER, LETTER, NUMBER, SPACE)}  # what may not follow
        if not any(a.isdigit() for a, _ in pairs):
            behind[NUMBER] = ALL
        blank = 0 if any(a == " " for a, _ in pairs) else 1 << NUMBER
        for i, text in texts.items():
            if text:
                begins[i] = 1 << int(kinds[ord(text[0])])
                ends[i] = blank if text[-1] == " " else behind[int(kinds[ord(text[-1])])]
    lengths[~may] = LONGEST + 1
    return Symbols(hashes, lengths, begins, ends)


def merges_are_implied(tokenizer: Tokenizer) -> bool:
    """Whether two symbols merge because their concatenation is a piece (SentencePiece), not by a list."""
    return len(tokenizer.bpe.symbols.by_char) > 0


@njit(cache=True)
def _hash_all(data, offsets, out):
    for i in range(len(out)):
        h = np.uint64(0)
        for k in range(offsets[i], offsets[i + 1]):
            h = h * BASE + np.uint64(data[k]) + np.uint64(1)
        out[i] = h


def learn(
    ids: np.ndarray, word: np.ndarray, count: np.ndarray, symbols: Symbols, price: np.ndarray, implied: bool = False
) -> Merges:
    """ids, word as `spelled` gives them (ids is changed in place), count int64[words] -> Merges.

    price int64[m], ascending: the k-th merge is learned while its pair occurs more often than
    price[k]; so at most m. Equal counts: lower left id first, then lower right id.
    """
    size, most = len(symbols.lengths), len(price)
    left, right, gain = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int64)
    h, n, b, e = (np.concatenate([a, np.zeros(most, a.dtype)]) for a in symbols)
    if not most:
        return Merges(left, right, gain)
    for guess in (True, False):
        todo = ids.copy() if guess else ids
        m = _learn(todo, word, count, size, h, n, b, e, price, guess, implied, left, right, gain)
        if m >= 0:
            ids[:] = todo
            break
    return Merges(left[:m].copy(), right[:m].copy(), gain[:m].copy())


@njit(cache=True)
def _least(counts, price):
    """counts int64[pairs] -> what no pair has that will be learned, by a guess: most pairs need no places then.

    It is half of the price where prices, going up, meet the counts as they are before any merge, going down.
    """
    down = np.sort(counts)[::-1]
    for k in range(min(len(down), len(price))):
        if down[k] <= price[k]:
            return max(price[0], price[k] // 2)
    return price[0]


@njit(cache=True)
def _learn(ids, word, count, size, hashes, lengths, begins, ends, price, guess, implied, left, right, gain):
    """-> merges learned; -1: the guess at what the last of them gains was too high, and all is to be done without."""
    # all pairs and their counts
    keys = np.full(1 << 16, EMPTY, np.uint64)
    counts = np.zeros(len(keys), np.int64)
    heads = np.full(len(keys), -1, np.int32)
    used = 0
    for i in range(len(ids) - 1):
        key = pair_key(ids[i], ids[i + 1], lengths, begins, ends)
        if key != EMPTY:
            s = find_pair(keys, key)
            if keys[s] == EMPTY:
                keys[s] = key
                used += 1
                counts[s] += count[word[i]]
                if 2 * used > len(keys):
                    keys, counts, heads, used = grown_table(keys, counts, heads, 2 * len(keys), np.int64(-1))
            else:
                counts[s] += count[word[i]]
    # those that can pay: their places, in lists
    least = _least(counts, price) if guess else price[0]
    for s in range(len(keys)):
        if keys[s] != EMPTY and counts[s] <= least:
            counts[s] = 0
    used = 0
    for s in range(len(keys)):
        used += counts[s] > 0
    slots = 1 << 12
    while slots < 4 * used:
        slots *= 2
    keys, counts, heads, used = grown_table(keys, counts, heads, slots, np.int64(0))
    place = np.empty(1 << 16, np.int32)
    link = np.empty(len(place), np.int32)
    nodes = 0
    free = np.int32(-1)
    for i in range(len(ids) - 1):
        key = pair_key(ids[i], ids[i + 1], lengths, begins, ends)
        if key != EMPTY:
            s = find_pair(keys, key)
            if keys[s] != EMPTY:
                if nodes == len(place):
                    place = np.concatenate((place, np.empty_like(place)))
                    link = np.concatenate((link, np.empty_like(link)))
                place[nodes], link[nodes] = i, heads[s]
                heads[s] = nodes
                nodes += 1
    heap = np.empty((1 << 12, 2), np.int64)
    waiting = 0
    for s in range(len(keys)):
        if keys[s] != EMPTY:
            heap, waiting = push(heap, waiting, counts[s], keys[s])
    # pieces by the hash of their bytes
    names = np.full(1 << 12, EMPTY, np.uint64)
    while len(names) < 4 * len(hashes):
        names = np.full(2 * len(names), EMPTY, np.uint64)
    named = np.zeros(len(names), np.int32)
    power = np.ones(LONGEST + 2, np.uint64)
    for k in range(1, len(power)):
        power[k] = power[k - 1] * BASE
    for i in range(size):
        s = find_pair(names, hashes[i])
        names[s], named[s] = hashes[i], i
    # the merges
    fresh = np.empty(1 << 12, np.uint64)
    m = 0
    while waiting > 0 and m < len(price):
        top, key = heap[0, 0], np.uint64(heap[0, 1])
        if top <= price[m]:
            break
        waiting = pop(heap, waiting)
        s = find_pair(keys, key)
        if keys[s] == EMPTY or counts[s] <= least:
            continue
        if counts[s] < top:
            heap, waiting = push(heap, waiting, counts[s], key)
            continue
        a, b = np.int64(key >> np.uint64(32)), np.int64(key & np.uint64(0xFFFFFFFF))
        whole = hashes[a] * power[lengths[b]] + hashes[b]
        t = find_pair(names, whole)
        if names[t] == EMPTY:
            x = size + m
            names[t], named[t] = whole, x
            hashes[x], lengths[x] = whole, lengths[a] + lengths[b]
            begins[x], ends[x] = begins[a], ends[b]
            left[m], right[m], gain[m] = a, b, top
            m += 1
        elif implied and lengths[named[t]] <= LONGEST:
            x = np.int64(named[t])
        else:
            counts[s] = 0
            continue
        # its places, left to right where they can overlap
        node = heads[s]
        n = 0
        while node >= 0:
            n += 1
            node = link[node]
        places = np.empty(n, np.int32)
        node, n = heads[s], 0
        while node >= 0:
            places[n] = place[node]
            n += 1
            after = link[node]
            link[node] = free
            free = node
            node = after
        heads[s], counts[s] = -1, 0
        if a == b:
            places.sort()
        new = 0
        for p in range(n):
            i = int(places[p])
            if ids[i] != a:
                continue
            j = next_id(ids, i)
            if ids[j] != b:
                continue
            c = count[word[i]]
            h, k = previous_id(ids, i), next_id(ids, j)
            before = np.int64(ids[h]) if h >= 0 else np.int64(-1)
            behind = np.int64(ids[k])
            ids[i], ids[j] = x, MERGED
            for side in range(2):
                old = (
                    pair_key(before, a, lengths, begins, ends)
                    if side == 0
                    else pair_key(b, behind, lengths, begins, ends)
                )
                if old != EMPTY:
                    s = find_pair(keys, old)
                    if keys[s] != EMPTY and old != key:
                        counts[s] -= c
                now = (
                    pair_key(before, x, lengths, begins, ends)
                    if side == 0
                    else pair_key(x, behind, lengths, begins, ends)
                )
                if now == EMPTY:
                    continue
                s = find_pair(keys, now)
                if keys[s] == EMPTY:
                    if 2 * (used + 1) > len(keys):
                        slots = 2 * len(keys)
                        keys, counts, heads, used = grown_table(keys, counts, heads, slots, least)
                        s = find_pair(keys, now)
                    keys[s] = now
                    used += 1
                if counts[s] == 0 or implied:
                    if new == len(fresh):
                        fresh = np.concatenate((fresh, np.empty_like(fresh)))
                    fresh[new] = now
                    new += 1
                counts[s] += c
                if free >= 0:
                    node = free
                    free = link[node]
                else:
                    if nodes == len(place):
                        place = np.concatenate((place, np.empty_like(place)))
                        link = np.concatenate((link, np.empty_like(link)))
                    node = nodes
                    nodes += 1
                place[node] = h if side == 0 else i
                link[node] = heads[s]
                heads[s] = node
        # new pairs: into the heap, or forgotten
        for p in range(new):
            s = find_pair(keys, fresh[p])
            if counts[s] > least:
                heap, waiting = push(heap, waiting, counts[s], fresh[p])
            elif not implied:
                node = heads[s]
                while node >= 0:
                    after = link[node]
                    link[node] = free
                    free = node
                    node = after
                heads[s], counts[s] = -1, 0
    return m if m == len(price) or price[m] >= least else -1
