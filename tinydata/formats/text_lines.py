"""A text file, plain or compressed -> complete lines, for any split of it.

Units of a split: bytes (plain), frames (zstd), the whole file (gzip, and zstd that is not on a local
disk, where finding each frame would take a request). A split owns the lines that begin after the
start of its first unit, up to and including a line that begins exactly at its end; the first split
also owns the line at 0. So every line has exactly one owner, wherever the boundaries are.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats.base import SPLIT_BYTES, Bad, Split, SplitRange

CHUNK = 4 << 20  # bytes read at once
DECOMPRESSED = 1 << 18  # bytes decompressed at once: up to so many good ones are lost where a stream breaks
READ_AHEAD = 1 << 16  # compressed bytes that Arrow reads at once
ARROW_WINDOW = 1 << 27  # largest window of a zstd frame that Arrow decompresses
_ZSTD = b"\x28\xb5\x2f\xfd"


class Piece(NamedTuple):
    """Consecutive bytes of the decompressed text."""

    data: bytes
    position: int  # of the first byte in the decompressed text; of zstd: frame << 40 | byte in the decompressed frame


_CODECS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".xz": "xz"}


def codec(name: str) -> str:
    """File name -> "gzip", "zstd", "bz2", "xz" or ""."""
    return _CODECS.get(posixpath.splitext(name)[1].lower(), "")


def plain_name(name: str) -> str:
    """File name in lower case, without the ending of its compression: `A.JSONL.gz` -> `a.jsonl`."""
    stem, ending = posixpath.splitext(name.lower())
    return stem if ending in _CODECS else name.lower()


def splits(file: Location) -> list[SplitRange]:
    """File -> ranges of bytes, ranges of frames, or (0, 1) for a file that cannot be divided."""
    kind = codec(file.name)
    if kind and (kind != "zstd" or not file.local):
        return [SplitRange(0, 1, file.size)]
    if kind == "zstd":
        frames = zstd_frames(file)
        out, first = [], 0
        for i, (_, stop) in enumerate(frames):
            if stop - frames[first][0] >= SPLIT_BYTES or i + 1 == len(frames):
                out.append(SplitRange(first, i + 1, stop - frames[first][0]))
                first = i + 1
        return out
    size = file.size
    n = max(1, -(-size // SPLIT_BYTES))
    edges = [size * k // n for k in range(n + 1)]
    return [SplitRange(a, b, b - a) for a, b in pairwise(edges)]


def readable_lines(
    split: Split, bad: Bad, documents: Callable[[bytes], float] = lambda data: data.count(b"\n")
) -> Iterator[Piece]:
    """The `lines` of a split; if its compressed data is broken, calls `bad` and leaves out the rest.

    The number of lost documents is estimated from those that were read, of which a piece has `documents(data)`.
    """
    last = split.start << 40 if codec(split.path) == "zstd" else split.start
    consumed, read = Consumed(), 0.0
    try:
        for piece in lines(Location.of(split.path), split.start, split.stop, consumed):
            last = piece.position + len(piece.data)
            if codec(split.path):
                read += documents(piece.data)
            yield piece
    except (OSError, EOFError) as e:
        reason, left = "the compressed data is broken", split.bytes - consumed.bytes
        if isinstance(e, EOFError) or "runcated" in str(e):
            reason = "the compressed data ends early, and how much is missing is unknown"
            left = consumed.bytes  # a cut file does not say how much is missing: as much as was read, for all we know
        left = max(left, min(split.bytes, READ_AHEAD))
        lost = max(round(read * left / consumed.bytes), 1) if consumed.bytes and read else 0
        bad(last, f"{reason}: {' '.join(str(e).split())}", b"", documents=lost, size=left)


class Consumed:
    """How many bytes on disk of a split a reader has used so far, READ_AHEAD too many at most."""

    bytes = 0


def lines(file: Location, start: int, stop: int, consumed: Consumed | None = None) -> Iterator[Piece]:
    """The complete lines that a split owns, some MB at a time; every piece but the last of a file ends with a newline.

    Raises OSError or EOFError where the compressed data is broken, after yielding what comes before.
    """
    skipping = start > 0
    carry: list[bytes] = []  # the unfinished line and lines before it, joined once: a long line takes linear time
    held, at = 0, 0  # bytes in carry, and where it begins
    source = _bytes(file, start, stop, consumed or Consumed())
    while True:
        try:
            data, position, past = next(source)
        except StopIteration:
            break
        except (OSError, EOFError):
            before = b"".join(carry)
            if whole := before.rfind(b"\n") + 1:  # what was read before is good
                yield Piece(before[:whole], at)
            raise
        if skipping:
            if past:  # no line begins in this split
                return
            cut = data.find(b"\n") + 1
            if not cut:
                continue
            data, position, skipping = data[cut:], position + cut, False
        if not carry:
            at = position
        if past:  # complete the unfinished line, or take the one that begins exactly at the end
            cut = data.find(b"\n") + 1
            carry.append(data[:cut] if cut else data)
            if cut:
                break
            continue
        cut = data.rfind(b"\n") + 1
        if cut and held + cut >= CHUNK // 2:
            yield Piece(b"".join([*carry, data[:cut]]), at)
            carry, held, at, data = [], 0, position + cut, data[cut:]
        if data:
            carry.append(data)
            held += len(data)
    if carry:
        yield Piece(b"".join(carry), at)


def _bytes(file: Location, start: int, stop: int, consumed: Consumed) -> Iterator[tuple[bytes, int, bool]]:
    """(bytes, position, whether they are after the end of the split), up to the end of the file.

    The caller stops when its last line is complete.
    """
    kind = codec(file.name)
    with file.open() as f:
        if kind == "zstd" and file.local:
            frames = zstd_frames(file)
            for k in range(start, len(frames)):
                f.seek(frames[k][0])
                frame = pa.BufferReader(f.read_buffer(frames[k][1] - frames[k][0]))
                for data, at in _stream(_decompressed(frame, kind), k << 40):
                    consumed.bytes = frames[k][0] - frames[start][0] + frame.tell()
                    yield data, at, k >= stop
        elif kind:
            for data, at in _stream(_decompressed(f, kind), 0):
                consumed.bytes = f.tell()
                yield data, at, False
        else:
            f.seek(start)
            at = start
            while data := f.read(min(CHUNK, stop - at) if at < stop else 1 << 16):
                consumed.bytes = at - start
                yield data, at, at >= stop
                at += len(data)


def decompressed(file: Location, consumed: Consumed | None = None) -> Iterator[bytes]:
    """The content of a file, plain or compressed, in pieces. Raises OSError or EOFError where it is broken."""
    for data, _, _ in _bytes(file, 0, file.size, consumed or Consumed()):
        yield data


def first_bytes(file: Location, count: int) -> bytes:
    """The first bytes of the content of a file, plain or compressed: `count` of them, fewer if there are no more."""
    kind = codec(file.name)
    with file.open() as f:
        return bytes((_decompressed(f, kind) if kind else f).read(count))


class Stream:
    """Pieces of bytes as a file to read from, for libraries that want one."""

    closed = False

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            data = next(self._pieces, b"")
            if not data:
                break
            self._rest += data
        out, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return out

    def close(self) -> None:
        self.closed = True


def _decompressed(f: pa.NativeFile, kind: str) -> Any:
    """A file -> the same decompressed, as an object with `read`."""
    if kind == "xz":
        import lzma

        return lzma.open(f)
    if kind == "zstd" and _window(f.read(18)) > ARROW_WINDOW:
        f.seek(0)
        return _long_window(f)
    f.seek(0)
    return pa.CompressedInputStream(f, kind)


def _long_window(f: pa.NativeFile) -> Any:
    """A zstd stream whose window is larger than Arrow's decoder accepts."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    stream = decompressor.stream_reader(f, read_across_frames=True, closefd=False)

    class Reader:
        """Raises OSError where the data is broken, as Arrow's streams do."""

        def read(self, size: int) -> bytes:
            try:
                return bytes(stream.read(size))
            except zstandard.ZstdError as e:
                raise OSError(str(e)) from None

    return Reader()


