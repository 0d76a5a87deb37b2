"""Which integer type a token file without a header contains: concluded from its bytes, and only if it is certain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location
from tinydata.formats.base import Columns, Wanted
from tinydata.formats.token_files import STRETCH_BYTES, read_buffer_at

CANDIDATES = ("uint8", "uint16", "uint32", "int64")
SAMPLE_BYTES = 1 << 16  # read at the beginning, in the middle and at the end of a file
MIN_BYTES = 1 << 8  # a shorter sample proves nothing
MAX_VOCAB = 1 << 20  # no vocabulary has more ids: the bound if none is given
MAX_ZEROS = 0.2  # by how much the share of zeros may be larger in the last parts of wider ids
MAX_ENDS = 1 / 4  # share of end-of-text ids above which documents would be too short


class Evidence(NamedTuple):
    """What a sample contains if its ids have this dtype."""

    dtype: str
    tokens: int
    largest: int
    ends: int  # number of end-of-text ids
    zeros: float  # share of zeros at odd positions
    against: str  # why the ids cannot have this dtype; "": nothing rules it out


def sample(file: Location, header: int, size: int) -> bytes:
    """Some of the `size` bytes after `header`, from three places; all pieces but the last are a multiple of 8 bytes."""
    last = max(size - SAMPLE_BYTES, 0) // 8 * 8
    places = sorted({0, last // 16 * 8, last})
    with file.open() as f:
        return b"".join(read_buffer_at(f, header + p, min(SAMPLE_BYTES, size - p)).to_pybytes() for p in places)


class Inferred(NamedTuple):
    """The type of the ids, and a note for the user if the data decided it."""

    dtype: np.dtype
    note: str = ""


def infer_dtype(data: bytes, size: int, wanted: Wanted, where: Location, missing: str) -> Inferred:
    """A sample of `size` bytes of ids -> their dtype: the one the user gave, or the only candidate not ruled out.

    `missing`: what the file lacks that would declare the type. Raises OSError if the size does not fit the given dtype,
    and TinydataError (exit 3), with the evidence, if no candidate or several are left.
    """
    if wanted.dtype:
        dtype = np.dtype(wanted.dtype)
        if size % dtype.itemsize:
            raise OSError(f"it has {size} bytes of ids, not a multiple of the {dtype.itemsize} of {dtype}")
        return Inferred(dtype)
    candidates = evidence(data, size, wanted)
    fit = [e.dtype for e in candidates if not e.against]
    if len(fit) != 1:
        several = "both fit" if len(fit) == 2 else "all fit"
        what = f"{' and '.join(fit)} {several}" if fit else "no dtype fits"
        raise TinydataError(
            f"the file does not declare the type of its ids ({missing}), and {what}\n{_table(candidates)}",
            where=str(where),
            fix="specify it: --dtype uint16 (or uint8, uint32, int32, int64)",
            code=UNREADABLE,
        )
    return Inferred(np.dtype(fit[0]), f"{fit[0]} is not declared, but the only type that fits")


def separated(data: bytes, dtype: np.dtype, eos: int, note: str = "") -> Columns:
    """A sample of ids -> Columns in which `eos` separates documents if it occurs; if it does not, a note says so."""
    ids = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
    if eos < 0 or not (ids == eos).any():
        why = "the end-of-text id is not known" if eos < 0 else f"the end-of-text id {eos} was not found"
        note = "; ".join(filter(None, [note, f"{why}: each {STRETCH_BYTES >> 10} KiB count as one document"]))
        eos = -1
    return Columns(ids="ids", types=(("ids", dtype.name),), eos=eos, note=note)


def evidence(data: bytes, size: int, wanted: Wanted) -> list[Evidence]:
    """A sample of ids, and the bytes of all of them -> what rules out each candidate."""
    small = 0 < wanted.vocab <= 256  # otherwise any bytes at all are valid uint8 ids
    out = [_evidence(dtype, data, size, wanted) for dtype in CANDIDATES if small or dtype != "uint8"]
    if any(e.ends for e in out if not e.against):
        none = "no end of text, which another dtype has"
        out = [e._replace(against=e.against or ("" if e.ends else none)) for e in out]
    return out


def _evidence(dtype: str, data: bytes, size: int, wanted: Wanted) -> Evidence:
    width = np.dtype(dtype).itemsize
    ids = np.frombuffer(data, f"u{width}", len(data) // width)
    largest, vocab = int(ids.max(initial=0)), wanted.vocab or MAX_VOCAB
    ends = int((ids == wanted.eos).sum()) if wanted.eos >= 0 else 0
    more_zeros = max(_zeros(ids[p - 1 :: p]) - _zeros(ids[::p]) for p in (2, 4))  # in the last part of a wider id
    against = ""
    if size % width:
        against = f"{size} bytes are not a multiple of {width}"
    elif len(data) < MIN_BYTES:
        against = "too few ids to tell"
    elif largest >= vocab:
        against = f"an id of {vocab:,} or more"
    elif more_zeros > MAX_ZEROS:
        against = "zeros at odd positions: parts of wider ids"
    elif ends > len(ids) * MAX_ENDS:
        against = "ends of text too close"
    return Evidence(dtype, len(ids), largest, ends, _zeros(ids[1::2]), against)


def _zeros(ids: np.ndarray) -> float:
    return float((ids == 0).mean()) if len(ids) else 0.0


def _table(candidates: list[Evidence]) -> str:
    rows = [("dtype", "ids seen", "largest", "ends of text", "zeros at odd positions", "against it")]
    for e in candidates:
        rows.append(
            (e.dtype, f"{e.tokens:,}", f"{e.largest:,}", f"{e.ends:,}", f"{e.zeros:.0%}", e.against or "nothing")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("    " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
