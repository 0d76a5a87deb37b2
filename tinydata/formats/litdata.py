"""litdata's chunks of token ids: `chunk-R-I.bin` with `index.json`.

A chunk: u32 number of items, u32 byte offset of each and of the end, the ids. The type is a code in
data_format of the index. Source: litdata src/litdata/constants.py, streaming/{serializers,item_loader}.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes
from tinydata.formats import token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted

INDEX = "index.json"
DTYPES = {
    # types with two names have two codes
    "no_header_tensor": dict(
        zip(
            (11, 12, 13, 14, 15, 16, 17, 18, 20),
            ("uint8", "int8", "int16", "int16", "int32", "int32", "int64", "int64", "uint16"),
            strict=True,
        )
    ),
    "no_header_numpy": dict(enumerate(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"))),
}


def matches(file: Location) -> bool:
    return (file.name == INDEX or file.name.endswith(".bin")) and bool(_index(file.parent / INDEX))


def _index(file: Location) -> dict[str, Any]:
    """index.json -> its content; {} if it does not exist or belongs to another program."""
    return _read_index(file, file.changed) if file.exists() else {}


@lru_cache(maxsize=64)
def _read_index(file: Location, changed: int) -> dict[str, Any]:
    try:
        index = json.loads(read_bytes(file))
    except ValueError:
        return {}
    known = isinstance(index, dict) and isinstance(index.get("chunks"), list) and isinstance(index.get("config"), dict)
    return index if known else {}


def columns(file: Location, wanted: Wanted) -> Columns:
    """Raises OSError for a chunk that is missing or differs from the index, TinydataError if it contains no ids."""
    index = _index(file.parent / INDEX)
    if not all(isinstance(c, dict) and isinstance(c.get("filename"), str) for c in index["chunks"]):
        raise OSError(f"{INDEX} is damaged: it lists a chunk without a file name")
    chunks = {c["filename"]: c for c in index["chunks"]}
    if file.name == INDEX:
        missing = sorted(chunks.keys() - {f.name for f in file.parent.children()})
        if missing:
            raise OSError(f"it lists {missing[0]}, which does not exist ({len(missing)} missing)")
        return Columns()
    if file.name not in chunks:
        raise OSError(f"{INDEX} in the same directory does not list it")
    dtype = _dtype(index["config"], file)
    first = _first(file, dtype)
    dim = chunks[file.name].get("dim")
    if dim is not None and dim != first[-1]:
        raise OSError(f"it has {first[-1]} ids, {INDEX} says {dim}")
    return Columns(ids="ids", types=(("ids", dtype.name),))


def _dtype(config: dict[str, Any], file: Location) -> np.dtype:
    forms = config.get("data_format")
    forms = forms if isinstance(forms, list) else []
    kind, _, code = str(forms[0]).partition(":") if len(forms) == 1 else ("", "", "")
    packed = config.get("compression") or config.get("encryption")
    if packed or kind not in DTYPES:
        raise TinydataError(
            f"litdata chunks with {packed}" if packed else f"litdata chunks of records ({', '.join(map(str, forms))})",
            where=str(file),
            fix="only chunks of token ids can be read: optimize() writes them with TokensLoader and no compression",
            code=UNREADABLE,
        )
    if not code.isdecimal() or int(code) not in DTYPES[kind]:
        raise OSError(f"its index declares {forms[0]}, which is not an integer type")
    return np.dtype(DTYPES[kind][int(code)])


def _offsets(file: Location) -> np.ndarray:
    """-> first byte of each item and the end, int64[items + 1]."""
    return _read_offsets(file, file.size, file.changed)


@lru_cache(maxsize=8)
def _read_offsets(file: Location, size: int, changed: int) -> np.ndarray:
    with file.open() as f:
        items = int.from_bytes(f.read(4), "little")
        data = f.read(4 * (items + 1)) if 4 * (items + 2) <= size else b""
    offsets = np.frombuffer(data, np.uint32).astype(np.int64)
    if len(offsets) != items + 1 or offsets[0] != 4 * (items + 2) or (np.diff(offsets) < 0).any():
        raise OSError("its table of items is broken")
    if offsets[-1] != size:
        raise OSError(f"it has {size} bytes, its table of items says {offsets[-1]}")
    return offsets


def _first(file: Location, dtype: np.dtype) -> np.ndarray:
    """-> first token of each item int64[items + 1]."""
    first, rest = np.divmod(_offsets(file) - _offsets(file)[0], dtype.itemsize)
    if rest.any():
        raise OSError(f"it has items of a size that is not a multiple of the {dtype.itemsize} bytes of {dtype}")
    return first


def splits(file: Location) -> list[SplitRange]:
    """Runs of items."""
    if file.name == INDEX:
        return []
    dtype = _dtype(_index(file.parent / INDEX)["config"], file)
    return token_files.runs(_first(file, dtype), dtype.itemsize)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    file = Location.of(split.path)
    dtype = np.dtype(split.columns.types[0][1])
    yield from token_files.documents(split, _first(file, dtype), dtype, bad, header=int(_offsets(file)[0]))
