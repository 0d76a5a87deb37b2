"""Parquet with a text column, or a list column of token ids. Splits are runs of row groups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location
from tinydata.core.schema import DOCUMENTS
from tinydata.formats.base import SPLIT_BYTES, Bad, Columns, NoDocuments, Split, SplitRange, Wanted, batch, choose
from tinydata.formats.writing import Piece, Sums

MASK = "loss_mask"  # list<bool> as long as the ids, true where a token carries loss
_MASKS = ("list<element: bool>", "list<item: bool>")
ROWS = 1 << 14  # maximum number of documents in one batch
BYTES = 256 << 20  # of one batch at most: offsets of strings have 31 bits


def matches(file: Location) -> bool:
    return file.name.endswith((".parquet", ".pq"))


def columns(file: Location, wanted: Wanted) -> Columns:
    with file.open() as f:
        meta = pq.read_metadata(f)
    if not meta.num_rows:
        raise NoDocuments
    return columns_of(meta.schema.to_arrow_schema(), wanted, file)


def columns_of(schema: pa.Schema, wanted: Wanted, file: Location) -> Columns:
    """An Arrow schema -> the columns to read; fields of structs are named with dots, as `data.text`."""
    types = dict(_fields(schema))
    chosen = choose(types, wanted, file)
    if twice := [n for n, _ in chosen.types if schema.names.count(n) > 1]:
        raise TinydataError(
            f"two columns are named {twice[0]!r}", where=str(file), fix="rename one of them", code=UNREADABLE
        )
    if chosen.ids and MASK in schema.names and str(schema.field(MASK).type) in _MASKS:
        chosen = chosen._replace(types=(*chosen.types, (MASK, "mask")))
    return chosen


def _fields(fields: Iterable[pa.Field], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, type) of all columns, after each struct its fields."""
    for field in fields:
        yield prefix + field.name, _type(field.type)
        if pa.types.is_struct(field.type):
            yield from _fields(field.type.fields, f"{prefix}{field.name}.")


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "binary"
    if pa.types.is_integer(kind):
        return "integer"
    if _is_list(kind) and pa.types.is_integer(kind.value_type):
        return "ids"
    return str(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def splits(file: Location) -> list[SplitRange]:
    """Runs of row groups."""
    with file.open() as f:
        meta = pq.read_metadata(f)
    out, first, size = [], 0, 0
    for i, on_disk in enumerate(_on_disk(meta, file.size)):
        size += on_disk
        if size >= SPLIT_BYTES or i + 1 == meta.num_row_groups:
            out.append(SplitRange(first, i + 1, size))
            first, size = i + 1, 0
    return out


def _on_disk(meta: pq.FileMetaData, size: int) -> list[int]:
    """Bytes of each row group in a file of `size` bytes, by the shares of their uncompressed bytes.

    The compressed sizes stand in the metadata of columns, and reading those of a damaged file ends the process: pyarrow
    lets a C++ exception about their statistics pass.
    """
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    raw = [max(group.total_byte_size, group.num_rows, 0) for group in groups]  # a writer may leave out the bytes
    total = max(sum(raw), 1)
    ends = [size * done // total for done in accumulate(raw)]
    return [b - a for a, b in pairwise([0, *ends])]


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """One row group at a time: faster than iter_batches with small batches, and a broken one does not affect others."""
    names = [n for n, _ in split.columns.types]
    where = Location.of(split.path)
    with where.open() as f:
        file = pq.ParquetFile(f, page_checksum_verification=True)
        meta = file.metadata
        row = sum(meta.row_group(i).num_rows for i in range(split.start))
        for group in range(split.start, split.stop):
            try:
                table = file.read_row_group(group, columns=list(dict.fromkeys(names)), use_threads=False)
                table.validate()
                for part in table.to_batches(max_chunksize=ROWS):
                    for small in bounded(part):
                        yield from batch_of(split, small, row, bad)
                        row += len(small)
            except (pa.ArrowInvalid, OSError) as e:
                end = sum(meta.row_group(i).num_rows for i in range(group + 1))
                size = _on_disk(meta, where.size)[group]
                reason = f"row group {group} cannot be read: {' '.join(str(e).split())[:200]}"
                bad(row, reason, b"", documents=end - row, size=size)
                row = end


def bounded(part: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch -> the same in pieces of at most BYTES, unless a single row is larger."""
    if part.nbytes <= BYTES or len(part) <= 1:
        yield part
        return
    half = len(part) // 2
    yield from bounded(part.slice(0, half))
    yield from bounded(part.slice(half))


def batch_of(split: Split, part: pa.RecordBatch, row: int, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Rows of a table, the first of which has number `row` -> documents; calls `bad` for those that are not."""
    names = split.columns
    part = pa.RecordBatch.from_arrays([_column(part, n) for n, _ in names.types], names=[n for n, _ in names.types])
    positions = pa.array(np.arange(row, row + len(part), dtype=np.int64))
    broken = _not_utf8(part.select([names.text]) if names.text else part.slice(0, 0))
    if broken:
        for i, value in sorted(broken.items()):
            bad(row + i, "not UTF-8", value[:320])
        good = pa.array([i not in broken for i in range(len(part))])
        part, positions = part.filter(good), positions.filter(good)
    body = part.column(names.text or names.ids)
    if pa.types.is_dictionary(body.type):
        body = body.dictionary_decode()
    if names.text and body.type != pa.string():
        body = body.cast(pa.string())
    if names.ids and pa.types.is_null(body.type):
        body = body.cast(pa.list_(pa.int32()))
    if pa.types.is_fixed_size_list(body.type):
        body = body.cast(pa.list_(body.type.value_type))
    doc_id = labels(part.column(names.doc_id)) if names.doc_id else None
    domain = labels(part.column(names.domain)) if names.domain else None
    flags = part.column(MASK) if (MASK, "mask") in names.types else None
    nulls = body.is_null()
    if names.ids and body.flatten().null_count:
        with_null = pc.list_parent_indices(body).filter(body.flatten().is_null())
        nulls = pc.or_(nulls, pc.is_in(pa.array(np.arange(len(body))), with_null))
    if pc.any(nulls).as_py():
        for at in positions.filter(nulls).to_pylist():
            bad(at, f"no value for {names.text or names.ids!r}", b"")
        good = pc.invert(nulls)
        body, positions = body.filter(good), positions.filter(good)
        doc_id = doc_id if doc_id is None else doc_id.filter(good)
        domain = domain if domain is None else domain.filter(good)
        flags = flags if flags is None else flags.filter(good)
    if len(body):
        yield batch(split, body, positions, doc_id, domain, None if flags is None else _mask(flags, body))


def _column(part: pa.RecordBatch, name: str) -> pa.Array:
    """A column, or the field of a struct that `name` leads to with dots; null where a struct on the way is."""
    if name in part.schema.names:
        return part.column(name)
    first, *inner = name.split(".")
    return pc.struct_field(part.column(first), inner)


def labels(column: pa.Array) -> pa.Array:
    """Ids or domains of any type -> text: bytes that are not UTF-8 become hexadecimal, structures JSON."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if _type(kind) in ("text", "integer", "null"):
        return column
    if _type(kind) != "binary":
        return pa.array([None if v is None else _as_text(v) for v in column.to_pylist()], pa.string())
    values = column.cast(pa.binary()).to_pylist()
    return pa.array([v if v is None or _decodes(v) else v.hex().encode() for v in values], pa.binary()).cast(
        pa.string()
    )


def _as_text(value: Any) -> str:
    """As JSON writes it; of a type that JSON does not have (a time, a decimal), as Python does."""
    return json.dumps(value, default=str) if isinstance(value, list | dict | bool | int | float) else str(value)


def _mask(flags: pa.ListArray, body: pa.ListArray) -> pa.ListArray:
    """MASK -> true where a token carries no loss; raises OSError if it is not as long as the ids."""
    if flags.null_count or not pc.list_value_length(flags).equals(pc.list_value_length(body)):
        raise OSError(f"{MASK} is not as long as the ids")
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(flags).to_numpy())]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pc.invert(flags.flatten()))


def _not_utf8(part: pa.RecordBatch) -> dict[int, bytes]:
    """{row: value} of the strings that are not UTF-8, which Parquet does not prevent."""
    out: dict[int, bytes] = {}
    for column in part.columns:
        if _type(column.type) not in ("text", "binary"):
            continue
        try:
            (column if _type(column.type) == "text" else column.cast(pa.string())).validate(full=True)
        except pa.ArrowInvalid:
            plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            values = plain.cast(pa.binary()).to_pylist()
            out.update((i, v) for i, v in enumerate(values) if v is not None and not _decodes(v))
    return out


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def write(place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
    """Documents -> stem.parquet: doc_id, domain, input_ids list<int32> and, if tokens may be masked, MASK.

    The ids are signed because Spark has no unsigned types.
    """
    name = f"{stem}.parquet"
    fields = [*DOCUMENTS, pa.field("input_ids", pa.list_(pa.int32()))]
    if masked:
        fields.append(pa.field(MASK, pa.list_(pa.bool_())))
    with (place / name).stream() as sink, pq.ParquetWriter(sink, pa.schema(fields), compression="zstd") as out:
        for piece in pieces:
            ends = pa.array(np.concatenate([[0], np.cumsum(piece.lengths)]).astype(np.int32))
            lists = [pa.ListArray.from_arrays(ends, pa.array(piece.ids.astype(np.int32, copy=False)))]
            if masked:
                lists.append(pa.ListArray.from_arrays(ends, pa.array(~piece.flags)))
            out.write_table(pa.table([*piece.documents.columns, *lists], schema=pa.schema(fields)))
    return {name: sink.sum}
