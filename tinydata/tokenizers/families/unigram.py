"""Unigram: SentencePiece models of that type (T5, mT5), and `tokenizer.json` with model Unigram (XLM-R).

The segmentation with the best sum of scores is chosen. Removing pieces does not change the scores of the
others, so text that was segmented without the removed pieces is segmented as before.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tinydata.tokenizers.base import NORMAL, SPACE
from tinydata.tokenizers.families.converted import unigram_files
from tinydata.tokenizers.families.matching import Matching
from tinydata.tokenizers.families.sentencepiece import SentencePiece
from tinydata.tokenizers.families.tokenizer_json import TokenizerJson
from tinydata.tokenizers.kernels.matching import Matcher, new_matcher

_NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
WHY_NOT = "unigram segments a text as a whole"


def _spellable(removable: np.ndarray, characters: list[str], fallback: bool) -> np.ndarray:
    """removable bool[ids], fallback: bytes spell any character -> without pieces that would become unknown."""
    if fallback:
        return removable
    kept = {t for t, r in zip(characters, removable.tolist(), strict=True) if not r and len(t) == 1}
    return removable & np.array([set(t) <= kept for t in characters])


class SentencePieceUnigram(Matching, SentencePiece):
    """A SentencePiece model of type unigram."""

    family = "sentencepiece-unigram"
    why_not = WHY_NOT

    @property
    def main(self) -> str:  # type: ignore[override]
        return next((n for n in self.files if n in _NAMES), "spiece.model")

    def characters(self) -> list[str]:
        texts = [t if kind == NORMAL else "" for t, kind in zip(self._texts, self.kinds.tolist(), strict=False)]
        return texts + [""] * (self.size - len(texts))

    def as_matched(self, pieces: list[bytes]) -> list[bytes]:
        return [p.replace(b" ", SPACE.encode()) for p in pieces]

    @cached_property
    def matcher(self) -> Matcher:  # type: ignore[override]
        """Normal pieces by their scores; user-defined ones win over all others, as in the library."""
        normal = [p.score for p in self.proto.pieces if p.type == 1]
        scores = np.zeros(self.size)
        scores[: len(self.proto.pieces)] = [p.score for p in self.proto.pieces]
        texts = {i: t for i, t in enumerate(self._texts) if self._types[i] in (1, 4)}
        for i in np.flatnonzero(self._types == 4).tolist():
            scores[i] = len(self._texts[i].encode()) * max(normal) - 0.1
        return new_matcher(texts, self.size, self.unk, self.byte_ids, scores, min(normal), single=True)

    def removable(self) -> np.ndarray:
        return _spellable(super().removable(), self.characters(), len(self.byte_ids) > 0)

    def converted(self) -> dict[str, bytes]:
        return unigram_files(self.proto)


class UnigramJson(Matching, TokenizerJson):
    """A tokenizer.json with model Unigram; an id is a position in its list."""

    family = "unigram"
    why_not = WHY_NOT

    @property
    def vocab(self) -> dict[str, int]:
        return {row[0]: i for i, row in enumerate(self.config["model"]["vocab"])}

    def text_of(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()

    def characters(self) -> list[str]:
        return [t if kind == NORMAL else "" for t, kind in zip(self.texts, self.kinds.tolist(), strict=True)]

    def as_matched(self, pieces: list[bytes]) -> list[bytes]:
        return [p.replace(b" ", SPACE.encode()) for p in pieces]

    @property
    def unk(self) -> int:
        unk = self.config["model"].get("unk_id")
        return -1 if unk is None else unk

    @cached_property
    def matcher(self) -> Matcher:  # type: ignore[override]
        rows = self.config["model"]["vocab"]
        scores = np.zeros(self.size)
        scores[: len(rows)] = [score for _, score in rows]
        texts = {i: t for i, t in enumerate(self.characters()) if t}
        worst = min(score for _, score in rows)
        return new_matcher(texts, self.size, max(self.unk, 0), self.byte_ids, scores, worst)

    def removable(self) -> np.ndarray:
        return _spellable(super().removable(), self.characters(), len(self.byte_ids) > 0)
