"""InternEvo's cache: `x.bin`, which is JSON lines {"tokens": [...]}, with `x.bin.meta`.

A negative id is the same token with a masked label. `.meta` (npy: byte offset, tokens of each line)
overflows int32 beyond 2 GiB, so lines are found by their newlines; it only serves to detect a file
that was written twice (the tool appends). Source: InternLM/InternEvo tools/tokenizer.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pyarrow as pa

from tinydata.core.errors import TinydataError
from tinydata.core.kernels import compiled, inlined
from tinydata.core.location import Location, read_bytes
from tinydata.formats import text_lines
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted, batch
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


def splits(file: Location) -> list[SplitRange]:
    _check_against_meta(file)
    return text_lines.splits(file)


def _check_against_meta(file: Location) -> None:
    """Raises OSError if the .bin ends before the last line that its .meta lists, or continues after it."""
    rows = _listed_lines(file)
    if not len(rows):
        return
    if file.size <= rows[-1]:
        raise OSError("it ends before the last line of its .meta: it was not written or copied completely")
    with file.open() as f:
        f.seek(int(rows[-1]))
        rest = f.read()
    if rest.find(b"\n") + 1 not in (0, len(rest)):
        raise OSError("it continues after the last line of its .meta: the tool appends, so it was written twice")


def _listed_lines(file: Location) -> np.ndarray:
    """Where the lines of a .bin begin according to its .meta, int64[lines].

    Empty if there is no .meta, or if the file has 2 GiB or more, where the numbers overflow. Raises OSError if the
    .meta is damaged. Nothing in it is used as a size before it is compared with the size of the file.
    """
    meta = file.parent / (file.name + ".meta")
    if not meta.exists() or file.size >= 1 << 31:
        return np.zeros(0, np.int64)
    content = read_bytes(meta)
    f = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(f)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = header(f)
    except Exception as e:  # numpy parses a Python literal here, and lets through whatever its parser raises
        raise OSError(f"its .meta is not a numpy file: {' '.join(str(e).split())[:100]}") from None
    body = content[f.tell() :]
    whole = len(shape) == 2 and shape[1] >= 1 and dtype.kind in "iu"
    if not whole or shape[0] * shape[1] * dtype.itemsize != len(body):
        raise OSError(f"its .meta is damaged: an array of {dtype} of shape {shape} in {len(body)} bytes")
    rows = np.frombuffer(body, dtype).reshape(shape, order="F" if by_column else "C")[:, 0].astype(np.int64)
    if len(rows) and (rows[0] != 0 or (np.diff(rows) <= 0).any()):
        raise OSError("its .meta is damaged: the lines that it lists do not follow one another")
    return rows


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Lines that .meta lists and that are not there are reported."""
    listed = _listed_lines(Location.of(split.path))
    first = 0 if split.start == 0 else int(np.searchsorted(listed, split.start, side="right"))
    missing = int(np.searchsorted(listed, split.stop, side="right")) - first
    for piece in text_lines.readable_lines(split, bad):
        starts = line_starts(piece.data)
        missing -= piece.data.count(b"\n") + (not piece.data.endswith(b"\n"))  # blank ones, too
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
    if missing > 0:
        bad(split.stop, "lines that .meta lists are missing", b"", documents=missing)


_SPACE, _NEWLINE, _RETURN, _QUOTE = ord(" "), ord("\n"), ord("\r"), ord('"')
_MINUS, _COMMA, _ZERO, _NINE, _BRACKET = ord("-"), ord(","), ord("0"), ord("9"), ord("]")
_LARGEST, _DIGITS = 2**31 - 1, 10  # of an id, and as many digits as it has
_FAILED = -1  # instead of a position: the line is not what was expected here


@compiled()
def parse_lines(data, starts, ids, ends, ok):
    """Lines {"tokens": [int, ...]} -> number of ids; any other line contributes no ids.

    data uint8[...], starts int64[lines]: first byte of each line -> ids int32[total], ends int64[lines]: total after
    each line, ok bool[lines]: whether it was parsed. 130 M tokens a second: json.loads on the same lines manages 12.
    """
    total = 0
    for line in range(len(starts)):
        stop = starts[line + 1] if line + 1 < len(starts) else len(data)
        at = _skip(data, starts[line], stop, b'{"tokens":[')
        count = 0
        if at != _FAILED:
            at, count = _parse_list(data, at, stop, ids, total)
        if at != _FAILED:
            at = _skip(data, at, stop, b"]}")
        ok[line] = at != _FAILED and _is_blank(data, at, stop)
        if ok[line]:
            total += count
        ends[line] = total
    return total


