"""MosaicML's streaming shards: `shard.NNNNN.mds`, or `.mds.zstd`, and the `index.json` that names them.

A shard: u32 number of samples, u32 byte offset of each and of the end, JSON that describes the columns,
the samples. A sample: u32 size of each column that has no fixed size, then the values in the order of
the columns. ndarray: a byte for the type unless the encoding declares it, a byte for dimensions << 2 |
log2 of the bytes of each, the dimensions, the numbers. Source: streaming base/format/mds/{encodings,reader}.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes
from tinydata.formats import dtype_evidence, token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted, batch, choose

INDEX = "index.json"
DTYPES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 32: "uint32", 33: "int32", 64: "uint64", 65: "int64"}
CODECS = {"zstd": "zstd", "zst": "zstd", "gz": "gzip"}
NUMBERS = {"int": "int64", **{d: d for d in DTYPES.values()}}  # columns of one number
INSPECTED = 64  # samples from which the type of a bytes column is inferred


def matches(file: Location) -> bool:
    return _is_raw(file) or _is_compressed(file) or (file.name == INDEX and bool(_index(file)))


def _is_raw(file: Location) -> bool:
    return file.name.endswith(".mds")


def _is_compressed(file: Location) -> bool:
    stem, _, ending = file.name.rpartition(".")
    return stem.endswith(".mds") and ending in (*CODECS, "br", "bz2", "snappy")


def _index(file: Location) -> list[dict[str, Any]]:
    """index.json -> its shards; [] if it does not exist or belongs to another program."""
    return _read_index(file, file.changed) if file.exists() else []


@lru_cache(maxsize=64)
def _read_index(file: Location, changed: int) -> list[dict[str, Any]]:
    try:
        return [s for s in json.loads(read_bytes(file))["shards"] if s["raw_data"]["basename"]]
    except (ValueError, TypeError, KeyError):
        return []


# -- the head of a shard ----------------------------------------------------------------------


class Head(NamedTuple):
    """The beginning of a shard."""

    offsets: np.ndarray  # first byte of each sample, and the end, int64[samples + 1]
    encodings: dict[str, str]  # column -> encoding
    sizes: list[int | None]  # bytes of each column; None: not fixed


def _stream(file: Location, f: pa.NativeFile) -> pa.NativeFile:
    codec = CODECS.get(file.name.rpartition(".")[2])
    if codec:
        return pa.CompressedInputStream(f, codec)
    if _is_compressed(file):
        raise TinydataError(
            "MDS shards of this compression cannot be read",
            where=str(file),
            fix=f"decompress them, or write them again with one of {', '.join(CODECS)}",
            code=UNREADABLE,
        )
    return f


def _head(file: Location) -> Head:
    """Raises OSError unless it is complete and the shard has the size that it says."""
    return _read_head(file, file.size, file.changed)


@lru_cache(maxsize=8)  # splits of one shard follow one another
def _read_head(file: Location, size: int, changed: int) -> Head:
    with file.open() as f:
        stream = _stream(file, f)
        count = int.from_bytes(_exactly(stream, 4), "little")
        if _is_raw(file) and 4 * (count + 2) > size:
            raise OSError(f"it has {size} bytes, too few for the table of {count} samples that it declares")
        offsets = np.frombuffer(_exactly(stream, 4 * (count + 1)), np.uint32).astype(np.int64)
        at = 4 * (count + 2)
        if offsets[0] < at or (np.diff(offsets) < 0).any() or offsets[0] - at > 1 << 24:
            raise OSError("its table of samples is broken")
        try:
            config = json.loads(_exactly(stream, int(offsets[0]) - at))
            names, kinds, sizes = (config[f"column_{k}"] for k in ("names", "encodings", "sizes"))
        except (ValueError, TypeError, KeyError):
            raise OSError("its description of columns is broken") from None
    if _is_raw(file) and offsets[-1] != size:
        raise OSError(f"it has {size} bytes, its table of samples says {offsets[-1]}")
    return Head(offsets, dict(zip(names, kinds, strict=True)), sizes)


def _exactly(stream: pa.NativeFile, count: int) -> bytes:
    """`count` bytes, read in pieces: a damaged number of samples must not decide how much memory is asked for."""
    pieces = []
    while count > 0 and (data := stream.read(min(count, 1 << 24))):
        pieces.append(data)
        count -= len(data)
    if count:
        raise OSError("it ends within its table of samples")
    return b"".join(pieces)


# -- columns and splits -----------------------------------------------------------------------


def columns(file: Location, wanted: Wanted) -> Columns:
    """Raises OSError for a shard that is broken or not in its directory's index.json, and for an index that lists a
    shard that does not exist."""
    if file.name == INDEX:
        _check_complete(file)
        return Columns()
    known = _index(file.parent / INDEX)
    name = file.name if _is_raw(file) else file.name.rpartition(".")[0]
    if known and name not in {s["raw_data"]["basename"].rpartition("/")[2] for s in known}:
        raise OSError(f"{INDEX} in the same directory does not list it")
    head = _head(file)
    chosen = choose({n: _kind(e) for n, e in head.encodings.items()}, wanted, file)
    note = ""
    types = {n: head.encodings[n] for n, _ in chosen.types}
    for column in (chosen.domain, chosen.doc_id):
        if column and types[column] != "str" and types[column] not in NUMBERS:
            raise TinydataError(
                f"column {column!r} contains {types[column]}, not names",
                where=str(file),
                fix="choose a column of str or int with --domain-column or --id-column",
                code=UNREADABLE,
            )
    if chosen.ids and types[chosen.ids] == "bytes":
        types[chosen.ids], note = _infer_dtype(file, head, chosen.ids, wanted)
    return chosen._replace(types=tuple(types.items()), note=note)


def _check_complete(index: Location) -> None:
    existing = {f.name for f in index.parent.children()}
    for shard in _index(index):
        names = {(shard.get(k) or {}).get("basename") for k in ("raw_data", "zip_data")}
        if not names & existing and not any("/" in n for n in names if n):  # a merged index lists paths in directories
            raise OSError(f"it lists {shard['raw_data']['basename']}, which does not exist")


def _kind(encoding: str) -> str:
    """Encoding -> what `choose` calls it."""
    if encoding == "str":
        return "text"
    name, _, kind = encoding.partition(":")
    if encoding == "bytes" or (name == "ndarray" and (not kind or kind.partition(":")[0] in DTYPES.values())):
        return "ids"
    return "integer" if encoding in NUMBERS else encoding


def _infer_dtype(file: Location, head: Head, column: str, wanted: Wanted) -> tuple[str, str]:
    """(dtype, note) of the ids in a column of bytes."""
    count = min(len(head.offsets) - 1, INSPECTED)
    raw = _samples(file, head, 0, count)
    starts, lengths = _places(raw, head, 0, count)[column]
    values = [raw[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    data = b"".join(v[: len(v) // 8 * 8] for v in values)
    why = f"column {column!r} contains bytes"
    dtype, note = dtype_evidence.infer_dtype(data, math.gcd(*map(len, values)), wanted, file, why)
    return dtype.name, note


def splits(file: Location) -> list[SplitRange]:
    """Runs of samples; a compressed shard is one split."""
    if file.name == INDEX:
        return []
    offsets = _head(file).offsets
    if _is_raw(file):
        return token_files.runs(offsets, 1)
    if (file.parent / file.name.rpartition(".")[0]).exists():  # the same samples, which are read from there
        return []
    return [SplitRange(0, len(offsets) - 1, file.size)]


# -- read -------------------------------------------------------------------------------------


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Positions are sample numbers."""
    file = Location.of(split.path)
    head = _head(file)
    whole = None if _is_raw(file) else _samples(file, head, 0, split.stop, bad)
    a = split.start
    while a < split.stop:
        b = int(np.searchsorted(head.offsets, head.offsets[a] + token_files.BATCH, side="right")) - 1
        b = min(max(b, a + 1), split.stop)
        if whole is None:
            raw = _samples(file, head, a, b, bad)
        else:
            raw = whole[head.offsets[a] - head.offsets[0] : head.offsets[b] - head.offsets[0]]
        if len(raw) < head.offsets[b] - head.offsets[a]:
            if whole is None and b < split.stop:
                bad(b, "the samples after unreadable ones", b"", documents=split.stop - b)
            return
        yield from _batch(split, head, raw, a, b, bad)
        a = b


