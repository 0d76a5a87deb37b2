"""Which integer type a token file without a header holds: evidence from its bytes, never a guess."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location
from tinydata.formats.base import Columns, Wanted
from tinydata.formats.token_files import DTYPES, FEWEST, LARGEST, SAMPLE, STRETCH, read_buffer_at


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
        return b"".join(read_buffer_at(f, header + p, min(SAMPLE, size - p)).to_pybytes() for p in places)


def infer_dtype(data: bytes, size: int, wanted: Wanted, where: Location, looked: str) -> tuple[np.dtype, str]:
    """A sample of `size` bytes of ids -> (dtype, note): the one that was given, or the only one nothing speaks against.

    OSError for a size that does not fit the one given; TinydataError, with the evidence, where none
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
