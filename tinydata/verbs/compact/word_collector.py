"""documents of text -> their distinct words, with counts per group: the input of BPE training."""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core.kernels import cached
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.kernels.cutters import Cutter, PairCuts, RunCuts
from tinydata.tokenizers.kernels.regexes import LETTER, NUMBER, SPACE
from tinydata.tokenizers.kernels.words import clear, settle
from tinydata.tokenizers.text_counter import TextCounter


@dataclass(frozen=True)
class Words:
    """Distinct words, and for each its groups: row r says that word[r] occurs count[r] times in group[r]."""

    data: np.ndarray  # uint8[...]: the words, end to end
    offsets: np.ndarray  # int64[words + 1]
    first: np.ndarray  # bool[words]: at the start of a document
    word: np.ndarray  # int32[rows]
    group: np.ndarray  # int32[rows]
    count: np.ndarray  # int64[rows]

    def __len__(self) -> int:
        return len(self.first)

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """weights float64[groups] -> int64[words]: counts, each times the weight of its group."""
        sums = np.bincount(self.word, self.count * weights[self.group], len(self))
        return np.maximum(np.rint(sums), sums > 0).astype(np.int64)


class _Keys(NamedTuple):
    """The words of one full table."""

    keys: pa.Array  # large_binary[n]: a byte that says whether it is at the start of a document, and the word
    group: np.ndarray  # int32[n]
    counts: np.ndarray  # int64[n]


class WordCollector(TextCounter):
    """As TextCounter, but it keeps the words; documents that only the library can encode are left out."""

    def __init__(self, tokenizer: Tokenizer, bits: int = 21):
        super().__init__(tokenizer, bits)
        if self.cutter is not None:
            self.cutter = learning_cutter(self.cutter)
        self._tables: list[_Keys] = []

    def words(self) -> Words:
        """All words that were added, in the order of their bytes; the collector is empty afterwards."""
        self._flush()
        keys, group, count = zip(*self._tables, strict=True)
        self._tables = []
        encoded = pa.chunked_array(keys, pa.large_binary()).combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0)
        order = pc.sort_indices(encoded.dictionary).to_numpy()
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        sorted_keys = encoded.dictionary.take(pa.array(order))
        _, offsets, data = sorted_keys.buffers()
        starts = np.frombuffer(offsets, np.int64, len(sorted_keys) + 1)
        content = np.frombuffer(data, np.uint8) if data.size else np.zeros(1, np.uint8)
        first = content[starts[:-1]].astype(np.bool_)
        words, ends = _without_flags(content, starts)
        word = rank[encoded.indices.to_numpy()]
        return Words(words, ends, first, word, np.concatenate(group), np.concatenate(count))

    def _encode(self, texts: list[str], groups: np.ndarray) -> None:
        """Documents that only the library can encode."""

    def _count_part(self, part: np.ndarray, whole: bool, prefix: int, group: int) -> None:
        """A word that is longer than the table's arena is left out."""

    def _flush(self) -> None:
        assert self._table is not None
        table = self._table
        settle(table)
        short_words, long_words, arena_bytes, _ = table.state.tolist()
        n = short_words + long_words
        out, ends = np.empty(16 * short_words + arena_bytes + n + 8, np.uint8), np.zeros(n + 1, np.int64)
        group, count = np.empty(n, np.int32), np.empty(n, np.int64)
        entries = table.entries[: 4 * long_words]
        _copy_words(table.slots, table.slots.view(np.uint8), entries, table.arena, out, ends, group, count)
        data = pa.py_buffer(out[: ends[-1]].copy())
        keys = pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(ends), data])
        self._tables.append(_Keys(keys, group, count))
        clear(table)


@cached()
def _copy_words(slots, slot_bytes, entries, arena, out, ends, group, count):
    """The words of a table (no parts), as `words.Table` has them -> out uint8[...], ends, group and count of each.

    In front of each word there is a byte that says whether the word is at the start of a document.
    """
    w = 0
    at = np.int64(0)
    for p in range(0, len(slots), 4):
        meta = slots[p + 2]
        if meta != np.uint64(0):
            owner, n = np.int64(meta >> np.uint64(8)), np.int64(meta & np.uint64(0xFF))
            out[at] = owner & 1
            out[at + 1 : at + 1 + n] = slot_bytes[8 * p : 8 * p + n]
            at += 1 + n
            group[w], count[w] = owner >> 1, np.int64(slots[p + 3])
            w += 1
            ends[w] = at
    for e in range(0, len(entries), 4):
        a, n, owner = entries[e], entries[e + 1], entries[e + 2]
        out[at] = owner & 1
        out[at + 1 : at + 1 + n] = arena[a : a + n]
        at += 1 + n
        group[w], count[w] = owner >> 1, entries[e + 3]
        w += 1
        ends[w] = at


@cached()
def _without_flags(data, starts):
    """Keys uint8[...], starts int64[n + 1] -> (uint8[...], int64[n + 1]): the same without the first byte of each."""
    n = len(starts) - 1
    out = np.empty(max(starts[-1] - n, 1), np.uint8)
    ends = np.zeros(n + 1, np.int64)
    at = 0
    for w in range(n):
        for i in range(starts[w] + 1, starts[w + 1]):
            out[at] = data[i]
            at += 1
        ends[w + 1] = at
    return out, ends


def learning_cutter(cutter: Cutter) -> Cutter:
    """Cuts that neither old nor learned pieces cross: those of the pre-tokenizer; without one (SentencePiece) RunCuts.

    Cuts between two characters that no old piece contains together cannot be used there: most new words of Chinese
    are two such characters.
    """
    if isinstance(cutter, PairCuts):
        return RunCuts(*cutter, character_classes())
    if isinstance(cutter, RunCuts):
        return cutter
    return cutter._replace(inside=cutter.inside._replace(longest=sys.maxsize))


@cache
def character_classes() -> np.ndarray:
    """uint8[0x110000]: class of each character, OTHER, LETTER, NUMBER or SPACE; a combining mark is a LETTER."""
    table = np.zeros(0x110000, np.uint8)
    for c in range(0x33000):
        kind = unicodedata.category(chr(c))[0]
        table[c] = {"L": LETTER, "M": LETTER, "N": NUMBER}.get(kind, 0)
        if chr(c).isspace():
            table[c] = SPACE
    return table
