"""MosaicML's streaming shards: `shard.NNNNN.mds`, or `.mds.zstd`, and the `index.json` that names them.

A shard: u32 samples, u32 byte offset of each and of the end, JSON of the columns, the samples. A
sample: u32 size of each column without a fixed one, then the values in the order of the columns.
ndarray: perhaps a byte for the type, a byte for dimensions << 2 | log2 of the bytes of each, these,
the numbers. Source: streaming base/format/mds/{encodings,reader}.py.
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
from tinydata.formats import dtype_evidence
from tinydata.formats import token_files as shards
from tinydata.formats.base import Bad, Columns, Split, Wanted, batch, choose

INDEX = "index.json"
DTYPES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 32: "uint32", 33: "int32", 64: "uint64", 65: "int64"}
CODECS = {"zstd": "zstd", "zst": "zstd", "gz": "gzip"}
NUMBERS = {"int": "int64", **{d: d for d in DTYPES.values()}}  # columns of one number
LOOKED_AT = 64  # samples from which the type of a bytes column is concluded


def matches(file: Location) -> bool:
    return _raw(file) or _packed(file) or (file.name == INDEX and bool(_index(file)))


def _raw(file: Location) -> bool:
    return file.name.endswith(".mds")


def _packed(file: Location) -> bool:
    stem, _, ending = file.name.rpartition(".")
    return stem.endswith(".mds") and ending in (*CODECS, "br", "bz2", "snappy")


def _index(file: Location) -> list[dict[str, Any]]:
    """index.json -> its shards; [] if there is none, or another program's."""
    return _read_index(file, file.changed) if file.exists() else []


@lru_cache(maxsize=64)
def _read_index(file: Location, changed: int) -> list[dict[str, Any]]:
    try:
        found = json.loads(read_bytes(file))
        return [s for s in found["shards"] if s["raw_data"]["basename"]]
    except (ValueError, TypeError, KeyError):
        return []


# -- the head of a shard ----------------------------------------------------------------------


class Head(NamedTuple):
    """Byte offset of each sample and of the end int64[samples + 1], columns, and their fixed sizes or None."""

    offsets: np.ndarray
    encodings: dict[str, str]
    sizes: list[int | None]


def _stream(file: Location, f: pa.NativeFile) -> pa.NativeFile:
    codec = CODECS.get(file.name.rpartition(".")[2])
    if codec:
        return pa.CompressedInputStream(f, codec)
    if _packed(file):
        raise TinydataError(
            "MDS shards of this compression cannot be read",
            where=str(file),
            fix=f"decompress them, or write them again with one of {', '.join(CODECS)}",
            code=UNREADABLE,
        )
    return f


def _head(file: Location) -> Head:
    """OSError unless it is whole, and the shard as long as it says."""
    return _read_head(file, file.size, file.changed)


@lru_cache(maxsize=8)  # splits of one shard follow one another
def _read_head(file: Location, size: int, changed: int) -> Head:
    with file.open() as f:
        stream = _stream(file, f)
        count = int.from_bytes(_exactly(stream, 4), "little")
        offsets = np.frombuffer(_exactly(stream, 4 * (count + 1)), np.uint32).astype(np.int64)
        at = 4 * (count + 2)
        if offsets[0] < at or (np.diff(offsets) < 0).any() or offsets[0] - at > 1 << 24:
            raise OSError("its table of samples is broken")
        try:
            config = json.loads(_exactly(stream, int(offsets[0]) - at))
            names, kinds, sizes = (config[f"column_{k}"] for k in ("names", "encodings", "sizes"))
        except (ValueError, TypeError, KeyError):
            raise OSError("its description of columns is broken") from None
    if _raw(file) and offsets[-1] != size:
        raise OSError(f"it has {size} bytes, its table of samples says {offsets[-1]}")
    return Head(offsets, dict(zip(names, kinds, strict=True)), sizes)


