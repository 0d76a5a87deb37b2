"""lit-gpt's packed dataset (TinyLlama): 7 bytes LITPKDS, u64 version 1, u8 type, u64 tokens, then the ids.

The last file of a run is filled up with the separator; that tail is no text and is left out.
Documents are separated, if at all, by the id of the end of a text. Source: TinyLlama lit_gpt/packed_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats import dtype_evidence
from tinydata.formats import token_files as shards
from tinydata.formats.base import Bad, Columns, Split, Wanted

MAGIC = b"LITPKDS"
HEADER = 24
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
FILLED = 8  # equal ids from which a tail is no text
BLOCK = 1 << 20  # ids looked at together


def matches(file: Location) -> bool:
    if not file.name.endswith(".bin"):
        return False
    with file.open() as f:
        return f.read(len(MAGIC)) == MAGIC


def columns(file: Location, wanted: Wanted) -> Columns:
    dtype, size = _ids(file)
    return dtype_evidence.separated(dtype_evidence.sample(file, HEADER, size), dtype, wanted.eos)


def _ids(file: Location) -> tuple[np.dtype, int]:
    """-> (type, bytes of ids without the tail); OSError unless the file is as large as its header says."""
    return _read(file, file.size, file.changed)


@lru_cache(maxsize=8)
def _read(file: Location, size: int, changed: int) -> tuple[np.dtype, int]:
    with file.open() as f:
        head = f.read(HEADER)
        if len(head) < HEADER:
            raise OSError(f"it ends within its header of {HEADER} bytes")
        version, code, tokens = (int.from_bytes(head[a:b], "little") for a, b in ((7, 15), (15, 16), (16, 24)))
        if version != 1:
            raise OSError(f"its header says version {version}, 1 is known")
        if code not in DTYPES:
            raise OSError(f"its header declares type {code}, which is no integer type")
        dtype = np.dtype(DTYPES[code])
        if HEADER + tokens * dtype.itemsize != size:
            raise OSError(f"it has {size} bytes, its header says {HEADER + tokens * dtype.itemsize}")
        return dtype, _filled(f, dtype, tokens) * dtype.itemsize


def _filled(f: pa.NativeFile, dtype: np.dtype, tokens: int) -> int:
    """-> tokens before the tail of one id."""
    end, last = tokens, None
    while end:
        begin = max(end - BLOCK, 0)
        f.seek(HEADER + begin * dtype.itemsize)
        ids = np.frombuffer(f.read_buffer((end - begin) * dtype.itemsize), dtype)
        last = ids[-1] if last is None else last
        other = np.flatnonzero(ids != last)
        if len(other):
            end = begin + int(other[-1]) + 1
            break
        end = begin
    return end if tokens - end >= FILLED else tokens


def splits(file: Location) -> list[tuple[int, int, int]]:
    """Ranges of bytes of the ids."""
    return shards.cells(_ids(file)[1])


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    dtype, size = _ids(Location.of(split.path))
    yield from shards.cut(split, dtype, size, bad, header=HEADER)
