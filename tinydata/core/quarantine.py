"""What could not be read: its path, position, reason and first characters, as rows of quarantine.parquet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata.core import schema


def reasons(bad: pa.Table) -> dict[str, Any]:
    """QUARANTINE -> {documents, reasons: {reason: documents}} for the manifest."""
    found: dict[str, int] = {}
    for reason in bad["reason"].to_pylist():
        found[reason.split(":")[0]] = found.get(reason.split(":")[0], 0) + 1
    return {"documents": len(bad), "reasons": found}


def note(bad: list[Unusable], path: str, position: int, reason: str, start: bytes) -> None:
    """What a reader calls as `bad`, once list and path are bound."""
    bad.append(Unusable(path, position, reason, excerpt(start)))


def excerpt(start: bytes) -> str:
    """The first 80 characters of something that may not be text."""
    return start.decode("utf-8", "replace").strip()[:80]


def partial_rows(part: str, **columns: Any) -> pa.Table:
    """Columns of one of the tables inside PARTIAL -> rows of PARTIAL."""
    size = len(next(iter(columns.values())))
    arrays = []
    for field in schema.PARTIAL:
        if field.name == "part":
            arrays.append(pa.repeat(pa.scalar(part), size))
        elif field.name in columns:
            value = columns[field.name]
            arrays.append(value.cast(field.type) if isinstance(value, pa.Array) else pa.array(value, field.type))
        else:
            arrays.append(pa.nulls(size, field.type))
    return pa.Table.from_arrays(arrays, schema=schema.PARTIAL)


class Unusable(NamedTuple):
    """A piece of input that cannot be used."""

    path: str
    position: int
    reason: str
    excerpt: str = ""
    doc_id: str | None = None


def quarantined(bad: Iterable[Unusable]) -> pa.Table:
    """What could not be used -> rows of PARTIAL."""
    columns = zip(*bad, strict=True) if bad else [()] * len(Unusable._fields)
    return partial_rows("quarantine", **dict(zip(Unusable._fields, columns, strict=True)))
