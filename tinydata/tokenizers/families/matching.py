"""What the families that match pieces (WordPiece, unigram) share: tree and spelling, and the order of removal."""

from __future__ import annotations

from itertools import pairwise
from typing import NoReturn

import numpy as np

from tinydata.tokenizers.kernels.implied_merges import code_points
from tinydata.tokenizers.kernels.matching import Matcher, match_all, remove_pieces, scratch_of, spell_without
from tinydata.tokenizers.kernels.merge_tree import Tree


class Matching:
    """Mixin of the families that match: tree and spelling from their `matcher`; only the library encodes text."""

    size: int
    matcher: Matcher
    cutter = None
    may_change = None
    library_only: list[str] = []  # noqa: RUF012 - a constant
    whole_words: dict[bytes, int] = {}  # noqa: RUF012 - a constant

    def normalize(self, text: str) -> None:
        """Only `encode` can encode it."""

    @property
    def bpe(self) -> NoReturn:
        raise NotImplementedError("this family does not merge")

    def characters(self) -> list[str]:
        """The text that each id matches; empty for an id that is never matched."""
        raise NotImplementedError

    def tree(self) -> Tree:
        texts = code_points(self.characters())
        out = np.empty(4 * len(texts.chars) + self.size + 8, np.int32)
        ends = np.zeros(self.size + 1, np.int64)
        reachable = np.zeros(self.size, np.bool_)
        spell_without(self.matcher, texts, scratch_of(texts.offsets), out, ends, reachable)
        return Tree(ends, out[: ends[-1]].copy(), reachable)

    def spell(self, pieces: list[bytes]) -> list[np.ndarray]:
        texts = code_points([p.decode("utf-8", "surrogateescape") for p in self.as_matched(pieces)])
        out = np.empty(4 * len(texts.chars) + len(pieces) + 8, np.int32)
        ends = np.zeros(len(pieces) + 1, np.int64)
        match_all(self.matcher, texts, scratch_of(texts.offsets), out, ends)
        return [out[a:b] for a, b in pairwise(ends)]

    def as_matched(self, pieces: list[bytes]) -> list[bytes]:
        """Bytes in text -> bytes as in the trie."""
        return pieces


def cheapest_first(
    matching: Matching, count: np.ndarray, removable: np.ndarray, turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """count int64[ids], removable bool[ids], turn int[ids] -> (removed int32[n], the cost of each int64[n]).

    Always the piece with the least count x (number of pieces that spell it now - 1) is removed, and its count is
    added to those pieces. Lower turns come first, turns below 0 cost nothing, and of equals the higher id comes first.
    """
    texts = code_points(matching.characters())
    removed = np.empty(int(removable.sum()), np.int32)
    cost = np.empty(len(removed), np.int64)
    turn, scratch = turn.astype(np.int64), scratch_of(texts.offsets)
    remove_pieces(matching.matcher, texts, count.copy(), removable, turn, scratch, removed, cost)
    return removed, cost
