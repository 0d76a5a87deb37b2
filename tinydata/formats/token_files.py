"""What the readers of token files share: documents whose bounds are known, and documents that an id separates.

Where only an id separates documents, a split is a range of bytes and owns the documents that begin in it. The file is
divided into cells of CELL_BYTES; a complete cell in which no document begins starts a document itself. So a document
ends in the next cell at the latest, wherever the splits are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats.base import SPLIT_BYTES, Bad, Split, SplitRange, batch

BATCH = 4 << 20  # bytes of ids in one batch: small enough for the allocator to reuse, so no new pages are faulted in
CELL_BYTES = 4 << 20  # documents shorter than this are never cut
STRETCH_BYTES = 1 << 16  # where no id separates documents, each stretch of this size is one document


# -- documents whose bounds are known ---------------------------------------------------------


def runs(first: np.ndarray, itemsize: int) -> list[SplitRange]:
    """First token of each document int64[documents + 1] -> runs of documents of about SPLIT_BYTES."""
    out, a, n = [], 0, len(first) - 1
    while a < n:
        b = int(np.searchsorted(first, first[a] + SPLIT_BYTES // itemsize))
        b = min(max(b, a + 1), n)
        out.append(SplitRange(a, b, int(first[b] - first[a]) * itemsize))
        a = b
    return out


def documents(
    split: Split,
    first: np.ndarray,
    dtype: np.dtype,
    bad: Bad,
    *,
    header: int = 0,
    doc_id: pa.Array | None = None,
    domain: pa.Array | None = None,
    loss: Location | None = None,
) -> Iterator[pa.RecordBatch]:
    """Documents split.start to split.stop of a file whose ids begin at byte `header`; positions are document numbers.

    first int64[documents + 1]: first token of each; doc_id, domain: one per document; loss: a file with one byte per
    token, 0 = masked. Batches are views of the file's bytes, without a copy.
    """
    size = dtype.itemsize
    a = split.start
    with Location.of(split.path).open() as f, loss.open() if loss else nullcontext() as g:
        while a < split.stop:
            b = int(np.searchsorted(first, first[a] + BATCH // size, side="right")) - 1
            b = min(max(b, a + 1), split.stop)
            at, count = int(first[a]), int(first[b] - first[a])
            data = read_buffer_at(f, header + at * size, count * size)
            flags = read_buffer_at(g, at, count) if g else None
            if data.size < count * size or (flags is not None and flags.size < count):
                left = int(first[split.stop] - first[a]) * size
                bad(a, "the file ends early", b"", documents=split.stop - a, size=left)
                return
            offsets = pa.array((first[a : b + 1] - first[a]).astype(np.int32))
            ids = pa.Array.from_buffers(pa.from_numpy_dtype(dtype), count, [None, data])
            mask = None
            if flags is not None:
                mask = pa.ListArray.from_arrays(offsets, pa.array(np.frombuffer(flags, np.uint8) == 0))
            body = pa.ListArray.from_arrays(offsets, ids)
            names = None if doc_id is None else doc_id.slice(a, b - a)
            labels = None if domain is None else domain.slice(a, b - a)
            yield batch(split, body, pa.array(np.arange(a, b, dtype=np.int64)), names, labels, mask)
            a = b


def read_buffer_at(f: pa.NativeFile, at: int, count: int) -> pa.Buffer:
    """`count` bytes of the file from byte `at` on; fewer if it ends before."""
    f.seek(at)
    return f.read_buffer(count)


# -- documents that an id separates -----------------------------------------------------------


def cells(size: int) -> list[SplitRange]:
    """Bytes of ids -> ranges of bytes: runs of complete cells, of about SPLIT_BYTES."""
    step = max(SPLIT_BYTES // CELL_BYTES, 1) * CELL_BYTES
    return [SplitRange(a, min(a + step, size), min(step, size - a)) for a in range(0, size, step)]


def cut(
    split: Split, dtype: np.dtype, size: int, bad: Bad, *, header: int = 0, leads: bool = False
) -> Iterator[pa.RecordBatch]:
    """The documents that begin in bytes split.start to split.stop of the `size` bytes of ids after `header`.

    The separating id is split.columns.eos; `leads`: it is the first token of a document, otherwise its last.
    Positions are token numbers. Without a separating id, a document is a stretch of STRETCH_BYTES.
    """
    eos = split.columns.eos
    cell = (CELL_BYTES if eos >= 0 else STRETCH_BYTES) // dtype.itemsize
    step = max(BATCH // dtype.itemsize // cell, 1) * cell
    at, stop, total = (n // dtype.itemsize for n in (split.start, split.stop, size))
    kept, begun = np.empty(0, dtype), -1  # ids of the unfinished document, and its first token
    with Location.of(split.path).open() as f:
        while at < total:
            past = at >= stop  # then only the end of the unfinished document is needed, and the next cell has one
            count = min(cell if past else min(step, stop - at), total - at)
            before = int(at > 0)
            data = read_buffer_at(f, header + (at - before) * dtype.itemsize, (count + before) * dtype.itemsize)
            if data.size < (count + before) * dtype.itemsize:
                bad(at, "the file ends early", b"", documents=0, size=(stop - at) * dtype.itemsize)
                return
            ids = np.frombuffer(data, dtype)
            marks = _first_tokens(ids, before, eos, cell, leads) + at
            ids = ids[before:]
            if past:
                kept = np.concatenate([kept, ids[: marks[0] - at] if len(marks) else ids])
                break
            if begun < 0 and not len(marks):  # the rest of the file belongs to a document of the previous split
                return
            if begun < 0:
                ids, begun, marks = ids[marks[0] - at :], int(marks[0]), marks[1:]
            kept = np.concatenate([kept, ids])
            if len(marks):
                yield _cut(split, kept, np.concatenate([[begun], marks]))
                kept, begun = kept[marks[-1] - begun :], int(marks[-1])
            at += count
    if begun >= 0:
        yield _cut(split, kept, np.array([begun, begun + len(kept)]))


def _first_tokens(ids: np.ndarray, before: int, eos: int, cell: int, leads: bool) -> np.ndarray:
    """`before` (0 or 1) tokens and then cells of ids -> int64: first tokens of documents, at least one in each cell.

    They are counted from the first cell. Only a complete cell is sure to have one.
    """
    marks = np.flatnonzero(ids == eos) + (0 if leads else 1) - before if eos >= 0 else np.empty(0, np.int64)
    count = len(ids) - before
    marks = marks[(marks >= 0) & (marks < count)]
    if not before and (not len(marks) or marks[0]):
        marks = np.concatenate([[0], marks])
    bare = np.bincount(marks // cell, minlength=-(-count // cell))[: count // cell] == 0
    return np.union1d(marks, np.flatnonzero(bare) * cell)


def _cut(split: Split, ids: np.ndarray, edges: np.ndarray) -> pa.RecordBatch:
    """ids from token edges[0] on, edges int64[documents + 1] -> the documents between these tokens."""
    offsets = pa.array((edges - edges[0]).astype(np.int32))
    body = pa.ListArray.from_arrays(offsets, pa.array(ids[: edges[-1] - edges[0]]))
    return batch(split, body, pa.array(edges[:-1]), None, None)
