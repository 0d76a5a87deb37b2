"""JSON lines of text or token ids: .jsonl .json .ndjson, plain or compressed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from tinydata.core.errors import TinydataError
from tinydata.core.location import Location
from tinydata.formats import text_lines
from tinydata.formats.base import CHAT, Bad, Columns, NoDocuments, NotData, Split, SplitRange, Wanted, batch, choose

INSPECTED = 20  # first objects, whose keys are the columns: a single one may lack some, or have nulls
_ENDINGS = (".jsonl", ".json", ".ndjson")
_REASON = {AttributeError: "not a JSON object", RecursionError: "nested too deep"}
_TYPES = {"text": pa.string(), "ids": pa.list_(pa.int64()), "integer": pa.int64()}


def matches(file: Location) -> bool:
    return text_lines.plain_name(file.name).endswith(_ENDINGS)


def splits(file: Location) -> list[SplitRange]:
    return text_lines.splits(file)


def columns(file: Location, wanted: Wanted) -> Columns:
    """The keys of the first lines that are JSON objects. Raises OSError if there are no such lines."""
    objects = _objects(file)
    try:
        return choose(types_of(objects, wanted), wanted, file)
    except TinydataError:
        metadata = text_lines.plain_name(file.name).endswith(".json") and file.size < 1 << 16
        if len(objects) == 1 and metadata and not CHAT & objects[0].keys():
            raise NotData("it is one JSON object without text or token ids") from None
        raise


def types_of(objects: list[dict[str, Any]], wanted: Wanted) -> dict[str, str]:
    """{key: type} of some objects, nested keys as `data.text`: text or ids if any of them has such a value there."""
    types: dict[str, str] = {}
    for row in objects:
        for key, value in flat(row, wanted):
            kind = _type(value)
            if types.get(key, "null") == "null" or (kind in ("text", "ids") and types[key] not in ("text", "ids")):
                types[key] = kind
    return types


def flat(row: dict[str, Any], wanted: Wanted) -> Iterator[tuple[str, Any]]:
    """The keys of an object, those of text in its objects, and the nested ones that the user named with dots."""
    yield from row.items()
    for key, value in row.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", v) for inner, v in value.items() if isinstance(v, str))
    for name in (wanted.text, wanted.ids, wanted.domain, wanted.doc_id):
        if "." in name and name not in row and (value := at_path(row, name)) is not None:
            yield name, value


def at_path(row: Any, name: str) -> Any:
    """The value of key `name`, or, if there is none, of the path that its dots make; None if neither exists."""
    if name in row:
        return row[name]
    for key in name.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row


def _objects(file: Location) -> list[dict[str, Any]]:
    """The first INSPECTED objects near the beginning of the file. Other lines are skipped: `read` reports them.

    Raises NoDocuments if all lines are blank, and OSError if none is an object.
    """
    objects: list[dict[str, Any]] = []
    blank = True
    try:
        for piece in text_lines.lines(file, 0, 1 if text_lines.codec(file.name) else 1 << 16):
            blank = blank and not piece.data.strip()
            for line in piece.data.split(b"\n"):
                row = _loads(line) if len(objects) < INSPECTED else None
                if isinstance(row, dict):
                    objects.append(row)
            if objects:
                break
    except (OSError, EOFError) as e:
        if not objects:
            raise OSError(str(e)) from None
    if blank and not text_lines.codec(file.name) and file.size > 1 << 16:
        return _objects_anywhere(file)
    if blank:
        raise NoDocuments
    if not objects:
        raise OSError("no line here is a JSON object")
    return objects


def _objects_anywhere(file: Location) -> list[dict[str, Any]]:
    """The first objects of a file that begins with 64 KiB of blank lines."""
    for piece in text_lines.lines(file, 0, file.size):
        rows = [row for line in piece.data.split(b"\n")[:INSPECTED] if isinstance(row := _loads(line), dict)]
        if rows:
            return rows
        if piece.data.strip():
            raise OSError("no line here is a JSON object")
    raise NoDocuments


def _loads(line: bytes) -> Any:
    """A line -> its value; None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_json(line: bytes) -> bool:
    """Whether a line is a JSON value."""
    return _loads(line) is not None or line.strip() == b"null"


