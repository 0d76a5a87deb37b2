"""Batches of TEXT or TOKENS -> new ids: text is encoded, ids are rewritten; a sample is compared with the library."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinydata.core.documents import masks_by_sign, outside_vocabulary
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.quarantine import Unusable, excerpt
from tinydata.tokenizers.base import CONTROL, Tokenizer
from tinydata.tokenizers.decoder import decoder
from tinydata.tokenizers.text_encoder import TextEncoder, exact
from tinydata.verbs.encode.rewrite import Rewriter, id_map, identity, learned_merges

CHECKED = (8, 1 << 16)  # documents and bytes of text per unit that are compared with the library
COMPARED = (64, 1 << 19)  # documents and ids per unit that are compared with encoding their text
# what was compared: documents, those equal to encoding their text, tokens after rewriting and after encoding the text;
# and of the first of them the old tokens, and how many the big tokenizer encodes their text to
SAMPLE = ("documents", "equal", "tokens", "tokens_anew", "tokens_old", "tokens_old_anew")


class EncodedBatch(NamedTuple):
    """Documents as new ids, end to end; unusable ones are empty. The next batch may overwrite the arrays."""

    ids: np.ndarray  # int[n]
    ends: np.ndarray  # int64[docs + 1]
    mask: np.ndarray | None  # bool[n]: tokens without a loss; None: all have one
    before: np.ndarray  # int64[docs]: bytes of the text, or old tokens
    good: np.ndarray  # bool[docs]: usable


class _Sample:
    """Chooses the first documents of a unit within the limits; a document that alone is above the size is skipped."""

    def __init__(self, documents: int, size: int):
        self._most, self._limit = documents, size
        self.documents = self._size = 0

    def take(self, sizes: np.ndarray) -> list[int]:
        """sizes int64[docs] of the next documents (negative: unusable) -> which of them are in the sample."""
        rows: list[int] = []
        for i, size in enumerate(sizes.tolist()):
            if self.documents >= self._most or self._size >= self._limit:
                break
            if 0 <= size <= self._limit:
                self.documents += 1
                self._size += size
                rows.append(i)
        return rows


class BatchEncoder:
    """Encodes the text of one unit.

    Text is split into words unless that differs from the library for the unit's first documents; from then on,
    documents are encoded whole.
    """

    def __init__(self, tok: Tokenizer):
        self._tok = tok
        self._words_first = not _why_whole(tok)
        self._sample = _Sample(*CHECKED)
        self.differed = ""  # path of the file in which the two differed
        self.bad: list[Unusable] = []

    @property
    def sample(self) -> dict[str, int]:
        return dict.fromkeys(SAMPLE, 0) | {"documents": self._sample.documents}

    def encode(self, batch: pa.RecordBatch) -> EncodedBatch:
        """TEXT -> EncodedBatch."""
        texts = batch.column("text")
        sizes = pc.binary_length(texts).to_numpy().astype(np.int64)
        ids, ends = _encoder(self._tok, self._words_first).encode(texts)
        if self._words_first and not self._agrees(texts, sizes, ids, ends):
            self._words_first, self.differed = False, batch.schema.metadata[b"path"].decode()
            ids, ends = _encoder(self._tok, False).encode(texts)
        return EncodedBatch(ids, ends, None, sizes, np.ones(len(texts), np.bool_))

    def _agrees(self, texts: pa.StringArray, sizes: np.ndarray, ids: np.ndarray, ends: np.ndarray) -> bool:
        """Whether the sample has the same ids as the library gives."""
        rows = self._sample.take(sizes)
        reference = self._tok.encode([texts[i].as_py() for i in rows])
        return all(ids[ends[i] : ends[i + 1]].tolist() == r for i, r in zip(rows, reference, strict=True))


class BatchRewriter:
    """Rewrites the ids of one unit; with the big tokenizer, a sample is compared with encoding its text."""

    def __init__(self, tok: Tokenizer, big: Tokenizer | None, rewriter: Rewriter):
        self._tok, self._big, self._rewriter = tok, big, rewriter
        self._sample = _Sample(*COMPARED)
        self._counts = dict.fromkeys(SAMPLE, 0)
        self.differed = ""
        self.bad: list[Unusable] = []

    @property
    def sample(self) -> dict[str, int]:
        return self._counts | {"documents": self._sample.documents}

    def encode(self, batch: pa.RecordBatch) -> EncodedBatch:
        """TOKENS -> EncodedBatch; raises TinydataError if a document of the sample has another text afterwards."""
        old = _flat(batch.column("ids"))
        given = _flat(batch.column("mask")).values if "mask" in batch.schema.names else None
        if given is not None and not given.any():
            given = None
        values = old.values
        if values.dtype.kind == "i" and not masks_by_sign(batch) and len(values) and values.min() < 0:
            values = np.where(values < 0, np.iinfo(values.dtype).max, values)  # outside of any vocabulary
        new = self._rewriter.rewrite(values, old.offsets, given)
        self.bad += outside_vocabulary(batch, old.values, old.offsets, new.wrong, len(self._rewriter.map.packed))
        before, good = np.diff(old.offsets).astype(np.int64), new.wrong < 0
        if self._big:
            for i in self._sample.take(np.where(good, before, -1)):
                original = np.abs(old.values[old.offsets[i] : old.offsets[i + 1]])
                self._compare(self._big, original, new.ids[new.ends[i] : new.ends[i + 1]], i)
        return EncodedBatch(new.ids, new.ends, new.mask, before, good)

    def _compare(self, big: Tokenizer, old: np.ndarray, new: np.ndarray, number: int) -> None:
        """Old and new ids of a document: raises TinydataError unless they have the same text, and counts tokens."""
        old, new = _without_control(big, old), _without_control(self._tok, new)
        text, again = _text(big, old), _text(self._tok, new)
        if text != again:
            raise TinydataError(
                f"a rewritten document decodes to a different text: {excerpt(again.encode())!r}",
                where=f"document {number} of a batch; its text was {excerpt(text.encode())!r}",
                fix="pass the vocabulary that was derived from the tokenizer of these ids",
            )
        direct, _ = _encoder(self._tok, not _why_whole(self._tok)).encode(pa.array([text]))
        counts = self._counts
        counts["tokens"] += len(new)
        counts["tokens_anew"] += len(direct)
        counts["equal"] += int(direct.tolist() == new.tolist())
        if counts["tokens_old"] < CHECKED[1]:
            counts["tokens_old"] += len(old)
            counts["tokens_old_anew"] += len(big.encode([text])[0])


@cache
def _encoder(tok: Tokenizer, words_first: bool) -> TextEncoder:
    return TextEncoder(tok, words_first)


@cache
def _why_whole(tok: Tokenizer) -> str:
    """Why documents cannot be split into words; "" if they can."""
    return exact(tok)


@lru_cache(maxsize=2)
def rewriter_of(tok: Tokenizer, idmap: bytes, learned: bytes, dtype: np.dtype) -> Rewriter:
    """Contents of idmap.parquet and learned.parquet (both may be empty) -> Rewriter to ids of `tok`."""
    if not idmap:
        return Rewriter(identity(tok.size), dtype)
    merges = learned_merges(_parquet(learned), tok.bpe.pairs) if learned else None
    try:
        return Rewriter(id_map(_parquet(idmap), tok.size), dtype, merges)
    except ValueError as e:
        raise TinydataError(
            f"idmap.parquet is damaged: {e}", fix="create the vocabulary again with `tinydata compact`", code=UNREADABLE
        ) from None


def _parquet(content: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(content))


class _Flat(NamedTuple):
    """Lists end to end."""

    values: np.ndarray
    offsets: np.ndarray  # int[lists + 1], from 0


def _flat(lists: pa.ListArray) -> _Flat:
    """The batch may be a part of a larger one, whose offsets do not begin at 0 and may differ between columns."""
    offsets = lists.offsets.to_numpy()
    first, last = int(offsets[0]), int(offsets[-1])
    return _Flat(lists.values.slice(first, last - first).to_numpy(zero_copy_only=False), offsets - offsets[0])


def _without_control(tok: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """The ids of a document without the control tokens at its beginning and end."""
    plain = np.flatnonzero(tok.kinds[ids] != CONTROL)
    return ids[plain[0] : plain[-1] + 1] if len(plain) else ids[:0]


def _text(tok: Tokenizer, ids: np.ndarray) -> str:
    return decoder(tok).texts(ids, np.array([0, len(ids)]), np.array([0]))[0].as_py()
