"""documents of text -> counts int64[groups, ids], words first where that is exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from tinydata.core.kernels import buffers
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.kernels.bpe import char_at, encode
from tinydata.tokenizers.kernels.cutters import word_at
from tinydata.tokenizers.kernels.merge_tree import join
from tinydata.tokenizers.kernels.words import clear, count_words, encode_words, look_up, new_scratch, new_table


class TextCounter:
    """Counts token ids per group. Memory: one table (44 MB) and one row of counts per group."""

    def __init__(self, tokenizer: Tokenizer, bits: int = 20, words_first: bool = True):
        self.tokenizer = tokenizer
        self.counts = np.zeros((1, tokenizer.size), np.int64)
        self.cutter = tokenizer.cutter if words_first else None
        self._table = new_table(bits) if self.cutter else None
        self._scratch = new_scratch()
        self._whole = _whole_words(tokenizer) if self.cutter else None

    def grow(self, groups: int) -> None:
        """Room for at least `groups` groups."""
        if groups > len(self.counts):
            more = np.zeros((groups - len(self.counts), self.tokenizer.size), np.int64)
            self.counts = np.concatenate([self.counts, more])

    def add(self, texts: pa.StringArray, groups: np.ndarray) -> None:
        """texts string[docs], groups int32[docs]."""
        if self.cutter is None:
            self._encode(texts.to_pylist(), groups)
            return
        special = special_documents(self.tokenizer, texts)
        if special.any():
            self._add_special(texts.filter(pa.array(special)).to_pylist(), groups[special])
            texts, groups = texts.filter(pa.array(~special)), groups[~special]
        if len(texts):
            self._words(texts, groups)

    def finish(self) -> np.ndarray:
        """-> counts int64[groups, ids], everything encoded."""
        if self.cutter is not None:
            self._flush()
        return self.counts

    def _add_special(self, texts: list[str], groups: np.ndarray) -> None:
        whole, rest = [], []
        for i, text in enumerate(texts):
            odd = any(s in text for s in self.tokenizer.odd)
            normal = None if odd else self.tokenizer.normal(text)
            if normal is None:
                whole.append(i)
            else:
                texts[i] = normal
                rest.append(i)
        if whole:
            self._encode([texts[i] for i in whole], groups[whole])
        if rest:
            self._words(pa.array([texts[i] for i in rest], pa.string()), groups[rest])

    def _encode(self, texts: list[str], groups: np.ndarray) -> None:
        for ids, group in zip(self.tokenizer.encode(texts), groups, strict=True):
            self.counts[group] += np.bincount(np.array(ids, np.int64), minlength=self.tokenizer.size)

    def _words(self, texts: pa.StringArray, groups: np.ndarray) -> None:
        offsets, data = buffers(texts)
        doc, at = 0, -1
        while True:
            before = doc, at
            doc, at = count_words(data, offsets, groups, doc, at, self.cutter, self._table, self.counts)
            if doc == len(groups):
                return
            self._flush()
            if (doc, at) == before:
                at = self._word_alone(data, at, int(offsets[doc + 1]), int(offsets[doc]), int(groups[doc]))

    def _word_alone(self, data: np.ndarray, at: int, stop: int, first: int, group: int) -> int:
        """Encodes a word that is longer than the table's arena; returns where it ends."""
        end = word_at(data, at, stop, self.cutter)
        n = 2 * (end - at) + 16
        sym, value, chars = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int32)
        whole = self.tokenizer.whole_words.get(data[at:end].tobytes(), -1)
        if whole >= 0:
            self.counts[group, whole] += 1
            return end
        prefix = self.cutter.prefix if self.cutter and at == first else -1
        k = encode(data, at, end, prefix, self.tokenizer.symbols, self.tokenizer.pairs, sym, value, chars, -1)
        self.counts[group] += np.bincount(sym[:k], minlength=self.tokenizer.size)
        return end

    def _flush(self) -> None:
        assert self.cutter is not None and self._table is not None
        t = self.tokenizer
        encode_words(self._table, self.cutter.prefix, t.symbols, t.pairs, self.counts, self._scratch)
        if self._whole:
            found = np.zeros((len(self.counts), len(self._whole.ids)), np.int64)
            look_up(self._table, self._whole.data, self._whole.offsets, found)
            self.counts[:, self._whole.ids] += found
            np.subtract.at(self.counts.T, self._whole.parts, found.T[self._whole.word])
        clear(self._table)


def special_documents(tokenizer: Tokenizer, texts: pa.StringArray) -> np.ndarray:
    """bool[docs]: text that must be normalized, or encoded whole, before it can be cut."""
    out = np.zeros(len(texts), np.bool_)
    if tokenizer.unsafe is not None:
        offsets, data = buffers(texts)
        _flag(data, offsets, tokenizer.unsafe, out)
    if tokenizer.odd:
        import pyarrow.compute as pc

        for string in tokenizer.odd:
            out |= pc.match_substring(texts, string).to_numpy(zero_copy_only=False)
    return out


class _Whole(NamedTuple):
    """Words that are looked up: merging is undone for them once it is done for all, so that others pay nothing."""

    ids: np.ndarray  # int64[words]
    data: np.ndarray  # uint8[bytes]
    offsets: np.ndarray  # int64[words + 1]
    parts: np.ndarray  # int32[...]: what merging makes of them, one after the other
    word: np.ndarray  # int64[...]: of which


def _whole_words(tokenizer: Tokenizer) -> _Whole | None:
    if not tokenizer.whole_words:
        return None
    spelled = tokenizer.spell(list(tokenizer.whole_words))
    ids = np.fromiter(tokenizer.whole_words.values(), np.int64)
    word = np.repeat(np.arange(len(ids)), [len(s) for s in spelled])
    return _Whole(ids, *join(list(tokenizer.whole_words)), np.concatenate(spelled), word)


@njit(cache=True)
def _flag(data, offsets, unsafe, out):
    for doc in range(len(out)):
        i = np.int64(offsets[doc])
        stop = np.int64(offsets[doc + 1])
        while i < stop:
            if data[i] < 0x80:
                if unsafe[data[i]]:
                    out[doc] = True
                    break
                i += 1
            else:
                c, w = char_at(data, i)
                if unsafe[c]:
                    out[doc] = True
                    break
                i += w
