"""A text file, plain or compressed -> whole lines, for any stretch of it.

Units of a split: bytes (plain), frames (zstd), the whole file (gzip; zstd that is not on a local
disk, where finding frames would be a request each). A split owns the lines that begin after its
first unit's start, up to and including one that begins exactly at its end; the first split also
owns the line at 0. So every line has one owner, wherever the boundaries fall.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats.base import SPLIT_BYTES, Bad, Split

CHUNK = 4 << 20
READ = 1 << 18  # decompressed at once; what a broken stream takes with it
_ZSTD = b"\x28\xb5\x2f\xfd"


class Piece(NamedTuple):
    """Consecutive bytes of the decompressed text, and where they begin (see `position`)."""

    data: bytes
    position: int


def codec(name: str) -> str:
    """File name -> "gzip", "zstd" or ""."""
    return "gzip" if name.endswith(".gz") else "zstd" if name.endswith((".zst", ".zstd")) else ""


def splits(file: Location) -> list[tuple[int, int, int]]:
    """File -> [(start, stop, bytes)]: byte ranges, frame ranges, or (0, 1) for gzip."""
    kind = codec(file.name)
    if kind == "gzip" or (kind and not file.local):
        return [(0, 1, file.size)]
    if kind == "zstd":
        frames = zstd_frames(file)
        out, first = [], 0
        for i, (_, stop) in enumerate(frames):
            if stop - frames[first][0] >= SPLIT_BYTES or i + 1 == len(frames):
                out.append((first, i + 1, stop - frames[first][0]))
                first = i + 1
        return out
    size = file.size
    n = max(1, -(-size // SPLIT_BYTES))
    edges = [size * k // n for k in range(n + 1)]
    return [(a, b, b - a) for a, b in pairwise(edges)]


def readable_lines(split: Split, bad: Bad) -> Iterator[Piece]:
    """As `lines` of a split; where its compressed data is broken, `bad` hears of it and the rest is left out."""
    last = split.start << 40 if codec(split.path) == "zstd" else split.start
    try:
        for piece in lines(Location.of(split.path), split.start, split.stop):
            last = piece.position + len(piece.data)
            yield piece
    except OSError as e:
        bad(last, f"the compressed data is broken: {' '.join(str(e).split())}", b"")


def lines(file: Location, start: int, stop: int) -> Iterator[Piece]:
    """The whole lines a split owns, some MB at a time; every piece but a file's last ends in a newline.

    Raises OSError where the compressed data ends early; what came before it was yielded.
    """
    skipping = start > 0
    carry, at = b"", 0
    source = _bytes(file, start, stop)
    while True:
        try:
            data, position, past = next(source)
        except StopIteration:
            break
        except OSError:
            whole = carry.rfind(b"\n") + 1
            if whole:  # what was read before the break is good
                yield Piece(carry[:whole], at)
            raise
        if skipping:
            if past:  # no line begins in this split
                return
            cut = data.find(b"\n") + 1
            if not cut:
                continue
            data, position, skipping = data[cut:], position + cut, False
        if past:  # finish the line under way, or take the one that begins right at the end
            cut = data.find(b"\n") + 1
            if not carry:
                at = position
            carry += data[:cut] if cut else data
            if cut:
                break
            continue
        if not carry:
            at = position
        carry += data
        cut = carry.rfind(b"\n") + 1
        if cut and cut >= CHUNK // 2:
            yield Piece(carry[:cut], at)
            carry = carry[cut:]
            at = position + len(data) - len(carry)
    if carry:
        yield Piece(carry, at)


def _bytes(file: Location, start: int, stop: int) -> Iterator[tuple[bytes, int, bool]]:
    """(bytes, position, whether past the split's end), on and on: the consumer stops when it has its line."""
    kind = codec(file.name)
    with file.open() as f:
        if kind == "zstd" and file.local:
            frames = zstd_frames(file)
            for k in range(start, len(frames)):
                f.seek(frames[k][0])
                frame = pa.BufferReader(f.read_buffer(frames[k][1] - frames[k][0]))
                yield from _stream(pa.CompressedInputStream(frame, "zstd"), k << 40, k >= stop)
        elif kind:
            yield from _stream(pa.CompressedInputStream(f, kind), 0, False)
        else:
            f.seek(start)
            at = start
            while data := f.read(min(CHUNK, stop - at) if at < stop else 1 << 16):
                yield data, at, at >= stop
                at += len(data)


def _stream(stream: pa.NativeFile, at: int, past: bool) -> Iterator[tuple[bytes, int, bool]]:
    while data := stream.read(READ):
        yield data, at, past
        at += len(data)


def show(file: Location, position: int) -> str:
    """Position of a piece as a reader of the file finds it."""
    if codec(file.name) == "zstd":
        return f"frame {position >> 40}, byte {position & ((1 << 40) - 1)} decompressed"
    return f"byte {position}" + (" decompressed" if codec(file.name) else "")


def zstd_frames(file: Location) -> list[tuple[int, int]]:
    """[(start, stop)] of the frames with data, from their headers alone (RFC 8878 section 3.1).

    A truncated last frame goes to the end of the file: reading it will say so.
    """
    size = file.size
    frames = []
    with file.open() as f:
        at = 0
        while at < size:
            f.seek(at)
            head = f.read(18)
            if len(head) >= 8 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":  # skippable
                at += 8 + int.from_bytes(head[4:8], "little")
                continue
            if head[:4] != _ZSTD:
                if at == 0:
                    raise OSError("this is no zstd file")
                frames.append((at, size))  # rubbish behind the last frame: reading it will say so
                break
            end = _frame_end(f, at, head, size)
            frames.append((at, end))
            at = end
    return frames


def _frame_end(f: pa.NativeFile, at: int, head: bytes, size: int) -> int:
    flags = head[4]
    single = flags >> 5 & 1
    content = (1 if single else 0, 2, 4, 8)[flags >> 6]
    pos = at + 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + content
    while pos + 3 <= size:
        f.seek(pos)
        block = int.from_bytes(f.read(3), "little")
        pos += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            return min(pos + (4 if flags >> 2 & 1 else 0), size)
    return size