@inlined()
def _parse_list(data, at, stop, ids, total):
    """Integers, separated by commas, up to the closing bracket -> ids[total:], (its position, number of ids)."""
    count = 0
    at = _skip_spaces(data, at, stop)
    if at < stop and data[at] == _BRACKET:
        return at, count
    while True:
        at = _skip_spaces(data, at, stop)
        sign = 1
        if at < stop and data[at] == _MINUS:
            sign = -1
            at += 1
        first = at
        value = np.int64(0)
        while at < stop and _ZERO <= data[at] <= _NINE:
            value = value * 10 + np.int64(data[at] - _ZERO)
            at += 1
        digits = at - first
        if digits == 0 or digits > _DIGITS or value > _LARGEST or (data[first] == _ZERO and digits > 1):
            return _FAILED, 0
        ids[total + count] = np.int32(sign * value)
        count += 1
        at = _skip_spaces(data, at, stop)
        if at < stop and data[at] == _BRACKET:
            return at, count
        if at >= stop or data[at] != _COMMA:
            return _FAILED, 0
        at += 1


@inlined()
def _skip(data, at, stop, text):
    """-> the position after `text`, with any spaces between its characters except inside quotes, or _FAILED."""
    quoted = False
    for c in text:
        if not quoted:
            at = _skip_spaces(data, at, stop)
        if at >= stop or data[at] != c:
            return _FAILED
        quoted ^= c == _QUOTE
        at += 1
    return at


@inlined()
def _skip_spaces(data, at, stop):
    while at < stop and data[at] == _SPACE:
        at += 1
    return at


@inlined()
def _is_blank(data, at, stop):
    while at < stop and (data[at] == _SPACE or data[at] == _NEWLINE or data[at] == _RETURN):
        at += 1
    return at == stop


def _parse_rest(piece, starts, ids, ends, ok, bad):
    """Parses the lines that `parse_lines` did not with json; a line that json does not accept either goes to `bad`.

    -> ids int32[total], ends int64[good lines], ok bool[lines].
    """
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
                raise ValueError("tokens is not a list of integers")
            rows.append(np.array(values, np.int32))
            ok[k] = True
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            what = str(e) if isinstance(e, (ValueError, OverflowError)) else "it has no tokens"
            bad(piece.position + int(starts[k]), f"broken JSON line: {what}", bytes(line[:400]))
    ends = np.cumsum([len(r) for r in rows], dtype=np.int64)
    return (np.concatenate(rows) if rows else ids[:0]), ends, ok


def write(place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
    """Documents -> stem.bin, stem.bin.meta and stem.docs.parquet.

    InternEvo takes the kind of data (en, cn, code, ...) from the directory name: name the output directory so.
    Raises TinydataError if a token with id 0 is masked, since 0 has no negative.
    """
    meta, at = [np.zeros((0, 2), np.int64)], 0
    with ExitStack() as files:
        out = files.enter_context((place / f"{stem}.bin").stream())
        table = files.enter_context(DocumentTable(place, stem))
        for piece in pieces:
            ids = piece.ids.astype(np.int32)
            if piece.mask is not None:
                if (piece.mask & (ids == 0)).any():
                    raise TinydataError(
                        "a masked token has id 0, and InternEvo writes masked ids as negative numbers",
                        fix="choose a format that stores masks separately with --to: megatron or parquet",
                    )
                ids[piece.mask] *= -1
            ends = np.cumsum(piece.lengths)
            text = np.empty(len(ids) * 12 + len(ends) * 16, np.uint8)
            stops = np.empty(len(ends), np.int64)
            size = format_lines(ids, ends, text, stops)
            out.write(text[:size])
            table.add(piece.documents)
            meta.append(np.stack([at + np.concatenate([[0], stops[:-1]]), piece.lengths], axis=1))
            at += size
    with (place / f"{stem}.bin.meta").stream() as index:
        npy = io.BytesIO()
        rows = np.concatenate(meta)
        np.save(npy, rows.astype(np.int32 if at < 1 << 31 else np.int64))
        index.write(npy.getvalue())
    return {f"{stem}.bin": out.sum, f"{stem}.bin.meta": index.sum, **table.sums}


@compiled()
def format_lines(ids, ends, text, stops):
    """ids int32[n], ends int64[docs] -> number of bytes of the lines {"tokens": [1, 2]}.

    Writes the lines to text uint8[...], and where each of them ends to stops int64[docs].
    """
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
