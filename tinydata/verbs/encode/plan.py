"""corpus + vocabulary -> plan of the shards: text is encoded, ids of the big tokenizer are rewritten, others copied.

There are two steps, which may run on any worker and be interrupted at any time. Units (runs of splits, which depend on
the data alone) are encoded to parts. Then the shards are assembled from the parts: their boundaries are known only
after the lengths of all documents. So the shards do not depend on which worker did what.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinydata import __version__
from tinydata.core.errors import TinydataError
from tinydata.core.location import Location, fingerprint, read_bytes
from tinydata.core.output import MANIFEST, read_manifest
from tinydata.engines.base import Unit
from tinydata.formats.base import Split, Wanted
from tinydata.formats.corpus import CorpusPlan
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.open import describe, loaded, read_tokenizer
from tinydata.tokenizers.special_tokens import Edges, edges, end_of_text, id_facts
from tinydata.verbs.encode.worker import Job

UNIT_BYTES = 64 << 20  # of input; the least that is done again after a kill
SHARD_TOKENS = 1 << 27  # 256 MB of uint16


class Settings(NamedTuple):
    """All options that affect the result, and no others."""

    wanted: Wanted = Wanted()
    to: str = "megatron"
    shard_tokens: int = SHARD_TOKENS
    seed: int = -1  # of the global shuffle; -1: corpus order
    bos: str = ""  # a token, "none", or "" for what the tokenizer says
    eos: str = ""
    max_bad: float = 0.001  # share of documents that may be unusable


DEFAULTS = Settings()


class Target(NamedTuple):
    """The target tokenizer, and the id map if ids are rewritten."""

    tok: Tokenizer
    files: dict[str, bytes]
    idmap: bytes  # idmap.parquet; empty: the ids are the tokenizer's own, or there is text
    learned: bytes  # learned.parquet, if the vocabulary has one
    big: dict[str, bytes]  # files of the tokenizer that produced the ids, if it is available
    edges: Edges


def job_of(target: Target, text: bool, settings: Settings, parts: str = "", place: str = "") -> Job:
    """parts, place: directories for the parts and for the shards."""
    ids = (target.files, target.idmap, target.learned, target.big)
    return Job(*ids, text, target.edges, settings.to, settings.seed, parts, place)


def units_of_splits(splits: list[Split]) -> list[Unit]:
    """Splits -> units of consecutive splits, of UNIT_BYTES or more: each is written, and resumed, as a whole."""
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


def header(
    corpus: list[str], vocab: str, target: Target, corpus_plan: CorpusPlan, settings: Settings
) -> dict[str, Any]:
    """The part of the manifest that is known before the run; a run is resumed only if this part is unchanged."""
    options = {k: v for k, v in settings._asdict().items() if k not in ("wanted", "max_bad") and v != ""}
    return {
        "tinydata": __version__,
        "verb": "encode",
        "inputs": {f.path: fingerprint(f) for f in corpus_plan.files},
        "options": {
            "corpus": corpus,
            **{k: v for k, v in options.items() if (k, v) != ("seed", -1)},
            **settings.wanted.given,
        },
        "kind": corpus_plan.kind,
        "rewritten": bool(target.idmap),
        "tokenizer": describe(vocab, target.tok),
    }


# -- the target -------------------------------------------------------------------------------


def open_target(vocab: str, corpus: list[str], kind: str, settings: Settings, tokenizer: str = "") -> Target:
    """VOCAB or a tokenizer -> Target; raises TinydataError if it does not fit the corpus or the output format."""
    files = read_tokenizer(vocab)
    tok = loaded(files, vocab)
    target = Target(tok, files, b"", b"", {}, _edges(tok, vocab, kind, settings))
    if kind == "text":
        return target
    sources = {m["tokenizer"]["fingerprint"]: m["tokenizer"] for m in (_shards_manifest(c) for c in corpus) if m}
    own = tokenizer_fingerprint(tok)
    directory = _directory(vocab)
    idmap, learned = directory / "idmap.parquet", directory / "learned.parquet"
    if not idmap.exists():
        _check_sources(sources, {own}, vocab)
        return target
    big = read_manifest(directory.path, "compact")["tokenizer"]
    _check_sources(sources, {own, big["fingerprint"]}, vocab)
    if own in sources:
        return target
    return target._replace(
        idmap=read_bytes(idmap),
        learned=read_bytes(learned) if learned.exists() else b"",
        big=_big_files(tokenizer, big),
    )


def _edges(tok: Tokenizer, vocab: str, kind: str, settings: Settings) -> Edges:
    """The special tokens around each document; raises TinydataError if the output format does not allow them."""
    around = edges(tok, settings.bos, settings.eos)
    if kind == "ids":  # ids already have their special tokens, unless options ask for more
        around = Edges(around.bos if settings.bos else -1, around.eos if settings.eos else -1)
    if settings.to != "llmc":
        return around
    around = Edges(-1, around.eos if settings.eos else end_of_text(tok))
    if around.eos < 0 or settings.bos not in ("", "none"):
        raise TinydataError(
            "llm.c separates documents by an end-of-text token in front of each, "
            + ("so --bos cannot be used" if around.eos >= 0 else "but neither the tokenizer nor --eos names one"),
            where=vocab,
            fix="omit --bos" if around.eos >= 0 else "name one with --eos",
        )
    return around


def _directory(vocab: str) -> Location:
    """The directory of a vocabulary, also of one that is named by its tokenizer file."""
    where = Location.of(vocab)
    return where if where.is_dir() else where.parent


def with_id_facts(wanted: Wanted, vocab: str, tokenizer: str = "") -> Wanted:
    """Wanted -> the same with facts about the tokenizer of the ids, by which columns of ids are recognised."""
    directory = _directory(vocab)
    if not (directory / "idmap.parquet").exists():
        return wanted._replace(**id_facts(loaded(read_tokenizer(vocab), vocab)))
    big = read_manifest(directory.path, "compact")["tokenizer"]
    files = _big_files(tokenizer, big)
    return wanted._replace(**id_facts(loaded(files))) if files else wanted._replace(vocab=big["size"])


def _shards_manifest(path: str) -> dict[str, Any] | None:
    """Path -> manifest of shards that tinydata wrote; None for anything else."""
    where = Location.of(path)
    if any(c in path for c in "*?[") or not (where / MANIFEST).exists():
        return None
    try:
        return read_manifest(path, "encode")
    except TinydataError:
        return None


def _check_sources(sources: dict[str, Any], allowed: set[str], vocab: str) -> None:
    """Raises TinydataError if the corpus contains shards of several tokenizers, or of one that is not in `allowed`."""
    if len(sources) > 1:
        raise TinydataError(
            f"the shards were encoded with different tokenizers: {', '.join(t['path'] for t in sources.values())}",
            fix="run `tinydata encode` once per tokenizer",
        )
    for source in sources.values():
        if source["fingerprint"] not in allowed:
            raise TinydataError(
                f"the ids were produced by a different tokenizer: {source['path']}"
                f" ({source['family']}, {source['size']:,} ids)",
                where=vocab,
                fix="pass the vocabulary that was derived from that tokenizer",
            )


def _big_files(given: str, big: dict[str, Any]) -> dict[str, bytes]:
    """Files of the tokenizer that produced the ids, as given or recorded; {} for "none" or if not available."""
    if given == "none":
        return {}
    try:
        files = read_tokenizer(given or big["path"])
        same = tokenizer_fingerprint(loaded(files, given or big["path"])) == big["fingerprint"]
    except TinydataError:
        if given:
            raise
        return {}
    if same:
        return files
    if given:
        raise TinydataError(
            f"the vocabulary was derived from a different tokenizer: {big['path']}"
            f" ({big['family']}, {big['size']:,} ids)",
            where=given,
            fix="pass that one, or omit --tokenizer",
        )
    return {}
