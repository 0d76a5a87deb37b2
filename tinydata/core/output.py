"""Output directories that appear only when complete, and can be resumed if the run was killed."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError, UpToDate
from tinydata.core.location import Location, read_bytes, to_json
from tinydata.core.lock import Lock
from tinydata.core.manifest import faults

MANIFEST = "manifest.json"
_STAMPS = ".inputs.json"  # modification times of the inputs; not in the manifest, whose bytes do not depend on them
_LOCK = ".lock"
_OURS = (MANIFEST, _STAMPS, _LOCK, ".run.json")


def _verb(where: Location) -> str:
    """The verb that created a directory; "" if its manifest is damaged or was written by another program."""
    try:
        return json.loads(read_bytes(where / MANIFEST)).get("verb", "")
    except (ValueError, AttributeError, RecursionError):
        return ""


def read_manifest(path: str, verb: str) -> dict[str, Any]:
    """Output directory of `tinydata VERB` -> its manifest; raises TinydataError (exit 3) for anything else."""
    where = Location.of(path)
    if not where.exists():
        raise TinydataError(
            f"no such directory; the output of `tinydata {verb}` is expected here",
            where=path,
            fix=f"run `tinydata {verb} -o {path}` first",
            code=UNREADABLE,
        )
    if not (where / MANIFEST).exists():
        raise TinydataError(
            f"the directory has no {MANIFEST}: the run was not finished, or tinydata did not create it",
            where=path,
            fix=f"run `tinydata {verb} -o {path}` (repeating the same command finishes it)",
            code=UNREADABLE,
        )
    try:
        manifest = json.loads(read_bytes(where / MANIFEST))
    except (ValueError, RecursionError) as e:
        raise TinydataError(
            f"{MANIFEST} is damaged: {e}",
            where=path,
            fix=f"create the directory again with `tinydata {verb} --force`",
            code=UNREADABLE,
        ) from None
    written_by = manifest.get("verb") if isinstance(manifest, dict) else None
    if written_by != verb:
        raise TinydataError(
            f"this directory was created by `tinydata {written_by}`, not by `tinydata {verb}`",
            where=path,
            fix=f"pass the output of `tinydata {verb}`",
            code=UNREADABLE,
        )
    if wrong := faults(manifest):
        raise TinydataError(
            f"{MANIFEST} is damaged, or was written by another version of tinydata: {wrong[0]}",
            where=path,
            fix=f"create the directory again with `tinydata {verb} --force`",
            code=UNREADABLE,
        )
    return manifest


class Output:
    """An output directory that is being written, by this process only.

    `header` is the beginning of the manifest (verb, inputs, options). An unfinished directory is continued if its
    header is equal and no input was modified since. Raises UpToDate if the output is complete and has this header;
    TinydataError if it is something else that `force` does not permit replacing, or if another process writes it.
    """

    def __init__(self, path: str, header: dict[str, Any], *, force: bool = False):
        self.final = Location.of(Location.of(path).absolute)
        self.header = header
        self.rename = self.final.local
        hidden = self.final.parent / f".{self.final.name}.partial"
        self.place = hidden if self.rename else self.final
        self.parts = hidden / "parts"
        self._hidden = hidden
        self._stamps = _stamps(header)
        self._lock: Lock | None = None
        self._check_existing(force)
        self._lock_output()
        try:
            self._check_existing(force)  # again: another process may have finished it before the lock was free
            self._claim(force)
        except BaseException:
            if {f.name for f in self._hidden.children(recursive=True, hidden=True)} <= {_LOCK}:  # nothing to continue
                self._hidden.delete()
            self._release()
            raise

    def _lock_output(self) -> None:
        self._hidden.make_dir()
        if self.rename:
            self._lock = Lock(f"{self._hidden.absolute}/{_LOCK}")

    def _check_existing(self, force: bool) -> None:
        """Raises if the output exists and may not be replaced."""
        if not self.final.exists():
            return
        whole = (self.final / MANIFEST).exists()
        same_verb = whole and _verb(self.final) == self.header["verb"]
        empty = self.final.is_dir() and not self.final.children(recursive=True, hidden=True)
        unfinished = not self.rename and not whole
        if not (empty or unfinished or (force and same_verb)):
            self._refuse(whole, same_verb)
        if whole and (foreign := _foreign(self.final)):
            raise TinydataError(
                f"the output to replace also holds files that tinydata did not create: {', '.join(foreign[:5])}",
                where=str(self.final),
                fix="move them to another place, or choose another output path with -o",
            )
        if whole and not self.rename:
            (self.final / MANIFEST).delete()

    def _claim(self, force: bool) -> None:
        """Continues what a killed run left, or begins."""
        mark = self._hidden / "command.json"
        wanted = to_json({"header": self.header, "modified": self._stamps})
        if mark.exists() and read_bytes(mark) != wanted:
            if not force:
                raise self._other_command(_json(mark))
            for left in self._hidden.children(recursive=True, hidden=True):
                if left.name != _LOCK:
                    left.delete()
        self.parts.make_dir()
        if not mark.exists():
            mark.write(wanted)

    def _other_command(self, before: dict[str, Any]) -> TinydataError:
        if before.get("header") == json.loads(to_json(self.header)):
            was = before["modified"]
            edited = [path for path, stamp in self._stamps.items() if was.get(path) != stamp]
            return TinydataError(
                "an input was modified after the unfinished run began, and parts of the result are from before",
                where=", ".join(edited[:5]),
                fix="pass --force to discard the finished parts and start over",
            )
        return TinydataError(
            "an unfinished run with other inputs or options already uses this output path",
            where=str(self._hidden),
            fix="repeat that command to finish it, or pass --force to discard it and start over",
        )

    def _refuse(self, whole: bool, same_verb: bool) -> None:
        what = "something that tinydata did not create"
        if whole and _verb(self.final):
            existing = json.loads(read_bytes(self.final / MANIFEST))
            what = f"the result of `tinydata {existing.get('verb')}`"
            if {k: existing.get(k) for k in self.header} == json.loads(to_json(self.header)):
                edited = self._edited()
                if not edited and not faults(existing) and _complete(self.final, existing):
                    raise UpToDate(str(self.final), existing)
                what += " with the same options" + (f", but {edited[0]} was modified since" if edited else "")
        elif not self.final.is_dir():
            what = "a file"
        raise TinydataError(
            f"the output already exists: {what}",
            where=str(self.final),
            fix="choose another output path with -o" + (", or replace it with --force" if same_verb else ""),
            code=FIXABLE,
        )

    def _edited(self) -> list[str]:
        """Inputs that were modified after the existing output was published."""
        stamps = self.final / _STAMPS
        was = _json(stamps) if stamps.exists() else self._stamps
        return [path for path, stamp in self._stamps.items() if was.get(path) != stamp]

    def _write_stamps(self) -> None:
        if self._stamps:
            (self.place / _STAMPS).write(to_json(self._stamps))

    def _release(self) -> None:
        if self._lock:
            self._lock.release()

    def abandon(self) -> None:
        """Deletes what was written so far; for verbs that cannot resume an unfinished run."""
        self._hidden.delete()
        self._release()

    def publish(
        self, result: dict[str, Any], files: dict[str, bytes], streamed: dict[str, dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Writes `files` and the manifest, then publishes the directory atomically; returns the manifest.

        files: name -> content. streamed: name -> Sink.sum of the files already written to `place`.
        """
        self.place.make_dir()
        for name, content in sorted(files.items()):
            if "/" in name:
                (self.place / name).parent.make_dir()
            (self.place / name).write(content)
        sums = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in sorted(files.items())}
        manifest = {**self.header, **result, "files": dict(sorted({**(streamed or {}), **sums}.items()))}
        assert not (wrong := faults(json.loads(to_json(manifest)))), wrong
        self.parts.delete()
        if self.rename:
            for left in self.place.children():  # leftovers of a killed writer, and command.json
                if left.name not in manifest["files"]:
                    left.delete()
            self._write_stamps()
            (self.place / MANIFEST).write(to_json(manifest))
            old = self.final.parent / f".{self.final.name}.old"
            if self.final.exists():  # --force, or an empty directory: replaced only once the new one is complete
                old.delete()
                self.final.move(old)
            self.place.move(self.final)
            (self.final / _LOCK).delete()
            old.delete()
        else:
            self._write_stamps()
            (self.place / MANIFEST).write(to_json(manifest))
            self._hidden.delete()
        self._release()
        return manifest


def _json(where: Location) -> dict[str, Any]:
    """A file of this module -> its object; {} if it is damaged."""
    try:
        value = json.loads(read_bytes(where))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _stamps(header: dict[str, Any]) -> dict[str, int]:
    """Manifest header -> {path: modification time in nanoseconds} of the inputs that are files."""
    files = [path for path, about in header["inputs"].items() if "fingerprint" in about]
    with ThreadPoolExecutor(16) as pool:  # on object stores each is a round trip
        return dict(zip(files, pool.map(lambda path: Location.of(path).changed, files), strict=True))


def _foreign(where: Location) -> list[str]:
    """Paths of the files in an output directory that its manifest does not name."""
    known = _json(where / MANIFEST).get("files") or {}
    names = [f.path[len(where.path) + 1 :] for f in where.children(recursive=True, hidden=True)]
    return [name for name in names if name not in known and name not in _OURS]


def _complete(where: Location, manifest: dict[str, Any]) -> bool:
    """Whether each file that the manifest names exists in its size."""
    files = {f.path[len(where.path) + 1 :]: f.size for f in where.children(recursive=True, hidden=True)}
    return all(files.get(name) == about["bytes"] for name, about in manifest["files"].items())
