"""Megatron's indexed dataset: `x.bin` (ids) with `x.idx` (type, lengths, documents). The native shard.

.idx: 9 bytes MMIDIDX\\0\\0, u64 version 1, u8 type, u64 sequences, u64 documents + 1, i32 length of
each sequence, i64 byte pointer of each, i64 document boundaries. Pointers are recomputed from the
lengths (they overflowed in some versions). Source: Megatron-LM core/datasets/indexed_dataset.py.

tinydata writes two more files, which other readers ignore: `x.docs.parquet` (doc_id and domain of
each document) and, if some tokens are masked, `x.loss` (one byte per token: 1 if it carries loss).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_table
from tinydata.formats import token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted
from tinydata.formats.writing import DOCUMENTS_ENDING, DocumentTable, Piece, Sums

MAGIC = b"MMIDIDX\x00\x00"
DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


def matches(file: Location) -> bool:
    return file.name.endswith(".bin") and (file.parent / _index_name(file)).exists()


def _index_name(file: Location) -> str:
    return file.name.removesuffix(".bin") + ".idx"


def columns(file: Location, wanted: Wanted) -> Columns:
    dtype, _ = read_index(file)
    return Columns(ids="ids", types=(("ids", np.dtype(dtype).name),))


def read_index(file: Location) -> tuple[type, np.ndarray]:
    """x.bin -> (dtype, first token of each document int64[documents + 1])."""
    index = file.parent / _index_name(file)
    return _read_index(file, file.size, index, index.changed)


@lru_cache(maxsize=2)  # splits of one file follow one another, and each would read the whole index again
def _read_index(file: Location, size: int, index: Location, changed: int) -> tuple[type, np.ndarray]:
    with index.open() as f:
        head = f.read(34)
        if head[:8] == b"TNTIDX\x00\x00":
            raise TinydataError(
                "this is the legacy TNTIDX index",
                where=str(index),
                fix="rewrite it with Megatron's own tools into the MMIDIDX format",
                code=UNREADABLE,
            )
        if head[:9] != MAGIC or len(head) < 34:
            raise OSError(f"{index.name} is not a Megatron index")
        code = head[17]
        sequences, documents = (int(x) for x in np.frombuffer(head[18:34], np.uint64))
        if code not in DTYPES:
            raise OSError(f"{index.name} declares type {code}, which is not an integer type")
        body = f.read()
    if len(body) < sequences * 12 + documents * 8:
        raise OSError(f"{index.name} ends early: {len(body)} bytes for {sequences} sequences")
    lengths = np.frombuffer(body, np.int32, sequences).astype(np.int64)
    bounds = np.frombuffer(body, np.int64, documents, sequences * 12)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if (lengths < 0).any():
        raise OSError(f"{index.name} has sequences of negative length")
    inside = documents and bounds.min() == bounds[0] == 0 and bounds.max() <= sequences  # or differences overflow
    rising = inside and (np.diff(bounds) >= 0).all()
    if not rising and (documents or sequences):
        raise OSError(f"{index.name} has document boundaries that do not fit its sequences")
    first = starts[np.append(bounds, sequences) if not documents or bounds[-1] < sequences else bounds]
    indexed = starts[-1] * np.dtype(DTYPES[code]).itemsize
    if indexed != size:
        raise OSError(f"{file.name} has {size} bytes, its index says {indexed}")
    return DTYPES[code], first


def splits(file: Location) -> list[SplitRange]:
    """Runs of documents. Raises OSError if .docs.parquet or .loss do not fit them."""
    dtype, first = read_index(file)
    _labels(file, len(first) - 1)
    loss = _loss(file)
    if loss and loss.size != first[-1]:
        raise OSError(f"{loss.name} has {loss.size} bytes for {first[-1]} tokens")
    return token_files.runs(first, np.dtype(dtype).itemsize)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    file = Location.of(split.path)
    dtype, first = read_index(file)
    doc_id, domain = _labels(file, len(first) - 1)
    yield from token_files.documents(split, first, np.dtype(dtype), bad, doc_id=doc_id, domain=domain, loss=_loss(file))


def _labels(file: Location, count: int) -> tuple[pa.Array | None, pa.Array | None]:
    """(doc_id, domain) of each of `count` documents; None for each if their table does not exist."""
    path = file.parent / (file.name.removesuffix(".bin") + DOCUMENTS_ENDING)
    if not path.exists():
        return None, None
    table = _read_documents(path, path.changed)
    if len(table) != count:
        raise OSError(f"{path.name} has {len(table)} rows for {count} documents")
    if not {"doc_id", "domain"} <= set(table.column_names):
        raise OSError(f"{path.name} has no columns doc_id and domain")
    return table["doc_id"].combine_chunks(), table["domain"].combine_chunks()


@lru_cache(maxsize=2)
def _read_documents(path: Location, changed: int) -> pa.Table:
    try:
        return read_table(path)
    except (pa.ArrowException, OSError) as e:
        raise OSError(f"{path.name} cannot be read: {' '.join(str(e).split())[:120]}") from None


def _loss(file: Location) -> Location | None:
    loss = file.parent / (file.name.removesuffix(".bin") + ".loss")
    return loss if loss.exists() else None


def write(place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
    """Documents -> stem.bin, stem.idx, stem.docs.parquet and, if tokens may be masked, stem.loss."""
    lengths = [np.zeros(0, np.int64)]
    with ExitStack() as files:
        out = files.enter_context((place / f"{stem}.bin").stream())
        loss = files.enter_context((place / f"{stem}.loss").stream()) if masked else None
        table = files.enter_context(DocumentTable(place, stem))
        for piece in pieces:
            out.write(np.ascontiguousarray(piece.ids, dtype))
            lengths.append(piece.lengths)
            table.add(piece.documents)
            if loss is not None:
                loss.write((~piece.flags).view(np.uint8))
    with (place / f"{stem}.idx").stream() as index:
        write_index(index, np.concatenate(lengths), dtype)
    sums = {f"{stem}.bin": out.sum, f"{stem}.idx": index.sum, **table.sums}
    return {**sums, f"{stem}.loss": loss.sum} if loss is not None else sums


def write_index(out: Any, lengths: np.ndarray, dtype: np.dtype) -> None:
    """Writes the .idx of documents of one sequence each, lengths int64[docs], to the stream `out`."""
    code = next(c for c, t in DTYPES.items() if t == dtype.type)
    out.write(MAGIC + np.uint64(1).tobytes() + bytes([code]))
    out.write(np.array([len(lengths), len(lengths) + 1], np.uint64))
    out.write(lengths.astype(np.int32))
    starts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1] * dtype.itemsize, out=starts[1:])
    out.write(starts)
    out.write(np.arange(len(lengths) + 1, dtype=np.int64))
