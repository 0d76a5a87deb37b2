"""Documents that could not be used: path, position, reason and first characters, as rows of quarantine.parquet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core import schema


def weights(bad: pa.Table, good: int, read: int) -> np.ndarray:
    """QUARANTINE -> documents that each row stands for, int64[rows]; where unknown, estimated from its bytes.

    The estimate is the average over the corpus, of which `good` documents were read from `read` bytes on disk.
    """
    documents, size = (bad[c].to_numpy().astype(np.int64) for c in ("documents", "bytes"))
    estimated = np.maximum(np.ceil(size * (good / max(read, 1))).astype(np.int64), 1)
    return np.where(documents > 0, documents, estimated)


def reasons(bad: pa.Table, weight: np.ndarray) -> dict[str, Any]:
    """QUARANTINE and the `weights` of its rows -> what the manifest says about it, in documents and bytes."""
    counts: dict[str, int] = {}
    unread: dict[str, int] = {}
    columns = (bad["reason"].to_pylist(), bad["path"].to_pylist(), bad["bytes"].to_pylist(), weight.tolist())
    for reason, path, size, documents in zip(*columns, strict=True):
        kind = reason.split(":")[0]
        counts[kind] = counts.get(kind, 0) + documents
        if size:
            unread[path] = unread.get(path, 0) + size
    return {"documents": int(weight.sum()), "reasons": counts, "unread_bytes": unread}


def note(
    bad: list[Unusable], path: str, position: int, reason: str, start: bytes, *, documents: int = 1, size: int = 0
) -> None:
    """Appends one unusable piece to `bad`; with the list and the path bound, it is the `bad` callback of a reader."""
    bad.append(Unusable(path, position, reason, excerpt(start), None, documents, size))


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
    documents: int = 1  # that are lost with it; 0: unknown
    bytes: int = 0  # on disk that were not read


def quarantined(bad: Iterable[Unusable]) -> pa.Table:
    """Unusable pieces -> rows of PARTIAL."""
    columns = zip(*bad, strict=True) if bad else [()] * len(Unusable._fields)
    return partial_rows("quarantine", **dict(zip(Unusable._fields, columns, strict=True)))