def _samples(file: Location, head: Head, a: int, b: int, bad: Bad | None = None) -> bytes:
    """Bytes of samples [a, b). If some are missing, calls `bad` and returns b""; without `bad`, raises OSError."""
    count = int(head.offsets[b] - head.offsets[a])
    reason = "the file ends early"
    with file.open() as f:
        try:
            stream = _stream(file, f)
            if stream is f:
                f.seek(int(head.offsets[a]))
            else:
                stream.read(int(head.offsets[a]))
            raw = stream.read(count)
        except OSError as e:
            raw, reason = b"", f"the compressed data is broken: {' '.join(str(e).split())[:120]}"
    if len(raw) == count:
        return raw
    if bad is None:
        raise OSError(reason)
    bad(a, reason, b"", documents=b - a, size=min(count, file.size))
    return b""


def _places(raw: bytes, head: Head, a: int, b: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Bytes of samples [a, b) -> {column: (its first byte in raw, its bytes)}, both int64[samples].

    Of a broken sample the number of bytes is -1.
    """
    base = head.offsets[a:b] - head.offsets[a]
    total = np.diff(head.offsets[a : b + 1])
    variable = head.sizes.count(None)  # columns whose sizes are at the beginning of each sample
    at = base + 4 * variable
    broken = total < 4 * variable
    sizes = np.zeros((b - a, variable), np.int64)
    fits = np.flatnonzero(~broken)
    if variable and len(fits):
        words = np.frombuffer(raw, np.uint8)[base[fits][:, None] + np.arange(4 * variable)]
        sizes[fits] = words.view(np.uint32)
    out = {}
    number = 0
    for name, size in zip(head.encodings, head.sizes, strict=True):
        count = np.full(b - a, size, np.int64) if size is not None else sizes[:, number]
        number += size is None
        out[name] = (at, count)
        at = at + count
    broken |= at - base != total
    return {name: (start, np.where(broken, -1, count)) for name, (start, count) in out.items()}


def _batch(split: Split, head: Head, raw: bytes, a: int, b: int, bad: Bad) -> Iterator[pa.RecordBatch]:
    names = split.columns
    places = _places(raw, head, a, b)
    types = dict(names.types)
    rows: list[Any] = []
    good: list[int] = []
    starts, lengths = places[names.text or names.ids]
    for i, (at, count) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        value = raw[at : at + max(count, 0)]
        try:
            if count < 0:
                raise ValueError("sizes that do not fit the sample")
            rows.append(value.decode() if names.text else _ids(value, types[names.ids]))
            good.append(i)
        except UnicodeDecodeError:
            bad(a + i, "not UTF-8", value[:320])
        except ValueError as e:
            bad(a + i, f"broken sample: {e}", value[:80])
    if not rows:
        return
    if names.text:
        body = pa.array(rows, pa.string())
    else:
        offsets = np.cumsum([0, *map(len, rows)])
        body = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(np.concatenate(rows)))

    def label(column: str) -> pa.Array | None:
        if not column:
            return None
        starts, lengths = places[column]
        values = [raw[starts[i] : starts[i] + lengths[i]] for i in good]
        if types[column] == "str":
            return pa.array([v.decode("utf-8", "replace") for v in values], pa.string())
        return pa.array(np.frombuffer(b"".join(values), NUMBERS[types[column]]))

    positions = pa.array(np.array(good, np.int64) + a)
    yield batch(split, body, positions, label(names.doc_id), label(names.domain))


def _ids(value: bytes, kind: str) -> np.ndarray:
    """Value of a column -> its ids; kind: the encoding or, of a column of bytes, the dtype.

    Raises ValueError unless it is one row of integers.
    """
    name, _, rest = kind.partition(":")
    if name != "ndarray":
        return np.frombuffer(value, kind)
    dtype, _, shape = rest.partition(":")
    at = 0
    if not dtype:
        if not value or value[0] not in DTYPES:
            raise ValueError(f"numbers of type {value[0] if value else 'none'}, not integers")
        dtype, at = DTYPES[value[0]], 1
    dims = [int(n) for n in shape.split(",")] if shape else []
    if not shape:
        if len(value) <= at:
            raise ValueError("no shape")
        count, width = value[at] >> 2, 1 << (value[at] & 3)
        if len(value) < at + 1 + count * width:
            raise ValueError("no shape")
        dims = np.frombuffer(value, f"u{width}", count, at + 1).tolist()
        at += 1 + count * width
    if len(dims) != 1 or dims[0] * np.dtype(dtype).itemsize != len(value) - at:
        raise ValueError(f"an array of shape {tuple(dims)} in {len(value)} bytes, not a row of ids")
    return np.frombuffer(value, dtype, offset=at)
