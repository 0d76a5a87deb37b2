"""Unit (about 64 MB of the corpus) -> its part, documents of new ids end to end: the first step of `encode`."""

from __future__ import annotations

from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinydata.core import schema
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.hashing import document_hashes, shuffle_keys
from tinydata.core.kernels import gather
from tinydata.core.location import Location, Sink, table_bytes
from tinydata.core.quarantine import Unusable, excerpt, note
from tinydata.engines.base import Tell
from tinydata.formats.base import Split
from tinydata.formats.corpus import read
from tinydata.tokenizers.base import CONTROL, Tokenizer
from tinydata.tokenizers.decoder import decoder
from tinydata.tokenizers.open import loaded
from tinydata.tokenizers.special_tokens import Edges, frame
from tinydata.tokenizers.text_encoder import TextEncoder, exact
from tinydata.verbs.encode.rewrite import Rewriter, id_map, identity, learned

CHECKED = (8, 1 << 16)  # documents and bytes of text per unit that are compared with the library
COMPARED = (64, 1 << 19)  # documents and ids per unit that are compared with encoding their text
# what was compared: documents, those equal to encoding their text, tokens after rewriting and after encoding the text;
# and of the first of them the old tokens, and how many the big tokenizer encodes their text to
SAMPLE = ("documents", "equal", "tokens", "tokens_anew", "tokens_old", "tokens_old_anew")
ENDINGS = (".ids", ".mask", ".docs")  # of a part's files
_PART = pa.schema([*schema.DOCUMENTS, ("length", pa.int64()), ("key", pa.uint64())])


class Job(NamedTuple):
    """Everything a worker needs."""

    files: dict[str, bytes]
    idmap: bytes
    learned: bytes
    big: dict[str, bytes]
    text: bool
    edges: Edges
    to: str  # format of the shards
    seed: int  # of the shuffle; -1: none
    parts: str
    place: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if loaded(self.files).size < 1 << 16 else np.int32)


@cache
def _encoder(tok: Tokenizer, words_first: bool) -> TextEncoder:
    return TextEncoder(tok, words_first)


@cache
def _whole(tok: Tokenizer) -> str:
    return exact(tok)


@lru_cache(maxsize=2)
def _rewriter(tok: Tokenizer, idmap: bytes, taught: bytes, dtype: np.dtype) -> Rewriter:
    if not idmap:
        return Rewriter(identity(tok.size), dtype)
    merges = learned(_parquet(taught), tok.bpe.pairs) if taught else None
    try:
        return Rewriter(id_map(_parquet(idmap), tok.size), dtype, merges)
    except ValueError as e:
        raise TinydataError(
            f"idmap.parquet is damaged: {e}", fix="create the vocabulary again with `tinydata compact`", code=UNREADABLE
        ) from None


def _parquet(content: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(content))


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