def _window(head: bytes) -> int:
    """First bytes of a zstd frame -> bytes of its window (RFC 8878 section 3.1.1.1.2); 0 if it is not one."""
    if len(head) < 6 or head[:4] != _ZSTD:
        return 0
    if head[4] >> 5 & 1:  # a single segment: the window is the content
        at = 5 + (0, 1, 2, 4)[head[4] & 3]
        size = (1, 2, 4, 8)[head[4] >> 6]
        return int.from_bytes(head[at : at + size], "little")
    base = 1 << 10 + (head[5] >> 3)
    return base + (base >> 3) * (head[5] & 7)


def _stream(stream: Any, at: int) -> Iterator[tuple[bytes, int]]:
    while data := stream.read(DECOMPRESSED):
        yield data, at
        at += len(data)


def show(file: Location, position: int) -> str:
    """Position of a document in words: how to find it in the file."""
    if codec(file.name) == "zstd":
        return f"frame {position >> 40}, byte {position & ((1 << 40) - 1)} decompressed"
    return f"byte {position}" + (" decompressed" if codec(file.name) else "")


def zstd_frames(file: Location) -> list[tuple[int, int]]:
    """[(start, stop)] of the frames with data, found from the headers of frames and blocks (RFC 8878 section 3.1).

    A truncated last frame extends to the end of the file: reading it reports the damage.
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
                    raise OSError("this is not a zstd file")
                frames.append((at, size))  # garbage after the last frame: reading it reports the damage
                break
            end = _frame_end(f, at, head, size)
            frames.append((at, end))
            at = end
    return frames


def _frame_end(f: pa.NativeFile, at: int, head: bytes, size: int) -> int:
    """End of the frame at byte `at`, whose first bytes are `head`; `size`, that of the file, if it is truncated."""
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
