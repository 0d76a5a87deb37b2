"""text -> distinct words and how often each occurs -> token counts, exactly.

A *word* is a stretch of text whose ids do not depend on its neighbors; cutters.py cuts text into words, and long
ones into parts, of which the same is true.
Each distinct word is encoded once and its ids are weighted by its count. The table has a fixed size:
when it is full, it is encoded, added to the counts and emptied, so memory is bounded however many
distinct words there are. A cut costs about 3 ns per byte, encoding 60 ns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import cached, compiled, inlined
from tinydata.tokenizers.kernels.bpe import SHORT, encode, encode_short, new_scratch
from tinydata.tokenizers.kernels.cutters import is_prefixed, part_end, section, word_end

# masks of the first n bytes of 16, as two words
_LOW = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(17)], np.uint64)
_HIGH = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(17)], np.uint64)
PART = 1 << 40
WAITING = 32  # words whose slots are fetched from memory while the next ones are cut
_PRIME = np.uint64(0x100000001B3)
MIX = np.uint64(0xFF51AFD7ED558CCD)


class Table(NamedTuple):
    """Distinct words, open addressing, bounded.

    A word of up to 16 bytes is stored in its slot, so that a look-up touches one cache line: 43 M words of
    195 MB took 8.2 s with offsets into an arena, and take 1.1 s like this. Longer words are in an arena.
    """

    # owner: 2 * group, + 1 for the word after the dummy prefix, + PART for a part of a word, not looked up whole
    slots: np.ndarray  # uint64[4 * 2**k]: bytes 0-7, bytes 8-15, owner << 8 | length (0: free), count
    long_slots: np.ndarray  # uint64[2**k]: hash tag << 32 | entry + 1 (0: free)
    entries: np.ndarray  # int64[4 * n]: start in arena, length, owner, count
    arena: np.ndarray  # uint8[bytes]
    state: np.ndarray  # int64[3]: short words, long words, arena bytes
    waiting: np.ndarray  # uint64[4 * WAITING]: words cut but not yet counted


def new_table(bits: int = 20) -> Table:
    """2**(bits-1) short words and 2**(bits-3) long ones: 44 MB at 20."""
    longs = 1 << (bits - 3)
    return Table(
        np.zeros(4 << bits, np.uint64),
        np.zeros(2 * longs, np.uint64),
        np.zeros(4 * longs, np.int64),
        np.zeros(longs * 48, np.uint8),
        np.zeros(3, np.int64),
        np.zeros(4 * WAITING, np.uint64),
    )


@intrinsic
def _load_word(typingctx, data, i):
    """data uint8[n], i -> the 8 bytes at i as one little-endian uint64; unaligned, unchecked."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        at = builder.gep(array.data, [args[1]])
        wide = builder.bitcast(at, ir.IntType(64).as_pointer())
        load = builder.load(wide)
        load.align = 1
        return load

    return types.uint64(data, types.intp), codegen


_word64: Any = _load_word


