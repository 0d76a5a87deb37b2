"""Unit (about 64 MB of the corpus) -> its part, documents of new ids end to end: the first step of `encode`."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core import schema
from tinydata.core.documents import Sums, document_ids, sums_by_domain, total_by_domain
from tinydata.core.hashing import document_hashes, shuffle_keys
from tinydata.core.kernels import gather
from tinydata.core.location import Location, Sink, table_bytes
from tinydata.core.quarantine import note
from tinydata.engines.base import Tell
from tinydata.formats.base import Split
from tinydata.formats.corpus import read
from tinydata.tokenizers.open import loaded
from tinydata.tokenizers.special_tokens import Edges, frame
from tinydata.verbs.encode.encoders import BatchEncoder, BatchRewriter, rewriter_of

ENDINGS = (".ids", ".mask", ".docs")  # of a part's files
_PART = pa.schema([*schema.DOCUMENTS, ("length", pa.int64()), ("key", pa.uint64())])


class Job(NamedTuple):
    """Everything a worker needs."""

    files: dict[str, bytes]  # of the target tokenizer
    idmap: bytes
    learned: bytes
    big: dict[str, bytes]  # files of the tokenizer that produced the ids; may be empty
    text: bool
    edges: Edges
    to: str  # format of the shards
    seed: int  # of the shuffle; -1: none
    parts: str
    place: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if loaded(self.files).size < 1 << 16 else np.int32)

    @property
    def shuffled(self) -> bool:
        return self.seed >= 0


def encode_unit(job: Job, splits: list[Split], number: int, tell: Tell) -> dict[str, Any]:
    """One unit -> its part; returns its sums for the manifest."""
    where = Location.of(job.parts)
    with (where / f"{number:07d}.ids").stream(summed=False) as out:
        part = Part(job, out)
        for split in splits:
            for batch in read(split, partial(note, part.bad, split.path)):
                part.add(batch)
            tell(split.bytes)
        return part.finish(where, number)


class _Mask(NamedTuple):
    """The mask of the tokens from `start` on; tokens that no mask covers have a loss."""

    start: int
    flags: np.ndarray  # bool[n]


class Part:
    """Documents of one unit, encoded. Ids go to `out` at once; shuffled or without `out`, they stay in memory."""

    def __init__(self, job: Job, out: Sink | None = None):
        self._job, self._out, self._dtype = job, out, job.dtype
        self._encoder = _encoder_of(job)
        self.bad = self._encoder.bad
        self.tokens = 0
        self.ids: list[np.ndarray] = [np.empty(0, self._dtype)]
        self._masks: list[_Mask] = []
        self._lengths: list[np.ndarray] = [np.empty(0, np.int64)]
        self._keys: list[np.ndarray] = [np.empty(0, np.uint64)]
        self._documents: list[pa.Table] = [schema.DOCUMENTS.empty_table()]
        self._domains: Sums = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Batch of TEXT or TOKENS, as the job says."""
        ids, ends, mask, before, good = self._encoder.encode(batch)
        if not good.all():
            batch, before = batch.filter(pa.array(good)), before[good]
            ends = np.concatenate([ends[:1], ends[1:][good]])
        if self._job.edges != Edges():
            ids, mask = self._framed(ids, ends, mask)
        if self._out and not self._job.shuffled:
            self._out.write(np.ascontiguousarray(ids, self._dtype))
        else:
            self.ids.append(ids.astype(self._dtype))
        if mask is not None:
            self._masks.append(_Mask(self.tokens, mask.copy()))
        self.tokens += len(ids)
        lengths = np.diff(ends)
        self._lengths.append(lengths)
        self._documents.append(documents_of(batch))
        if self._job.shuffled:
            self._keys.append(shuffle_keys(document_hashes(batch), np.uint64(self._job.seed)))
        else:
            self._keys.append(np.zeros(len(batch), np.uint64))
        ones = np.ones(len(batch), np.int64)
        sums = sums_by_domain(batch.column("domain"), documents=ones, before=before, tokens=lengths)
        self._domains = total_by_domain([self._domains, sums])

    def _framed(
        self, ids: np.ndarray, ends: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The documents with a token at their begin and end, as the job says; `ends` is changed in place."""
        room = len(ids) + 2 * len(ends)
        out, flags = np.empty(room, ids.dtype), np.empty(room, np.bool_)
        given = np.zeros(0, np.bool_) if mask is None else mask
        in_front = self._job.to == "llmc"  # its end-of-text token
        n = frame(ids, ends, given, *self._job.edges, in_front, out, flags)
        return out[:n], None if mask is None else flags[:n]

    def finish(self, where: Location, number: int) -> dict[str, Any]:
        """Writes the remaining files of the part; returns its sums."""
        assert self._out is not None
        lengths, keys = np.concatenate(self._lengths), np.concatenate(self._keys)
        documents = pa.concat_tables(self._documents)
        mask = self._mask()
        begins = (np.cumsum(lengths) - lengths)[lengths > 0]
        if self._job.shuffled:
            order = np.argsort(keys, kind="stable")
            self._out.write(gather(np.concatenate(self.ids), lengths, order))
            mask = gather(mask, lengths, order) if self._masks else mask
            lengths, keys, documents = lengths[order], keys[order], documents.take(pa.array(order))
        if self._masks:
            with (where / f"{number:07d}.mask").stream(summed=False) as out:
                out.write(mask.view(np.uint8))
        table = pa.table([*documents.columns, lengths, keys], schema=_PART)
        (where / f"{number:07d}.docs").write(table_bytes(table, "none"))  # read once, soon
        return {
            "documents": len(lengths),
            "tokens": self.tokens,
            "longest": int(lengths.max(initial=0)),
            "last": int(begins[-1]) if len(begins) else -1,  # where the last document that is not empty begins
            "masked": int(mask.sum()),
            "domains": self._domains,
            "sample": self._encoder.sample,
            "differed": self._encoder.differed,
            "bad": [list(b) for b in self.bad],
        }

    def _mask(self) -> np.ndarray:
        """bool[tokens]; empty if nothing is masked."""
        mask = np.zeros(self.tokens if self._masks else 0, np.bool_)
        for start, flags in self._masks:
            mask[start : start + len(flags)] = flags
        return mask


def _encoder_of(job: Job) -> BatchEncoder | BatchRewriter:
    tok = loaded(job.files)
    if job.text:
        return BatchEncoder(tok)
    big = loaded(job.big) if job.big else None
    return BatchRewriter(tok, big, rewriter_of(tok, job.idmap, job.learned, job.dtype))


def documents_of(batch: pa.RecordBatch) -> pa.Table:
    """TEXT or TOKENS -> DOCUMENTS."""
    return pa.table([document_ids(batch), batch.column("domain").cast(pa.string())], schema=schema.DOCUMENTS)