class Part:
    """Documents of one unit, encoded. Ids go to `out` at once; shuffled or without `out`, they stay in memory."""

    def __init__(self, job: Job, out: Sink | None = None):
        self.job = job
        self.out = out
        self.tokens = 0
        self.tok = loaded(job.files)
        self.words_first = job.text and not _whole(self.tok)
        self.ids: list[np.ndarray] = [np.empty(0, job.dtype)]
        self.masks: list[tuple[int, np.ndarray]] = []  # where it begins, and it
        self.lengths: list[np.ndarray] = [np.empty(0, np.int64)]
        self.keys: list[np.ndarray] = [np.empty(0, np.uint64)]
        self.labels: list[pa.Table] = [schema.DOCUMENTS.empty_table()]
        self.before = 0
        self.by_domain: dict[str, list[int]] = {}  # documents, tokens before or bytes of text, tokens
        self.sample = dict.fromkeys(SAMPLE, 0) | {"size": 0}
        self.differed = ""
        self.bad: list[Unusable] = []

    def add(self, batch: pa.RecordBatch) -> None:
        ids, ends, mask, before, good = (self._from_text if self.job.text else self._from_ids)(batch)
        if not good.all():  # unusable documents came out empty
            batch, before = batch.filter(pa.array(good)), before[good]
            ends = np.concatenate([ends[:1], ends[1:][good]])
        if self.job.edges != Edges():
            ids, mask = self._framed(ids, ends, mask)
        if self.out and self.job.seed < 0:
            self.out.write(np.ascontiguousarray(ids, self.job.dtype))
        else:
            self.ids.append(ids.astype(self.job.dtype))
        if mask is not None:
            self.masks.append((self.tokens, mask.copy()))
        self.tokens += len(ids)
        lengths = np.diff(ends)
        self.lengths.append(lengths)
        self.labels.append(labels(batch))
        if self.job.seed >= 0:
            self.keys.append(shuffle_keys(document_hashes(batch), np.uint64(self.job.seed)))
        else:
            self.keys.append(np.zeros(len(batch), np.uint64))
        domain = batch.column("domain")
        for k, name in enumerate(domain.dictionary.to_pylist()):
            mine = domain.indices.to_numpy() == k
            sums = int(mine.sum()), int(before[mine].sum()), int(lengths[mine].sum())
            self.by_domain[name] = [a + b for a, b in zip(self.by_domain.get(name, [0, 0, 0]), sums, strict=True)]

    def _from_text(self, batch: pa.RecordBatch) -> tuple[Any, ...]:
        """TEXT -> (ids, ends, no mask, bytes of each document, all good)."""
        texts = batch.column("text")
        sizes = pc.binary_length(texts).to_numpy().astype(np.int64)
        ids, ends = _encoder(self.tok, self.words_first).encode(texts)
        if self.words_first and not self._same(texts, sizes, ids, ends):
            self.words_first, self.differed = False, batch.schema.metadata[b"path"].decode()
            ids, ends = _encoder(self.tok, False).encode(texts)
        return ids, ends, None, sizes, np.ones(len(texts), np.bool_)

    def _same(self, texts: pa.StringArray, sizes: np.ndarray, ids: np.ndarray, ends: np.ndarray) -> bool:
        """Compares the unit's first documents with the library."""
        rows = self._take(sizes, *CHECKED)
        reference = self.tok.encode([texts[i].as_py() for i in rows])
        return all(ids[ends[i] : ends[i + 1]].tolist() == r for i, r in zip(rows, reference, strict=True))

    def _take(self, sizes: np.ndarray, documents: int, most: int) -> list[int]:
        """Which of these documents are in the sample of the unit; very long ones are not."""
        rows: list[int] = []
        for i, size in enumerate(sizes.tolist()):
            if self.sample["documents"] >= documents or self.sample["size"] >= most:
                break
            if 0 <= size <= most:
                self.sample["documents"] += 1
                self.sample["size"] += size
                rows.append(i)
        return rows

    def _from_ids(self, batch: pa.RecordBatch) -> tuple[Any, ...]:
        """TOKENS -> (new ids, ends, mask, tokens of each document before, which are good)."""
        values, offsets = _flat(batch.column("ids"))
        given = _flat(batch.column("mask"))[0] if "mask" in batch.schema.names else None
        if given is not None and not given.any():
            given = None
        rewriter = _rewriter(self.tok, self.job.idmap, self.job.learned, self.job.dtype)
        ids, ends, mask, wrong = rewriter.rewrite(values, offsets, given)
        path = batch.schema.metadata[b"path"].decode()
        for i in np.flatnonzero(wrong >= 0).tolist():
            limit = len(rewriter.map.packed)
            reason = f"token id {abs(int(values[wrong[i]]))} is outside the vocabulary of {limit}"
            near = excerpt(str(values[offsets[i] : min(offsets[i] + 16, offsets[i + 1])].tolist()).encode())
            place = batch.column("position")[i].as_py()
            self.bad.append(Unusable(path, place, reason, near, batch.column("doc_id")[i].as_py()))
        before = np.diff(offsets).astype(np.int64)
        if self.job.big:
            self._compare(values, offsets, ids, ends, np.where(wrong < 0, before, -1))
        return ids, ends, mask, before, wrong < 0

    def _compare(
        self, values: np.ndarray, offsets: np.ndarray, ids: np.ndarray, ends: np.ndarray, sizes: np.ndarray
    ) -> None:
        """Raises TinydataError if a sampled document changed its text; compares its ids with encoding the text."""
        rows = self._take(sizes, *COMPARED)
        if not rows:
            return
        big = loaded(self.job.big)
        for i in rows:
            old, new = np.abs(values[offsets[i] : offsets[i + 1]]), ids[ends[i] : ends[i + 1]]
            a, b = _inner(big, old)
            c, d = _inner(self.tok, new)
            text, again = _text(big, old[a:b]), _text(self.tok, new[c:d])
            if text != again:
                raise TinydataError(
                    f"a rewritten document decodes to a different text: {excerpt(again.encode())!r}",
                    where=f"document {i} of a batch; its text was {excerpt(text.encode())!r}",
                    fix="pass the vocabulary that was derived from the tokenizer of these ids",
                )
            direct, _ = _encoder(self.tok, not _whole(self.tok)).encode(pa.array([text]))
            self.sample["tokens"] += d - c
            self.sample["tokens_anew"] += len(direct)
            self.sample["equal"] += int(direct.tolist() == new[c:d].tolist())
            if self.sample["tokens_old"] < CHECKED[1]:
                self.sample["tokens_old"] += b - a
                self.sample["tokens_old_anew"] += len(big.encode([text])[0])

    def _framed(
        self, ids: np.ndarray, ends: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        room = len(ids) + 2 * len(ends)
        out, flags = np.empty(room, ids.dtype), np.empty(room, np.bool_)
        given = np.zeros(0, np.bool_) if mask is None else mask
        n = frame(ids, ends, given, *self.job.edges, self.job.to == "llmc", out, flags)  # there, eos goes in front
        return out[:n], None if mask is None else flags[:n]

    def finish(self, where: Location, number: int) -> dict[str, Any]:
        """Writes the remaining files of the part; returns its sums."""
        assert self.out is not None
        lengths, keys = np.concatenate(self.lengths), np.concatenate(self.keys)
        documents = pa.concat_tables(self.labels)
        mask = np.zeros(self.tokens if self.masks else 0, np.bool_)
        for at, some in self.masks:
            mask[at : at + len(some)] = some
        begins = (np.cumsum(lengths) - lengths)[lengths > 0]
        if self.job.seed >= 0:
            order = np.argsort(keys, kind="stable")
            self.out.write(gather(np.concatenate(self.ids), lengths, order))
            mask = gather(mask, lengths, order) if self.masks else mask
            lengths, keys, documents = lengths[order], keys[order], documents.take(pa.array(order))
        if self.masks:
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
            "domains": self.by_domain,
            "sample": self.sample,
            "differed": self.differed,
            "bad": [list(b) for b in self.bad],
        }


