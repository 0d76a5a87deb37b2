"""documents -> HELDOUT: a share of them, chosen by hash and stored as text, to measure vocabularies on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core import schema
from tinydata.core.documents import document_ids
from tinydata.formats.base import Split
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.decoder import decoder

HELDOUT_BYTES = 64 << 20
_WAITING = 1 << 19  # token ids that are decoded together


def text_share(splits: list[Split]) -> float:
    """Splits -> share of documents whose text is collected: twice what fills HELDOUT_BYTES."""
    return min(1.0, 2 * HELDOUT_BYTES / max(sum(s.bytes for s in splits), 1))


class _Rows(NamedTuple):
    """Columns of HELDOUT but the text."""

    hashes: list[int]  # without the lowest bit, so that they fit into int64
    doc_ids: list[str]
    domains: list[str]


class HeldoutTexts:
    """Held-out documents of one task: `add` batches, then take the `table`. At most 2 * HELDOUT_BYTES in memory."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._waiting = _Rows([], [], [])  # documents whose ids are not decoded yet
        self._documents: list[np.ndarray] = []  # the ids of these
        self._ids = 0  # in _documents
        self._texts: list[pa.RecordBatch] = []
        self._bytes = 0  # in _texts

    def add(self, batch: pa.RecordBatch, rows: np.ndarray, hashes: np.ndarray) -> None:
        """Documents `rows` int[m] of a batch of TEXT or TOKENS, with their hashes uint64[m]."""
        labels = batch.column("domain")
        names = labels.dictionary.to_pylist()
        domains = [names[i] for i in labels.indices.to_numpy()[rows].tolist()]
        doc_ids = document_ids(batch.select(["doc_id", "position"]).take(pa.array(rows)), empty_is_missing=True)
        new = _Rows((hashes >> np.uint64(1)).tolist(), doc_ids.to_pylist(), domains)
        if "text" in batch.schema.names:
            self._store(new, batch.column("text").take(pa.array(rows)))
            return
        body = batch.column("ids")
        offsets, values = body.offsets.to_numpy(), body.values.to_numpy()
        documents = [values[offsets[r] : offsets[r + 1]].copy() for r in rows.tolist()]
        self._waiting.hashes.extend(new.hashes)
        self._waiting.doc_ids.extend(new.doc_ids)
        self._waiting.domains.extend(new.domains)
        self._documents += documents
        self._ids += sum(map(len, documents))
        if self._ids > _WAITING:
            self._decode()

    def table(self) -> pa.Table:
        """The documents with the lowest hashes -> HELDOUT."""
        self._decode()
        return lowest(pa.Table.from_batches(self._texts, schema.HELDOUT))

    def _decode(self) -> None:
        """Decodes the waiting documents and stores their texts."""
        if not self._documents:
            return
        offsets = np.cumsum([0, *map(len, self._documents)])
        rows = np.arange(len(self._documents))
        self._store(self._waiting, decoder(self._tokenizer).texts(np.concatenate(self._documents), offsets, rows))
        self._waiting, self._documents, self._ids = _Rows([], [], []), [], 0

    def _store(self, rows: _Rows, texts: pa.StringArray) -> None:
        columns = [pa.array(rows.hashes, pa.int64()), pa.array(rows.doc_ids, pa.string())]
        columns += [pa.array(rows.domains, pa.string()), texts]
        self._texts.append(pa.RecordBatch.from_arrays(columns, schema=schema.HELDOUT))
        self._bytes += texts.nbytes
        if self._bytes > 2 * HELDOUT_BYTES:
            self._texts = lowest(pa.Table.from_batches(self._texts)).to_batches()
            self._bytes = sum(b.column("text").nbytes for b in self._texts)


def lowest(texts: pa.Table) -> pa.Table:
    """HELDOUT -> its documents of lowest hash, at most HELDOUT_BYTES of text, however they were grouped before."""
    by = ("hash", "doc_id", "domain", "text")  # all of them: a document may be in two domains
    texts = texts.combine_chunks().sort_by([(c, "ascending") for c in by])  # in chunks it takes five times as long
    size = np.cumsum(pc.binary_length(texts["text"]).fill_null(0).to_numpy())
    return texts.slice(0, int(np.searchsorted(size, HELDOUT_BYTES, side="right")))
