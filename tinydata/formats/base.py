"""paths -> splits -> record batches: what every format must give, and the doors `plan` and `read`.

A split is the piece of a corpus that one task reads, and all that travels to it. Splits depend
on the data alone, never on the engine or the number of workers. A format is a module with

    matches(file) -> bool                        by name and first bytes
    columns(file, wanted) -> Columns             what it holds; TinydataError names what there is
    splits(file) -> list[(start, stop, bytes)]   in the format's own unit; none: it describes other files
    read(split, bad) -> Iterator[RecordBatch]    TEXT or TOKENS; calls bad(position, reason, excerpt)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata import schema
from tinydata.errors import UNREADABLE, TinydataError
from tinydata.formats.write import BESIDE
from tinydata.store import MANIFEST, Location, expand

SPLIT_BYTES = 64 << 20
Bad = Callable[[int, str, bytes], None]  # position, reason, the first bytes of what cannot be used

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

TEXT_NAMES = ("text", "content")
IDS_NAMES = ("input_ids", "tokens", "token_ids", "ids")
ID_NAMES = ("doc_id", "id")
DOMAIN_NAMES = ("domain",)

# What a file's name holds besides its domain: endings, what Spark and `datasets` append, shard numbers.
_ENDINGS = re.compile(
    r"(\.(jsonl?|ndjson|parquet|pq|txt|bin|idx|meta|gz|zst|zstd|snappy|npy|mds)"
    r"|(_unshuffled|_(doc|chunk)_shuffled)?\.ds)+$"
)
_HASH = re.compile(r"-([0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}([-.]c\d+)?)$")
_NUMBER = re.compile(r"((^|[-_.]+)(part|shard|chunk)?[-_.]*\d+([-_.]?of[-_.]?\d+)?|\d{3,})+$")


class Wanted(NamedTuple):
    """Column names the user gave; empty: look for the usual ones. And what undeclared token ids are judged by."""

    text: str = ""
    ids: str = ""
    domain: str = ""
    doc_id: str = ""
    dtype: str = ""  # of ids in files that do not say it; empty: on evidence
    vocab: int = 0  # ids of the tokenizer; 0: not known
    eos: int = -1  # its id of the end of a text; -1: not known

    @property
    def told(self) -> dict[str, str]:
        """What the user gave, for a manifest: {"text_column": …, "dtype": …}."""
        names = {"text", "ids", "domain", "doc_id"}
        return {f"{k}_column" if k in names else k: v for k, v in self._asdict().items() if v and isinstance(v, str)}


USUAL = Wanted()


class Columns(NamedTuple):
    """What a file holds: exactly one of text and ids is named; types decide how to read them."""

    text: str = ""
    ids: str = ""
    domain: str = ""
    doc_id: str = ""
    types: tuple[tuple[str, str], ...] = ()
    eos: int = -1  # the id that separates documents where nothing else does
    note: str = ""  # what was concluded and not declared


class Split(NamedTuple):
    """The piece of one file that one task reads."""

    path: str
    name: str  # path below what the user gave: stable ids and domains come from it
    domain: str  # of documents without a domain column
    format: str
    start: int
    stop: int
    bytes: int
    columns: Columns


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


def pick(names: list[str], asked: str, usual: tuple[str, ...], option: str, where: Location) -> str:
    """The column asked for, or the first usual one that is there, or ""; TinydataError if asked in vain."""
    if asked:
        if asked not in names:
            raise TinydataError(
                f"there is no column {asked!r}",
                where=str(where),
                fix=f"the columns are {', '.join(names) or 'none'}; pass one of them with {option}",
                code=UNREADABLE,
            )
        return asked
    return next((n for n in usual if n in names), "")


def choose(types: dict[str, str], wanted: Wanted, where: Location) -> Columns:
    """{column: "text" | "ids" | "int" | other type} -> Columns, or TinydataError that names what there is."""
    names = list(types)
    text = pick(names, wanted.text, TEXT_NAMES, "--text-column", where) if not wanted.ids else ""
    ids = pick(names, wanted.ids, IDS_NAMES, "--ids-column", where) if not wanted.text else ""
    if text and not wanted.text and types[text] != "text":
        text = ""
    if text:
        ids = ""
    for column, kind in ((text, "text"), (ids, "ids")):
        if column and types[column] != kind:
            raise TinydataError(
                f"column {column!r} holds {types[column]}, not {'text' if kind == 'text' else 'lists of integers'}",
                where=str(where),
                fix=f"the columns are {_listed(types)}; name another with --text-column or --ids-column",
                code=UNREADABLE,
            )
    if not text and not ids:
        raise TinydataError(
            "no column with text or token ids",
            where=str(where),
            fix=f"the columns are {_listed(types)}; name one with --text-column or --ids-column",
            code=UNREADABLE,
        )
    domain = pick(names, wanted.domain, DOMAIN_NAMES, "--domain-column", where)
    doc_id = pick(names, wanted.doc_id, ID_NAMES, "--id-column", where)
    used = tuple((n, types[n]) for n in (text, ids, domain, doc_id) if n)
    return Columns(text, ids, domain, doc_id, used)


def _listed(types: dict[str, str]) -> str:
    return ", ".join(f"{n} ({t})" for n, t in types.items()) or "none"


def batch(
    split: Split,
    body: pa.Array,
    position: pa.Array,
    doc_id: pa.Array | None,
    domain: pa.Array | None,
    mask: pa.Array | None = None,
) -> Any:
    """Columns of one stretch of a split -> RecordBatch of TEXT or TOKENS with its metadata.

    `mask`: list<bool>, as long as the ids; true = the token carries no loss. It becomes a fifth column.
    """
    n = len(body)
    if domain is None:
        labels = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), n), pa.array([split.domain]))
    else:
        labels = domain.cast(pa.string()).fill_null(split.domain).dictionary_encode()
    ids = pa.nulls(n, pa.string()) if doc_id is None else doc_id.cast(pa.string())
    name = "text" if split.columns.text else "ids"
    fields = [schema.TEXT.field(0), schema.TEXT.field(1), schema.TEXT.field(2), pa.field(name, body.type)]
    return pa.RecordBatch.from_arrays(
        [ids, labels, position, body] + ([mask] if mask is not None else []),
        schema=pa.schema(
            fields + ([schema.MASK] if mask is not None else []),
            metadata={"path": split.path, "name": split.name, "start": str(split.start)},
        ),
    )
