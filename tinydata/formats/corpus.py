"""Paths -> a plan: which files are read, in which format, in which splits, and why the others are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.core.location import Location, expand
from tinydata.core.output import MANIFEST
from tinydata.formats.base import USUAL, Bad, Split, Wanted
from tinydata.formats.text_lines import codec
from tinydata.formats.text_lines import show as in_text
from tinydata.formats.writing import BESIDE


def check_bad(bad: pa.Table, good: int, max_bad: float, found: Plan) -> None:
    """QUARANTINE and the number of documents that could be used -> TinydataError if there are too few of these."""
    if len(bad) and len(bad) > max_bad * (good + len(bad)):
        first = bad.slice(0, 1).to_pylist()[0]
        outside = "outside the vocabulary" in first["reason"]
        raise TinydataError(
            f"{len(bad)} of {good + len(bad)} documents cannot be used, more than --max-bad {max_bad:g};"
            f" the first: {first['reason']}",
            where=_place(first, found),
            fix=(
                "the corpus was tokenized with another tokenizer; pass its own with --tokenizer"
                if outside
                else "repair or remove the file, or allow more with --max-bad"
            ),
            code=FIXABLE if good else UNREADABLE,
        )
    if not good:
        raise TinydataError(
            "the corpus is empty: no document in it",
            where=", ".join(f.path for f in found.files[:3]),
            fix="check that the files were written or downloaded whole",
            code=UNREADABLE,
        )


def _place(bad: dict[str, Any], found: Plan) -> str:
    """A row of QUARANTINE -> where a reader of the file finds it: path, row or byte, document, first characters."""
    form = next((s.format for s in found.splits if s.path == bad["path"]), "")
    parts = [bad["path"]]
    if form in ("parquet", "megatron"):
        parts.append(f"{'row' if form == 'parquet' else 'document'} {bad['position']}")
    elif form:
        parts.append(in_text(Location.of(bad["path"]), bad["position"]))
    if bad["doc_id"]:
        parts.append(f"document {bad['doc_id']}")
    return ", ".join(parts) + (f": {bad['excerpt']}" if bad["excerpt"] else "")


# Asked in this order: what lies beside a file, how it begins, its ending. `nanogpt` takes any other .bin.
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
_BESIDE = (".idx", ".meta", ".ds.index", ".ds.metadata", ".loss", "meta.pkl", MANIFEST)  # of data, not data

# What a file's name holds besides its domain: endings, what Spark and `datasets` append, shard numbers.
_ENDINGS = re.compile(
    r"(\.(jsonl?|ndjson|parquet|pq|txt|bin|idx|meta|gz|zst|zstd|snappy|npy|mds)"
    r"|(_unshuffled|_(doc|chunk)_shuffled)?\.ds)+$"
)
_HASH = re.compile(r"-([0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}([-.]c\d+)?)$")
_NUMBER = re.compile(r"((^|[-_.]+)(part|shard|chunk)?[-_.]*\d+([-_.]?of[-_.]?\d+)?|\d{3,})+$")


class Plan(NamedTuple):
    splits: list[Split]
    kind: str  # "text" or "ids"
    files: list[Location]
    unreadable: list[tuple[str, str]]  # (path, reason): quarantined whole
    skipped: list[str]  # files of no known format found in a directory


def plan(paths: list[str], wanted: Wanted = USUAL) -> Plan:
    """Corpora (files, directories, globs) -> Plan.

    Raises TinydataError (exit 3) for nothing to read, a format that is not known, a column that
    is not there, or text and ids mixed.
    """
    splits: list[Split] = []
    files: list[Location] = []
    unreadable: list[tuple[str, str]] = []
    skipped: list[str] = []
    kinds: dict[str, str] = {}
    named = [pair for path in paths for pair in expand(path)]
    names = {name for _, name in named}
    with ThreadPoolExecutor(16) as pool:  # on object stores each look is a round trip
        looks = list(pool.map(lambda pair: _look(pair[0], pair[1], wanted), named))
    for (file, name), look in zip(named, looks, strict=True):
        if look is None:
            if (
                not name.endswith(_BESIDE)
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
            fix="known: .jsonl .json (plain, .gz, .zst), .parquet, .txt, .mds, litdata chunks, and token ids in"
            " .bin/.idx (Megatron), .bin/.bin.meta (InternEvo), .ds (datatrove), .npy (dolma), .bin (llm.c, nanoGPT)",
            code=UNREADABLE,
        )
    if len(kinds) > 1:
        raise TinydataError(
            "the corpus mixes text and token ids",
            where=f"text: {kinds['text']}; ids: {kinds['ids']}",
            fix="process the two separately, or name the column with --text-column / --ids-column",
            code=UNREADABLE,
        )
    if not splits:
        first = unreadable[0] if unreadable else (", ".join(paths), "")
        raise TinydataError(
            f"nothing to read: {len(unreadable)} of {len(files)} files unreadable, the rest empty ({first[1]})"
            if unreadable
            else "the corpus is empty: there is nothing in its files",
            where=first[0],
            fix="check that the files were written or downloaded whole",
            code=UNREADABLE,
        )
    return Plan(splits, next(iter(kinds)), files, unreadable, skipped)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """One split -> batches of TEXT or TOKENS; schema metadata has `path` and `name`."""
    return import_module(f"tinydata.formats.{split.format}").read(split, bad)


def _look(file: Location, name: str, wanted: Wanted) -> list[Split] | str | None:
    """One file -> its splits, or why it cannot be read, or None if its format is not known."""
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
    """Whether it is what a directory of shards holds beside its data."""
    if file.name.endswith(BESIDE):
        return (file.parent / (file.name.removesuffix(BESIDE) + ".bin")).exists()
    tables = ("quarantine.parquet", "pieces.parquet")
    return file.name == MANIFEST or (file.name in tables and (file.parent / MANIFEST).exists())


def domain_of(name: str, folder: str = "") -> str:
    """Path below the corpus -> its first folder, or the file's name without endings and shard numbers.

    `en/part-00000.bin` -> `en`; `c4-train.00001-of-01024.json.gz` -> `c4-train`. A name that is
    nothing but a shard number says nothing: then it is `folder`, the one the file lies in.
    """
    first, _, rest = name.partition("/")
    if rest:
        return first
    stem = _HASH.sub("", _ENDINGS.sub("", name))
    if name.endswith(".ds"):  # merged files are numbered in front
        stem = re.sub(r"^\d{3}_", "", stem)
    return _NUMBER.sub("", stem) or folder or stem


SAMPLE_BYTES = 64 << 20
_DISK_PER_BYTE = {"gzip": 0.3, "zstd": 0.28}  # of text; only where no whole file fits into the sample


def notes(found: Plan) -> list[str]:
    """What was concluded of the input that its files do not say."""
    said: dict[str, list[str]] = {}
    for s in found.splits:
        if s.columns.note and s.path not in said.setdefault(s.columns.note, []):
            said[s.columns.note].append(s.path)
    return [
        f"note: {note} ({paths[0]}{f' and {len(paths) - 1} more' * (len(paths) > 1)})" for note, paths in said.items()
    ]


def sample_batches(found: Plan) -> tuple[list[Any], float]:
    """Batches of a few splits from all over the corpus -> (batches, bytes on disk they stand for).

    Splits are read whole, so that the ratio is right for compressed files too; the last one may
    be cut, and then counts for what a split of its size gave so far.
    """
    step = max(1, len(found.splits) // 16)
    sample: list[Any] = []
    memory, disk = 0, 0.0
    for split in found.splits[::step]:
        before = memory
        for batch in read(split, lambda p, r, e: None):
            sample.append(batch)
            memory += batch.nbytes
            if memory >= SAMPLE_BYTES:
                rate = disk / before if before else _DISK_PER_BYTE.get(codec(split.path), 1.0)
                return sample, min(disk + rate * (memory - before), disk + split.bytes)
        disk += split.bytes
    return sample, max(disk, 1.0)
