"""What several verbs derive from the documents of a batch: their names, their invalid token ids, and sums by domain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core.quarantine import Unusable, excerpt

Sums = dict[str, dict[str, Any]]  # domain -> {name: sum}


def document_ids(batch: pa.RecordBatch, empty_is_missing: bool = False) -> pa.StringArray:
    """Columns doc_id and position of TEXT or TOKENS -> string[docs]: FILE:POSITION where the corpus has no id."""
    name = batch.schema.metadata[b"name"].decode()
    places = pc.binary_join_element_wise(pa.scalar(name), batch.column("position").cast(pa.string()), ":")
    given = batch.column("doc_id")
    if empty_is_missing:
        given = pc.if_else(pc.equal(given, ""), None, given)
    return pc.coalesce(given, places)


def masks_by_sign(batch: pa.RecordBatch) -> bool:
    """Whether a negative id in a batch of TOKENS is a masked token, as in InternEvo's format; elsewhere it is none."""
    return bool(batch.schema.metadata[b"format"] == b"internevo")


def outside_vocabulary(
    batch: pa.RecordBatch, values: np.ndarray, offsets: np.ndarray, wrong: np.ndarray, size: int
) -> list[Unusable]:
    """Documents with a token id that a vocabulary of `size` ids does not have -> rows of the quarantine.

    values int[n], offsets int[docs + 1]: ids of the batch of TOKENS; wrong int64[docs]: index of such an id, or -1.
    """
    path = batch.schema.metadata[b"path"].decode()
    bad = []
    for i in np.flatnonzero(wrong >= 0).tolist():
        value = int(values[wrong[i]])
        reason = f"token id {abs(value)} is outside the vocabulary of {size}"
        if value < 0 and not masks_by_sign(batch):
            reason = f"token id {value} is negative, and only InternEvo's format masks tokens in this way"
        start = excerpt(str(values[offsets[i] : min(offsets[i] + 16, offsets[i + 1])].tolist()).encode())
        position, doc_id = batch.column("position")[i].as_py(), batch.column("doc_id")[i].as_py()
        bad.append(Unusable(path, position, reason, start, doc_id))
    return bad


def sums_by_domain(domains: pa.DictionaryArray, **values: np.ndarray) -> Sums:
    """Domain of each of n documents, values [n] -> the sum of each by domain; a domain without documents has zeros."""
    index, names = domains.indices.to_numpy(), domains.dictionary.to_pylist()
    columns = []
    for column in values.values():
        sums = np.bincount(index, column, len(names))
        columns.append((sums if column.dtype.kind == "f" else sums.astype(np.int64)).tolist())
    rows = zip(*columns, strict=True)
    return total_by_domain({n: dict(zip(values, row, strict=True))} for n, row in zip(names, rows, strict=True))


def total_by_domain(parts: Iterable[Sums]) -> Sums:
    """Sums by domain of several parts -> their total, added in that order; domains in the order of appearance."""
    total: Sums = {}
    for part in parts:
        for domain, sums in part.items():
            row = total.setdefault(domain, dict.fromkeys(sums, 0))
            for name, value in sums.items():
                row[name] += value
    return total
