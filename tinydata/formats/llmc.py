"""llm.c's and modded-nanogpt's `x.bin`: 256 int32 (magic, version, tokens, zeros), then the ids.

Each document begins with the id of the end of a text: 50256 in the files of version 1 (GPT-2,
uint16), 128000 in those of version 7 (Llama 3, uint32). Documents go on in the next file; here each
file's part is a document. Source: llm.c dev/data/data_common.py, llmc/dataloader.h.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location
from tinydata.formats import dtype_evidence
from tinydata.formats import token_files as shards
from tinydata.formats.base import Bad, Columns, Split, Wanted
from tinydata.formats.writing import DocumentTable, Piece, Sums

HEADER = 1024
KINDS = {20240520: (1, "uint16", 50256), 20240801: (7, "uint32", 128000)}  # magic -> version, type, end of text
EVAL = 20240522
RARE = 1 / 16  # the first id of a file separates documents only if no larger share of its ids is it


def matches(file: Location) -> bool:
    if not file.name.endswith(".bin"):
        return False
    with file.open() as f:
        return int.from_bytes(f.read(4), "little") in (*KINDS, EVAL)


def columns(file: Location, wanted: Wanted) -> Columns:
    """OSError unless version and size are those of the header; TinydataError for evaluation data."""
    with file.open() as f:
        head = np.frombuffer(f.read(HEADER), np.int32, -1) if file.size >= HEADER else np.zeros(3, np.int32)
    if not head[0]:
        raise OSError(f"it ends within its header of {HEADER} bytes")
    if head[0] == EVAL:
        raise TinydataError(
            "this is llm.c's evaluation data (multiple choice), not text",
            where=str(file),
            fix="leave it out of the corpus",
            code=UNREADABLE,
        )
    version, dtype, usual = KINDS[int(head[0])]
    if head[1] != version:
        raise OSError(f"its header says version {head[1]}, {version} is known")
    size = int(head[2]) * np.dtype(dtype).itemsize
    if HEADER + size != file.size:
        raise OSError(f"it has {file.size} bytes, its header says {HEADER + size}")
    data = dtype_evidence.sample(file, HEADER, size)
    ids = np.frombuffer(data, dtype)
    first = int(ids[0]) if len(ids) and (ids == ids[0]).mean() <= RARE else -1
    eos = next((e for e in (wanted.eos, usual, first) if e >= 0 and (ids == e).any()), wanted.eos)
    return dtype_evidence.separated(data, np.dtype(dtype), eos)


def splits(file: Location) -> list[tuple[int, int, int]]:
    """Ranges of bytes of the ids."""
    return shards.cells(file.size - HEADER)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    size = Location.of(split.path).size - HEADER
    yield from shards.cut(split, np.dtype(split.columns.types[0][1]), size, bad, header=HEADER, leads=True)


def write(place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
    """Documents, each with its end-of-text token in front -> stem.bin, stem.docs.parquet. Memory: one file.

    Raises TinydataError if tokens are masked, for which the format has no place, or if there are too many.
    """
    if masked:
        raise TinydataError(
            "some tokens are masked, and llm.c's format has no place for that",
            fix="write megatron, parquet or internevo with --to",
        )
    ids = []
    with DocumentTable(place, stem) as beside:
        for piece in pieces:
            ids.append(piece.ids)
            beside.add(piece.documents)
    count = sum(map(len, ids))
    if count >= 1 << 31:
        raise TinydataError(f"{count:,} tokens in one file of llm.c, which counts to 2^31", fix="lower --shard-tokens")
    magic = next(m for m, (_, name, _) in KINDS.items() if np.dtype(name).itemsize == dtype.itemsize)
    head = np.zeros(HEADER // 4, np.int32)
    head[:3] = magic, KINDS[magic][0], count
    with (place / f"{stem}.bin").stream() as out:
        out.write(head)
        for part in ids:
            out.write(np.ascontiguousarray(part))
    return {f"{stem}.bin": out.sum, **beside.sums}
