"""Documents that could not be used: path, position, reason and first characters, as rows of quarantine.parquet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata.core import schema


def reasons(bad: pa.Table) -> dict[str, Any]:
    """QUARANTINE table -> {documents, reasons: {reason without details: documents}} for the manifest."""
    counts: dict[str, int] = {}
    for reason in bad["reason"].to_pylist():
        counts[reason.split(":")[0]] = counts.get(reason.split(":")[0], 0) + 1
    return {"documents": len(bad), "reasons": counts}


def note(bad: list[Unusable], path: str, position: int, reason: str, start: bytes) -> None:
    """Appends one unusable piece to `bad`; with the list and the path bound, it is the `bad` callback of a reader."""
    bad.append(Unusable(path, position, reason, excerpt(start)))


def excerpt(start: bytes) -> str:
    """bytes, not necessarily UTF-8 -> the first 80 characters as text."""
    return start.decode("utf-8", "replace").strip()[:80]


def partial_rows(part: str, **columns: Any) -> pa.Table:
    """Columns of one of the tables that PARTIAL combines (`part` names it) -> rows of PARTIAL, other columns null."""
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
    """Unusable pieces -> rows of PARTIAL."""
    columns = zip(*bad, strict=True) if bad else [()] * len(Unusable._fields)
    return partial_rows("quarantine", **dict(zip(Unusable._fields, columns, strict=True)))
