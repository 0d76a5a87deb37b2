"""What the readers of token shards share: whole documents by their bounds or cut at an id, and an undeclared dtype.

Where nothing but an id separates documents, a split is a range of bytes and owns the documents
that begin in it. The file is a row of cells of LONGEST bytes; a whole cell in which no document
begins begins one itself. So a document ends in the next cell, wherever the splits are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.errors import UNREADABLE, TinydataError
from tinydata.formats.base import SPLIT_BYTES, Bad, Columns, Split, Wanted, batch
from tinydata.store import Location

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
            data = _bytes(f, header + at * size, count * size)
            flags = _bytes(g, at, count) if g else None
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


def _bytes(f: pa.NativeFile, at: int, count: int) -> pa.Buffer:
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
            data = _bytes(f, header + (at - before) * dtype.itemsize, (count + before) * dtype.itemsize)
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


# -- ids that do not say how wide they are ----------------------------------------------------


class Evidence(NamedTuple):
    """What a sample is if it has this dtype; `against` is empty if nothing speaks against it."""

    dtype: str
    tokens: int
    largest: int
    eos: int  # how often it occurs
    zeros: float  # share at odd places
    against: str


def sample(file: Location, header: int, size: int) -> bytes:
    """Some of the `size` bytes behind `header`: pieces of a multiple of 8 bytes, but for the last."""
    last = max(size - SAMPLE, 0) // 8 * 8
    places = sorted({0, last // 16 * 8, last})
    with file.open() as f:
        return b"".join(_bytes(f, header + p, min(SAMPLE, size - p)).to_pybytes() for p in places)


def settle(data: bytes, size: int, wanted: Wanted, where: Location, looked: str) -> tuple[np.dtype, str]:
    """A sample of `size` bytes of ids -> (dtype, note): the one that was told, or the only one nothing speaks against.

    OSError for a size that does not fit what was told; TinydataError, with the evidence, where none
    or several could be. `looked`: what the file does not have that would say it.
    """
    if wanted.dtype:
        dtype = np.dtype(wanted.dtype)
        if size % dtype.itemsize:
            raise OSError(f"it has {size} bytes of ids, no multiple of the {dtype.itemsize} of {dtype}")
        return dtype, ""
    found = evidence(data, size, wanted)
    fit = [e.dtype for e in found if not e.against]
    if len(fit) != 1:
        what = f"{' and '.join(fit)} both fit" if fit else "no dtype fits"
        raise TinydataError(
            f"nothing says what type these ids have ({looked}), and {what}\n{_table(found)}",
            where=str(where),
            fix="name it: --dtype uint16 (or uint8, uint32, int32, int64)",
            code=UNREADABLE,
        )
    return np.dtype(fit[0]), f"{fit[0]} is not declared, but the only type that fits"


def separated(data: bytes, dtype: np.dtype, eos: int, note: str = "") -> Columns:
    """A sample of ids -> Columns that say whether `eos` separates documents; with a note where it does not."""
    ids = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
    if eos < 0 or not (ids == eos).any():
        why = "the id of the end of a text is not known" if eos < 0 else f"id {eos}, the end of a text, was not found"
        note = "; ".join(filter(None, [note, f"{why}: each {STRETCH >> 10} KiB are taken for a document"]))
        eos = -1
    return Columns(ids="ids", types=(("ids", dtype.name),), eos=eos, note=note)


def evidence(data: bytes, size: int, wanted: Wanted) -> list[Evidence]:
    """A sample of ids, and the bytes of all of them -> what speaks against each dtype."""
    views = {d: np.frombuffer(data, d, len(data) // np.dtype(d).itemsize) for d in DTYPES}
    if not 0 < wanted.vocab <= 256:  # any bytes at all fit it otherwise
        views.pop("uint8")
    out = []
    for dtype, signed in views.items():
        ids = signed.view(f"u{signed.itemsize}")
        largest, ends = int(ids.max(initial=0)), int((ids == wanted.eos).sum()) if wanted.eos >= 0 else 0
        hollow = [_zeros(ids[p - 1 :: p]) - _zeros(ids[::p]) for p in (2, 4)]  # the last part of a wider id
        against = ""
        if size % ids.itemsize:
            against = f"{size} bytes are no multiple of {ids.itemsize}"
        elif len(data) < FEWEST:
            against = "too few ids to tell"
        elif largest >= (wanted.vocab or LARGEST):
            against = f"an id of {wanted.vocab or LARGEST:,} or more"
        elif max(hollow) > 0.2:
            against = "zeros at odd places: parts of wider ids"
        elif ends > len(ids) / 4:
            against = "ends of text too close"
        out.append(Evidence(dtype, len(ids), largest, ends, _zeros(ids[1::2]), against))
    if any(e.eos for e in out if not e.against):
        none = "no end of text, which another dtype has"
        out = [e._replace(against=e.against or ("" if e.eos else none)) for e in out]
    return out


def _zeros(ids: np.ndarray) -> float:
    return float((ids == 0).mean()) if len(ids) else 0.0


def _table(found: list[Evidence]) -> str:
    rows = [("dtype", "ids seen", "largest", "ends of text", "zeros at odd places", "against it")]
    for e in found:
        rows.append(
            (e.dtype, f"{e.tokens:,}", f"{e.largest:,}", f"{e.eos:,}", f"{e.zeros:.0%}", e.against or "nothing")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("    " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
