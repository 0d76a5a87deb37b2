"""big and compact tokenizer, held-out text -> the trade-off: what the smaller vocabulary costs and saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.tokenizers.base import BYTE, Tokenizer
from tinydata.tokenizers.probe import agrees
from tinydata.tokenizers.text_counter import TextCounter
from tinydata.verbs.compact.prune import real_size

SAMPLE = (256, 2 << 20)  # documents and bytes of held-out text that are encoded and decoded with the library


class Heldout:
    """Held-out text by domain, and its token counts under the big tokenizer or any subset of it."""

    def __init__(self, texts: pa.Table, big: Tokenizer):
        self.big = big
        self.domains = sorted(set(texts["domain"].to_pylist()))
        self.texts = texts["text"].combine_chunks() if len(texts) else pa.array([], pa.string())
        if isinstance(self.texts, pa.ChunkedArray):
            self.texts = self.texts.chunk(0)
        at = {d: i for i, d in enumerate(self.domains)}
        self.groups = np.array([at[d] for d in texts["domain"].to_pylist()], np.int32)
        self.bytes = np.bincount(
            self.groups, pc.binary_length(self.texts).to_numpy(zero_copy_only=False), len(self.domains)
        ).astype(np.int64)
        self.measurable = len(self.texts) > 0
        self.tokens = self.count(big) if self.measurable else np.zeros((0, big.size), np.int64)

    def count(self, tokenizer: Any) -> np.ndarray:
        """Tokenizer -> how often each id occurs in the held-out text, int64[domains, ids]."""
        counter = TextCounter(tokenizer, words_first=bool(agrees(tokenizer, self._probe())))
        counter.grow(len(self.domains))
        counter.add(self.texts, self.groups)
        return counter.finish()

    def _probe(self) -> list[str]:
        return [t.as_py() for t in self.texts[:8] if len(t.as_py()) < 1 << 16]

    def sample(self) -> list[str]:
        """The first documents, within SAMPLE."""
        size = np.cumsum(pc.binary_length(self.texts).to_numpy(zero_copy_only=False))
        n = min(SAMPLE[0], max(1, int(np.searchsorted(size, SAMPLE[1]))), len(self.texts))
        return self.texts[:n].to_pylist()

    def inflation(self, keep: np.ndarray) -> float:
        """keep bool[ids] -> tokens with only the kept pieces / tokens with all pieces, - 1."""
        return float(self.count(self.big.subset(np.flatnonzero(keep))).sum() / max(self.tokens.sum(), 1) - 1)


def measure(
    big: Tokenizer, small: Tokenizer, keep: np.ndarray, train: np.ndarray, heldout: Heldout, d_model: int
) -> dict[str, Any]:
    """Both tokenizers on the held-out text, by domain; train int64[ids] -> the trade-off as JSON."""
    dead = int((~small.tree().reachable).sum()) + _only_whole_words(big, small, keep)
    tradeoff: dict[str, Any] = {
        "ids": {"before": real_size(big), "after": small.size, "removed": real_size(big) - small.size},
        "coverage": float(train[keep].sum() / max(train.sum(), 1)),
        "dead_pieces": {"before": int((~big.tree().reachable).sum()), "after": dead},
        "d_model": d_model,
        "embedding_and_head_parameters": {
            "before": 2 * real_size(big) * d_model,
            "after": 2 * small.size * d_model,
        },
        "heldout": None,
    }
    if not heldout.measurable:
        return tradeoff
    after = heldout.count(small)
    rows = []
    for d, name in enumerate(heldout.domains):
        rows.append({"domain": name, **_lengths(heldout.tokens[d], after[d], int(heldout.bytes[d]), big, small)})
    total = _lengths(heldout.tokens.sum(0), after.sum(0), int(heldout.bytes.sum()), big, small)
    texts = heldout.sample()
    before_ids, after_ids = big.encode(texts), small.encode(texts)
    tradeoff["heldout"] = {
        **total,
        "documents": len(heldout.texts),
        "domains": sorted(rows, key=lambda r: -r["inflation"]),
        "round_trip": {
            "documents": len(texts),
            "before": sum(big.decode(i) == t for i, t in zip(before_ids, texts, strict=True)),
            "after": sum(small.decode(i) == t for i, t in zip(after_ids, texts, strict=True)),
            "same_text": sum(big.decode(a) == small.decode(b) for a, b in zip(before_ids, after_ids, strict=True)),
        },
    }
    return tradeoff


def _only_whole_words(big: Tokenizer, small: Tokenizer, keep: np.ndarray) -> int:
    """Number of pieces that were merged before and are now only matched as whole words: they are dead inside words."""
    before = set(big.whole_words.values())
    old = big.order(np.flatnonzero(keep))
    return sum(int(old[i]) not in before for i in small.whole_words.values())


def _lengths(before: np.ndarray, after: np.ndarray, size: int, big: Tokenizer, small: Tokenizer) -> dict[str, Any]:
    a, b = int(before.sum()), int(after.sum())
    return {
        "bytes": size,
        "tokens_before": a,
        "tokens_after": b,
        "inflation": b / a - 1 if a else 0.0,
        "bytes_per_token_before": size / a if a else 0.0,
        "bytes_per_token_after": size / b if b else 0.0,
        "byte_tokens_before": float(before[_byte_ids(big)].sum() / a) if a else 0.0,
        "byte_tokens_after": float(after[_byte_ids(small)].sum() / b) if b else 0.0,
        "unknown_before": int(before[big.unk]) if big.unk >= 0 else 0,
        "unknown_after": int(after[small.unk]) if small.unk >= 0 else 0,
    }


def _byte_ids(tok: Tokenizer) -> np.ndarray:
    """bool[ids]: single bytes that are only a part of a character."""
    return (tok.kinds == BYTE) & np.array([len(p) == 1 and p[0] >= 0x80 for p in tok.pieces])
