"""symbols int32[n] -> ids int32[m]: the merge procedure of BPE, compiled, over one pair table.

Byte-level BPE starts from bytes, SentencePiece BPE from characters; from there both do the same: merge
the adjacent pair of best priority, the leftmost of equals, until none is left. Priority is the merge's
rank (byte-level) or the rank of the result's score, the same for equal scores (SentencePiece;
InternLM has 12,753 pieces with equal scores).

Sources: Sennrich et al. 2016; google/sentencepiece src/bpe_model.cc; huggingface/tokenizers
models/bpe/word.rs. Checked against both libraries in tests/tokenizers/.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import cached, compiled, inlined

NONE = np.int64(1) << np.int64(62)  # the value of a pair that does not merge
SHORT = 48  # symbols up to which scanning for the best pair beats a heap
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


class Pairs(NamedTuple):
    """Open-addressing table of (left, right) -> priority << 32 | result."""

    table: np.ndarray  # uint64[2 * slots]: key, value, key, value, ...
    shift: np.uint64  # 64 - log2(slots)


class Symbols(NamedTuple):
    """How text becomes the first symbols, and how the last symbols become ids.

    Symbols below `size` are token ids; `size + k` is a character that only occurs inside pieces.
    """

    by_byte: np.ndarray  # int32[256], byte-level only
    by_char: np.ndarray  # int32[0x110000], SentencePiece only (empty otherwise); -1: in no piece
    char_of: np.ndarray  # int32[symbols], code point of a one-character symbol, else -1
    byte_ids: np.ndarray  # int32[256], fallback of characters without a piece; empty: no fallback
    unk: int  # id of a run of such characters without fallback
    size: int  # number of token ids


class BPE(NamedTuple):
    """A BPE model as the kernels take it."""

    symbols: Symbols
    pairs: Pairs


class Scratch(NamedTuple):
    """Working memory of the merge procedure, at least 2 + bytes of the word each."""

    sym: np.ndarray  # int32[n], afterwards the ids
    value: np.ndarray  # int64[n]
    chars: np.ndarray  # int32[n]


@cached()
def new_scratch(n):
    """Scratch for words of up to n - 2 bytes."""
    return Scratch(np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int32))


def build_pairs(left: np.ndarray, right: np.ndarray, priority: np.ndarray, result: np.ndarray) -> Pairs:
    """int arrays [m] -> Pairs; the table is at most half full."""
    bits = max(4, int(np.ceil(np.log2(max(len(left), 1) * 2))))
    table = np.full(2 << bits, EMPTY, np.uint64)
    shift = np.uint64(64 - bits)
    keys = (left.astype(np.uint64) << np.uint64(32)) | right.astype(np.uint64)
    values = (priority.astype(np.uint64) << np.uint64(32)) | result.astype(np.uint64)
    _insert(table, shift, keys, values)
    return Pairs(table, shift)


@compiled()
def _insert(table, shift, keys, values):
    mask = np.uint64(len(table) // 2 - 1)
    for i in range(len(keys)):
        s = (keys[i] * GOLDEN) >> shift
        while table[2 * s] != EMPTY and table[2 * s] != keys[i]:
            s = (s + np.uint64(1)) & mask
        if table[2 * s] == EMPTY or values[i] < table[2 * s + np.uint64(1)]:
            table[2 * s] = keys[i]
            table[2 * s + np.uint64(1)] = values[i]


@inlined()
def merge_of_pair(pairs, left, right):
    """priority << 32 | result, or NONE."""
    if left < 0 or right < 0:
        return NONE
    key = (np.uint64(left) << np.uint64(32)) | np.uint64(right)
    mask = np.uint64(len(pairs.table) // 2 - 1)
    s = (key * GOLDEN) >> pairs.shift
    while True:
        k = pairs.table[np.uint64(2) * s]
        if k == key:
            return np.int64(pairs.table[np.uint64(2) * s + np.uint64(1)])
        if k == EMPTY:
            return NONE
        s = (s + np.uint64(1)) & mask


@inlined()
def merge_short(sym, n, value, pairs, banned):
    """sym int32[n], in place -> new n. Never produces `banned`. O(n^2), the faster way up to SHORT symbols."""
    for i in range(n - 1):
        v = merge_of_pair(pairs, sym[i], sym[i + 1])
        value[i] = NONE if (v & 0xFFFFFFFF) == banned and v != NONE else v
    while n > 1:
        best, at = NONE >> 32, -1
        for i in range(n - 1):
            if value[i] >> 32 < best:
                best, at = value[i] >> 32, i
        if at < 0:
            break
        sym[at] = np.int32(value[at] & 0xFFFFFFFF)
        n -= 1
        for i in range(at + 1, n):
            sym[i] = sym[i + 1]
            value[i - 1] = value[i]
        for i in range(max(at - 1, 0), min(at + 1, n - 1)):
            v = merge_of_pair(pairs, sym[i], sym[i + 1])
            value[i] = NONE if (v & 0xFFFFFFFF) == banned and v != NONE else v
    return n


@compiled()
def _push(heap, n, key):
    i = n
    while i > 0 and heap[(i - 1) >> 1] > key:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = key
    return n + 1


@compiled()
def _pop(heap, n):
    """Removes the smallest; heap[n-1] is overwritten -> n - 1."""
    n -= 1
    key = heap[n]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = key
    return n


@cached()
def merge_long(sym, n, pairs, banned):
    """The same with a heap of priority << 32 | position: O(n log n), for long runs without a cut."""
    nxt = np.empty(n, np.int64)
    prev = np.empty(n, np.int64)
    for i in range(n):
        nxt[i], prev[i] = i + 1, i - 1
    heap = np.empty(3 * n, np.int64)
    size = np.int64(0)  # not 0: numba compiles _push for that number, and for others
    for i in range(n - 1):
        v = merge_of_pair(pairs, sym[i], sym[i + 1])
        if v != NONE and (v & 0xFFFFFFFF) != banned:
            size = _push(heap, size, ((v >> 32) << 32) | i)
    while size > 0:
        key = heap[0]
        size = _pop(heap, size)
        i = key & 0xFFFFFFFF
        j = nxt[i]
        if j == -1 or j >= n:  # i was merged into its left neighbor, or is the last symbol
            continue
        v = merge_of_pair(pairs, sym[i], sym[j])
        if v == NONE or v >> 32 != key >> 32 or (v & 0xFFFFFFFF) == banned:
            continue
        sym[i] = np.int32(v & 0xFFFFFFFF)
        nxt[i] = nxt[j]
        nxt[j] = -1
        if nxt[i] < n:
            prev[nxt[i]] = i
            v = merge_of_pair(pairs, sym[i], sym[nxt[i]])
            if v != NONE and (v & 0xFFFFFFFF) != banned:
                size = _push(heap, size, ((v >> 32) << 32) | i)
        if prev[i] >= 0:
            v = merge_of_pair(pairs, sym[prev[i]], sym[i])
            if v != NONE and (v & 0xFFFFFFFF) != banned:
                size = _push(heap, size, ((v >> 32) << 32) | prev[i])
    m = 0
    i = 0
    while i < n:
        sym[m] = sym[i]
        m += 1
        i = nxt[i]
    return m


@inlined()
def char_at(data, i):
    """UTF-8 at i -> (code point, bytes). The text is valid UTF-8: Arrow strings are."""
    b = data[i]
    if b < 0x80:
        return np.int32(b), 1
    if b < 0xE0:
        return np.int32(((b & 0x1F) << 6) | (data[i + 1] & 0x3F)), 2
    if b < 0xF0:
        return np.int32(((b & 0x0F) << 12) | ((data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F)), 3
    return (
        np.int32(
            ((b & 0x07) << 18) | ((data[i + 1] & 0x3F) << 12) | ((data[i + 2] & 0x3F) << 6) | (data[i + 3] & 0x3F)
        ),
        4,
    )


@cached()
def encode(data, start, stop, prefix, bpe, scratch, banned):
    """Bytes [start, stop) of one word -> ids in scratch.sym[:n]; returns n.

    prefix: a symbol before the first (SentencePiece's dummy prefix) or -1. banned: an id that is never
    produced, or -1. Characters that remain without a piece become their bytes, or one `unk` per run.
    """
    sym, value, chars = scratch
    n = first_symbols(data, start, stop, prefix, bpe.symbols, sym)
    if n > 1:
        n = merge_short(sym, n, value, bpe.pairs, banned) if n <= SHORT else merge_long(sym, n, bpe.pairs, banned)
    return as_ids(sym, n, bpe.symbols, banned, chars)


@inlined()
def first_symbols(data, start, stop, prefix, symbols, sym):
    """Bytes, or the prefix and characters -> sym[:n]; returns n."""
    n = 0
    if len(symbols.by_char) == 0:
        for i in range(start, stop):
            sym[n] = symbols.by_byte[data[i]]
            n += 1
    else:
        if prefix >= 0:
            sym[n] = prefix
            n += 1
        i = start
        while i < stop:
            c, w = char_at(data, i)
            s = symbols.by_char[c]
            sym[n] = s if s >= 0 else -1 - c  # a character in no piece carries itself
            n += 1
            i += w
    return n


@inlined()
def as_ids(sym, n, symbols, banned, chars):
    """Symbols after merging -> ids, in place; returns how many."""
    whole = True
    for i in range(n):
        if sym[i] < 0 or sym[i] >= symbols.size or sym[i] == banned:
            whole = False
    if whole:
        return n
    for i in range(n):
        chars[i] = sym[i]
    return spell_unknown(chars, n, symbols, banned, sym)


@compiled()
def spell_unknown(chars, n, symbols, banned, out):
    """Symbols without an id -> their UTF-8 bytes, or one unk per run; returns how many ids."""
    m = 0
    unknown = False
    for i in range(n):
        s = chars[i]
        if s >= 0 and s < symbols.size and s != banned:
            out[m] = s
            m += 1
            unknown = False
            continue
        if len(symbols.byte_ids) == 0:  # SentencePiece: a run of unknown characters is one unk
            if not unknown:
                out[m] = symbols.unk
                m += 1
            unknown = True
            continue
        c = -1 - s if s < 0 else symbols.char_of[s]
        if c < 0x80:
            out[m] = symbols.byte_ids[c]
            m += 1
        elif c < 0x800:
            out[m] = symbols.byte_ids[0xC0 | (c >> 6)]
            out[m + 1] = symbols.byte_ids[0x80 | (c & 0x3F)]
            m += 2
        elif c < 0x10000:
            out[m] = symbols.byte_ids[0xE0 | (c >> 12)]
            out[m + 1] = symbols.byte_ids[0x80 | ((c >> 6) & 0x3F)]
            out[m + 2] = symbols.byte_ids[0x80 | (c & 0x3F)]
            m += 3
        else:
            out[m] = symbols.byte_ids[0xF0 | (c >> 18)]
            out[m + 1] = symbols.byte_ids[0x80 | ((c >> 12) & 0x3F)]
            out[m + 2] = symbols.byte_ids[0x80 | ((c >> 6) & 0x3F)]
            out[m + 3] = symbols.byte_ids[0x80 | (c & 0x3F)]
            m += 4
    return m
