"""Output directories that appear only when complete, and can be resumed if the run was killed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes, to_json
from tinydata.core.manifest import faults

MANIFEST = "manifest.json"


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
    """An output directory that is being written.

    `header` is the beginning of the manifest (verb, inputs, options); an unfinished directory is resumed only if its
    header is equal. Raises TinydataError if the output exists and `force` does not permit replacing it.
    """

    def __init__(self, path: str, header: dict[str, Any], *, force: bool = False):
        self.final = Location.of(Location.of(path).absolute)
        self.header = header
        self.rename = self.final.local
        hidden = self.final.parent / f".{self.final.name}.partial"
        self.place = hidden if self.rename else self.final
        self.parts = hidden / "parts"
        self._hidden = hidden
        self._claim(force)

    def _claim(self, force: bool) -> None:
        if self.final.exists():
            whole = (self.final / MANIFEST).exists()
            same_verb = whole and _verb(self.final) == self.header["verb"]
            empty = self.final.is_dir() and not self.final.children(recursive=True)
            unfinished = not self.rename and not whole
            if not (empty or unfinished or (force and same_verb)):
                self._refuse(whole, same_verb)
            if whole and not self.rename:
                (self.final / MANIFEST).delete()
        mark = self._hidden / "command.json"
        wanted = to_json(self.header)
        if self._hidden.exists() and mark.exists() and read_bytes(mark) != wanted:
            if not force:
                raise TinydataError(
                    "an unfinished run with other inputs or options already uses this output path",
                    where=str(self._hidden),
                    fix="repeat that command to finish it, or pass --force to discard it and start over",
                )
            self._hidden.delete()
        self.parts.make_dir()
        if not mark.exists():
            mark.write(wanted)

    def _refuse(self, whole: bool, same_verb: bool) -> None:
        what = "something that tinydata did not create"
        if whole and _verb(self.final):
            existing = json.loads(read_bytes(self.final / MANIFEST))
            what = f"the result of `tinydata {existing.get('verb')}`"
            if {k: existing.get(k) for k in self.header} == json.loads(to_json(self.header)):
                what += " with the same inputs and options"
        elif not self.final.is_dir():
            what = "a file"
        raise TinydataError(
            f"the output already exists: {what}",
            where=str(self.final),
            fix="choose another output path with -o" + (", or replace it with --force" if same_verb else ""),
            code=FIXABLE,
        )

    def abandon(self) -> None:
        """Deletes what was written so far; for verbs that cannot resume an unfinished run."""
        self._hidden.delete()

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
            (self.place / MANIFEST).write(to_json(manifest))
            old = self.final.parent / f".{self.final.name}.old"
            if self.final.exists():  # --force, or an empty directory: replaced only once the new one is complete
                old.delete()
                self.final.move(old)
            self.place.move(self.final)
            old.delete()
        else:
            (self.place / MANIFEST).write(to_json(manifest))
            self._hidden.delete()
        return manifest
