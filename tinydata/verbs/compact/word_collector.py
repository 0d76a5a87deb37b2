"""documents of text -> their distinct words, with counts per group: the input of BPE training."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.kernels.cutters import LETTER, NUMBER, SPACE, Cutter, PairCuts, RunCuts
from tinydata.tokenizers.kernels.words import clear
from tinydata.tokenizers.text_counter import TextCounter


class Collected:
    """Distinct words, and for each its groups: row r says that word[r] occurs count[r] times in group[r]."""

    def __init__(self, data: np.ndarray, offsets: np.ndarray, first: np.ndarray, rows: tuple[np.ndarray, ...]):
        self.data, self.offsets, self.first = data, offsets, first  # as tokenizers.kernels.words has them
        self.word, self.group, self.count = rows

    def __len__(self) -> int:
        return len(self.first)

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """weights float64[groups] -> int64[words]: counts, each times the weight of its group."""
        sums = np.bincount(self.word, self.count * weights[self.group], len(self))
        return np.maximum(np.rint(sums), sums > 0).astype(np.int64)


class WordCollector(TextCounter):
    """As TextCounter, but it keeps the words; documents that only the library can encode are left out."""

    def __init__(self, tokenizer: Tokenizer, bits: int = 21):
        super().__init__(tokenizer, bits)
        if self.cutter is not None:
            self.cutter = learning_cutter(self.cutter)
        self._tables: list[tuple[pa.Array, np.ndarray, np.ndarray]] = []

    def collected(self) -> Collected:
        self._flush()
        keys = pa.chunked_array([k for k, _, _ in self._tables], pa.large_binary())
        group = np.concatenate([g for _, g, _ in self._tables])
        count = np.concatenate([c for _, _, c in self._tables])
        self._tables = []
        encoded = keys.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0)
        words = encoded.dictionary
        order = pc.sort_indices(words).to_numpy()  # whatever order they were found in
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        words = words.take(pa.array(order))
        _, offsets, data = words.buffers()
        starts = np.frombuffer(offsets, np.int64, len(words) + 1)
        bare, ends = _without_flag(np.frombuffer(data, np.uint8) if data.size else np.zeros(1, np.uint8), starts)
        first = np.frombuffer(data, np.uint8)[starts[:-1]].astype(np.bool_) if len(words) else np.zeros(0, np.bool_)
        return Collected(bare, ends, first, (rank[encoded.indices.to_numpy()], group, count))

    def _encode(self, texts: list[str], groups: np.ndarray) -> None:
        pass

    def _word_alone(self, data: np.ndarray, at: int, stop: int, first: int, group: int) -> int:
        counts, self.counts = self.counts, np.zeros_like(self.counts)
        end = super()._word_alone(data, at, stop, first, group)
        self.counts = counts
        return end

    def _flush(self) -> None:
        assert self._table is not None
        slots, _, entries, arena, state, _ = self._table
        size = int(16 * state[0] + state[0] + state[2] + state[1])
        n = int(state[0] + state[1])
        out, ends = np.empty(size + 8, np.uint8), np.zeros(n + 1, np.int64)
        group, count = np.empty(n, np.int32), np.empty(n, np.int64)
        _take(slots, slots.view(np.uint8), entries[: 4 * state[1]], arena, out, ends, group, count)
        out = out[: ends[-1]].copy()
        keys = pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(ends), pa.py_buffer(out)])
        self._tables.append((keys, group, count))
        clear(self._table)


@njit(cache=True)
def _take(slots, text, entries, arena, out, ends, group, count):
    """Words of a table -> out uint8[...], each behind a byte that says whether it opens a document."""
    w = 0
    at = np.int64(0)
    for p in range(0, len(slots), 4):
        meta = slots[p + 2]
        if meta != np.uint64(0):
            owner, n = np.int64(meta >> np.uint64(8)), np.int64(meta & np.uint64(0xFF))
            out[at] = owner & 1
            out[at + 1 : at + 1 + n] = text[8 * p : 8 * p + n]
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


@njit(cache=True)
def _without_flag(data, starts):
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
    """Where neither old nor learned pieces cross: the pre-tokenizer's cuts; without one (SentencePiece) RunCuts.

    The cuts between characters that no old piece holds side by side will not do there: most new
    words of Chinese are two such characters.
    """
    if not isinstance(cutter, PairCuts):
        return cutter
    return RunCuts(character_classes(), *cutter)


@cache
def character_classes() -> np.ndarray:
    """uint8[0x110000]: OTHER LETTER NUMBER SPACE; a combining mark belongs to its letter."""
    table = np.zeros(0x110000, np.uint8)
    for c in range(0x33000):
        kind = unicodedata.category(chr(c))[0]
        table[c] = {"L": LETTER, "M": LETTER, "N": NUMBER}.get(kind, 0)
        if chr(c).isspace():
            table[c] = SPACE
    return table
