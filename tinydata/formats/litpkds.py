"""lit-gpt's packed dataset (TinyLlama): 7 bytes LITPKDS, u64 version 1, u8 type, u64 tokens, then the ids.

The last file of a run is padded with the separator; this padding is left out.
Documents are separated, if at all, by the end-of-text id. Source: TinyLlama lit_gpt/packed_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats import dtype_evidence, token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted

MAGIC = b"LITPKDS"
HEADER = 24
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
MIN_PADDING = 8  # this many equal ids at the end of a file are padding
BLOCK = 1 << 20  # ids compared at once


def matches(file: Location) -> bool:
    if not file.name.endswith(".bin"):
        return False
    with file.open() as f:
        return f.read(len(MAGIC)) == MAGIC


def columns(file: Location, wanted: Wanted) -> Columns:
    dtype, size = _header(file)
    return dtype_evidence.separated(dtype_evidence.sample(file, HEADER, size), dtype, wanted.eos)


class _Header(NamedTuple):
    dtype: np.dtype
    size: int  # bytes of ids, without the padding


def _header(file: Location) -> _Header:
    """Raises OSError unless the file is as large as its header says."""
    return _read_header(file, file.size, file.changed)


@lru_cache(maxsize=8)
def _read_header(file: Location, size: int, changed: int) -> _Header:
    with file.open() as f:
        head = f.read(HEADER)
        if len(head) < HEADER:
            raise OSError(f"it ends within its header of {HEADER} bytes")
        version, code, tokens = (int.from_bytes(head[a:b], "little") for a, b in ((7, 15), (15, 16), (16, 24)))
        if version != 1:
            raise OSError(f"its header says version {version}, only 1 is known")
        if code not in DTYPES:
            raise OSError(f"its header declares type {code}, which is not an integer type")
        dtype = np.dtype(DTYPES[code])
        if HEADER + tokens * dtype.itemsize != size:
            raise OSError(f"it has {size} bytes, its header says {HEADER + tokens * dtype.itemsize}")
        return _Header(dtype, _unpadded(f, dtype, tokens) * dtype.itemsize)


def _unpadded(f: pa.NativeFile, dtype: np.dtype, tokens: int) -> int:
    """-> number of tokens before the padding."""
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
    return end if tokens - end >= MIN_PADDING else tokens


def splits(file: Location) -> list[SplitRange]:
    """Ranges of bytes of the ids."""
    return token_files.cells(_header(file).size)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    dtype, size = _header(Location.of(split.path))
    yield from token_files.cut(split, dtype, size, bad, header=HEADER)
