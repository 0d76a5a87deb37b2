"""documents -> HELDOUT: those set aside by hash, stored as text so that vocabularies can be measured on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core import schema
from tinydata.formats.base import Split
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.decoder import decoder

HELDOUT_BYTES = 64 << 20
_WAITING = 1 << 19  # token ids decoded at once


def text_share(splits: list[Split]) -> float:
    """Splits -> share of documents whose text is collected: twice what fills HELDOUT_BYTES."""
    return min(1.0, 2 * HELDOUT_BYTES / max(sum(s.bytes for s in splits), 1))


class Slice:
    """Held-out documents of one task: `add` batches, then take the `table`. At most 2 * HELDOUT_BYTES in memory."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._waiting: list[tuple[int, str, str, np.ndarray]] = []  # rows with ids in place of text
        self._ids = 0  # in _waiting
        self._texts: list[pa.RecordBatch] = []
        self._bytes = 0  # in _texts

    def add(self, batch: pa.RecordBatch, rows: np.ndarray, hashes: np.ndarray) -> None:
        """Documents `rows` int[m] of a batch of TEXT or TOKENS, with their hashes uint64[m]."""
        signed = (hashes >> np.uint64(1)).tolist()
        labels = batch.column("domain")
        names = labels.dictionary.to_pylist()
        domains = [names[i] for i in labels.indices.to_numpy()[rows].tolist()]
        if "text" in batch.schema.names:
            self._store(signed, _doc_ids(batch, rows), domains, batch.column("text").take(pa.array(rows)))
            return
        body = batch.column("ids")
        offsets, values = body.offsets.to_numpy(), body.values.to_numpy()
        documents = [values[offsets[r] : offsets[r + 1]].copy() for r in rows.tolist()]
        self._waiting += zip(signed, _doc_ids(batch, rows), domains, documents, strict=True)
        self._ids += sum(map(len, documents))
        if self._ids > _WAITING:
            self._decode()

    def table(self) -> pa.Table:
        """The documents with the lowest hashes -> HELDOUT."""
        self._decode()
        return lowest(pa.Table.from_batches(self._texts, schema.HELDOUT))

    def _decode(self) -> None:
        if not self._waiting:
            return
        hashes, doc_ids, domains, documents = zip(*self._waiting, strict=True)
        offsets = np.cumsum([0, *map(len, documents)])
        texts = decoder(self._tokenizer).texts(np.concatenate(documents), offsets, np.arange(len(documents)))
        self._store(hashes, doc_ids, domains, texts)
        self._waiting, self._ids = [], 0

    def _store(
        self, hashes: Sequence[int], doc_ids: Sequence[str], domains: Sequence[str], texts: pa.StringArray
    ) -> None:
        columns = [pa.array(hashes, pa.int64()), pa.array(doc_ids, pa.string()), pa.array(domains, pa.string()), texts]
        self._texts.append(pa.RecordBatch.from_arrays(columns, schema=schema.HELDOUT))
        self._bytes += texts.nbytes
        if self._bytes > 2 * HELDOUT_BYTES:
            self._texts = lowest(pa.Table.from_batches(self._texts)).to_batches()
            self._bytes = sum(b.column("text").nbytes for b in self._texts)


def _doc_ids(batch: pa.RecordBatch, rows: np.ndarray) -> list[str]:
    """Document ids of the corpus or, where it has none, FILE:POSITION."""
    name = batch.schema.metadata[b"name"].decode()
    places = batch.column("position").to_numpy()[rows].tolist()
    given = batch.column("doc_id")
    if given.null_count == len(given):
        return [f"{name}:{p}" for p in places]
    return [d or f"{name}:{p}" for d, p in zip(given.take(pa.array(rows)).to_pylist(), places, strict=True)]


def lowest(texts: pa.Table) -> pa.Table:
    """HELDOUT -> its documents of lowest hash, at most HELDOUT_BYTES of text: independent of grouping."""
    by = ("hash", "doc_id", "domain", "text")  # all of them: a document may be in two domains
    texts = texts.combine_chunks().sort_by([(c, "ascending") for c in by])  # in chunks it takes five times as long
    size = np.cumsum(pc.binary_length(texts["text"]).fill_null(0).to_numpy())
    return texts.slice(0, int(np.searchsorted(size, HELDOUT_BYTES, side="right")))
