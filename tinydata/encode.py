"""corpus -> shards: text is encoded, ids of the big tokenizer are rewritten, ids of this one pass through.

Two steps, each of which may run anywhere and be killed at any time. Units (runs of splits, which
depend on the data alone) are encoded to parts; then shards, whose bounds are known only when all
documents' lengths are, are put together from the parts. So shards are the same whatever ran where.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata import __version__, count, schema
from tinydata.count import check_bad, describe, loaded, reasons
from tinydata.engines.base import Engine, Stage, Unit, Unusable, map, silent
from tinydata.errors import TinydataError
from tinydata.formats.base import Plan, Split, Wanted, plan
from tinydata.parts import SAMPLE, Job, encode_unit
from tinydata.shards import Tidy, arrange, write_shard
from tinydata.store import MANIFEST, Location, Output, fingerprint, read_bytes, read_manifest, table_bytes
from tinydata.tokenizers.base import CONTROL, Tokenizer, read_tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.edges import Edges, edges, end_of_text

UNIT_BYTES = 64 << 20  # of input; the least that is done again after a kill
SHARD_TOKENS = 1 << 27  # 256 MB of uint16
ENOUGH = 1_000  # tokens of a sample that says something
FOREIGN = 0.1  # share of tokens by which a corpus may differ from what its tokenizer makes of its text


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
    it is not where the vocabulary says; `none` compares nothing with it. stage: shows progress of (name, bytes in all).

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
    _check_old(done, corpus)
    shards = arrange(done, settings.shard_tokens, settings.seed)
    todo = [Unit(s.number, s, s.tokens * job.dtype.itemsize) for s in shards]
    masked = any(d["masked"] for d in done)
    with stage("shards", sum(u.bytes for u in todo)) as progress:
        ways |= {"progress": progress, "finished": Tidy(output.parts, shards)}
        made = map(engine, todo, partial(write_shard, job, masked), kind="shard", **ways)
    files = {"quarantine.parquet": table_bytes(bad)} if len(bad) else {}
    if settings.to == "megatron":  # the trainer's own: it needs no tokenizer to count bits per byte
        files["pieces.parquet"] = table_bytes(pieces(target.tok))
    result = {**summary(done, made, target, job, found), "quarantined": reasons(bad)}
    return output.publish(result, files, {n: s for m in made for n, s in m["files"].items()})


def _check_old(done: list[dict[str, Any]], corpus: list[str]) -> None:
    """Raises TinydataError if the ids of the sample are not what the big tokenizer makes of their text."""
    old, anew = (sum(d["sample"][k] for d in done) for k in ("tokens_old", "tokens_old_anew"))
    if old >= ENOUGH and abs(old - anew) > FOREIGN * max(old, anew):
        raise TinydataError(
            f"these ids are hardly of the big tokenizer: of what a sample says by it, it makes {anew:,} tokens itself,"
            f" and there are {old:,}",
            where=", ".join(corpus),
            fix="pass the vocabulary made from the tokenizer of these ids; or --tokenizer none, if they are right so",
        )


def job_of(target: Target, text: bool, settings: Settings, parts: str = "", place: str = "") -> Job:
    ids = (target.files, target.idmap, target.learned, target.big)
    return Job(*ids, text, target.edges, settings.to, settings.seed, parts, place)


def _units(splits: list[Split]) -> list[Unit]:
    """Consecutive splits of UNIT_BYTES together: what is written, and resumed, as one."""
    units: list[Unit] = []
    group: list[Split] = []
    size = 0
    for k, split in enumerate(splits, 1):
        group.append(split)
        size += split.bytes
        if size >= UNIT_BYTES or k == len(splits):
            units.append(Unit(len(units), group, size))
            group, size = [], 0
    return units


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
        around = Edges(-1, around.eos if settings.eos else end_of_text(tok))
        if around.eos < 0 or settings.bos not in ("", "none"):
            raise TinydataError(
                "llm.c tells documents apart by the end-of-text token in front of each: "
                + ("it has no place for --bos" if around.eos >= 0 else "the tokenizer, or --eos, names none"),
                where=vocab,
                fix="leave --bos out" if around.eos >= 0 else "name one with --eos",
            )
    if kind == "text":
        return Target(tok, files, b"", b"", {}, around)
    where = _home(vocab) / "idmap.parquet"
    made_by = {m["tokenizer"]["fingerprint"]: m["tokenizer"] for m in (_shards_manifest(c) for c in corpus) if m}
    own = tokenizer_fingerprint(tok)
    if not where.exists():
        _only(made_by, {own}, vocab)
        return Target(tok, files, b"", b"", {}, around)
    big = read_manifest(where.parent.path, "compact")["tokenizer"]
    _only(made_by, {own, big["fingerprint"]}, vocab)
    if own in made_by:
        return Target(tok, files, b"", b"", {}, around)
    taught = where.parent / "learned.parquet"
    merges = read_bytes(taught) if taught.exists() else b""
    return Target(tok, files, read_bytes(where), merges, _big_files(tokenizer, big), around)


def _home(vocab: str) -> Location:
    """The directory of a vocabulary, also of one that is named by its tokenizer file."""
    where = Location.of(vocab)
    return where if where.is_dir() else where.parent


def informed(wanted: Wanted, vocab: str, tokenizer: str = "") -> Wanted:
    """Wanted, with what is known of the tokenizer that made the ids, if it is ids: undeclared ones are judged by it."""
    home = _home(vocab)
    if not (home / "idmap.parquet").exists():
        return count.informed(wanted, loaded(read_tokenizer(vocab), vocab))
    big = read_manifest(home.path, "compact")["tokenizer"]
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
    """Files of the tokenizer that made the ids: the one told, or where it was; {} for `none`, or if it is gone."""
    if told == "none":
        return {}
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


def pieces(tok: Tokenizer) -> pa.Table:
    """-> PIECES. Bytes of a text are the sum over its ids, where the tokenizer neither normalises nor adds a blank."""
    special = (tok.kinds == CONTROL) | tok.gap
    size = np.where(special, 0, [len(p) for p in tok.pieces])
    return pa.table([np.arange(tok.size), size, special], names=schema.PIECES.names).cast(schema.PIECES)


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
    sample = {k: sum(d["sample"][k] for d in done) for k in SAMPLE}
    return {
        "totals": {**total, unit: sum(s[1] for s in domains.values())},
        "domains": {n: {"documents": s[0], unit: s[1], "tokens": s[2]} for n, s in sorted(domains.items())},
        "shards": [{k: m[k] for k in ("name", "documents", "tokens")} for m in made],
        "dtype": job.dtype.name,
        "bos": target.edges.bos,
        "eos": target.edges.eos,
        "end_of_text": end_of_text(target.tok),
        "unknown": target.tok.unk,
        "sample": sample if target.big else None,
        "encoded_whole": sorted({d["differed"] for d in done if d["differed"]}),
        "skipped_files": found.skipped,
    }
