"""An output directory that appears whole or not at all, and can be continued after a kill."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes, to_json
from tinydata.core.manifest import faults

MANIFEST = "manifest.json"


def _verb(where: Location) -> str:
    """The verb that made a directory; "" if its manifest is damaged, or another program's."""
    try:
        return json.loads(read_bytes(where / MANIFEST)).get("verb", "")
    except (ValueError, AttributeError, RecursionError):
        return ""


def read_manifest(path: str, verb: str) -> dict[str, Any]:
    """Directory that `tinydata VERB` made -> its manifest; raises TinydataError for anything else."""
    where = Location.of(path)
    if not where.exists():
        raise TinydataError(
            f"there is no such directory; it should hold what `tinydata {verb}` writes",
            where=path,
            fix=f"run `tinydata {verb} -o {path}` first",
            code=UNREADABLE,
        )
    if not (where / MANIFEST).exists():
        raise TinydataError(
            f"no {MANIFEST} here: unfinished, or not made by tinydata",
            where=path,
            fix=f"run `tinydata {verb} -o {path}` (again, to finish it)",
            code=UNREADABLE,
        )
    try:
        manifest = json.loads(read_bytes(where / MANIFEST))
    except (ValueError, RecursionError) as e:
        raise TinydataError(
            f"{MANIFEST} is damaged: {e}",
            where=path,
            fix=f"make the directory anew with `tinydata {verb} --force`",
            code=UNREADABLE,
        ) from None
    written_by = manifest.get("verb") if isinstance(manifest, dict) else None
    if written_by != verb:
        raise TinydataError(
            f"this directory was made by `tinydata {written_by}`, not by `tinydata {verb}`",
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
    """An output directory in the making. `header` is what the manifest begins with; it decides on resuming."""

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
                    "an unfinished run of another command is here",
                    where=str(self._hidden),
                    fix="repeat that command to finish it, or pass --force to start over",
                )
            self._hidden.delete()
        self.parts.make_dir()
        if not mark.exists():
            mark.write(wanted)

    def _refuse(self, whole: bool, same_verb: bool) -> None:
        what = "something that tinydata did not make"
        if whole and _verb(self.final):
            made = json.loads(read_bytes(self.final / MANIFEST))
            what = f"the result of `tinydata {made.get('verb')}`"
            if {k: made.get(k) for k in self.header} == json.loads(to_json(self.header)):
                what += " with the same inputs and options"
        elif not self.final.is_dir():
            what = "a file"
        raise TinydataError(
            f"the output exists already: {what}",
            where=str(self.final),
            fix="choose another place with -o" + (", or replace it with --force" if same_verb else ""),
            code=FIXABLE,
        )

    def abandon(self) -> None:
        """Deletes what was written so far: for a verb whose unfinished output is of no use to the next run."""
        self._hidden.delete()

    def publish(
        self, result: dict[str, Any], files: dict[str, bytes], streamed: dict[str, dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Writes `files` and the manifest (header, result, sha256 of each file), then makes it visible at once.

        streamed: name -> Sink.sum of the files that were written to `place` before.
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
            for left in self.place.children():  # by a writer that was killed; and command.json
                if left.name not in manifest["files"]:
                    left.delete()
            (self.place / MANIFEST).write(to_json(manifest))
            old = self.final.parent / f".{self.final.name}.old"
            if self.final.exists():  # --force, or an empty directory: the old one goes when the new one is whole
                old.delete()
                self.final.move(old)
            self.place.move(self.final)
            old.delete()
        else:
            (self.place / MANIFEST).write(to_json(manifest))
            self._hidden.delete()
        return manifest