def _exactly(stream: pa.NativeFile, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise OSError("it ends within its table of samples")
    return data


# -- plan -------------------------------------------------------------------------------------


def columns(file: Location, wanted: Wanted) -> Columns:
    """OSError for a shard that is broken or not in its directory's index.json, and for an index without its shard."""
    if file.name == INDEX:
        here = {f.name for f in file.parent.children()}
        for shard in _index(file):
            names = {(shard[k] or {}).get("basename") for k in ("raw_data", "zip_data")}
            if not names & here and not any("/" in n for n in names if n):  # a merged index names folders
                raise OSError(f"it names {shard['raw_data']['basename']}, which is not here")
        return Columns()
    known = _index(file.parent / INDEX)
    name = file.name if _raw(file) else file.name.rpartition(".")[0]
    if known and name not in {s["raw_data"]["basename"].rpartition("/")[2] for s in known}:
        raise OSError(f"{INDEX} in the same directory does not name it")
    head = _head(file)
    found = choose({n: _kind(e) for n, e in head.encodings.items()}, wanted, file)
    note = ""
    types = {n: head.encodings[n] for n, _ in found.types}
    for column in (found.domain, found.doc_id):
        if column and types[column] != "str" and types[column] not in NUMBERS:
            raise TinydataError(
                f"column {column!r} holds {types[column]}, no names",
                where=str(file),
                fix="name a column of str or int with --domain-column or --id-column",
                code=UNREADABLE,
            )
    if found.ids and types[found.ids] == "bytes":
        types[found.ids], note = _concluded(file, head, found.ids, wanted)
    return found._replace(types=tuple(types.items()), note=note)


def _kind(encoding: str) -> str:
    """Encoding -> what `choose` calls it."""
    if encoding == "str":
        return "text"
    whole, _, kind = encoding.partition(":")
    if encoding == "bytes" or (whole == "ndarray" and (not kind or kind.partition(":")[0] in DTYPES.values())):
        return "ids"
    return "integer" if encoding in NUMBERS else encoding


def _concluded(file: Location, head: Head, column: str, wanted: Wanted) -> tuple[str, str]:
    """The type of the ids in a column of bytes -> (dtype, note)."""
    count = min(len(head.offsets) - 1, LOOKED_AT)
    raw = _samples(file, head, 0, count)
    starts, lengths = _places(raw, head, 0, count)[column]
    values = [raw[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    data = b"".join(v[: len(v) // 8 * 8] for v in values)
    where = f"column {column!r} holds bytes"
    dtype, note = dtype_evidence.infer_dtype(data, math.gcd(*map(len, values)), wanted, file, where)
    return dtype.name, note


def splits(file: Location) -> list[tuple[int, int, int]]:
    """Runs of samples: (first, last + 1, bytes); of a compressed shard all at once."""
    if file.name == INDEX:
        return []
    offsets = _head(file).offsets
    if _raw(file):
        return shards.runs(offsets, 1)
    if (file.parent / file.name.rpartition(".")[0]).exists():  # both are kept: the same samples
        return []
    return [(0, len(offsets) - 1, file.size)]


# -- read -------------------------------------------------------------------------------------


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Positions are numbers of samples."""
    file = Location.of(split.path)
    head = _head(file)
    whole = None if _raw(file) else _samples(file, head, 0, split.stop, bad)
    a = split.start
    while a < split.stop:
        b = int(np.searchsorted(head.offsets, head.offsets[a] + shards.BATCH, side="right")) - 1
        b = min(max(b, a + 1), split.stop)
        if whole is None:
            raw = _samples(file, head, a, b, bad)
        else:
            raw = whole[head.offsets[a] - head.offsets[0] : head.offsets[b] - head.offsets[0]]
        if len(raw) < head.offsets[b] - head.offsets[a]:
            return
        yield from _batch(split, head, raw, a, b, bad)
        a = b


def _samples(file: Location, head: Head, a: int, b: int, bad: Bad | None = None) -> bytes:
    """Bytes of samples a to b; b"" after a call of `bad` (or OSError without one) if they are not all there."""
    want = int(head.offsets[b] - head.offsets[a])
    reason = "the file ends early"
    with file.open() as f:
        try:
            stream = _stream(file, f)
            if stream is f:
                f.seek(int(head.offsets[a]))
            else:
                stream.read(int(head.offsets[a]))
            raw = stream.read(want)
        except OSError as e:
            raw, reason = b"", f"the compressed data is broken: {' '.join(str(e).split())[:120]}"
    if len(raw) == want:
        return raw
    if bad is None:
        raise OSError(reason)
    bad(a, reason, b"")
    return b""


def _places(raw: bytes, head: Head, a: int, b: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Samples a to b -> {column: (first byte in raw, bytes)}, both int64[samples]; -1 bytes: a broken sample."""
    base = head.offsets[a:b] - head.offsets[a]
    whole = np.diff(head.offsets[a : b + 1])
    free = head.sizes.count(None)
    at = base + 4 * free
    broken = whole < 4 * free
    sizes = np.zeros((b - a, free), np.int64)
    fits = np.flatnonzero(~broken)
    if free and len(fits):
        words = np.frombuffer(raw, np.uint8)[base[fits][:, None] + np.arange(4 * free)]
        sizes[fits] = words.view(np.uint32)
    out = {}
    number = 0
    for name, size in zip(head.encodings, head.sizes, strict=True):
        count = np.full(b - a, size, np.int64) if size is not None else sizes[:, number]
        number += size is None
        out[name] = (at, count)
        at = at + count
    broken |= at - base != whole
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
    """A value, and its encoding or (of a column of bytes) dtype -> its ids; ValueError if it is no row of integers."""
    whole, _, rest = kind.partition(":")
    if whole != "ndarray":
        return np.frombuffer(value, kind)
    dtype, _, shape = rest.partition(":")
    at = 0
    if not dtype:
        if not value or value[0] not in DTYPES:
            raise ValueError(f"numbers of type {value[0] if value else 'none'}, no integers")
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
        raise ValueError(f"an array of shape {tuple(dims)} in {len(value)} bytes, no row of ids")
    return np.frombuffer(value, dtype, offset=at)
