"""documents of text -> counts int64[groups, ids], word by word where that is exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.kernels import buffers, cached
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.kernels.bpe import char_at, encode, new_scratch
from tinydata.tokenizers.kernels.cutters import Place, part_at
from tinydata.tokenizers.kernels.lanes import new_lanes
from tinydata.tokenizers.kernels.memory import HIGH_BITS, load8
from tinydata.tokenizers.kernels.merge_tree import join
from tinydata.tokenizers.kernels.words import clear, count_words, encode_words, look_up, new_table, settle


class TextCounter:
    """Counts token ids per group. Memory: one table (44 MB) and one row of counts per group."""

    def __init__(self, tokenizer: Tokenizer, bits: int = 20, words_first: bool = True):
        """bits: log2 of the table's slots; words_first: count word by word where the tokenizer has a cutter."""
        self.tokenizer = tokenizer
        self.counts = np.zeros((1, tokenizer.size), np.int64)
        self.cutter = tokenizer.cutter if words_first else None
        self._table = new_table(bits) if self.cutter else None
        self._scratch = new_scratch(1 << 12) if self.cutter else None
        self._lanes = new_lanes() if self.cutter else None
        self._whole = _whole_words(tokenizer) if self.cutter else None

    def grow(self, groups: int) -> None:
        """Makes room for at least `groups` groups."""
        if groups > len(self.counts):
            more = np.zeros((groups - len(self.counts), self.tokenizer.size), np.int64)
            self.counts = np.concatenate([self.counts, more])

    def add(self, texts: pa.StringArray, groups: np.ndarray) -> None:
        """Counts texts string[docs], each in its group: groups int32[docs]."""
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
        """-> counts int64[groups, ids] of everything added."""
        if self.cutter is not None:
            self._flush()
        return self.counts

    def _add_special(self, texts: list[str], groups: np.ndarray) -> None:
        normalized = [normalize(self.tokenizer, text) for text in texts]
        by_library = [i for i, text in enumerate(normalized) if text is None]
        by_words = [i for i, text in enumerate(normalized) if text is not None]
        if by_library:
            self._encode([texts[i] for i in by_library], groups[by_library])
        if by_words:
            self._words(pa.array([normalized[i] for i in by_words], pa.string()), groups[by_words])

    def _encode(self, texts: list[str], groups: np.ndarray) -> None:
        for ids, group in zip(self.tokenizer.encode(texts), groups, strict=True):
            self.counts[group] += np.bincount(np.array(ids, np.int64), minlength=self.tokenizer.size)

    def _words(self, texts: pa.StringArray, groups: np.ndarray) -> None:
        offsets, data = buffers(texts)
        place = Place(0, -1, -1, True)
        while True:
            before = place
            place = Place(*count_words(data, offsets, groups, place, self.cutter, self._table, self.counts))
            if place.doc == len(groups):
                return
            self._flush()
            if place == before:
                place = self._part_alone(data, place, offsets[place.doc : place.doc + 2].tolist(), groups)

    def _part_alone(self, data: np.ndarray, place: Place, bounds: list[int], groups: np.ndarray) -> Place:
        """Counts a part that is longer than the table's arena; returns where the next one begins."""
        end, word, prefix = part_at(data, place, *bounds, self.cutter)
        whole = place.at >= place.word and end == word
        self._count_part(data[place.at : end], whole, prefix, int(groups[place.doc]))
        return Place(place.doc, end, word, False)

    def _count_part(self, part: np.ndarray, whole: bool, prefix: int, group: int) -> None:
        token = self.tokenizer.whole_words.get(part.tobytes(), -1) if whole else -1
        if token >= 0:
            self.counts[group, token] += 1
            return
        scratch = new_scratch(2 * len(part) + 16)
        k = encode(part, 0, len(part), prefix, self.tokenizer.bpe, scratch, -1)
        self.counts[group] += np.bincount(scratch.sym[:k], minlength=self.tokenizer.size)

    def _flush(self) -> None:
        assert self.cutter is not None and self._table is not None
        settle(self._table)
        encode_words(
            self._table, self.cutter.sections.prefix, self.tokenizer.bpe, self.counts, self._scratch, self._lanes
        )
        if self._whole:
            occurrences = np.zeros((len(self.counts), len(self._whole.ids)), np.int64)
            look_up(self._table, self._whole.data, self._whole.offsets, occurrences)
            self.counts[:, self._whole.ids] += occurrences
            np.subtract.at(self.counts.T, self._whole.parts, occurrences.T[self._whole.word])
        clear(self._table)


def special_documents(tokenizer: Tokenizer, texts: pa.StringArray) -> np.ndarray:
    """bool[docs]: text that must be normalized before it is cut into words, or that only the library can encode."""
    out = np.zeros(len(texts), np.bool_)
    if tokenizer.may_change is not None:
        offsets, data = buffers(texts)
        _flag(data, offsets, tokenizer.may_change, out)
    if tokenizer.library_only:
        import pyarrow.compute as pc

        for string in tokenizer.library_only:
            out |= pc.match_substring(texts, string).to_numpy(zero_copy_only=False)
    return out


def normalize(tokenizer: Tokenizer, text: str) -> str | None:
    """The text to cut into words; None: only the library can encode it."""
    return None if any(s in text for s in tokenizer.library_only) else tokenizer.normalize(text)


class _WholeWords(NamedTuple):
    """Words that are looked up instead of merged.

    All words are merged, then the result is corrected for these: so the others cost nothing more.
    """

    ids: np.ndarray  # int64[words]
    data: np.ndarray  # uint8[bytes]
    offsets: np.ndarray  # int64[words + 1]
    parts: np.ndarray  # int32[...]: the ids that merging gives for them, concatenated
    word: np.ndarray  # int64[...]: the word that each part belongs to


def _whole_words(tokenizer: Tokenizer) -> _WholeWords | None:
    if not tokenizer.whole_words:
        return None
    spelled = tokenizer.spell(list(tokenizer.whole_words))
    ids = np.fromiter(tokenizer.whole_words.values(), np.int64)
    word = np.repeat(np.arange(len(ids)), [len(s) for s in spelled])
    return _WholeWords(ids, *join(list(tokenizer.whole_words)), np.concatenate(spelled), word)


@cached()
def _flag(data, offsets, may_change, out):
    """may_change uint8[0x110000] -> out bool[docs]: the document contains such a character."""
    ascii = not may_change[:128].any()  # no ASCII character changes: eight bytes of them are passed over at once
    for doc in range(len(out)):
        i = np.int64(offsets[doc])
        stop = np.int64(offsets[doc + 1])
        while i < stop:
            if ascii and i + 8 <= stop and load8(data, i) & HIGH_BITS == np.uint64(0):
                i += 8
                continue
            c, w = char_at(data, i)
            if may_change[c]:
                out[doc] = True
                break
            i += w
