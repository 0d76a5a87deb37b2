"""nanoGPT's `x.bin`: only ids, of a type that is not declared (usually uint16).

The last format to be tried: it accepts any .bin that no other format recognizes. If anything separates
documents, it is the end-of-text id at their end. Source: nanoGPT data/openwebtext/prepare.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats import dtype_evidence, token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted

MISSING = (
    "no .idx, .bin.meta or index.json in the same directory, no signature of llm.c, LITPKDS or InternEvo at its start"
)


def matches(file: Location) -> bool:
    return file.name.endswith(".bin")


def columns(file: Location, wanted: Wanted) -> Columns:
    data = dtype_evidence.sample(file, 0, file.size)
    dtype, note = dtype_evidence.infer_dtype(data, file.size, wanted, file, MISSING)
    return dtype_evidence.separated(data, dtype, wanted.eos, note)


def splits(file: Location) -> list[SplitRange]:
    """Ranges of bytes."""
    return token_files.cells(file.size)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    size = Location.of(split.path).size
    yield from token_files.cut(split, np.dtype(split.columns.types[0][1]), size, bad)
