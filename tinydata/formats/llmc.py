"""llm.c's and modded-nanogpt's `x.bin`: 256 int32 (magic, version, tokens, zeros), then the ids.

Each document begins with the end-of-text id: 50256 in the files of version 1 (GPT-2, uint16), 128000 in
those of version 7 (Llama 3, uint32). A document may continue in the next file; here the part in each
file is a document. Source: llm.c dev/data/data_common.py, llmc/dataloader.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location
from tinydata.formats import dtype_evidence, token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted
from tinydata.formats.writing import DocumentTable, Piece, Sums

HEADER = 1024
EVALUATION = 20240522  # magic number of multiple-choice data
MAX_SHARE = 1 / 16  # an unknown first id separates documents only if at most this share of all ids equals it


class Kind(NamedTuple):
    """A kind of file: its version, the type of its ids and the usual end-of-text id."""

    version: int
    dtype: str
    eos: int


KINDS = {20240520: Kind(1, "uint16", 50256), 20240801: Kind(7, "uint32", 128000)}  # magic number -> Kind


def matches(file: Location) -> bool:
    if not file.name.endswith(".bin"):
        return False
    with file.open() as f:
        return int.from_bytes(f.read(4), "little") in (*KINDS, EVALUATION)


def columns(file: Location, wanted: Wanted) -> Columns:
    """Raises OSError unless version and size are those of the header, TinydataError for evaluation data."""
    with file.open() as f:
        head = np.frombuffer(f.read(HEADER), np.int32, -1) if file.size >= HEADER else np.zeros(3, np.int32)
    if not head[0]:
        raise OSError(f"it ends within its header of {HEADER} bytes")
    if head[0] == EVALUATION:
        raise TinydataError(
            "this is llm.c's evaluation data (multiple choice), not text",
            where=str(file),
            fix="leave it out of the corpus",
            code=UNREADABLE,
        )
    kind = KINDS[int(head[0])]
    dtype = np.dtype(kind.dtype)
    if head[1] != kind.version:
        raise OSError(f"its header says version {head[1]}, only {kind.version} is known")
    size = int(head[2]) * dtype.itemsize
    if HEADER + size != file.size:
        raise OSError(f"it has {file.size} bytes, its header says {HEADER + size}")
    data = dtype_evidence.sample(file, HEADER, size)
    ids = np.frombuffer(data, dtype)
    first = int(ids[0]) if len(ids) and (ids == ids[0]).mean() <= MAX_SHARE else -1
    eos = next((e for e in (wanted.eos, kind.eos, first) if e >= 0 and (ids == e).any()), wanted.eos)
    return dtype_evidence.separated(data, dtype, eos)


def splits(file: Location) -> list[SplitRange]:
    """Ranges of bytes of the ids."""
    return token_files.cells(file.size - HEADER)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    size = Location.of(split.path).size - HEADER
    yield from token_files.cut(split, np.dtype(split.columns.types[0][1]), size, bad, header=HEADER, leads=True)


def write(place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
    """Documents, each of which begins with its end-of-text token -> stem.bin, stem.docs.parquet.

    Keeps the ids of one file in memory. Raises TinydataError if tokens are masked, which the format cannot express, or
    if there are too many.
    """
    if masked:
        raise TinydataError(
            "some tokens are masked, and llm.c's format has no loss masks",
            fix="choose megatron, parquet or internevo with --to",
        )
    ids = []
    with DocumentTable(place, stem) as table:
        for piece in pieces:
            ids.append(piece.ids)
            table.add(piece.documents)
    count = sum(map(len, ids))
    if count >= 1 << 31:
        raise TinydataError(
            f"{count:,} tokens in one file; llm.c's format allows fewer than 2^31", fix="lower --shard-tokens"
        )
    magic = next(m for m, kind in KINDS.items() if np.dtype(kind.dtype).itemsize == dtype.itemsize)
    head = np.zeros(HEADER // 4, np.int32)
    head[:3] = magic, KINDS[magic].version, count
    with (place / f"{stem}.bin").stream() as out:
        out.write(head)
        for part in ids:
            out.write(np.ascontiguousarray(part))
    return {f"{stem}.bin": out.sum, **table.sums}
