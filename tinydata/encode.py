"""corpus -> shards: text is encoded, ids of the big tokenizer are rewritten, ids of this one pass through.

Two steps, each of which may run anywhere and be killed at any time. Units (runs of splits, which
depend on the data alone) are encoded to parts; then shards, whose bounds are known only when all
documents' lengths are, are put together from the parts. So shards are the same whatever ran where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from tinydata import __version__, count, schema
from tinydata.count import check_bad, describe, document_hashes, loaded, reasons
from tinydata.engines.base import Engine, Unit, Unusable, excerpt, map, note
from tinydata.errors import UNREADABLE, TinydataError
from tinydata.formats.base import Plan, Split, Wanted, plan, read
from tinydata.formats.write import Piece, writer
from tinydata.store import (
    MANIFEST,
    Location,
    Output,
    Sink,
    fingerprint,
    read_bytes,
    read_manifest,
    read_table,
    table_bytes,
)
from tinydata.tokenizers.base import CONTROL, Tokenizer, read_tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.decode import decoder
from tinydata.tokenizers.edges import Edges, edges, end_of_text, frame
from tinydata.tokenizers.encode import TextEncoder, exact
from tinydata.tokenizers.rewrite import Rewriter, id_map, identity, learned

UNIT_BYTES = 64 << 20  # of input; the least that is done again after a kill
SHARD_TOKENS = 1 << 27  # 256 MB of uint16
CHECKED = (8, 1 << 16)  # documents and bytes of text per unit that are compared with the library
COMPARED = (64, 1 << 19)  # documents and ids per unit that are compared with encoding anew
PIECE = 1 << 22  # tokens moved at once
FEWEST = 64  # documents per shuffled shard, on average: so that none is empty
_STEM = {"llmc": "train_{:06d}"}  # what llm.c and modded-nanogpt look for
_PART = pa.schema([*schema.DOCUMENTS, ("length", pa.int64()), ("key", pa.uint64())])

Tell = Callable[[int], None]
Stage = Callable[[str, int], AbstractContextManager[Tell]]


def silent(name: str, size: int) -> AbstractContextManager[Tell]:
    """A Stage that shows nothing."""
    return nullcontext(lambda n: None)


class Settings(NamedTuple):
    """What decides the result, and nothing else."""

    wanted: Wanted = Wanted()
    to: str = "megatron"
    shard_tokens: int = SHARD_TOKENS
    seed: int = -1  # of the global shuffle; -1: the corpus's own order
    bos: str = ""  # a token, `none`, or what the tokenizer says
    eos: str = ""
    max_bad: float = 0.001  # share of documents that may be unusable


DEFAULTS = Settings()


class Target(NamedTuple):
    """What ids become."""

    tok: Tokenizer
    files: dict[str, bytes]
    idmap: bytes  # idmap.parquet; empty: the ids are the tokenizer's own, or there is text
    learned: bytes  # learned.parquet, where there is one
    big: dict[str, bytes]  # files of the tokenizer the ids are of, where it was found
    edges: Edges


class Job(NamedTuple):
    """All that a worker needs to know."""

    files: dict[str, bytes]
    idmap: bytes
    learned: bytes
    big: dict[str, bytes]
    text: bool
    edges: Edges
    front: bool  # the end-of-text token goes in front
    settings: Settings
    parts: str
    place: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if loaded(self.files).size < 1 << 16 else np.int32)


def encode(
    corpus: list[str],
    vocab: str,
    out: str,
    engine: Engine,
    settings: Settings = DEFAULTS,
    *,
    tokenizer: str = "",
    force: bool = False,
    partitions: int = 0,
    found: Plan | None = None,
    stage: Stage = silent,
) -> dict[str, Any]:
    """Writes SHARDS to `out`; returns the manifest. The same command again continues a killed one.

    vocab: what `tinydata compact` wrote, or any tokenizer. tokenizer: the one that made the ids, if
    it is not where the vocabulary says. stage: shows progress of (name, bytes in all).

    Raises TinydataError: nothing to read, too much of it broken, ids of another tokenizer, output
    that exists.
    """
    found = found or plan(corpus, informed(settings.wanted, vocab, tokenizer))
    target = open_target(vocab, corpus, found.kind, settings, tokenizer)
    output = Output(out, header(corpus, vocab, target, found, settings), force=force)
    output.place.make_dir()
    places = (output.parts.absolute, output.place.absolute)
    text = found.kind == "text"
    job = job_of(target, text, settings, *places)
    label = f"tinydata encode {', '.join(corpus)}"
    ways: dict[str, Any] = {"parts": output.parts, "partitions": partitions, "label": label}
    units = _units(found.splits)
    with stage("encode", sum(u.bytes for u in units)) as progress:
        done = map(engine, units, partial(encode_unit, job), kind="part", progress=progress, **ways)
    bad = _quarantine(done, found)
    check_bad(bad, sum(d["documents"] for d in done), settings.max_bad, found)
    shards = [
        Unit(s.number, s, s.tokens * job.dtype.itemsize) for s in _shards(done, settings.shard_tokens, settings.seed)
    ]
    masked = any(d["masked"] for d in done)
    with stage("shards", sum(s.bytes for s in shards)) as progress:
        made = map(engine, shards, partial(write_shard, job, masked), kind="shard", progress=progress, **ways)
    files = {"quarantine.parquet": table_bytes(bad)} if len(bad) else {}
    result = {**summary(done, made, target, job, found), "quarantined": reasons(bad)}
    return output.publish(result, files, {n: s for m in made for n, s in m["files"].items()})


def job_of(target: Target, text: bool, settings: Settings, parts: str = "", place: str = "") -> Job:
    ids = (target.files, target.idmap, target.learned, target.big)
    return Job(*ids, text, target.edges, settings.to == "llmc", settings, parts, place)


def header(corpus: list[str], vocab: str, target: Target, found: Plan, settings: Settings) -> dict[str, Any]:
    """The part of the manifest that is known beforehand: it decides whether a run may be resumed."""
    told = {k: v for k, v in settings._asdict().items() if k not in ("wanted", "max_bad") and v != ""}
    return {
        "tinydata": __version__,
        "verb": "encode",
        "inputs": {f.path: fingerprint(f) for f in found.files},
        "options": {
            "corpus": corpus,
            **{k: v for k, v in told.items() if (k, v) != ("seed", -1)},
            **settings.wanted.told,
        },
        "kind": found.kind,
        "rewritten": bool(target.idmap),
        "tokenizer": describe(vocab, target.tok),
    }


# -- what it becomes --------------------------------------------------------------------------


def open_target(vocab: str, corpus: list[str], kind: str, settings: Settings, tokenizer: str = "") -> Target:
    """VOCAB or a tokenizer -> Target; raises TinydataError where it does not fit the corpus or the format."""
    files = read_tokenizer(vocab)
    tok = loaded(files, vocab)
    around = edges(tok, settings.bos, settings.eos)
    if kind == "ids":  # they have what they have, unless told
        around = Edges(around.bos if settings.bos else -1, around.eos if settings.eos else -1)
    if settings.to == "llmc":
        around = Edges(-1, around.eos if around.eos >= 0 else end_of_text(tok))
        if around.eos < 0:
            raise TinydataError(
                "llm.c tells documents apart by a token in front of each, and the tokenizer names none",
                where=vocab,
                fix="name one with --eos",
            )
    if kind == "text":
        return Target(tok, files, b"", b"", {}, around)
    where = Location.of(vocab) / "idmap.parquet"
    made_by = {m["tokenizer"]["fingerprint"]: m["tokenizer"] for m in (_shards_manifest(c) for c in corpus) if m}
    own = tokenizer_fingerprint(tok)
    if not Location.of(vocab).is_dir() or not where.exists():
        _only(made_by, {own}, vocab)
        return Target(tok, files, b"", b"", {}, around)
    big = read_manifest(vocab, "compact")["tokenizer"]
    _only(made_by, {own, big["fingerprint"]}, vocab)
    if own in made_by:
        return Target(tok, files, b"", b"", {}, around)
    taught = where.parent / "learned.parquet"
    merges = read_bytes(taught) if taught.exists() else b""
    return Target(tok, files, read_bytes(where), merges, _big_files(tokenizer, big), around)


def informed(wanted: Wanted, vocab: str, tokenizer: str = "") -> Wanted:
    """Wanted, with what is known of the tokenizer that made the ids, if it is ids: undeclared ones are judged by it."""
    if not (Location.of(vocab) / "idmap.parquet").exists():
        return count.informed(wanted, loaded(read_tokenizer(vocab), vocab))
    big = read_manifest(vocab, "compact")["tokenizer"]
    files = _big_files(tokenizer, big)
    return count.informed(wanted, loaded(files)) if files else wanted._replace(vocab=big["size"])


def _shards_manifest(path: str) -> dict[str, Any] | None:
    """Manifest of a directory of shards that tinydata made."""
    where = Location.of(path)
    if any(c in path for c in "*?[") or not (where / MANIFEST).exists():
        return None
    try:
        return read_manifest(path, "encode")
    except TinydataError:
        return None


def _only(made_by: dict[str, Any], wanted: set[str], vocab: str) -> None:
    """Raises TinydataError if shards of the corpus are of several tokenizers, or of one that is not wanted."""
    if len(made_by) > 1:
        raise TinydataError(
            f"the shards are of different tokenizers: {', '.join(t['path'] for t in made_by.values())}",
            fix="encode those of each tokenizer apart",
        )
    for made in made_by.values():
        if made["fingerprint"] not in wanted:
            raise TinydataError(
                f"the ids are of another tokenizer: {made['path']} ({made['family']}, {made['size']:,} ids)",
                where=vocab,
                fix="pass the vocabulary that was made from that tokenizer",
            )


def _big_files(told: str, big: dict[str, Any]) -> dict[str, bytes]:
    """Files of the tokenizer that made the ids: the one told, or where it was; {} if it is there no more."""
    try:
        files = read_tokenizer(told or big["path"])
        same = tokenizer_fingerprint(loaded(files, told or big["path"])) == big["fingerprint"]
    except TinydataError:
        if told:
            raise
        return {}
    if same:
        return files
    if told:
        raise TinydataError(
            f"the vocabulary was made from another tokenizer: {big['path']} ({big['family']}, {big['size']:,} ids)",
            where=told,
            fix="pass that one, or leave --tokenizer out",
        )
    return {}


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
    merges = learned(_parquet(taught), tok.pairs) if taught else None
    try:
        return Rewriter(id_map(_parquet(idmap), tok.size), dtype, merges)
    except ValueError as e:
        raise TinydataError(
            f"idmap.parquet is damaged: {e}", fix="make the vocabulary anew with `tinydata compact`", code=UNREADABLE
        ) from None


def _parquet(content: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(content))


# -- the first step: units to parts -----------------------------------------------------------


def _units(splits: list[Split]) -> list[Unit]:
    """Consecutive splits of UNIT_BYTES together: what is written, and resumed, as one."""
    units: list[Unit] = []
    group: list[Split] = []
    for split in splits:
        group.append(split)
        if sum(s.bytes for s in group) >= UNIT_BYTES:
            units.append(Unit(len(units), group, sum(s.bytes for s in group)))
            group = []
    if group:
        units.append(Unit(len(units), group, sum(s.bytes for s in group)))
    return units


def encode_unit(job: Job, splits: list[Split], number: int, tell: Tell) -> dict[str, Any]:
    """One unit -> its part; returns what the manifest needs to know of it."""
    where = Location.of(job.parts)
    with (where / f"{number:07d}.ids").stream(summed=False) as out:
        part = Part(job, out)
        for split in splits:
            for batch in read(split, partial(note, part.bad, split.path)):
                part.add(batch)
            tell(split.bytes)
        return part.finish(where, number)


class Part:
    """Documents of one unit, encoded. Ids go to `out` as they come; those to be shuffled, or with no `out`, wait."""

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
        self.sample = {"documents": 0, "size": 0, "equal": 0, "tokens": 0, "tokens_anew": 0}
        self.differed = ""
        self.bad: list[Unusable] = []

    def add(self, batch: pa.RecordBatch) -> None:
        ids, ends, mask, before, good = (self._from_text if self.job.text else self._from_ids)(batch)
        if not good.all():  # what is bad came out empty
            batch, before = batch.filter(pa.array(good)), before[good]
            ends = np.concatenate([ends[:1], ends[1:][good]])
        if self.job.edges != Edges():
            ids, mask = self._framed(ids, ends, mask)
        if self.out and self.job.settings.seed < 0:
            self.out.write(np.ascontiguousarray(ids, self.job.dtype))
        else:
            self.ids.append(ids.astype(self.job.dtype))
        if mask is not None:
            self.masks.append((self.tokens, mask.copy()))
        self.tokens += len(ids)
        lengths = np.diff(ends)
        self.lengths.append(lengths)
        self.labels.append(labels(batch))
        if self.job.settings.seed >= 0:
            self.keys.append(shuffle_keys(document_hashes(batch), np.uint64(self.job.settings.seed)))
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
        """The sample's documents say the same as before, or TinydataError; and how they compare with encoding anew."""
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
                    f"a rewritten document says something else: {excerpt(again.encode())!r}",
                    where=f"document {i} of a batch; it said {excerpt(text.encode())!r}",
                    fix="the ids are of another tokenizer than the vocabulary was made from; pass the right vocabulary",
                )
            anew, _ = _encoder(self.tok, not _whole(self.tok)).encode(pa.array([text]))
            self.sample["tokens"] += d - c
            self.sample["tokens_anew"] += len(anew)
            self.sample["equal"] += int(anew.tolist() == new[c:d].tolist())

    def _framed(
        self, ids: np.ndarray, ends: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        room = len(ids) + 2 * len(ends)
        out, flags = np.empty(room, ids.dtype), np.empty(room, np.bool_)
        given = np.zeros(0, np.bool_) if mask is None else mask
        n = frame(ids, ends, given, *self.job.edges, self.job.front, out, flags)
        return out[:n], None if mask is None else flags[:n]

    def finish(self, where: Location, number: int) -> dict[str, Any]:
        """Writes what goes with the ids; returns the part's sums."""
        assert self.out is not None
        lengths, keys = np.concatenate(self.lengths), np.concatenate(self.keys)
        documents = pa.concat_tables(self.labels)
        mask = np.zeros(self.tokens if self.masks else 0, np.bool_)
        for at, some in self.masks:
            mask[at : at + len(some)] = some
        begins = (np.cumsum(lengths) - lengths)[lengths > 0]
        if self.job.settings.seed >= 0:
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
    """TEXT or TOKENS -> DOCUMENTS: the corpus's own ids, or where it has none the place."""
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


@njit(cache=True)
def shuffle_keys(hashes, seed):
    """hashes, seed uint64 -> uint64: another order for each seed. The mixing of splitmix64."""
    out = np.empty(len(hashes), np.uint64)
    for i in range(len(hashes)):
        h = hashes[i] + (seed + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = h ^ (h >> np.uint64(31))
    return out


def gather(values: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Documents end to end, their lengths int64[docs], order int64[docs] -> the documents in that order."""
    starts = np.cumsum(lengths) - lengths
    out = np.empty(int(lengths[order].sum()), values.dtype)
    _gather(values, starts, lengths, order, out)
    return out


@njit(cache=True)
def _gather(values, starts, lengths, order, out):
    n = 0
    for d in order:
        out[n : n + lengths[d]] = values[starts[d] : starts[d] + lengths[d]]
        n += lengths[d]


# -- the second step: parts to shards ---------------------------------------------------------


class Shard(NamedTuple):
    """Shard `number` of `many`. In the corpus's order it holds the documents that begin in its `size` tokens;
    shuffled, those whose keys fall into its equal share of all keys."""

    number: int
    many: int
    size: int
    parts: list[tuple[int, int]]  # number of the part, tokens before it
    tokens: int  # about


def _shards(done: list[dict[str, Any]], size: int, seed: int) -> list[Shard]:
    """Sums of all parts, tokens per shard -> shards, none of them empty."""
    tokens = [d["tokens"] for d in done]
    starts = [0, *np.cumsum(tokens).tolist()]
    documents = sum(d["documents"] for d in done)
    if seed >= 0:
        many = max(1, min(-(-starts[-1] // size), documents // FEWEST))
        every = [(k, starts[k]) for k, d in enumerate(done) if d["documents"]]
        return [Shard(n, many, 0, every, starts[-1] // many) for n in range(many)]
    size = max(size, *(d["longest"] for d in done), 1)  # so that some document begins in each
    last = max((starts[k] + d["last"] for k, d in enumerate(done) if d["last"] >= 0), default=0)
    many = last // size + 1
    shards = []
    for n in range(many):
        inside = [
            (k, starts[k])
            for k, d in enumerate(done)
            if d["documents"] and starts[k] <= (n + 1) * size and starts[k + 1] >= n * size
        ]
        shards.append(Shard(n, many, size, inside, min(size, starts[-1] - n * size)))
    return shards


def write_shard(job: Job, masked: bool, shard: Shard, number: int, tell: Tell) -> dict[str, Any]:
    """Puts one shard together from the parts; returns its files and sums."""
    stem = _STEM.get(job.settings.to, "shard-{:05d}").format(number)
    sums = {"documents": 0, "tokens": 0}

    def counted() -> Iterator[Piece]:
        for piece in (_shuffled if job.settings.seed >= 0 else _in_order)(job, masked, shard):
            sums["documents"] += len(piece.lengths)
            sums["tokens"] += len(piece.ids)
            tell(piece.ids.nbytes)
            yield piece

    files = writer(job.settings.to)(Location.of(job.place), stem, job.dtype, masked, counted())
    return {"name": stem, "files": files, **sums}


def _in_order(job: Job, masked: bool, shard: Shard) -> Iterator[Piece]:
    for part, before in shard.parts:
        table = _documents(job, part)
        lengths = table["length"].to_numpy()
        ends = np.cumsum(lengths)
        begins = before + ends - np.maximum(lengths, 1)  # an empty document goes with the token before it
        which = np.clip(begins // shard.size, 0, shard.many - 1)
        a, b = np.searchsorted(which, [shard.number, shard.number + 1]).tolist()
        while a < b:
            first = int(ends[a] - lengths[a])
            c = max(a + 1, int(np.searchsorted(ends[:b], first + PIECE, side="right")))
            yield Piece(*_tokens(job, part, masked, first, int(ends[c - 1])), lengths[a:c], _labels(table, a, c))
            a = c


def _shuffled(job: Job, masked: bool, shard: Shard) -> Iterator[Piece]:
    """All documents of the shard, in memory."""
    found, keys = [], []
    for part, _ in shard.parts:
        table = _documents(job, part)
        lengths, key = table["length"].to_numpy(), table["key"].to_numpy()
        ends = np.cumsum(lengths)
        which = ((key >> np.uint64(32)) * np.uint64(shard.many)) >> np.uint64(32)
        a, b = np.searchsorted(which, [shard.number, shard.number + 1]).tolist()
        if a < b:
            span = _tokens(job, part, masked, int(ends[a] - lengths[a]), int(ends[b - 1]))
            found.append(Piece(*span, lengths[a:b], _labels(table, a, b)))
            keys.append(key[a:b])
    order = np.argsort(np.concatenate(keys), kind="stable")
    lengths = np.concatenate([p.lengths for p in found])
    ids = gather(np.concatenate([p.ids for p in found]), lengths, order)
    mask = gather(np.concatenate([p.flags for p in found]), lengths, order) if masked else None
    documents = pa.concat_tables([p.documents for p in found]).take(pa.array(order))
    yield Piece(ids, mask, lengths[order], documents)


def _documents(job: Job, part: int) -> pa.Table:
    return read_table(Location.of(job.parts) / f"{part:07d}.docs")


def _labels(table: pa.Table, a: int, b: int) -> pa.Table:
    return table.select(schema.DOCUMENTS.names).slice(a, b - a)


def _tokens(job: Job, part: int, masked: bool, a: int, b: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Tokens [a, b) of a part, and their mask."""
    where = Location.of(job.parts)
    size = job.dtype.itemsize
    with (where / f"{part:07d}.ids").open() as f:
        f.seek(a * size)
        ids = np.frombuffer(f.read_buffer((b - a) * size), job.dtype)
    beside = where / f"{part:07d}.mask"
    if not masked or not beside.exists():
        return ids, None
    with beside.open() as f:
        f.seek(a)
        return ids, np.frombuffer(f.read_buffer(b - a), np.bool_)


# -- the result -------------------------------------------------------------------------------


def _quarantine(done: list[dict[str, Any]], found: Plan) -> pa.Table:
    """-> QUARANTINE."""
    bad = [Unusable(p, 0, r) for p, r in found.unreadable]
    bad += [Unusable(*row) for d in done for row in d["bad"]]
    rows = [
        dict(zip(schema.QUARANTINE.names, (b.path, b.position, b.doc_id, b.reason, b.excerpt), strict=True))
        for b in bad
    ]
    return pa.Table.from_pylist(rows, schema.QUARANTINE).sort_by([("path", "ascending"), ("position", "ascending")])


def summary(
    done: list[dict[str, Any]], made: list[dict[str, Any]], target: Target, job: Job, found: Plan
) -> dict[str, Any]:
    """What the manifest says of the result."""
    domains: dict[str, list[int]] = {}
    for d in done:
        for name, sums in d["domains"].items():
            domains[name] = [a + b for a, b in zip(domains.get(name, [0, 0, 0]), sums, strict=True)]
    unit = "bytes" if job.text else "tokens_before"
    total = {k: sum(d[k] for d in done) for k in ("documents", "tokens", "masked")}
    sample = {k: sum(d["sample"][k] for d in done) for k in ("documents", "equal", "tokens", "tokens_anew")}
    return {
        "totals": {**total, unit: sum(s[1] for s in domains.values())},
        "domains": {n: {"documents": s[0], unit: s[1], "tokens": s[2]} for n, s in sorted(domains.items())},
        "shards": [{k: m[k] for k in ("name", "documents", "tokens")} for m in made],
        "dtype": job.dtype.name,
        "bos": target.edges.bos,
        "eos": target.edges.eos,
        "end_of_text": end_of_text(target.tok),
        "sample": sample if target.big else None,
        "encoded_whole": sorted({d["differed"] for d in done if d["differed"]}),
        "skipped_files": found.skipped,
    }