def _type(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, list) and all(isinstance(v, int) for v in value):
        return "ids"
    return type(value).__name__


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Parses all lines of a piece at once; if one of them is broken, parses that piece line by line."""
    wanted = schema_of(split.columns)
    for piece in text_lines.readable_lines(split, bad):
        starts = line_starts(piece.data)
        table = _parse(piece.data, wanted)
        if table is None or len(table) != len(starts) or _nulls(table[_body(split)]):
            table, starts = _parse_each(piece, starts, wanted, _body(split), bad)
        if len(table):
            yield batch_of(split, table, starts + piece.position)


def schema_of(columns: Columns) -> pa.Schema:
    """The columns to read -> their Arrow types."""
    ids = columns.ids
    return pa.schema([(n, pa.list_(pa.int64()) if n == ids else _TYPES.get(t, pa.string())) for n, t in columns.types])


def _body(split: Split) -> str:
    return split.columns.text or split.columns.ids


def _nulls(body: pa.ChunkedArray) -> int:
    """Number of documents without a value, and of nulls among ids."""
    inside = pc.list_flatten(body).null_count if pa.types.is_list(body.type) else 0
    return body.null_count + inside


def line_starts(data: bytes) -> np.ndarray:
    """Bytes of complete lines -> int64[lines], first bytes of the lines that are not blank."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == 10)
    starts = np.concatenate([[0], ends + 1]).astype(np.int64)
    if starts[-1] == len(data):
        starts = starts[:-1]
    ends = np.append(ends, len(data))[: len(starts)]
    short = np.flatnonzero(ends - starts <= 1)
    if len(short):
        blank = [i for i in short if not data[starts[i] : ends[i]].strip()]
        starts = np.delete(starts, blank)
    return starts


def _parse(data: bytes, wanted: pa.Schema) -> pa.Table | None:
    """All lines at once, 550 MB/s; None if any of them does not match the schema."""
    if any("." in name for name in wanted.names):  # nested keys: line by line
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=max(len(data), 1) + 64),
            parse_options=pj.ParseOptions(explicit_schema=wanted, unexpected_field_behavior="ignore"),
        )
        table.validate(full=True)  # also that text is UTF-8
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError):
        return None
    return table


def _parse_each(
    piece: text_lines.Piece, starts: np.ndarray, wanted: pa.Schema, body: str, bad: Bad
) -> tuple[pa.Table, np.ndarray]:
    """Line by line: the good rows and where they begin int64[rows]; calls `bad` for the others."""
    rows: list[dict[str, Any]] = []
    good: list[int] = []
    stops = np.append(starts[1:], len(piece.data))
    for a, b in zip(starts.tolist(), stops.tolist(), strict=True):
        line = piece.data[a:b].strip()
        if not line:
            continue
        try:
            row = json.loads(line)
            rows.append(document(row, wanted, body))
            good.append(a)
        except (ValueError, AttributeError, RecursionError) as e:
            what = str(e) if isinstance(e, ValueError) else _REASON[type(e)]
            bad(piece.position + a, f"broken JSON line: {what}", line[:400])
    return table_of(rows, wanted, body), np.array(good, np.int64)


def document(row: Any, wanted: pa.Schema, body: str) -> dict[str, Any]:
    """A JSON value -> the document's columns, labels as text; raises ValueError or AttributeError if it is not one."""
    value = {f.name: at_path(row, f.name) if "." in f.name else row.get(f.name) for f in wanted}
    if value[body] is None:
        raise ValueError(f"no value for {body!r}")
    return {n: _checked(v, wanted.field(n).type) if n == body else label(v) for n, v in value.items()}


def table_of(rows: list[dict[str, Any]], wanted: pa.Schema, body: str) -> pa.Table:
    """Columns of documents -> table, labels as text."""
    labels_as_text = pa.schema([f if f.name == body else pa.field(f.name, pa.string()) for f in wanted])
    return pa.Table.from_pylist(rows, schema=labels_as_text)


def label(value: Any) -> str | None:
    """An id or a domain of any JSON type -> text: a label never decides over its document. 3.0 -> "3.0"."""
    if value is None or isinstance(value, str):
        return None if value is None else value.encode("utf-8", "replace").decode()
    return json.dumps(value, ensure_ascii=True)


def _checked(value: Any, kind: pa.DataType) -> Any:
    """The value; raises ValueError unless it is null or of this type."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        if not isinstance(value, str):
            raise ValueError(f"a string is expected, not {type(value).__name__}")
        value.encode()  # raises if there is a lone surrogate, which is not text
    elif not isinstance(value, list) or not all(type(v) is int and -(2**63) <= v < 2**63 for v in value):
        raise ValueError("a list of integers is expected")
    return value


def batch_of(split: Split, table: pa.Table, positions: np.ndarray) -> pa.RecordBatch:
    """Rows as `table_of` makes them, and where they begin -> batch of documents."""

    def column(name: str) -> pa.Array | None:
        return table[name].combine_chunks() if name else None

    names = split.columns
    return batch(split, column(_body(split)), pa.array(positions), column(names.doc_id), column(names.domain))
