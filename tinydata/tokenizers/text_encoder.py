"""documents of text -> ids, word by word where that is exact: the ids of a word come from a cache, or go into it.

The cache is direct-mapped and bounded: a word of up to 16 bytes with its ids fills one cache line,
and a new word replaces the old one in its line. A word that does not fit is encoded each time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import buffers, cached, compiled, inlined
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.kernels import lanes
from tinydata.tokenizers.kernels.bpe import BPE, SHORT, Scratch, encode, new_scratch
from tinydata.tokenizers.kernels.cutters import is_prefixed, part_end, section, word_end
from tinydata.tokenizers.kernels.lanes import Lanes, new_lanes
from tinydata.tokenizers.kernels.memory import load16, prefetch
from tinydata.tokenizers.kernels.merge_tree import join
from tinydata.tokenizers.kernels.words import mixed
from tinydata.tokenizers.probe import why_whole
from tinydata.tokenizers.text_counter import normalize, special_documents

LINE = 8  # uint64 in a line: bytes 0-7, bytes 8-15, ids << 16 | after the prefix << 8 | length (0: free), ids
MOST = 10  # ids in a line
PART = np.uint64(0x80)  # added to the length: a part of a word, which is not looked up whole
WAITING = lanes.COUNT  # words whose lines are fetched from memory while the next ones are cut
# how a waiting word gets its ids, if not from a lane
CACHED, WHOLE = np.uint64(1 << 62), np.uint64(1 << 61)
_COLUMNS = 6


class WordCache(NamedTuple):
    """Words and their ids."""

    lines: np.ndarray  # uint64[LINE * 2**k]
    ids: np.ndarray  # the same memory as int32: two in each uint64
    waiting: np.ndarray  # uint64[6 * WAITING]: bytes 0-7, bytes 8-15, prefix << 8 | length, line, start, lane


class WholeWords(NamedTuple):
    """Words that are looked up instead of merged, and their ids; open addressing by a hash of the bytes."""

    slots: np.ndarray  # int64[2**k]: entry + 1 (0: free)
    ids: np.ndarray  # int32[n]
    data: np.ndarray  # uint8[bytes]
    offsets: np.ndarray  # int64[n + 1]


class WordEncoder(NamedTuple):
    """Everything that turns one word into ids."""

    bpe: BPE
    whole: WholeWords
    cache: WordCache
    scratch: Scratch
    lanes: Lanes


def new_whole_words(words: dict[bytes, int]) -> WholeWords:
    """{bytes: id} -> WholeWords."""
    slots = np.zeros(2 << max(len(words), 1).bit_length(), np.int64)
    data, offsets = join(list(words))
    _insert(slots, data, offsets)
    return WholeWords(slots, np.array(list(words.values()), np.int32), data, offsets)


def new_cache(bits: int = 18) -> WordCache:
    """Room for 2**bits words: 16 MB at 18. Its lines are aligned with the processor's cache lines."""
    memory = np.zeros((LINE << bits) + LINE, np.uint64)
    skip = -(memory.ctypes.data // 8) % LINE
    lines = memory[skip : skip + (LINE << bits)]
    return WordCache(lines, lines.view(np.int32), np.zeros(_COLUMNS * WAITING, np.uint64))


class TextEncoder:
    """text -> ids, equal to the library's. Memory: the cache, and 4 bytes of output per byte of one batch's text."""

    def __init__(self, tokenizer: Tokenizer, words_first: bool = True, bits: int = 18):
        """words_first: encode word by word where the tokenizer has a cutter; bits: log2 of the cache's words."""
        self.tokenizer = tokenizer
        self.cutter = tokenizer.cutter if words_first else None
        self._encoder = _word_encoder(tokenizer, bits) if self.cutter else None
        self._out = np.empty(0, np.int32)

    def encode(self, texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """string[docs] -> (ids int32[n], ends int64[docs + 1]); the next call overwrites the ids."""
        if self.cutter is None:
            return _concatenated(self.tokenizer.encode(texts.to_pylist()))
        special = special_documents(self.tokenizer, texts)
        if not special.any():
            return self._by_words(texts)
        rows, by_library = texts.to_pylist(), np.zeros(len(texts), np.bool_)
        for i in np.flatnonzero(special).tolist():
            normalized = normalize(self.tokenizer, rows[i])
            by_library[i] = normalized is None
            rows[i] = rows[i] if normalized is None else normalized
        library_rows = iter(self.tokenizer.encode([rows[i] for i in np.flatnonzero(by_library)]))
        rest = ["" if skip else text for text, skip in zip(rows, by_library, strict=True)]
        ids, ends = self._by_words(pa.array(rest, pa.string()))
        return _concatenated(
            [next(library_rows) if by_library[i] else ids[ends[i] : ends[i + 1]] for i in range(len(rows))]
        )

    def _by_words(self, texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        offsets, data = buffers(texts)
        size = int(offsets[-1] - offsets[0]) + 2 * len(texts) + 16
        if len(self._out) < size:
            self._out = np.empty(size, np.int32)
        ends = np.zeros(len(texts) + 1, np.int64)
        encode_documents(data, offsets, self.cutter, self._encoder, self._out, ends)
        return self._out[: ends[-1]], ends


def _word_encoder(tokenizer: Tokenizer, bits: int) -> WordEncoder:
    return WordEncoder(
        tokenizer.bpe, new_whole_words(tokenizer.whole_words), new_cache(bits), new_scratch(1 << 12), new_lanes()
    )


def _concatenated(rows: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of each document -> (ids int32[n], ends int64[docs + 1])."""
    ends = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(r) for r in rows], out=ends[1:])
    ids = np.empty(int(ends[-1]), np.int32)
    for row, a, b in zip(rows, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        ids[a:b] = row
    return ids, ends


@cached()
def _insert(slots, data, offsets):
    for e in range(len(offsets) - 1):
        s = _hash(data, offsets[e], offsets[e + 1]) & np.uint64(len(slots) - 1)
        while slots[np.int64(s)]:
            s = (s + np.uint64(1)) & np.uint64(len(slots) - 1)
        slots[np.int64(s)] = e + 1


@inlined()
def _hash(data, start, stop):
    h = np.uint64(stop - start)
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * GOLDEN
        h ^= h >> np.uint64(29)
    return h


@compiled()
def _whole_word(data, start, stop, whole):
    """Id of the word, or -1."""
    if len(whole.ids) == 0:
        return np.int32(-1)
    s = _hash(data, start, stop) & np.uint64(len(whole.slots) - 1)
    while whole.slots[np.int64(s)]:
        e = whole.slots[np.int64(s)] - 1
        a = whole.offsets[e]
        if whole.offsets[e + 1] - a == stop - start:
            k = 0
            while k < stop - start and whole.data[a + k] == data[start + k]:
                k += 1
            if k == stop - start:
                return whole.ids[e]
        s = (s + np.uint64(1)) & np.uint64(len(whole.slots) - 1)
    return np.int32(-1)


@cached()
def encode_documents(data, offsets, cut, encoder, out, ends):
    """data uint8[bytes], offsets int[docs + 1] -> out int32[n], ends int64[docs + 1].

    out has room for one token per byte and two more per document: only the prefix is shorter than a byte.
    """
    scratch = encoder.scratch
    n = np.int64(0)
    for doc in range(len(ends) - 1):
        start, stop = np.int64(offsets[doc]), np.int64(offsets[doc + 1])
        i = word = start
        while i < stop:
            end, token, after = section(data, i, stop, cut.sections)
            prefix = cut.sections.prefix if is_prefixed(data, i, end, i == start, cut.sections) else -1
            if prefix >= 0 and end == i:  # the prefix alone
                out[n] = prefix
                n += 1
            while i < end:
                begin = i
                i, word, n = _encode_short_words(data, i, end, word, prefix, cut, encoder, out, n)
                if i > begin:
                    prefix = -1
                if i >= end:
                    break
                part = i < word
                if not part:
                    word = word_end(data, i, end, cut)
                j = part_end(data, i, word, cut)
                part |= j < word
                token_of_word = np.int32(-1) if part else _whole_word(data, i, j, encoder.whole)
                if token_of_word >= 0:
                    out[n] = token_of_word
                    n += 1
                else:
                    if 2 * (j - i) + 8 > len(scratch.sym):
                        scratch = new_scratch(4 * (j - i) + 16)
                    k = encode(data, i, j, prefix, encoder.bpe, scratch, -1)
                    for m in range(k):  # not a slice: numba compiles the message of its shape error, 1.4 s
                        out[n + m] = scratch.sym[m]
                    n += k
                prefix = -1
                i = j
            if token >= 0:
                out[n] = token
                n += 1
            i = after
        ends[doc + 1] = n
    return n


@compiled()
def _encode_short_words(data, i, end, word, prefix, cut, encoder, out, n):
    """Words of [i, end) -> out[n:]; returns (where it stopped: end, or a part of SHORT bytes or more; its word's
    end; n)."""
    lines, _, waiting = encoder.cache
    mask = np.uint64(len(lines) // LINE - 1)
    long = False
    begin = i
    while i < end and not long:
        w = 0
        while w < len(waiting) and i < end:
            part = i < word
            if not part:
                word = word_end(data, i, end, cut)
            j = part_end(data, i, word, cut)
            size = j - i
            if size >= SHORT:
                long = True
                word = word if part else i  # the next look at it must see that it begins here
                break
            first = np.uint64(prefix >= 0 and i == begin)
            meta = (first << np.uint64(8)) | np.uint64(size)
            if part or j < word:
                meta |= PART
            waiting[w + 2], waiting[w + 4] = meta, np.uint64(i)
            if size <= 16:
                low, high = load16(data, i, size)
                line = (mixed(low, high, meta) & mask) * np.uint64(LINE)
                waiting[w], waiting[w + 1], waiting[w + 3] = low, high, line
                prefetch(lines, np.int64(line))
            w += _COLUMNS
            i = j
        _merge_waiting(data, w, prefix, encoder)
        n = _write_waiting(w, encoder, out, n)
    return i, word, n


@compiled()
def _merge_waiting(data, w, prefix, encoder):
    """The words of waiting[:w] that are neither cached nor looked up whole are merged, at the same time."""
    lines, _, waiting = encoder.cache
    lane = np.int64(0)
    for k in range(0, w, _COLUMNS):
        meta = waiting[k + 2]
        size = np.int64(meta & (PART - np.uint64(1)))
        if size <= 16:
            p = np.int64(waiting[k + 3])
            same = lines[p] == waiting[k] and lines[p + 1] == waiting[k + 1]
            if same and lines[p + 2] & np.uint64(0xFFFF) == meta:
                waiting[k + 5] = CACHED
                continue
        start = np.int64(waiting[k + 4])
        token = np.int32(-1) if meta & PART else _whole_word(data, start, start + size, encoder.whole)
        if token >= 0:
            waiting[k + 5] = WHOLE | np.uint64(token)
        else:
            lead = prefix if meta >> np.uint64(8) else -1
            lanes.start(data, start, start + size, lead, encoder.bpe, encoder.lanes, lane)
            waiting[k + 5] = np.uint64(lane)
            lane += 1
    lanes.merge_all(lane, encoder.bpe.pairs, encoder.lanes)


@compiled()
def _write_waiting(w, encoder, out, n):
    """The words of waiting[:w] -> out[n:], and those that were merged -> the cache; returns the new n."""
    lines, ids, waiting = encoder.cache
    sym = encoder.scratch.sym
    for k in range(0, w, _COLUMNS):
        how = waiting[k + 5]
        if how == CACHED:
            p = np.int64(waiting[k + 3])
            count = np.int64(lines[p + 2] >> np.uint64(16))
            for m in range(2 * (p + 3), 2 * (p + 3) + count):
                out[n] = ids[m]
                n += 1
            continue
        waiting[k + 4] = np.uint64(n)
        if how & WHOLE:
            out[n] = np.int32(how & ~WHOLE)
            n += 1
        else:
            for m in range(lanes.ids_of(np.int64(how), encoder.bpe.symbols, encoder.scratch, encoder.lanes)):
                out[n] = sym[m]
                n += 1
        waiting[k + 5] = np.uint64(n) - waiting[k + 4]
    for k in range(0, w, _COLUMNS):  # not before all are written: a line may be wanted by another one
        count, meta = np.int64(waiting[k + 5]), waiting[k + 2]
        if count <= MOST and meta & (PART - np.uint64(1)) <= np.uint64(16):
            p, at = np.int64(waiting[k + 3]), np.int64(waiting[k + 4])
            lines[p], lines[p + 1] = waiting[k], waiting[k + 1]
            lines[p + 2] = (np.uint64(count) << np.uint64(16)) | meta
            for m in range(count):
                ids[2 * (p + 3) + m] = out[at + m]
    return n


def agrees(tokenizer: Tokenizer, texts: list[str]) -> bool:
    """Whether encoding word by word gives the library's own ids on these texts."""
    if tokenizer.cutter is None:
        return False
    ids, ends = TextEncoder(tokenizer, bits=8).encode(pa.array(texts, pa.string()))
    reference = tokenizer.encode(texts)
    return all(ids[ends[i] : ends[i + 1]].tolist() == row for i, row in enumerate(reference))


def exact(tokenizer: Tokenizer) -> str:
    """Why the library must encode all text; empty: encoding word by word gives the same ids."""
    return why_whole(tokenizer, agrees)
