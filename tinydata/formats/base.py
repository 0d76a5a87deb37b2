"""paths -> splits -> record batches: what every format must give, and the doors `plan` and `read`.

A split is the piece of a corpus that one task reads, and all that travels to it. Splits depend
on the data alone, never on the engine or the number of workers. A format is a module with

    matches(file) -> bool                        by name and first bytes
    columns(file, wanted) -> Columns             what it holds; TinydataError names what there is
    splits(file) -> list[(start, stop, bytes)]   in the format's own unit; none: it describes other files
    read(split, bad) -> Iterator[RecordBatch]    TEXT or TOKENS; calls bad(position, reason, excerpt)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata.core import schema
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location

SPLIT_BYTES = 64 << 20
Bad = Callable[[int, str, bytes], None]  # position, reason, the first bytes of what cannot be used

TEXT_NAMES = ("text", "content")
IDS_NAMES = ("input_ids", "tokens", "token_ids", "ids")
ID_NAMES = ("doc_id", "id")
DOMAIN_NAMES = ("domain",)


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
