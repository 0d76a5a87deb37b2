"""What the user wrote (files, directories, patterns) -> the files it means, each once.

As in pathlib and a shell: `*` and `?` stay within a directory, `**` is any number of directories, and a name that
exists is never taken for a pattern. Names that begin with `.` or `_` are hidden, unless the user wrote them.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location

_MAGIC = frozenset("*?[")
_PACKED = (".gz", ".zst", ".bz2", ".xz")


class Found(NamedTuple):
    """The files of a corpus."""

    files: list[tuple[Location, str]]  # and the path relative to the directory, or to the fixed part of the pattern
    unreadable: list[tuple[str, str]]  # (path, reason): what exists there but cannot be opened
    notes: list[str]  # what was left out or looks like a mistake
    given_by: list[int]  # of each file, the number of the path that it was found with


def expand(paths: list[str]) -> Found:
    """Files, directories and patterns, local or on an object store -> Found, sorted within each path, no file twice.

    Raises TinydataError (exit 3) if a path matches nothing; the message names the nearest directory that exists.
    """
    everything = Found([], [], [], [])
    known: dict[object, str] = {}
    taken: set[str] = set()
    for number, path in enumerate(paths):
        found = _one(path)
        if not found.files and not found.unreadable:
            raise _no_match(Location.of(path))
        everything.unreadable.extend(found.unreadable)
        everything.notes.extend(found.notes)
        by_path = sorted(found.files, key=lambda pair: pair[0].path)
        for file, _ in sorted(by_path, key=lambda pair: _is_link(pair[0])):  # a file goes before the links to it
            known.setdefault(_identity(file), file.path)
        for file, name in by_path:
            first = known[_identity(file)]
            if first == file.path and first not in taken:
                taken.add(first)
                everything.files.append((file, name))
                everything.given_by.append(number)
            else:
                everything.notes.append(f"{file.path} is given twice, or the same file as {first}; it is read once")
    return everything._replace(notes=[*everything.notes, *_copies(taken)])


def _one(path: str) -> Found:
    where = Location.of(path)
    if where.exists():
        return _below(where) if where.is_dir() else Found([(where, where.name)], [], [], [])
    if not _MAGIC & set(path):
        return Found([], [], [], [])
    fixed = where
    while _MAGIC & set(fixed.path):
        fixed = fixed.parent
    if not fixed.is_dir():
        return Found([], [], [], [])
    pattern = tuple(where.path[0 if fixed.path == "." else len(fixed.path) :].strip("/").split("/"))
    pattern = (*pattern, "*") if pattern[-1] == "**" else pattern
    found = _below(fixed, depth=0 if "**" in pattern else len(pattern))
    hits = [(file, name) for file, name in found.files if _matches(tuple(name.split("/")), pattern)]
    return found._replace(files=hits)


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the parts of a path match those of a pattern."""
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _below(where: Location, depth: int = 0) -> Found:
    """All visible files in a directory; depth: levels to look at, 0 for all of them."""
    if not where.local:
        files = where.children(recursive=True)
        return Found([(f, f.path[len(where.path) :].lstrip("/")) for f in files], [], [], [])
    found = Found([], [], [], [])
    for file in _walk(where, "", depth, {}, found):
        found.files.append((where / file, file))
    return found


def _walk(where: Location, inner: str, depth: int, seen: dict[object, str], found: Found) -> Iterator[str]:
    """Paths, relative to `where`, of the files in its subdirectory `inner`; each directory once."""
    shown = posixpath.join(where.path, inner)
    absolute = os.path.join(where.absolute, inner)
    try:
        about = os.stat(absolute)
        first = seen.setdefault((about.st_dev, about.st_ino), shown)
        if first != shown:
            found.notes.append(f"{shown} leads to the directory {first}, which is read once")
            return
        entries = sorted(os.scandir(absolute), key=lambda e: e.name)
    except OSError as e:
        found.unreadable.append((shown, f"cannot list the directory: {e.strerror}"))
        return
    for entry in entries:
        if entry.name.startswith((".", "_")):
            continue
        name = posixpath.join(inner, entry.name)
        try:
            name.encode()
        except UnicodeEncodeError:
            plain = os.fsencode(posixpath.join(shown, entry.name)).decode("utf-8", "backslashreplace")
            found.unreadable.append((plain, "the file name is not valid UTF-8; rename the file"))
            continue
        if entry.is_dir():
            if depth != 1:
                yield from _walk(where, name, max(depth - 1, 0), seen, found)
        elif entry.is_file():
            yield name
        elif entry.is_symlink():
            found.unreadable.append((posixpath.join(where.path, name), "the link leads to a file that does not exist"))


def _identity(file: Location) -> object:
    """Equal for two paths of the same file."""
    if not file.local:
        return file.path
    about = os.stat(file.absolute)
    return (about.st_dev, about.st_ino) if about.st_ino else os.path.realpath(file.absolute)


def _is_link(file: Location) -> bool:
    return file.local and os.path.islink(file.absolute)


def _copies(paths: set[str]) -> Iterator[str]:
    """Notes on files that are next to a compressed file of the same name."""
    for path in sorted(paths):
        stem, ending = os.path.splitext(path)
        if ending in _PACKED and stem in paths:
            yield f"{stem} and {path} are both read; if they have the same documents, each counts twice"


def _no_match(where: Location) -> TinydataError:
    near = where
    while near.path not in (".", "/") and (_MAGIC & set(near.path) or not near.exists()):
        near = near.parent
    inside = []
    if near.is_dir():
        try:
            inside = sorted(os.listdir(near.absolute))[:6] if near.local else [c.name for c in near.children()][:6]
        except OSError:
            inside = []
    shown = ", ".join(os.fsencode(name).decode("utf-8", "backslashreplace") for name in inside)
    return TinydataError(
        "the directory contains no files" if where.exists() else "no such file or directory",
        where=str(where),
        fix=f"the nearest existing directory is {near.path}; it contains {shown or 'nothing'}",
        code=UNREADABLE,
    )
