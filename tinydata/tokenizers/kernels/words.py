"""text -> distinct words and how often each occurs -> token counts, exactly.

A *word* is a stretch of text whose ids do not depend on its neighbors; cutters.py cuts text into words, and long
ones into parts, of which the same is true.
Each distinct word is encoded once and its ids are weighted by its count. The table has a fixed size:
when it is full, it is encoded, added to the counts and emptied, so memory is bounded however many
distinct words there are. A cut costs about 3 ns per byte, encoding 60 ns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import cached, compiled, inlined
from tinydata.tokenizers.kernels.bpe import SHORT, encode, new_scratch
from tinydata.tokenizers.kernels.cutters import is_prefixed, part_end, section, word_end
from tinydata.tokenizers.kernels.lanes import COUNT, ids_of, merge_all, start
from tinydata.tokenizers.kernels.memory import load16, prefetch

PART = 1 << 40
HOT = 13  # log2 of the words in the small table, which fits into a processor's second-level cache
WAITING = 32  # words whose slots are fetched from memory before they are added to the large table
_PRIME = np.uint64(0x100000001B3)
MIX = np.uint64(0xFF51AFD7ED558CCD)


class Table(NamedTuple):
    """Distinct words with their counts, bounded: a small table for words of now, and a large one for all.

    A word is counted in the small one, where it drives out the word that was in its slot; that one is added to the
    large one, which is outside of the processor's caches: 12% of GPT-2's words, with 2**13 slots. A word of up to
    16 bytes is stored in its slot, so that a look-up touches one cache line. Longer words are in an arena.
    """

    # owner: 2 * group, + 1 for the word after the dummy prefix, + PART for a part of a word, not looked up whole
    hot: np.ndarray  # uint64[4 * 2**h]: bytes 0-7, bytes 8-15, owner << 8 | length (0: free), count
    slots: np.ndarray  # uint64[4 * 2**k]: the same, open addressing
    long_slots: np.ndarray  # uint64[2**k]: hash tag << 32 | entry + 1 (0: free)
    entries: np.ndarray  # int64[4 * n]: start in arena, length, owner, count
    arena: np.ndarray  # uint8[bytes]
    state: np.ndarray  # int64[4]: short words, long words, arena bytes, elements of `waiting` in use
    waiting: (
        np.ndarray
    )  # uint64[5 * n]: words driven out of the small table: as a slot, and their slot in the large one


def new_table(bits: int = 20) -> Table:
    """5/8 of 2**bits short words and 2**(bits-3) long ones: 44 MB at 20."""
    longs = 1 << (bits - 3)
    return Table(
        np.zeros(4 << min(HOT, bits - 3), np.uint64),
        np.zeros(4 << bits, np.uint64),
        np.zeros(2 * longs, np.uint64),
        np.zeros(4 * longs, np.int64),
        np.zeros(longs * 48, np.uint8),
        np.zeros(4, np.int64),
        np.zeros(5 * min(WAITING, longs), np.uint64),
    )


@inlined()
def mixed(low, high, meta):
    """Hash of a word of at most 16 bytes: as in a slot -> uint64."""
    h = (low ^ (meta * MIX)) * GOLDEN
    h = (h ^ (h >> np.uint64(32)) ^ high) * MIX
    return h ^ (h >> np.uint64(29))


@inlined()
def _add(low, high, meta, count, s, slots, state):
    """Adds a word to the large table, searched from slot s on. There is room: `_drain` checks it."""
    mask = np.uint64(len(slots) // 4 - 1)
    while True:
        p = np.int64(s) * 4
        if slots[p + 2] == meta:
            if slots[p] == low and slots[p + 1] == high:
                slots[p + 3] += count
                return
        elif slots[p + 2] == np.uint64(0):
            break
        s = (s + np.uint64(1)) & mask
    slots[p] = low
    slots[p + 1] = high
    slots[p + 2] = meta
    slots[p + 3] = count
    state[0] += 1


@compiled()
def _drain(table):
    """The waiting words -> the large table; False if all the small table might not find room there afterwards."""
    slots, state, waiting = table.slots, table.state, table.waiting
    if 32 * (state[0] + len(waiting) // 5 + len(table.hot) // 4) > 5 * len(slots):  # at most 5/8 full
        return False
    for k in range(0, state[3], 5):
        _add(waiting[k], waiting[k + 1], waiting[k + 2], waiting[k + 3], waiting[k + 4], slots, state)
    state[3] = 0
    return True


@cached()
def settle(table):
    """All words -> the large table."""
    hot, slots, state, waiting = table.hot, table.slots, table.state, table.waiting
    mask = np.uint64(len(slots) // 4 - 1)
    for k in range(0, state[3], 5):
        _add(waiting[k], waiting[k + 1], waiting[k + 2], waiting[k + 3], waiting[k + 4], slots, state)
    state[3] = 0
    for p in range(0, len(hot), 4):
        if hot[p + 2] != np.uint64(0):
            s = mixed(hot[p], hot[p + 1], hot[p + 2]) & mask
            _add(hot[p], hot[p + 1], hot[p + 2], hot[p + 3], s, slots, state)
            hot[p + 2] = np.uint64(0)


@inlined()
def _hash_long(data, start, n, owner):
    h = np.uint64(owner) + np.uint64(n)
    for i in range(start, start + n):
        h = (h ^ np.uint64(data[i])) * _PRIME
    h ^= h >> np.uint64(32)
    return h * MIX


@compiled()
def _add_long(data, start, n, owner, table):
    """The same for a longer word."""
    slots, entries, arena, state = table.long_slots, table.entries, table.arena, table.state
    h = _hash_long(data, start, n, owner)
    mask = np.uint64(len(slots) - 1)
    tag = h >> np.uint64(32)
    s = h & mask
    while slots[s] != np.uint64(0):
        if slots[s] >> np.uint64(32) == tag:
            e = (np.int64(slots[s] & np.uint64(0xFFFFFFFF)) - 1) * 4
            if entries[e + 1] == n and entries[e + 2] == owner:
                same = True
                for i in range(n):
                    if arena[entries[e] + i] != data[start + i]:
                        same = False
                        break
                if same:
                    entries[e + 3] += 1
                    return True
        s = (s + np.uint64(1)) & mask
    e = state[1]
    a = state[2]
    if 4 * e >= len(entries) or a + n > len(arena):
        return False
    slots[s] = (tag << np.uint64(32)) | np.uint64(e + 1)
    entries[4 * e] = a
    entries[4 * e + 1] = n
    entries[4 * e + 2] = owner
    entries[4 * e + 3] = 1
    for i in range(n):
        arena[a + i] = data[start + i]
    state[1] = e + 1
    state[2] = a + n
    return True


@compiled()
def _fill(data, i, end, word, owner, cut, table):
    """Words of [i, end) -> small table; returns where it stopped (end, long word, no more room) and its word's end.

    The caller counts long words: with them in this loop it takes twice as long.
    """
    hot, slots, state, waiting = table.hot, table.slots, table.state, table.waiting
    mask, large_mask = np.uint64(len(hot) // 4 - 1), np.uint64(len(slots) // 4 - 1)
    n = state[3]
    while i < end:
        part = i < word
        if not part:
            word = word_end(data, i, end, cut)
        j = part_end(data, i, word, cut)
        if j - i > 16:
            word = word if part else i  # the next look at it must see that it begins here
            break
        low, high = load16(data, i, j - i)
        meta = (np.uint64(owner) << np.uint64(8)) | np.uint64(j - i)
        if part or j < word:
            meta |= np.uint64(PART << 8)
        p = np.int64(mixed(low, high, meta) & mask) * 4
        if hot[p] == low and hot[p + 1] == high and hot[p + 2] == meta:
            hot[p + 3] += np.uint64(1)
        else:
            if hot[p + 2] != np.uint64(0):
                if n == len(waiting):
                    state[3] = n
                    if not _drain(table):
                        return i, word if part else i
                    n = 0
                s = mixed(hot[p], hot[p + 1], hot[p + 2]) & large_mask
                prefetch(slots, np.int64(s) * 4)
                waiting[n], waiting[n + 1], waiting[n + 2] = hot[p], hot[p + 1], hot[p + 2]
                waiting[n + 3], waiting[n + 4] = hot[p + 3], s
                n += 5
            hot[p], hot[p + 1], hot[p + 2], hot[p + 3] = low, high, meta, np.uint64(1)
        i = j
        owner &= -2
    state[3] = n
    return i, word


@compiled()
def count_words(data, offsets, groups, place, cut, table, counts):
    """Documents from a Place of one batch on -> table, and atoms -> counts; stops when the table is full.

    data uint8[bytes], offsets int[docs + 1], groups int[docs], counts int64[groups, ids].
    Returns the Place to continue from; its document is len(groups) when done.
    """
    first, at, word, fresh = place
    for doc in range(first, len(groups)):
        start, stop = np.int64(offsets[doc]), np.int64(offsets[doc + 1])
        i = at
        if doc > first or at < 0:
            i, word, fresh = start, start, True
        owner = np.int64(groups[doc]) * 2
        while i < stop:
            end, token, after = section(data, i, stop, cut.sections)
            if fresh and is_prefixed(data, i, end, i == start, cut.sections):
                owner += 1
                if end == i:  # the prefix alone
                    counts[owner >> 1, cut.sections.prefix] += 1
            while i < end:
                j, word = _fill(data, i, end, word, owner, cut, table)
                if j > i:
                    owner &= -2
                    fresh = False
                i = j
                if i < end:
                    part = i < word
                    if not part:
                        word = word_end(data, i, end, cut)
                    j = part_end(data, i, word, cut)
                    part |= j < word
                    if j - i <= 16 or not _add_long(data, i, j - i, owner | PART if part else owner, table):
                        return doc, i, word if part else i, fresh
                    owner &= -2
                    fresh = False
                    i = j
            owner &= -2
            fresh = True
            if token >= 0:
                counts[owner >> 1, token] += 1
                i = after
    return len(groups), np.int64(-1), np.int64(-1), True


@cached()
def encode_words(table, prefix, bpe, counts, scratch, lanes):
    """Encodes each distinct word of a settled table once: its ids, times its count -> counts int64[groups, ids]."""
    slots, entries, arena, state = table.slots, table.entries, table.arena, table.state
    _encode_slots(slots, slots.view(np.uint8), prefix, bpe, counts, scratch, lanes)
    entries = entries[: 4 * state[1]]
    _encode_entries(entries, arena, prefix, bpe, counts, scratch, lanes)
    for e in range(0, len(entries), 4):
        if entries[e + 1] >= SHORT:
            a, owner = entries[e], entries[e + 2] & (PART - 1)
            if 2 * entries[e + 1] + 8 > len(scratch.sym):
                scratch = new_scratch(4 * entries[e + 1] + 8)
            n = encode(arena, a, a + entries[e + 1], prefix if owner & 1 else -1, bpe, scratch, -1)
            for k in range(n):
                counts[owner >> 1, scratch.sym[k]] += entries[e + 3]


@compiled()
def _encode_slots(slots, text, prefix, bpe, counts, scratch, lanes):
    """The short words. slots uint64[4 * 2**k]; text: the same memory as bytes, a word at the start of its slot."""
    k = np.int64(0)  # not 0: numba compiles what it is passed to for that number, and for others
    for p in range(0, len(slots), 4):
        meta = slots[p + 2]
        if meta != np.uint64(0):
            owner = np.int64(meta >> np.uint64(8)) & (PART - 1)
            stop = 8 * p + np.int64(meta & np.uint64(0xFF))
            start(text, 8 * p, stop, prefix if owner & 1 else -1, bpe, lanes, k)
            lanes.group[k], lanes.times[k] = owner >> 1, np.int64(slots[p + 3])
            k += 1
        if k == COUNT or p + 4 == len(slots):
            _tally(k, bpe, counts, scratch, lanes)
            k = np.int64(0)


@compiled()
def _encode_entries(entries, arena, prefix, bpe, counts, scratch, lanes):
    """Longer words of fewer than SHORT bytes."""
    k = np.int64(0)
    for e in range(0, len(entries), 4):
        if entries[e + 1] < SHORT:
            a, owner = entries[e], entries[e + 2] & (PART - 1)
            start(arena, a, a + entries[e + 1], prefix if owner & 1 else -1, bpe, lanes, k)
            lanes.group[k], lanes.times[k] = owner >> 1, entries[e + 3]
            k += 1
        if k == COUNT or e + 4 == len(entries):
            _tally(k, bpe, counts, scratch, lanes)
            k = np.int64(0)


@compiled()
def _tally(n, bpe, counts, scratch, lanes):
    """Merges the first n lanes and adds their ids to the counts of their groups."""
    merge_all(n, bpe.pairs, lanes)
    for k in range(n):
        row = counts[lanes.group[k]]
        for m in range(ids_of(k, bpe.symbols, scratch, lanes)):
            row[scratch.sym[m]] += lanes.times[k]


@compiled()
def look_up(table, data, offsets, out):
    """data uint8[bytes], offsets int64[words + 1] of some words -> out int64[groups, words]: how often each occurs.

    The table is settled. Occurrences after the prefix are included.
    """
    for w in range(len(offsets) - 1):
        a, n = offsets[w], offsets[w + 1] - offsets[w]
        for owner in range(2 * len(out)):
            if n <= 16:
                out[owner >> 1, w] += _look_up_short(data, a, n, owner, table.slots)
            else:
                out[owner >> 1, w] += _look_up_long(data, a, n, owner, table)


@compiled()
def _look_up_short(data, a, n, owner, slots):
    low, high = load16(data, a, n)
    meta = (np.uint64(owner) << np.uint64(8)) | np.uint64(n)
    mask = np.uint64(len(slots) // 4 - 1)
    s = mixed(low, high, meta) & mask
    while True:
        p = np.int64(s) * 4
        if slots[p + 2] == np.uint64(0):
            return np.int64(0)
        if slots[p + 2] == meta and slots[p] == low and slots[p + 1] == high:
            return np.int64(slots[p + 3])
        s = (s + np.uint64(1)) & mask


@compiled()
def _look_up_long(data, a, n, owner, table):
    slots, entries, arena = table.long_slots, table.entries, table.arena
    mask = np.uint64(len(slots) - 1)
    h = _hash_long(data, a, n, owner)
    s = h & mask
    while slots[s] != np.uint64(0):
        if slots[s] >> np.uint64(32) == h >> np.uint64(32):
            e = (np.int64(slots[s] & np.uint64(0xFFFFFFFF)) - 1) * 4
            same = entries[e + 1] == n and entries[e + 2] == owner
            i = 0
            while same and i < n:
                same = arena[entries[e] + i] == data[a + i]
                i += 1
            if same:
                return entries[e + 3]
        s = (s + np.uint64(1)) & mask
    return np.int64(0)


def clear(table: Table) -> None:
    """Removes all words from a settled table."""
    table.slots[2::4] = 0
    table.long_slots[:] = 0
    table.state[:] = 0
