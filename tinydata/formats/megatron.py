"""Megatron's indexed dataset: `x.bin` (ids) with `x.idx` (type, lengths, documents). The native shard.

.idx: 9 bytes MMIDIDX\\0\\0, u64 version 1, u8 type, u64 sequences, u64 documents + 1, i32 length of
each sequence, i64 byte pointer of each, i64 document boundaries. Pointers are recomputed from the
lengths (they overflowed in some versions). Source: Megatron-LM core/datasets/indexed_dataset.py.

Ours have two files more, which other readers do not miss: `x.docs.parquet` (doc_id and domain of
each document) and, where some tokens are masked, `x.loss` (a byte per token: 1 if it bears loss).
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
from tinydata.formats.base import Bad, Columns, Split, Wanted, batch
from tinydata.formats.token_files import runs
from tinydata.formats.writing import DOCUMENTS_ENDING, DocumentTable, Piece, Sums

MAGIC = b"MMIDIDX\x00\x00"
DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
BATCH = 4 << 20  # bytes of ids in one batch: stays in the allocator's reach, so pages are not faulted anew


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


@lru_cache(maxsize=2)  # splits of one file follow one another, and each would read the whole index anew
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
            raise OSError(f"{index.name} is no Megatron index")
        code = head[17]
        sequences, documents = (int(x) for x in np.frombuffer(head[18:34], np.uint64))
        if code not in DTYPES:
            raise OSError(f"{index.name} declares type {code}, which is no integer type")
        body = f.read()
    if len(body) < sequences * 12 + documents * 8:
        raise OSError(f"{index.name} ends early: {len(body)} bytes for {sequences} sequences")
    lengths = np.frombuffer(body, np.int32, sequences).astype(np.int64)
    bounds = np.frombuffer(body, np.int64, documents, sequences * 12)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if (lengths < 0).any():
        raise OSError(f"{index.name} has sequences of negative length")
    rising = documents and bounds[0] == 0 and bounds[-1] <= sequences and (np.diff(bounds) >= 0).all()
    if not rising and (documents or sequences):
        raise OSError(f"{index.name} has document boundaries that do not fit its sequences")
    first = starts[np.append(bounds, sequences) if not documents or bounds[-1] < sequences else bounds]
    indexed = starts[-1] * np.dtype(DTYPES[code]).itemsize
    if indexed != size:
        raise OSError(f"{file.name} has {size} bytes, its index says {indexed}")
    return DTYPES[code], first


def splits(file: Location) -> list[tuple[int, int, int]]:
    """Runs of whole documents of about SPLIT_BYTES: (first document, last + 1, bytes)."""
    dtype, first = read_index(file)
    return runs(first, np.dtype(dtype).itemsize)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Whole documents, a few MB at a time, without a copy."""
    file = Location.of(split.path)
    dtype, first = read_index(file)
    size = np.dtype(dtype).itemsize
    kind = pa.from_numpy_dtype(dtype)
    doc_id, domain = _documents(file, len(first) - 1)
    loss = _loss(file)
    with ExitStack() as files:
        f = files.enter_context(file.open())
        flags = files.enter_context(loss.open()) if loss else None
        a = split.start
        while a < split.stop:
            b = int(np.searchsorted(first, first[a] + BATCH // size, side="right")) - 1
            b = min(max(b, a + 1), split.stop)
            f.seek(int(first[a]) * size)
            count = int(first[b] - first[a])
            ids = pa.Array.from_buffers(kind, count, [None, f.read_buffer(count * size)])
            offsets = pa.array((first[a : b + 1] - first[a]).astype(np.int32))
            body = pa.ListArray.from_arrays(offsets, ids)
            mask = None
            if flags is not None:
                flags.seek(int(first[a]))
                bears = np.frombuffer(flags.read_buffer(count), np.uint8)
                mask = pa.ListArray.from_arrays(offsets, pa.array(bears == 0))
            names = None if doc_id is None else doc_id.slice(a, b - a)
            labels = None if domain is None else domain.slice(a, b - a)
            yield batch(split, body, pa.array(np.arange(a, b, dtype=np.int64)), names, labels, mask)
            a = b


def _documents(file: Location, count: int) -> tuple[pa.Array | None, pa.Array | None]:
    """(doc_id, domain) of each document, where the table of them is here."""
    beside = file.parent / (file.name.removesuffix(".bin") + DOCUMENTS_ENDING)
    if not beside.exists():
        return None, None
    table = _read_documents(beside, beside.changed)
    if len(table) != count:
        raise OSError(f"{beside.name} has {len(table)} rows for {count} documents")
    return table["doc_id"].combine_chunks(), table["domain"].combine_chunks()


@lru_cache(maxsize=2)
def _read_documents(beside: Location, changed: int) -> pa.Table:
    return read_table(beside)


def _loss(file: Location) -> Location | None:
    beside = file.parent / (file.name.removesuffix(".bin") + ".loss")
    return beside if beside.exists() else None


def write(place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
    """Documents -> stem.bin, stem.idx, stem.docs.parquet and, where tokens may be masked, stem.loss."""
    lengths = [np.zeros(0, np.int64)]
    with ExitStack() as files:
        out = files.enter_context((place / f"{stem}.bin").stream())
        loss = files.enter_context((place / f"{stem}.loss").stream()) if masked else None
        beside = files.enter_context(DocumentTable(place, stem))
        for piece in pieces:
            out.write(np.ascontiguousarray(piece.ids, dtype))
            lengths.append(piece.lengths)
            beside.add(piece.documents)
            if loss is not None:
                loss.write((~piece.flags).view(np.uint8))
    with (place / f"{stem}.idx").stream() as index:
        write_index(index, np.concatenate(lengths), dtype)
    sums = {f"{stem}.bin": out.sum, f"{stem}.idx": index.sum, **beside.sums}
    return {**sums, f"{stem}.loss": loss.sum} if loss is not None else sums


def write_index(out: Any, lengths: np.ndarray, dtype: np.dtype) -> None:
    """lengths int64[docs], a sequence each -> the .idx."""
    code = next(c for c, t in DTYPES.items() if t == dtype.type)
    out.write(MAGIC + np.uint64(1).tobytes() + bytes([code]))
    out.write(np.array([len(lengths), len(lengths) + 1], np.uint64))
    out.write(lengths.astype(np.int32))
    starts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1] * dtype.itemsize, out=starts[1:])
    out.write(starts)
    out.write(np.arange(len(lengths) + 1, dtype=np.int64))
