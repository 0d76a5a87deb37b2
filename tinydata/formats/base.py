"""paths -> splits -> record batches: `Format`, the functions that every corpus format provides, and what they share.

A split is the piece of a corpus that one task reads; it is all that is sent to the task. Splits
depend only on the data, never on the engine or the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from tinydata.core import schema
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location

SPLIT_BYTES = 64 << 20

TEXT_NAMES = ("text", "content")
IDS_NAMES = ("input_ids", "tokens", "token_ids", "ids")
ID_NAMES = ("doc_id", "id")
DOMAIN_NAMES = ("domain",)


class Bad(Protocol):
    """Is called for input that cannot be used."""

    def __call__(self, position: int, reason: str, start: bytes, /, *, documents: int = 1, size: int = 0) -> None:
        """Position and first bytes of the input, and what is lost with it: documents, and `size` bytes on disk.

        documents: 0 if their number is unknown; it is then estimated from `size`.
        """


class NoDocuments(Exception):
    """A file of a known format that has no documents: it is empty."""


class NotData(Exception):
    """A file that describes data, or is something else: it is named, and does not count as lost."""


class Wanted(NamedTuple):
    """Column names that the user gave (empty: use the conventional ones), and facts about the tokenizer that help to
    determine the type of token ids in files that do not declare it."""

    text: str = ""
    ids: str = ""
    domain: str = ""
    doc_id: str = ""
    dtype: str = ""  # type of ids in files that do not declare it; empty: inferred from the data
    vocab: int = 0  # number of ids of the tokenizer; 0: unknown
    eos: int = -1  # its end-of-text id; -1: unknown
    as_text: str = ""  # patterns of file names, separated by commas: each such file is a document
    each: tuple[Wanted, ...] = ()  # of each path of the corpus, where they differ; vocab and eos are of all

    def of(self, path: int) -> Wanted:
        """What is wanted of the corpus's path of that number."""
        return self.each[path]._replace(vocab=self.vocab, eos=self.eos) if self.each else self

    @property
    def given(self) -> dict[str, str | list[str]]:
        """The options that the user gave, as a manifest records them: {"text_column": …, "dtype": …}.

        An option with different values for the paths of the corpus is a list.
        """
        values = {option: [getattr(w, field) for w in self.each or (self,)] for field, option in _OPTIONS.items()}
        return {option: v[0] if len(set(v)) == 1 else v for option, v in values.items() if any(v)}

    @classmethod
    def from_given(cls, options: Mapping[str, Any]) -> Wanted:
        """The inverse of `given`; other entries of `options` are ignored.

        Raises TinydataError if an option has one value for each of several paths and others have another number.
        """
        values: dict[str, Any] = {field: options.get(option) or "" for field, option in _OPTIONS.items()}
        paths = {len(v) for v in values.values() if not isinstance(v, str)}
        if not paths:
            return cls()._replace(**values)
        if len(paths) > 1:
            raise TinydataError(
                "the options of the columns name different numbers of paths",
                where=", ".join(f"{_OPTIONS[field].replace('doc_id', 'id')} = {v}" for field, v in values.items() if v),
                fix="write one value for all paths of the corpus, or a list with one for each",
            )
        return cls(
            each=tuple(
                cls.from_given({_OPTIONS[f]: v if isinstance(v, str) else v[path] for f, v in values.items()})
                for path in range(paths.pop())
            )
        )


_OPTIONS = {field: f"{field}_column" for field in ("text", "ids", "domain", "doc_id")}  # as manifests name them
_OPTIONS |= {"dtype": "dtype", "as_text": "read_as_text"}


USUAL = Wanted()


class Columns(NamedTuple):
    """The columns of a file to read: exactly one of text and ids is set; `types` decides how they are read."""

    text: str = ""
    ids: str = ""
    domain: str = ""
    doc_id: str = ""
    types: tuple[tuple[str, str], ...] = ()
    eos: int = -1  # the id that separates documents if nothing else does; -1: none
    note: str = ""  # what was inferred from the data because the file does not declare it

    @property
    def kind(self) -> str:
        """ "text" or "ids"."""
        return "text" if self.text else "ids"


class SplitRange(NamedTuple):
    """Where a split of a file starts and stops, in units of its format, and how many bytes on disk it has."""

    start: int
    stop: int
    bytes: int


class Split(NamedTuple):
    """A piece of one file: the smallest unit of work of a task."""

    path: str
    name: str  # path relative to what the user gave: stable ids and domains are derived from it
    domain: str  # for documents without a domain of their own
    format: str
    start: int
    stop: int
    bytes: int
    columns: Columns


