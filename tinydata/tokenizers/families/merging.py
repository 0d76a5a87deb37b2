"""What the families that merge (BPE) share: symbols and pairs, the merge tree, dead pieces, and spelling."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np

from tinydata.tokenizers.base import NORMAL, SPACE, Tokenizer
from tinydata.tokenizers.families import hf_files
from tinydata.tokenizers.kernels.bpe import BPE, Pairs, Symbols, build_pairs
from tinydata.tokenizers.kernels.merge_tree import Tree, join, merge_parts, scratch_for, spell_all


class _Model(Protocol):
    @property
    def symbols(self) -> Symbols: ...
    @property
    def pairs(self) -> Pairs: ...


class Merging:
    """Mixin of the families that merge: tree and spelling from their symbols and pairs."""

    whole_words: dict[bytes, int] = {}  # noqa: RUF012 - a constant
    implied = False  # whether pieces merge because the result is a piece, not by a list

    @property
    def bpe(self: _Model) -> BPE:
        return BPE(self.symbols, self.pairs)

    def tree(self: Tokenizer) -> Tree:
        return build_tree(self)

    def spell(self: Tokenizer, pieces: list[bytes]) -> list[np.ndarray]:
        return spell(self, pieces)


def build_tree(tokenizer: Tokenizer) -> Tree:
    """A tokenizer that merges -> its Tree. 0.1 s for 103,168 pieces once compiled."""
    return merge_parts(tokenizer.pieces, tokenizer.kinds != NORMAL, tokenizer.bpe)


def dead_pieces(tokenizer: Tokenizer) -> np.ndarray:
    """Ids of the pieces that encoding their own text does not produce."""
    return np.flatnonzero(~tokenizer.tree().reachable)


def spell(tokenizer: Tokenizer, pieces: list[bytes]) -> list[np.ndarray]:
    """Bytes of each piece -> the int32 ids that encode them inside a text."""
    data, offsets = join(pieces)
    out = np.empty(4 * len(data) + len(pieces) + 8, np.int32)
    ends = np.zeros(len(pieces) + 1, np.int64)
    spell_all(data, offsets, tokenizer.bpe, scratch_for(offsets), out, ends)
    return [out[a:b] for a, b in pairwise(ends)]


def character_symbols(vocab: dict[str, int], size: int, byte_ids: np.ndarray, unk: int) -> Symbols:
    """{text: symbol}, number of ids -> the symbols of a BPE that starts from characters."""
    by_char = np.full(0x110000, -1, np.int32)
    char_of = np.full(max([size, *(i + 1 for i in vocab.values())]), -1, np.int32)
    for text, i in vocab.items():
        if len(text) == 1:
            by_char[ord(text)] = i
            char_of[i] = ord(text)
    by_char[0x20] = by_char[ord(SPACE)]
    return Symbols(np.zeros(0, np.int32), by_char, char_of, byte_ids, unk, size)


def listed_pairs(vocab: dict[str, int], merges: list[str | list[str]]) -> Pairs:
    """{text: id}, the merges of a tokenizer.json -> Pairs: the position in the list is the priority."""
    ranks = {hf_files.split_merge(m): rank for rank, m in enumerate(merges)}  # listed twice: the last one counts
    rows = [
        (vocab[left], vocab[right], rank, vocab[left + right])
        for (left, right), rank in ranks.items()
        if left in vocab and right in vocab and left + right in vocab
    ]
    return build_pairs(*np.array(rows, np.int64).reshape(-1, 4).T)
