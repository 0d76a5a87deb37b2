"""Families that match the longest or cheapest pieces (WordPiece, unigram): what spells a piece without it."""

from __future__ import annotations

from itertools import pairwise
from typing import NoReturn

import numpy as np

from tinydata.tokenizers.kernels.implied_merges import code_points
from tinydata.tokenizers.kernels.matching import Matcher, fall_back, match_all, remove_pieces, scratch_of
from tinydata.tokenizers.kernels.merge_tree import Tree


class Matching:
    """Mixin of the families that match: what they answer from their `matcher`, and no words first."""

    size: int
    matcher: Matcher
    cutter = None
    unsafe = None
    odd: list[str] = []  # noqa: RUF012 - a constant
    whole_words: dict[bytes, int] = {}  # noqa: RUF012 - a constant

    def normal(self, text: str) -> None:
        """Only `encode` can tell."""

    @property
    def symbols(self) -> NoReturn:
        raise NotImplementedError("this family does not merge")

    @property
    def pairs(self) -> NoReturn:
        raise NotImplementedError("this family does not merge")

    def characters(self) -> list[str]:
        """Of each id the text that is matched; empty for what never is."""
        raise NotImplementedError

    def tree(self) -> Tree:
        texts = self.characters()
        chars, offsets = code_points(texts)
        out = np.empty(4 * len(chars) + self.size + 8, np.int32)
        ends = np.zeros(self.size + 1, np.int64)
        reachable = np.zeros(self.size, np.bool_)
        scratch = scratch_of(offsets)
        fall_back(self.matcher, chars, offsets, np.ones(self.size, np.bool_), scratch, out, ends, reachable)
        return Tree(ends, out[: ends[-1]].copy(), reachable)

    def spell(self, pieces: list[bytes]) -> list[np.ndarray]:
        texts = [p.decode("utf-8", "surrogateescape") for p in self.as_matched(pieces)]
        chars, offsets = code_points(texts)
        out = np.empty(4 * len(chars) + len(pieces) + 8, np.int32)
        ends = np.zeros(len(pieces) + 1, np.int64)
        match_all(self.matcher, chars, offsets, np.ones(self.size, np.bool_), scratch_of(offsets), out, ends)
        return [out[a:b] for a, b in pairwise(ends)]

    def as_matched(self, pieces: list[bytes]) -> list[bytes]:
        """Bytes in text -> as the trie spells them."""
        return pieces


def cheapest_first(
    matching: Matching, count: np.ndarray, may: np.ndarray, turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """count int64[ids], may bool[ids] (removable), turn int[ids] -> (removed int32[n], what each costs int64[n]).

    Again and again the piece goes whose count x (pieces that spell it now, less one) is least, lower
    turns before all others, those below 0 for nothing, of equals the later id. Its count flows to what spells it.
    """
    chars, offsets = code_points(matching.characters())
    removed = np.empty(int(may.sum()), np.int32)
    cost = np.empty(len(removed), np.int64)
    remove_pieces(
        matching.matcher, chars, offsets, count.copy(), may, turn.astype(np.int64), scratch_of(offsets), removed, cost
    )
    return removed, cost
