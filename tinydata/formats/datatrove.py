"""datatrove's tokenized files: `x.ds` (ids) with `x.ds.index`, `x.ds.metadata` and perhaps `x.ds.loss`.

.index: u64 end of each document in tokens. .metadata: `tokenizer|bytes per id`, tokens, the same for
people. .loss: one byte per token, 0 = it carries no loss. Source: datatrove pipeline/tokens/tokenizer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location, read_bytes
from tinydata.formats import dtype_evidence
from tinydata.formats import token_files as shards
from tinydata.formats.base import Bad, Columns, Split, Wanted

DTYPES = {"2": "uint16", "4": "uint32"}


def matches(file: Location) -> bool:
    return file.name.endswith(".ds")


def columns(file: Location, wanted: Wanted) -> Columns:
    """OSError unless .index, .metadata, .loss and the ids agree."""
    meta = _beside(file, ".metadata")
    if meta.exists():
        line = read_bytes(meta).split(b"\n")[0].decode("utf-8", "replace")
        size = line.rpartition("|")[2].strip()
        if size not in DTYPES:
            raise OSError(f"{meta.name} begins {line[:80]!r}: no 2 or 4 bytes per id")
        dtype, note = np.dtype(DTYPES[size]), ""
    else:
        data = dtype_evidence.sample(file, 0, file.size)
        dtype, note = dtype_evidence.infer_dtype(data, file.size, wanted, file, ".ds.metadata is missing")
    first = _first(file)
    if first[-1] * dtype.itemsize != file.size:
        raise OSError(f"it has {file.size} bytes, its index says {first[-1] * dtype.itemsize}")
    loss = _beside(file, ".loss")
    if loss.exists() and loss.size != first[-1]:
        raise OSError(f"{loss.name} has {loss.size} bytes for {first[-1]} ids")
    return Columns(ids="ids", types=(("ids", dtype.name),), note=note)


def _beside(file: Location, ending: str) -> Location:
    return file.parent / (file.name + ending)


def _first(file: Location) -> np.ndarray:
    """x.ds -> first token of each document int64[documents + 1]."""
    index = _beside(file, ".index")
    if not index.exists():
        raise OSError(f"{index.name}, which lists its documents, is missing")
    return _read_index(index, index.changed)


@lru_cache(maxsize=2)  # splits of one file follow one another, and each would read the whole index anew
def _read_index(index: Location, changed: int) -> np.ndarray:
    data = read_bytes(index)
    if len(data) % 8:
        raise OSError(f"{index.name} ends early: {len(data)} bytes are no multiple of 8")
    first = np.concatenate([[0], np.frombuffer(data, np.int64)])
    if (np.diff(first) < 0).any():
        raise OSError(f"{index.name} has documents that end before they begin")
    return first


def splits(file: Location) -> list[tuple[int, int, int]]:
    """Runs of whole documents: (first document, last + 1, bytes)."""
    first = _first(file)
    return shards.runs(first, file.size // max(int(first[-1]), 1))


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    file = Location.of(split.path)
    loss = _beside(file, ".loss")
    dtype = np.dtype(split.columns.types[0][1])
    yield from shards.documents(split, _first(file), dtype, bad, loss=loss if loss.exists() else None)
