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
    from tinydata.formats.internevo_lines import parse_lines

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
    from tinydata.formats.internevo_lines import format_lines

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
