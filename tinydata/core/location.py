"""Paths on any filesystem, globbing, atomic publish, manifests, fingerprints.

An output directory is written to a hidden sibling `.NAME.partial` and published by rename; on
object stores, which cannot rename, files go to their place and the manifest goes last. A
directory without `manifest.json` is unfinished and no reader accepts it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import posixpath
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tinydata.core.errors import UNREADABLE, TinydataError

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class Location:
    """A path on some filesystem: local, s3://, gs://, hdfs://, hf://. Picklable; the filesystem is not part of it."""

    path: str

    @staticmethod
    def of(path: str | os.PathLike[str]) -> Location:
        text = os.fspath(path)
        return Location(text.rstrip("/") or "/")

    @cached_property
    def _fs(self) -> tuple[fs.FileSystem, str]:
        if not _SCHEME.match(self.path):
            return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(self.path))
        try:
            return fs.FileSystem.from_uri(self.path)
        except Exception as e:  # a missing library, a bad host, no credentials: each with its own type
            raise TinydataError(
                f"cannot open this filesystem: {e}",
                where=self.path,
                fix="check the address and credentials; hf:// needs pip install 'tinydata[hub]'",
                code=UNREADABLE,
            ) from None

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    def __str__(self) -> str:
        return self.path

    def __truediv__(self, name: str) -> Location:
        return Location(posixpath.join(self.path, name))

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def parent(self) -> Location:
        return Location(posixpath.dirname(self.path) or ".")

    @property
    def local(self) -> bool:
        return isinstance(self._fs[0], fs.LocalFileSystem)

    @property
    def absolute(self) -> str:
        """The path as a worker elsewhere on the same filesystem needs it."""
        return self._fs[1] if self.local else self.path

    @cached_property
    def _info(self) -> fs.FileInfo:
        try:
            return self._fs[0].get_file_info(self._fs[1])
        except OSError as e:
            raise TinydataError(
                f"cannot read this path: {e}", where=self.path, fix="check the address and permissions", code=UNREADABLE
            ) from None

    def exists(self) -> bool:
        return self._fs[0].get_file_info(self._fs[1]).type != fs.FileType.NotFound

    def is_dir(self) -> bool:
        return self._fs[0].get_file_info(self._fs[1]).type == fs.FileType.Directory

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._info.size or 0

    @property
    def changed(self) -> int:
        """When the file was last written, in nanoseconds; 0 where the filesystem does not say."""
        return self._info.mtime_ns or 0

    def open(self) -> pa.NativeFile:
        """Random-access input; errors name the path."""
        try:
            return self._fs[0].open_input_file(self._fs[1])
        except OSError as e:
            raise TinydataError(
                f"cannot open the file: {e.strerror or e}",
                where=self.path,
                fix="check the path and permissions",
                code=UNREADABLE,
            ) from None

    def make_dir(self) -> None:
        try:
            self._fs[0].create_dir(self._fs[1], recursive=True)
        except OSError as e:
            raise _unwritable(self, e) from None

    def delete(self) -> None:
        system, path = self._fs
        if self.is_dir():
            system.delete_dir(path)
        elif self.exists():
            system.delete_file(path)

    def move(self, target: Location) -> None:
        self._fs[0].move(self._fs[1], target._fs[1])

    def write(self, content: bytes) -> None:
        """Atomically: a temporary file, then rename."""
        system, path = self._fs
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp" if self.local else path
        try:
            with system.open_output_stream(temporary) as out:
                out.write(content)
            if self.local:
                os.replace(temporary, path)
        except OSError as e:
            if self.local and os.path.exists(temporary):
                os.unlink(temporary)
            raise _unwritable(self, e) from None

    @contextmanager
    def stream(self, summed: bool = True) -> Iterator[Sink]:
        """A file written piece by piece, which appears when it is whole, or not at all. summed: with its sha256."""
        system, path = self._fs
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp" if self.local else path
        try:
            with system.open_output_stream(temporary) as out:
                yield Sink(out, summed)
            if self.local:
                os.replace(temporary, path)
        except BaseException as e:
            if system.get_file_info(temporary).type == fs.FileType.File:
                system.delete_file(temporary)
            if isinstance(e, OSError):
                raise _unwritable(self, e) from None
            raise

    def children(self, recursive: bool = False, hidden: bool = False) -> list[Location]:
        """Files below, sorted by path; unless `hidden`, without `.x`, `_x` and what is in folders of such names."""
        system, base = self._fs
        found = []
        for info in system.get_file_info(fs.FileSelector(base, recursive=recursive)):
            below = posixpath.relpath(info.path, base)
            shown = hidden or not any(p.startswith((".", "_")) for p in below.split("/"))
            if info.type == fs.FileType.File and shown:
                found.append(self / below)
        return sorted(found, key=lambda loc: loc.path)