@intrinsic
def _fetch(typingctx, array, i):
    """Fetches array[i], which will be written, into the processor's cache."""

    def codegen(context, builder, signature, args):
        at = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(fetch, [builder.bitcast(at, byte), flag(1), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


prefetch: Any = _fetch


@inlined()
def load16(data, start, n):
    """Bytes [start, start + n), n <= 16 -> (first eight, next eight), zero padded."""
    if start + 16 <= len(data):
        return _word64(data, start) & _LOW[n], _word64(data, start + 8) & _HIGH[n]
    low, high = np.uint64(0), np.uint64(0)
    for k in range(n):
        if k < 8:
            low |= np.uint64(data[start + k]) << np.uint64(8 * k)
        else:
            high |= np.uint64(data[start + k]) << np.uint64(8 * (k - 8))
    return low, high


@inlined()
def _add(low, high, meta, s, slots, state):
    """Counts one word of at most 16 bytes, searched from slot s on; False if there is no room for it."""
    mask = np.uint64(len(slots) // 4 - 1)
    while True:
        p = np.int64(s) * 4
        if slots[p + 2] == meta:
            if slots[p] == low and slots[p + 1] == high:
                slots[p + 3] += np.uint64(1)
                return True
        elif slots[p + 2] == np.uint64(0):
            break
        s = (s + np.uint64(1)) & mask
    if state[0] * 8 >= len(slots):  # half full
        return False
    slots[p] = low
    slots[p + 1] = high
    slots[p + 2] = meta
    slots[p + 3] = np.uint64(1)
    state[0] += 1
    return True


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
    _, slots, entries, arena, state, _ = table
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
    """Words of [i, end) -> slots; returns where it stopped: end, a long word, or no more room; and its word's end.

    Several words are cut before the first of them is counted, while their slots are fetched: 195 MB in 0.81 s
    instead of 1.02. The caller counts long words: with them in this loop it takes twice as long.
    """
    slots, state, waiting = table.slots, table.state, table.waiting
    mask = np.uint64(len(slots) // 4 - 1)
    while i < end:
        n = 0
        while n < len(waiting) and i < end:
            part = i < word
            if not part:
                word = word_end(data, i, end, cut)
            j = part_end(data, i, word, cut)
            if j - i > 16:
                word = word if part else i  # the next look at it must see that it begins here
                break
            part |= j < word
            low, high = load16(data, i, j - i)
            meta = (np.uint64(owner) << np.uint64(8)) | np.uint64(j - i)
            if part:
                meta |= np.uint64(PART << 8)
            h = (low ^ (meta * MIX)) * GOLDEN
            h = (h ^ (h >> np.uint64(32)) ^ high) * MIX
            s = (h ^ (h >> np.uint64(29))) & mask
            prefetch(slots, np.int64(s) * 4)
            waiting[n], waiting[n + 1], waiting[n + 2] = low, high, meta
            waiting[n + 3] = (np.uint64(word - i) << np.uint64(32)) | s
            n += 4
            i = j
            owner &= -2
        for k in range(0, n, 4):
            s = waiting[k + 3] & np.uint64(0xFFFFFFFF)
            if not _add(waiting[k], waiting[k + 1], waiting[k + 2], s, slots, state):
                for rest in range(k, n, 4):
                    i -= np.int64(waiting[rest + 2] & np.uint64(0xFF))
                part = waiting[k + 2] & np.uint64(PART << 8) != 0
                return i, i + np.int64(waiting[k + 3] >> np.uint64(32)) if part else i
        if n < len(waiting):
            break
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
def encode_words(table, prefix, bpe, counts, scratch):
    """Encodes each distinct word once and adds its ids times its count: counts int64[groups, ids]."""
    slots, _, entries, arena, state, _ = table
    _encode_slots(slots, slots.view(np.uint8), prefix, bpe, counts, scratch)
    end = 4 * state[1]
    e = np.int64(0)
    while e < end:
        e = _encode_entries(entries[:end], e, arena, prefix, bpe, counts, scratch)
        if e == end:
            break
        a, owner = entries[e], entries[e + 2] & (PART - 1)
        if 2 * entries[e + 1] + 8 > len(scratch.sym):
            scratch = new_scratch(4 * entries[e + 1] + 8)
        n = encode(arena, a, a + entries[e + 1], prefix if owner & 1 else -1, bpe, scratch, -1)
        for k in range(n):
            counts[owner >> 1, scratch.sym[k]] += entries[e + 3]
        e += 4


@compiled()
def _encode_slots(slots, text, prefix, bpe, counts, scratch):
    """The short words. slots uint64[4 * 2**k]; text: the same memory as bytes, a word at the start of its slot."""
    for p in range(0, len(slots), 4):
        meta = slots[p + 2]
        if meta == np.uint64(0):
            continue
        owner = np.int64(meta >> np.uint64(8)) & (PART - 1)
        stop = 8 * p + np.int64(meta & np.uint64(0xFF))
        n = encode_short(text, 8 * p, stop, prefix if owner & 1 else -1, bpe, scratch)
        row = counts[owner >> 1]
        for k in range(n):
            row[scratch.sym[k]] += np.int64(slots[p + 3])


@compiled()
def _encode_entries(entries, e, arena, prefix, bpe, counts, scratch):
    """Longer words from entry e on, up to one of SHORT bytes or more; returns where it stopped."""
    while e < len(entries) and entries[e + 1] < SHORT:
        a, owner = entries[e], entries[e + 2] & (PART - 1)
        n = encode_short(arena, a, a + entries[e + 1], prefix if owner & 1 else -1, bpe, scratch)
        row = counts[owner >> 1]
        for k in range(n):
            row[scratch.sym[k]] += entries[e + 3]
        e += 4
    return e


@compiled()
def look_up(table, data, offsets, out):
    """data uint8[bytes], offsets int64[words + 1] of some words -> out int64[groups, words]: how often each occurs.

    Occurrences after the prefix are included.
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
    h = (low ^ (meta * MIX)) * GOLDEN  # as in _fill, which is slower if it calls a function for this
    h = (h ^ (h >> np.uint64(32)) ^ high) * MIX
    s = (h ^ (h >> np.uint64(29))) & mask
    while True:
        p = np.int64(s) * 4
        if slots[p + 2] == np.uint64(0):
            return np.int64(0)
        if slots[p + 2] == meta and slots[p] == low and slots[p + 1] == high:
            return np.int64(slots[p + 3])
        s = (s + np.uint64(1)) & mask


@compiled()
def _look_up_long(data, a, n, owner, table):
    _, slots, entries, arena, _, _ = table
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
    """Removes all words."""
    table.slots[2::4] = 0
    table.long_slots[:] = 0
    table.state[:] = 0
