"""datatrove's tokenized files: `x.ds` (ids) with `x.ds.index`, `x.ds.metadata` and, optionally, `x.ds.loss`.

.index: u64 end of each document in tokens. .metadata, three lines: `tokenizer|bytes per id`, number of tokens, the same
number in words. .loss: one byte per token, 0 = it carries no loss. Source: datatrove pipeline/tokens/tokenizer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location, read_bytes
from tinydata.formats import dtype_evidence, token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted

DTYPES = {"2": "uint16", "4": "uint32"}  # bytes per id -> type


def matches(file: Location) -> bool:
    return file.name.endswith(".ds")


def columns(file: Location, wanted: Wanted) -> Columns:
    """Raises OSError unless .index, .metadata, .loss and the ids agree."""
    meta = _companion(file, ".metadata")
    if meta.exists():
        line = read_bytes(meta).split(b"\n")[0].decode("utf-8", "replace")
        size = line.rpartition("|")[2].strip()
        if size not in DTYPES:
            raise OSError(f"{meta.name} begins with {line[:80]!r}, which does not declare 2 or 4 bytes per id")
        dtype, note = np.dtype(DTYPES[size]), ""
    else:
        data = dtype_evidence.sample(file, 0, file.size)
        dtype, note = dtype_evidence.infer_dtype(data, file.size, wanted, file, ".ds.metadata is missing")
    first = _first(file)
    if (expected := int(first[-1]) * dtype.itemsize) != file.size:
        raise OSError(f"it has {file.size} bytes, its index says {expected}")
    loss = _companion(file, ".loss")
    if loss.exists() and loss.size != first[-1]:
        raise OSError(f"{loss.name} has {loss.size} bytes for {first[-1]} ids")
    return Columns(ids="ids", types=(("ids", dtype.name),), note=note)


def _companion(file: Location, ending: str) -> Location:
    return file.parent / (file.name + ending)


def _first(file: Location) -> np.ndarray:
    """x.ds -> first token of each document int64[documents + 1]."""
    index = _companion(file, ".index")
    if not index.exists():
        raise OSError(f"{index.name}, which lists its documents, is missing")
    return _read_index(index, index.changed)


@lru_cache(maxsize=2)  # splits of one file follow one another, and each would read the whole index again
def _read_index(index: Location, changed: int) -> np.ndarray:
    data = read_bytes(index)
    if len(data) % 8:
        raise OSError(f"{index.name} ends early: {len(data)} bytes are not a multiple of 8")
    first = np.concatenate([[0], np.frombuffer(data, np.int64)])
    if (np.diff(first) < 0).any():
        raise OSError(f"{index.name} has documents that end before they begin")
    return first


def splits(file: Location) -> list[SplitRange]:
    """Runs of documents."""
    first = _first(file)
    return token_files.runs(first, file.size // max(int(first[-1]), 1))


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    file = Location.of(split.path)
    loss = _companion(file, ".loss")
    dtype = np.dtype(split.columns.types[0][1])
    yield from token_files.documents(split, _first(file), dtype, bad, loss=loss if loss.exists() else None)