class Sink:
    """Takes the bytes of one file and remembers how many there were, and their sha256."""

    def __init__(self, out: pa.NativeFile, summed: bool = True):
        self._out = out
        self._sha256 = hashlib.sha256() if summed else None
        self.bytes = 0
        self.closed = False  # pyarrow's writers ask

    def write(self, content: Any) -> int:
        """content: bytes, or anything with a buffer."""
        view = memoryview(content).cast("B")
        if self._sha256:
            self._sha256.update(view)
        self._out.write(view)
        self.bytes += len(view)
        return len(view)

    def flush(self) -> None:
        self._out.flush()

    @property
    def sum(self) -> dict[str, Any]:
        """{bytes, sha256} as the manifest lists it."""
        assert self._sha256
        return {"bytes": self.bytes, "sha256": self._sha256.hexdigest()}


def _unwritable(where: Location, error: OSError) -> TinydataError:
    if isinstance(error, FileNotFoundError):
        return TinydataError(
            "the folder does not exist", where=str(where.parent), fix="create it, or choose another place with -o"
        )
    return TinydataError(
        f"cannot write: {error.strerror or error}",
        where=str(where),
        fix="make room or get permission, or choose another place with -o",
    )


def list_files(where: Location) -> list[Location]:
    return where.children()


def read_bytes(where: Location) -> bytes:
    with where.open() as f:
        return f.read()


def expand(path: str) -> list[tuple[Location, str]]:
    """A file, directory or glob -> [(file, its name below what was given)], sorted; never empty.

    Raises TinydataError (exit 3) when nothing matches, naming the nearest folder that exists.
    """
    where = Location.of(path)
    if any(c in path for c in "*?["):
        fixed = where
        while any(c in fixed.path for c in "*?["):
            fixed = fixed.parent
        pattern = where.path if fixed.path != "." else "./" + where.path
        files = fixed.children(recursive=True) if fixed.is_dir() else []
        hits = [f for f in files if fnmatch.fnmatch(f.path, pattern)]
        found = [(f, posixpath.relpath(f.path, fixed.path)) for f in hits]
    elif where.is_dir():
        found = [(f, posixpath.relpath(f.path, where.path)) for f in where.children(recursive=True)]
    elif where.exists():
        found = [(where, where.name)]
    else:
        found = []
    if not found:
        raise _nothing(where)
    return found


def _nothing(where: Location) -> TinydataError:
    near = where
    while near.path not in (".", "/") and (any(c in near.path for c in "*?[") or not near.exists()):
        near = near.parent
    inside = []
    if near.is_dir():
        try:
            inside = sorted(os.listdir(near.path))[:6] if near.local else [c.name for c in near.children()][:6]
        except OSError:
            inside = []
    return TinydataError(
        "no file here" if where.exists() else "there is no such file",
        where=str(where),
        fix=f"the nearest folder is {near.path}; it holds {', '.join(inside) or 'nothing'}",
        code=UNREADABLE,
    )


def fingerprint(file: Location) -> dict[str, Any]:
    """{bytes, fingerprint}: a hash over the size and the first and last 64 KiB; a terabyte is not read for it."""
    size = file.size
    h = hashlib.blake2b(str(size).encode(), digest_size=16)
    with file.open() as f:
        h.update(f.read(1 << 16))
        if size > 1 << 16:
            f.seek(max(size - (1 << 16), 1 << 16))
            h.update(f.read(1 << 16))
    return {"bytes": size, "fingerprint": h.hexdigest()}


def to_json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def table_bytes(table: pa.Table, compression: str = "zstd") -> bytes:
    """Parquet; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression)
    return sink.getvalue().to_pybytes()


def read_table(where: Location, **options: Any) -> pa.Table:
    with where.open() as f:
        return pq.read_table(f, **options)
