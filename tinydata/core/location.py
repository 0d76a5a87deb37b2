"""Paths on any filesystem: atomic writes, fingerprints, tables.

An output directory is written to a hidden sibling `.NAME.partial` and published by renaming it.
Object stores cannot rename, so there the files are written in place and the manifest is written
last. A directory without `manifest.json` is unfinished, and no reader accepts it.
"""

from __future__ import annotations

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
        """A path or URL, with or without trailing slashes -> Location."""
        text = os.fspath(path)
        return Location(text.rstrip("/") or "/")

    @cached_property
    def _fs(self) -> tuple[fs.FileSystem, str]:
        if not _SCHEME.match(self.path):
            return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(self.path))
        try:
            return fs.FileSystem.from_uri(self.path)
        except Exception as e:  # missing library, bad host, no credentials: these exceptions share no base class
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
        """The absolute path, or the URL: valid in any process that sees the same filesystem."""
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
        """Size of the file in bytes."""
        return self._info.size or 0

    @property
    def changed(self) -> int:
        """Modification time of the file in nanoseconds; 0 if the filesystem does not report it."""
        return self._info.mtime_ns or 0

    def open(self) -> pa.NativeFile:
        """Opens the file for random-access reading; raises TinydataError with the path (exit 3)."""
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
        """Creates the directory and its parents; an existing directory is not an error."""
        try:
            self._fs[0].create_dir(self._fs[1], recursive=True)
        except OSError as e:
            raise _unwritable(self, e) from None

    def delete(self) -> None:
        """Deletes the file, or the directory with its content; a missing path is not an error."""
        system, path = self._fs
        if self.is_dir():
            system.delete_dir(path)
        elif self.exists():
            system.delete_file(path)

    def move(self, target: Location) -> None:
        """Renames to a path on the same filesystem."""
        self._fs[0].move(self._fs[1], target._fs[1])

    def write(self, content: bytes) -> None:
        """Writes the file atomically: to a temporary file, which is then renamed."""
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
        """Yields a Sink to write the file incrementally; the file appears only once it is complete.

        summed: also compute the sha256 of the content.
        """
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
        """Files in this directory, sorted by path; names that begin with `.` or `_`, and the content of such
        directories, are included only if `hidden`."""
        system, base = self._fs
        files = []
        for info in system.get_file_info(fs.FileSelector(base, recursive=recursive)):
            below = posixpath.relpath(info.path, base)
            shown = hidden or not any(p.startswith((".", "_")) for p in below.split("/"))
            if info.type == fs.FileType.File and shown:
                files.append(self / below)
        return sorted(files, key=lambda loc: loc.path)


class Sink:
    """An output stream that counts the bytes written to it and, if `summed`, computes their sha256."""

    def __init__(self, out: pa.NativeFile, summed: bool = True):
        self._out = out
        self._sha256 = hashlib.sha256() if summed else None
        self.bytes = 0
        self.closed = False  # pyarrow's writers check this attribute

    def write(self, content: Any) -> int:
        """content: bytes, or any object with the buffer protocol -> number of bytes written."""
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
    if isinstance(error, FileNotFoundError) and ".partial/" in str(where):
        return TinydataError(
            "the output directory was deleted or moved while the command was writing to it",
            where=str(where.parent),
            fix="run the same command again, and let nothing else change that directory",
        )
    if isinstance(error, FileNotFoundError):
        return TinydataError(
            "the directory does not exist",
            where=str(where.parent),
            fix="create it, or choose another output path with -o",
        )
    return TinydataError(
        f"cannot write: {error.strerror or error}",
        where=str(where),
        fix="free disk space or fix the permissions, or choose another output path with -o",
    )


def list_files(where: Location) -> list[Location]:
    """Visible files directly in the directory, sorted by path."""
    return where.children()


def read_bytes(where: Location) -> bytes:
    """The whole content of a file."""
    with where.open() as f:
        return f.read()


def fingerprint(file: Location) -> dict[str, Any]:
    """File -> {bytes, fingerprint}: a hash of its size and of its first and last 64 KiB, so its cost does not grow
    with the file."""
    size = file.size
    h = hashlib.blake2b(str(size).encode(), digest_size=16)
    with file.open() as f:
        h.update(f.read(1 << 16))
        if size > 1 << 16:
            f.seek(max(size - (1 << 16), 1 << 16))
            h.update(f.read(1 << 16))
    return {"bytes": size, "fingerprint": h.hexdigest()}


def to_json(value: Any) -> bytes:
    """A value -> indented UTF-8 JSON with sorted keys: equal values give equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def table_bytes(table: pa.Table, compression: str = "zstd") -> bytes:
    """A table -> the bytes of a Parquet file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression)
    return sink.getvalue().to_pybytes()


def read_table(where: Location, **options: Any) -> pa.Table:
    """A Parquet file -> its table; options are those of pyarrow.parquet.read_table."""
    with where.open() as f:
        return pq.read_table(f, **options)
