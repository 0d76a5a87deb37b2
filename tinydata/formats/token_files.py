"""What the readers of token shards share: whole documents by their bounds or cut at an id, and an undeclared dtype.

Where nothing but an id separates documents, a split is a range of bytes and owns the documents
that begin in it. The file is a row of cells of LONGEST bytes; a whole cell in which no document
begins begins one itself. So a document ends in the next cell, wherever the splits are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats.base import SPLIT_BYTES, Bad, Split, batch

BATCH = 4 << 20  # bytes of ids in one batch: stays in the allocator's reach, so pages are not faulted anew
LONGEST = 4 << 20  # bytes of ids in a cell: documents are cut at no less
STRETCH = 1 << 16  # and where no id separates documents: each stretch is one
SAMPLE = 1 << 16  # bytes looked at in the beginning, the middle and the end of a file of undeclared dtype
FEWEST = 1 << 8  # bytes from which something can be concluded
DTYPES = ("uint8", "uint16", "uint32", "int64")
LARGEST = 1 << 20  # no vocabulary has more ids: the bound where none is given


# -- documents whose bounds are known ---------------------------------------------------------


def runs(first: np.ndarray, itemsize: int) -> list[tuple[int, int, int]]:
    """First token of each document int64[documents + 1] -> [(first document, last + 1, bytes)] of about SPLIT_BYTES."""
    out, a, n = [], 0, len(first) - 1
    while a < n:
        b = int(np.searchsorted(first, first[a] + SPLIT_BYTES // itemsize))
        b = min(max(b, a + 1), n)
        out.append((a, b, int(first[b] - first[a]) * itemsize))
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
    loss: Location | None = None,
) -> Iterator[pa.RecordBatch]:
    """Documents split.start to split.stop of a file whose ids begin at byte `header`; positions are their numbers.

    first int64[documents + 1]: tokens; doc_id: one per document; loss: a file of one byte per token, 0 = masked.
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
                bad(a, "the file ends early", b"")
                return
            offsets = pa.array((first[a : b + 1] - first[a]).astype(np.int32))
            ids = pa.Array.from_buffers(pa.from_numpy_dtype(dtype), count, [None, data])
            mask = None
            if flags is not None:
                mask = pa.ListArray.from_arrays(offsets, pa.array(np.frombuffer(flags, np.uint8) == 0))
            body = pa.ListArray.from_arrays(offsets, ids)
            given = doc_id.slice(a, b - a) if doc_id is not None else None
            yield batch(split, body, pa.array(np.arange(a, b, dtype=np.int64)), given, None, mask)
            a = b


def read_buffer_at(f: pa.NativeFile, at: int, count: int) -> pa.Buffer:
    f.seek(at)
    return f.read_buffer(count)


# -- documents cut at an id -------------------------------------------------------------------


def cells(size: int) -> list[tuple[int, int, int]]:
    """Bytes of ids -> [(first byte, last + 1, bytes)], runs of whole cells of about SPLIT_BYTES."""
    step = max(SPLIT_BYTES // LONGEST, 1) * LONGEST
    return [(a, min(a + step, size), min(step, size - a)) for a in range(0, size, step)]


def cut(
    split: Split, dtype: np.dtype, size: int, bad: Bad, *, header: int = 0, leads: bool = False
) -> Iterator[pa.RecordBatch]:
    """The documents that begin in bytes split.start to split.stop of the `size` bytes of ids behind `header`.

    The separating id is split.columns.eos; `leads`: it begins a document, else it ends one.
    Positions are tokens. Without such an id a document is a stretch of STRETCH bytes.
    """
    eos = split.columns.eos
    cell = (LONGEST if eos >= 0 else STRETCH) // dtype.itemsize
    step = max(BATCH // dtype.itemsize // cell, 1) * cell
    at, stop, total = (n // dtype.itemsize for n in (split.start, split.stop, size))
    held, begun = np.empty(0, dtype), -1  # the document under way, and where it began
    with Location.of(split.path).open() as f:
        while at < total:
            past = at >= stop  # then only the end of the document under way is sought: the next cell has one
            count = min(cell if past else min(step, stop - at), total - at)
            before = int(at > 0)
            data = read_buffer_at(f, header + (at - before) * dtype.itemsize, (count + before) * dtype.itemsize)
            if data.size < (count + before) * dtype.itemsize:
                bad(at, "the file ends early", b"")
                return
            ids = np.frombuffer(data, dtype)
            marks = _begins(ids, before, eos, cell, leads) + at
            ids = ids[before:]
            if past:
                held = np.concatenate([held, ids[: marks[0] - at] if len(marks) else ids])
                break
            if begun < 0 and not len(marks):  # the rest of the file, and of a document of the split before
                return
            if begun < 0:
                ids, begun, marks = ids[marks[0] - at :], int(marks[0]), marks[1:]
            held = np.concatenate([held, ids])
            if len(marks):
                yield _cut(split, held, np.concatenate([[begun], marks]))
                held, begun = held[marks[-1] - begun :], int(marks[-1])
            at += count
    if begun >= 0:
        yield _cut(split, held, np.array([begun, begun + len(held)]))


def _begins(ids: np.ndarray, before: int, eos: int, cell: int, leads: bool) -> np.ndarray:
    """ids of cells behind `before` (0 or 1) tokens -> int64: where documents begin; one in each whole cell at least."""
    marks = np.flatnonzero(ids == eos) + (0 if leads else 1) - before if eos >= 0 else np.empty(0, np.int64)
    count = len(ids) - before
    marks = marks[(marks >= 0) & (marks < count)]
    if not before and (not len(marks) or marks[0]):
        marks = np.concatenate([[0], marks])
    bare = np.bincount(marks // cell, minlength=-(-count // cell))[: count // cell] == 0
    return np.union1d(marks, np.flatnonzero(bare) * cell)


def _cut(split: Split, ids: np.ndarray, edges: np.ndarray) -> pa.RecordBatch:
    """ids from token edges[0] on -> the documents between the edges int64[documents + 1]."""
    offsets = pa.array((edges - edges[0]).astype(np.int32))
    body = pa.ListArray.from_arrays(offsets, pa.array(ids[: edges[-1] - edges[0]]))
    return batch(split, body, pa.array(edges[:-1]), None, None)
