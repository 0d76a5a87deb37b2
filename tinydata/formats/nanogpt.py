"""nanoGPT's `x.bin`: ids and nothing else, of a type that is not declared (uint16 as a rule).

The last format to be asked: any .bin of ids that no other one knows. Documents end with the id of
the end of a text, if they do. Source: nanoGPT data/openwebtext/prepare.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats import dtype_evidence
from tinydata.formats import token_files as shards
from tinydata.formats.base import Bad, Columns, Split, Wanted

LOOKED = (
    "no .idx, .bin.meta or index.json in the same directory, no signature of llm.c, LITPKDS or InternEvo at its start"
)


def matches(file: Location) -> bool:
    return file.name.endswith(".bin")


def columns(file: Location, wanted: Wanted) -> Columns:
    data = dtype_evidence.sample(file, 0, file.size)
    dtype, note = dtype_evidence.infer_dtype(data, file.size, wanted, file, LOOKED)
    return dtype_evidence.separated(data, dtype, wanted.eos, note)


def splits(file: Location) -> list[tuple[int, int, int]]:
    """Ranges of bytes."""
    return shards.cells(file.size)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    size = Location.of(split.path).size
    yield from shards.cut(split, np.dtype(split.columns.types[0][1]), size, bad)
