"""safetensors files without loading them: headers, tensors in chunks, rows by number.

A file is 8 bytes (the header's length, little-endian), a JSON header {name: {dtype, shape,
data_offsets}}, and the data, tensor after tensor. Format: github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location

CHUNK = 16 << 20  # bytes read at a time; larger chunks are no faster
_NEAR = 64 << 10  # rows closer than this in the file are read in one go
_MAX_HEADER = 100_000_000  # the limit of the safetensors library

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
# each element has its own bytes: such rows can be copied without knowing what they mean
PLAIN = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
AVERAGED = ("F32", "F16", "BF16")


class Tensor(NamedTuple):
    """One tensor in its file."""

    name: str
    dtype: str  # as the header says: "BF16"
    shape: tuple[int, ...]
    start: int  # byte in the file
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Length of the first dimension that is not 1; 1 if all are."""
        return next((n for n in self.shape if n != 1), 1)

    def resized(self, rows: int) -> Tensor:
        """The same with another number of rows."""
        axis = next((k for k, n in enumerate(self.shape) if n != 1), 0)
        shape = (*self.shape[:axis], rows, *self.shape[axis + 1 :])
        return self._replace(shape=shape, bytes=self.bytes // self.rows * rows)


class SafetensorsFile(NamedTuple):
    """The header of one safetensors file."""

    file: Location
    metadata: dict[str, str]
    tensors: list[Tensor]  # in the order of their data


def read_header(file: Location) -> SafetensorsFile:
    """safetensors file -> SafetensorsFile; raises TinydataError for a broken or truncated one."""
    size = file.size
    with file.open() as f:
        length = int.from_bytes(f.read(8), "little") if size >= 8 else size
        if length > min(size - 8, _MAX_HEADER):
            raise _broken(file, f"the header would be {length:,} bytes long, the file has {size:,}")
        raw = f.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        tensors = [_tensor(name, entry, 8 + length) for name, entry in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise _broken(file, f"the header does not describe tensors ({type(e).__name__}: {e})") from None
    tensors.sort(key=lambda t: (t.start, t.bytes))
    at = 8 + length
    for t in tensors:
        if t.start != at or t.bytes < 0 or min(t.shape, default=0) < 0:
            raise _broken(file, f"the data of {t.name} does not begin where the tensor before it ends")
        if t.dtype in _BITS and t.bytes * 8 != t.elements * _BITS[t.dtype]:
            raise _broken(file, f"{t.name}, {t.dtype} {list(t.shape)}, cannot have {t.bytes:,} bytes")
        at += t.bytes
    if at != size:
        what = "truncated" if size < at else "too long"
        raise _broken(file, f"the file is {what}: it has {size:,} bytes, its header describes {at:,}")
    return SafetensorsFile(file, metadata, tensors)


def _tensor(name: str, entry: dict[str, Any], data: int) -> Tensor:
    start, stop = (int(n) for n in entry["data_offsets"])
    return Tensor(name, str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), data + start, stop - start)


def _broken(file: Location, why: str) -> TinydataError:
    return TinydataError(
        f"not a valid safetensors file: {why}",
        where=str(file),
        fix="download or save the model again",
        code=UNREADABLE,
    )


def laid_out(tensors: list[Tensor]) -> list[Tensor]:
    """Tensors in the order in which they are written: wide numbers first, so that all of them are aligned.

    Files of the safetensors library already have this order.
    """
    return sorted(tensors, key=lambda t: -_BITS.get(t.dtype, 8))


def header_bytes(tensors: list[Tensor], metadata: dict[str, str]) -> bytes:
    """Everything in a file before the data of these tensors, which follow one another; a multiple of 8 bytes."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for t in tensors:
        header[t.name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + t.bytes]}
        at += t.bytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


# -- data -------------------------------------------------------------------------------------


class Reader:
    """An open file that is read by position; all errors name the file."""

    def __init__(self, file: Location):
        self.file = file
        self._f = file.open()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._f.close()

    def read(self, at: int, length: int) -> pa.Buffer:
        """Exactly these bytes; raises TinydataError if the file does not have them (any more)."""
        try:
            self._f.seek(at)
            content = self._f.read_buffer(length)
        except OSError as e:
            raise TinydataError(
                f"cannot read the file: {e.strerror or e}", where=str(self.file), fix="check the disk", code=UNREADABLE
            ) from None
        if content.size != length:
            raise TinydataError(
                f"the file ends after byte {at + content.size:,}: it changed while it was read",
                where=str(self.file),
                fix="run the command again when nothing is writing to the model",
                code=UNREADABLE,
            )
        return content

    def chunks(self, start: int, length: int) -> Iterator[pa.Buffer]:
        """CHUNK bytes at a time."""
        for at in range(start, start + length, CHUNK):
            yield self.read(at, min(CHUNK, start + length - at))

    def rows(self, tensor: Tensor, ids: np.ndarray) -> np.ndarray:
        """ids int[n], in any order -> uint8[n, bytes of a row]; neighbours in the file are read together."""
        width = tensor.bytes // tensor.rows
        out = np.empty((len(ids), width), np.uint8)
        order = np.argsort(ids, kind="stable")
        wanted = np.asarray(ids, np.int64)[order]
        longest = max(CHUNK // max(width, 1), 1)
        first = 0
        for k in range(1, len(wanted) + 1):
            if k == len(wanted) or (wanted[k] - wanted[k - 1]) * width > _NEAR or wanted[k] - wanted[first] >= longest:
                low, high = int(wanted[first]), int(wanted[k - 1]) + 1
                run = np.frombuffer(self.read(tensor.start + low * width, (high - low) * width), np.uint8)
                out[order[first:k]] = run.reshape(-1, width)[wanted[first:k] - low]
                first = k
        return out


def to_float32(rows: np.ndarray, dtype: str) -> np.ndarray:
    """uint8[n, bytes] of F32, F16 or BF16 -> float32[n, elements]; exact."""
    if dtype == "BF16":
        return (rows.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return rows.view("<f2" if dtype == "F16" else "<f4").astype(np.float32)


def from_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32[n, elements] -> uint8[n, bytes], rounded to the nearest, ties to even."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2").view(np.uint8)
    return np.ascontiguousarray(values, "<f2" if dtype == "F16" else "<f4").view(np.uint8)