class Format(Protocol):
    """A corpus format: a module of this package that defines these functions, listed in `formats.registry`.

    A file that cannot be read raises OSError or pyarrow.ArrowInvalid in `columns` or `splits`; it is quarantined. One
    that has no documents raises NoDocuments, one that is no data NotData. What only the user can decide raises
    TinydataError: it ends the run if it holds for all files of a corpus, otherwise the file is quarantined.
    """

    def matches(self, file: Location) -> bool:
        """Whether the file has this format, decided by its name, its companion files and its first bytes."""

    def columns(self, file: Location, wanted: Wanted) -> Columns:
        """The columns to read: text or ids, and labels. Raises TinydataError (exit 3) that lists those available."""

    def splits(self, file: Location) -> list[SplitRange]:
        """The file, divided into pieces of about SPLIT_BYTES; [] if it only describes other files."""

    def read(self, split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
        """Batches of TEXT or TOKENS, as `batch` makes them; calls `bad` for each document that cannot be used."""


_AS_TEXT = ("text", "binary")  # kinds of columns that can be read as text
_LABELS = ("text", "integer", "null")  # kinds of columns whose values are labels as they are
_ABOUT = {
    *ID_NAMES,
    *DOMAIN_NAMES,
    "source",
    "url",
    "added",
    "created",
    "version",
    "date",
    "license",
    "lang",
    "language",
}
CHAT = {"messages", "conversations", "conversation"}


def pick(names: list[str], asked: str, usual: tuple[str, ...], option: str, where: Location) -> str:
    """The column asked for, else the first conventional one that exists, else "".

    Raises TinydataError (exit 3) if the column asked for does not exist.
    """
    if asked:
        if asked not in names:
            raise TinydataError(
                f"there is no column {asked!r}",
                where=str(where),
                fix=f"the columns are {', '.join(names) or 'none'}; choose one of them with {option}",
                code=UNREADABLE,
            )
        return asked
    return next((n for n in usual if n in names), "")


def choose(types: dict[str, str], wanted: Wanted, where: Location) -> Columns:
    """{column: "text" | "binary" | "ids" | "integer" | "null" | other type} -> the Columns to read.

    A column of nulls may be either. Raises TinydataError (exit 3), which lists the columns, if none has text or token
    ids, and NotData if none could have.
    """
    names = list(types)
    text = pick(names, wanted.text, TEXT_NAMES, "--text-column", where) if not wanted.ids else ""
    ids = pick(names, wanted.ids, IDS_NAMES, "--ids-column", where) if not wanted.text else ""
    if text and not wanted.text and types[text] not in _AS_TEXT and (ids or types[text] != "null"):
        text = ""
    if text:
        ids = ""
    for column, kinds in ((text, (*_AS_TEXT, "null")), (ids, ("ids", "null"))):
        if column and types[column] not in kinds:
            raise TinydataError(
                f"column {column!r} contains {types[column]}, not {'text' if column == text else 'lists of integers'}",
                where=str(where),
                fix=f"the columns are {_listed(types)}; choose another with --text-column or --ids-column",
                code=UNREADABLE,
            )
    if not text and not ids:
        if not any(t in _AS_TEXT and n not in _ABOUT for n, t in types.items()) and not CHAT & set(names):
            raise NotData(f"it has no column that could be text or token ids, only {_listed(types)}")
        advice = f"the columns are {_listed(types)}; choose one with --text-column or --ids-column"
        if chat := sorted(CHAT & set(names)):
            advice = f"{chat[0]!r} has conversations: write them as text first, with the chat template of the tokenizer"
            advice += " (apply_chat_template in transformers)"
        raise TinydataError("no column with text or token ids", where=str(where), fix=advice, code=UNREADABLE)
    domain = pick(names, wanted.domain, DOMAIN_NAMES, "--domain-column", where)
    doc_id = pick(names, wanted.doc_id, ID_NAMES, "--id-column", where)
    used = tuple((n, types[n]) for n in (text, ids, domain, doc_id) if n)
    odd = [f"{n!r} has values of type {types[n]}" for n in (domain, doc_id) if n and types[n] not in _LABELS]
    return Columns(text, ids, domain, doc_id, used, note="; ".join(odd) + ", taken as text" if odd else "")


def _listed(types: dict[str, str]) -> str:
    return ", ".join(f"{n} ({t})" for n, t in types.items()) or "none"


def batch(
    split: Split,
    body: pa.Array,
    position: pa.Array,
    doc_id: pa.Array | None,
    domain: pa.Array | None,
    mask: pa.Array | None = None,
) -> pa.RecordBatch:
    """Columns of n documents of a split -> RecordBatch of TEXT or TOKENS; its metadata has path, name, start, format.

    `mask`: list<bool>, as long as the ids; true: the token carries no loss. It becomes a fifth column.
    """
    n = len(body)
    if domain is None:
        labels = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), n), pa.array([split.domain]))
    else:
        labels = domain.cast(pa.string()).fill_null(split.domain).dictionary_encode()
    ids = pa.nulls(n, pa.string()) if doc_id is None else doc_id.cast(pa.string())
    fields = [schema.TEXT.field(0), schema.TEXT.field(1), schema.TEXT.field(2), pa.field(split.columns.kind, body.type)]
    return pa.RecordBatch.from_arrays(
        [ids, labels, position, body] + ([mask] if mask is not None else []),
        schema=pa.schema(
            fields + ([schema.MASK] if mask is not None else []),
            metadata={
                "path": split.path,
                "name": split.name,
                "start": str(split.start),
                "format": split.format,
            },
        ),
    )
