"""paths -> Plan -> record batches: which files of a corpus are read, in which format, divided into which splits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.core.expand import expand
from tinydata.core.location import Location
from tinydata.core.output import MANIFEST
from tinydata.formats.base import USUAL, Bad, Split, Wanted
from tinydata.formats.text_lines import codec
from tinydata.formats.text_lines import show as in_text
from tinydata.formats.writing import DOCUMENTS_ENDING


def check_bad(bad: pa.Table, good: int, max_bad: float, corpus: Plan) -> None:
    """QUARANTINE table, number of usable documents -> TinydataError if too large a share (--max-bad) is unusable.

    Also raised if there is no document at all.
    """
    if len(bad) and len(bad) > max_bad * (good + len(bad)):
        first = bad.slice(0, 1).to_pylist()[0]
        outside = "outside the vocabulary" in first["reason"]
        raise TinydataError(
            f"{len(bad)} of {good + len(bad)} documents cannot be used, more than --max-bad {max_bad:g};"
            f" the first: {first['reason']}",
            where=_place(first, corpus),
            fix=(
                "the corpus was tokenized with a different tokenizer; pass that one with --tokenizer"
                if outside
                else "repair or remove the file, or allow more with --max-bad"
            ),
            code=FIXABLE if good else UNREADABLE,
        )
    if not good:
        raise TinydataError(
            "the corpus is empty: it has no documents",
            where=", ".join(f.path for f in corpus.files[:3]),
            fix="check that the files were written or downloaded completely",
            code=UNREADABLE,
        )


def _place(bad: dict[str, Any], corpus: Plan) -> str:
    """A row of QUARANTINE -> its location for an error message: path, row or byte, document, first characters."""
    form = next((s.format for s in corpus.splits if s.path == bad["path"]), "")
    parts = [bad["path"]]
    if form in ("parquet", "megatron"):
        parts.append(f"{'row' if form == 'parquet' else 'document'} {bad['position']}")
    elif form:
        parts.append(in_text(Location.of(bad["path"]), bad["position"]))
    if bad["doc_id"]:
        parts.append(f"document {bad['doc_id']}")
    return ", ".join(parts) + (f": {bad['excerpt']}" if bad["excerpt"] else "")


# Tried in this order: recognized by companion files, by first bytes, by ending. `nanogpt` accepts any other .bin.
FORMATS = (
    "internevo",
    "megatron",
    "datatrove",
    "mds",
    "litdata",
    "litpkds",
    "llmc",
    "dolma",
    "parquet",
    "jsonl",
    "txt",
    "nanogpt",
)
_COMPANIONS = (".idx", ".meta", ".ds.index", ".ds.metadata", ".loss", "meta.pkl", MANIFEST)  # of data, not data

# Parts of a file name that are not its domain: endings, what Spark and `datasets` append, shard numbers.
_ENDINGS = re.compile(
    r"(\.(jsonl?|ndjson|parquet|pq|txt|bin|idx|meta|gz|zst|zstd|snappy|npy|mds)"
    r"|(_unshuffled|_(doc|chunk)_shuffled)?\.ds)+$"
)
_HASH = re.compile(r"-([0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}([-.]c\d+)?)$")
_NUMBER = re.compile(r"((^|[-_.]+)(part|shard|chunk)?[-_.]*\d+([-_.]?of[-_.]?\d+)?|\d{3,})+$")


class Plan(NamedTuple):
    """Which files of a corpus are read, divided into splits, and which are not."""

    splits: list[Split]
    kind: str  # "text" or "ids"
    files: list[Location]
    unreadable: list[tuple[str, str]]  # (path, reason) of files that are quarantined entirely
    skipped: list[str]  # files of an unknown format
    said: list[str]  # files that were left out because they are read already, and what looks like a mistake


def plan(paths: list[str], wanted: Wanted = USUAL) -> Plan:
    """Corpora (files, directories, globs) -> Plan.

    Raises TinydataError (exit 3) if there is nothing to read, no file has a known format, a column
    does not exist, or text and token ids are mixed.
    """
    splits: list[Split] = []
    files: list[Location] = []
    skipped: list[str] = []
    kinds: dict[str, str] = {}
    named, unreadable, said = expand(paths)
    names = {name for _, name in named}
    with ThreadPoolExecutor(16) as pool:  # on object stores each look is a round trip
        looks = list(pool.map(lambda pair: _look(pair[0], pair[1], wanted), named))
    for (file, name), look in zip(named, looks, strict=True):
        if look is None:
            if (
                not name.endswith(_COMPANIONS)
                and not _describes(file)
                and name.removesuffix(".csv.gz") + ".npy" not in names
            ):
                skipped.append(file.path)
            continue
        files.append(file)
        if isinstance(look, str):
            unreadable.append((file.path, look))
        elif look:
            kinds.setdefault("text" if look[0].columns.text else "ids", file.path)
            splits += look
    if not files:
        raise TinydataError(
            "no file of a known format",
            where=", ".join(paths),
            fix="known formats: .jsonl .json (plain, .gz, .zst), .parquet, .txt, .mds, litdata chunks, and token ids in"
            " .bin/.idx (Megatron), .bin/.bin.meta (InternEvo), .ds (datatrove), .npy (dolma), .bin (llm.c, nanoGPT)",
            code=UNREADABLE,
        )
    if len(kinds) > 1:
        raise TinydataError(
            "the corpus mixes text and token ids",
            where=f"text: {kinds['text']}; ids: {kinds['ids']}",
            fix="process the two separately, or choose the column with --text-column or --ids-column",
            code=UNREADABLE,
        )
    if not splits:
        first = unreadable[0] if unreadable else (", ".join(paths), "")
        raise TinydataError(
            f"nothing to read: {len(unreadable)} of {len(files)} files unreadable, the rest empty ({first[1]})"
            if unreadable
            else "the corpus is empty: all of its files are empty",
            where=first[0],
            fix="check that the files were written or downloaded completely",
            code=UNREADABLE,
        )
    return Plan(splits, next(iter(kinds)), files, unreadable, skipped, said)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """One split -> batches of TEXT or TOKENS, whose schema metadata has `path` and `name`; calls bad for the rest."""
    return import_module(f"tinydata.formats.{split.format}").read(split, bad)


def _look(file: Location, name: str, wanted: Wanted) -> list[Split] | str | None:
    """One file -> its splits, or the reason why it cannot be read, or None if its format is unknown."""
    module = _format_of(file)
    if module is None:
        return None
    if file.size == 0:
        return []
    try:
        columns = module.columns(file, wanted)
        pieces = module.splits(file)
    except (pa.ArrowInvalid, OSError) as e:
        return " ".join(str(e).split())[:200]
    form = module.__name__.rpartition(".")[2]
    return [Split(file.absolute, name, domain_of(name, file.parent.name), form, a, b, n, columns) for a, b, n in pieces]


def _format_of(file: Location) -> Any:
    if _describes(file):
        return None
    for name in FORMATS:
        module = import_module(f"tinydata.formats.{name}")
        if module.matches(file):
            return module
    return None


def _describes(file: Location) -> bool:
    """Whether a file is metadata in a directory of shards, not data."""
    if file.name.endswith(DOCUMENTS_ENDING):
        return (file.parent / (file.name.removesuffix(DOCUMENTS_ENDING) + ".bin")).exists()
    tables = ("quarantine.parquet", "pieces.parquet")
    return file.name == MANIFEST or (file.name in tables and (file.parent / MANIFEST).exists())


def domain_of(name: str, folder: str = "") -> str:
    """Path relative to the corpus -> domain: its first directory, or the file name without endings and shard numbers.

    `en/part-00000.bin` -> `en`; `c4-train.00001-of-01024.json.gz` -> `c4-train`. If the name is
    only a shard number, the domain is `folder`, the name of the file's directory.
    """
    first, _, rest = name.partition("/")
    if rest:
        return first
    stem = _HASH.sub("", _ENDINGS.sub("", name))
    if name.endswith(".ds"):  # datatrove puts the number of a merged file in front
        stem = re.sub(r"^\d{3}_", "", stem)
    return _NUMBER.sub("", stem) or folder or stem


SAMPLE_BYTES = 64 << 20
_DISK_PER_BYTE = {"gzip": 0.3, "zstd": 0.28}  # compression of text; used only if no whole file fits into the sample


def notes(corpus: Plan) -> list[str]:
    """Plan -> notes for the user: what was inferred from the data because the files do not declare it."""
    paths_of: dict[str, list[str]] = {}
    for s in corpus.splits:
        if s.columns.note and s.path not in paths_of.setdefault(s.columns.note, []):
            paths_of[s.columns.note].append(s.path)
    return [
        f"note: {note} ({paths[0]}{f' and {len(paths) - 1} more' * (len(paths) > 1)})"
        for note, paths in paths_of.items()
    ] + [f"note: {text}" for text in corpus.said]


def sample_batches(corpus: Plan) -> tuple[list[Any], float]:
    """Plan -> (batches of a few splits spread over the corpus, the bytes on disk that they represent).

    Splits are read entirely, so that the ratio is right for compressed files too. The last one may
    be read in part; its bytes on disk are then estimated from the splits read so far.
    """
    step = max(1, len(corpus.splits) // 16)
    sample: list[Any] = []
    memory, disk = 0, 0.0
    for split in corpus.splits[::step]:
        before = memory
        for batch in read(split, lambda p, r, e: None):
            sample.append(batch)
            memory += batch.nbytes
            if memory >= SAMPLE_BYTES:
                rate = disk / before if before else _DISK_PER_BYTE.get(codec(split.path), 1.0)
                return sample, min(disk + rate * (memory - before), disk + split.bytes)
        disk += split.bytes
    return sample, max(disk, 1.0)