def _flat(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Lists -> (their values, offsets from 0): a batch may be a part of a larger one, and its columns apart."""
    offsets = lists.offsets.to_numpy()
    first, last = int(offsets[0]), int(offsets[-1])
    return lists.values.slice(first, last - first).to_numpy(zero_copy_only=False), offsets - offsets[0]


def labels(batch: pa.RecordBatch) -> pa.Table:
    """TEXT or TOKENS -> DOCUMENTS: document ids of the corpus or, where it has none, FILE:POSITION; and domains."""
    name = batch.schema.metadata[b"name"].decode()
    places = pc.binary_join_element_wise(pa.scalar(name), batch.column("position").cast(pa.string()), ":")
    doc_id = pc.coalesce(batch.column("doc_id"), places)
    return pa.table([doc_id, batch.column("domain").cast(pa.string())], schema=schema.DOCUMENTS)


def _inner(tok: Tokenizer, ids: np.ndarray) -> tuple[int, int]:
    """Where the ids of a document begin and end, without the control tokens around them."""
    plain = np.flatnonzero(tok.kinds[ids] != CONTROL)
    return (int(plain[0]), int(plain[-1]) + 1) if len(plain) else (0, 0)


def _text(tok: Tokenizer, ids: np.ndarray) -> str:
    return decoder(tok).texts(ids, np.array([0, len(ids)]), np.array([0]))[0].as_py()
