"""InternEvo's cache: `x.bin`, which is JSON lines {"tokens": [...]}, with `x.bin.meta`.

Negative ids are masked labels of the same token. `.meta` (npy: byte offset, tokens per line)
overflows int32 beyond 2 GiB, so lines are found by their newlines; it is only used to notice a
file that was written twice (the tool appends). Source: InternLM/InternEvo tools/tokenizer.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
from numba import njit

from tinydata.core.errors import TinydataError
from tinydata.core.kernels import compiled
from tinydata.core.location import Location
from tinydata.formats import text_lines as streams
from tinydata.formats.base import Bad, Columns, Split, Wanted, batch
from tinydata.formats.jsonl import line_starts
from tinydata.formats.writing import DocumentTable, Piece, Sums


def matches(file: Location) -> bool:
    if not file.name.endswith(".bin"):
        return False
    if (file.parent / (file.name + ".meta")).exists():
        return True
    with file.open() as f:
        return f.read(11).replace(b" ", b"").startswith(b'{"tokens"')


def columns(file: Location, wanted: Wanted) -> Columns:
    return Columns(ids="tokens", types=(("tokens", "ids"),))


def splits(file: Location) -> list[tuple[int, int, int]]:
    _written_once(file)
    return streams.splits(file)


def _written_once(file: Location) -> None:
    """Raises OSError if the .bin continues behind the last line that its .meta knows, or ends before it."""
    meta = file.parent / (file.name + ".meta")
    if not meta.exists():
        return
    with meta.open() as f:
        try:
            rows = np.load(f, allow_pickle=False)
        except (ValueError, EOFError) as e:
            raise OSError(f"its .meta is no numpy file: {e}") from None
    if rows.ndim != 2 or not len(rows) or file.size >= 1 << 31:
        return
    if file.size <= rows[-1, 0]:
        raise OSError("it ends before the last line of its .meta: it was not written or copied whole")
    with file.open() as f:
        f.seek(int(rows[-1, 0]))
        rest = f.read()
    if rest.find(b"\n") + 1 not in (0, len(rest)):
        raise OSError("it continues behind the last line of its .meta: the tool appends, so it was written twice")


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    for piece in streams.lines(Location.of(split.path), split.start, split.stop):
        starts = line_starts(piece.data)
        if not len(starts):
            continue
        data = np.frombuffer(piece.data, np.uint8)
        ids = np.empty(len(data) // 2 + 1, np.int32)
        ends = np.empty(len(starts), np.int64)
        ok = np.zeros(len(starts), np.bool_)
        total = parse_lines(data, starts, ids, ends, ok)
        if not ok.all():
            ids, ends, ok = _parse_rest(piece, starts, ids[:total], ends, ok, bad)
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        body = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids[: offsets[-1]]))
        if len(body):
            yield batch(split, body, pa.array(starts[ok] + piece.position), None, None)


@njit(cache=True)
def parse_lines(data, starts, ids, ends, ok):
    """Lines {"tokens": [int, ...]} -> ids int32[total]; a line that is anything else is left out, ok False.

    130 M tokens a second: json.loads on the same lines manages 12.
    """
    n = 0
    for k in range(len(starts)):
        i = starts[k]
        stop = starts[k + 1] if k + 1 < len(starts) else len(data)
        first = n
        good = True
        quoted = False
        for c in b'{"tokens":[':
            while not quoted and i < stop and data[i] == 0x20:
                i += 1
            if i >= stop or data[i] != c:
                good = False
                break
            quoted ^= c == 0x22
            i += 1
        need = False  # a number must follow
        while good and i < stop:
            while i < stop and data[i] == 0x20:
                i += 1
            if i < stop and data[i] == 0x5D and not need:
                break
            sign = 1
            if i < stop and data[i] == 0x2D:
                sign = -1
                i += 1
            digits = i
            value = np.int64(0)
            while i < stop and 0x30 <= data[i] <= 0x39:
                value = value * 10 + np.int64(data[i] - 0x30)
                i += 1
            if i == digits or i - digits > 10 or value > 2147483647 or (data[digits] == 0x30 and i - digits > 1):
                good = False
                break
            ids[n] = np.int32(sign * value)
            n += 1
            while i < stop and data[i] == 0x20:
                i += 1
            if i < stop and data[i] == 0x2C:
                need = True
                i += 1
            elif i < stop and data[i] == 0x5D:
                break
            else:
                good = False
        for c in b"]}":
            while i < stop and data[i] == 0x20:
                i += 1
            if i >= stop or data[i] != c:
                good = False
                break
            i += 1
        while good and i < stop:
            if data[i] != 0x20 and data[i] != 0x0A and data[i] != 0x0D:
                good = False
            i += 1
        if not good:
            n = first
        ok[k] = good
        ends[k] = n
    return n


def _parse_rest(piece, starts, ids, ends, ok, bad):
    """Lines the compiled parser refused: json decides, and what it refuses too is quarantined."""
    rows: list[np.ndarray] = []
    stops = np.append(starts[1:], len(piece.data))
    begins = np.concatenate([[0], ends[:-1]])
    for k in range(len(starts)):
        if ok[k]:
            rows.append(ids[begins[k] : ends[k]])
            continue
        line = piece.data[starts[k] : stops[k]].strip()
        if not line:
            continue
        try:
            values = json.loads(line)["tokens"]
            if not isinstance(values, list) or any(type(v) is not int for v in values):
                raise ValueError("tokens is no list of integers")
            rows.append(np.array(values, np.int32))
            ok[k] = True
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            what = str(e) if isinstance(e, (ValueError, OverflowError)) else "no tokens here"
            bad(piece.position + int(starts[k]), f"broken JSON line: {what}", bytes(line[:400]))
    ends = np.cumsum([len(r) for r in rows], dtype=np.int64)
    return (np.concatenate(rows) if rows else ids[:0]), ends, ok


def write(place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
    """Documents -> stem.bin, stem.bin.meta and stem.docs.parquet.

    InternEvo tells kinds of data (en, cn, code, ...) by the folder: name the output directory so.
    Raises TinydataError if id 0 is masked, for which there is no negative number.
    """
    meta, at = [np.zeros((0, 2), np.int64)], 0
    with ExitStack() as files:
        out = files.enter_context((place / f"{stem}.bin").stream())
        beside = files.enter_context(DocumentTable(place, stem))
        for piece in pieces:
            ids = piece.ids.astype(np.int32)
            if piece.mask is not None:
                if (piece.mask & (ids == 0)).any():
                    raise TinydataError(
                        "a masked token has id 0, and InternEvo writes masked ids as negative numbers",
                        fix="write another format with --to, which has a place for masks",
                    )
                ids[piece.mask] *= -1
            ends = np.cumsum(piece.lengths)
            text = np.empty(len(ids) * 12 + len(ends) * 16, np.uint8)
            stops = np.empty(len(ends), np.int64)
            size = format_lines(ids, ends, text, stops)
            out.write(text[:size])
            beside.add(piece.documents)
            meta.append(np.stack([at + np.concatenate([[0], stops[:-1]]), piece.lengths], axis=1))
            at += size
    with (place / f"{stem}.bin.meta").stream() as index:
        held = io.BytesIO()
        rows = np.concatenate(meta)
        np.save(held, rows.astype(np.int32 if at < 1 << 31 else np.int64))
        index.write(held.getvalue())
    return {f"{stem}.bin": out.sum, f"{stem}.bin.meta": index.sum, **beside.sums}


@compiled()
def format_lines(ids, ends, text, stops):
    """ids int32[n], ends int64[docs] -> lines {"tokens": [1, 2]}; text uint8[...], where each ends int64[docs]."""
    n = 0
    k = 0
    for doc in range(len(ends)):
        for c in b'{"tokens": [':
            text[n] = c
            n += 1
        first = True
        while k < ends[doc]:
            if not first:
                text[n], text[n + 1] = 0x2C, 0x20
                n += 2
            first = False
            v = np.int64(ids[k])
            k += 1
            if v < 0:
                text[n] = 0x2D
                n += 1
                v = -v
            digits = 1
            while v >= np.int64(10) ** digits:
                digits += 1
            for d in range(digits):
                text[n + digits - 1 - d] = 0x30 + v % 10
                v //= 10
            n += digits
        for c in b"]}\n":
            text[n] = c
            n += 1
        stops[doc] = n
    return n
