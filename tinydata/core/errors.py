"""TinydataError(what, where, fix): the only exception a user sees, and the exit codes of the command line.

Any problem that a user can cause raises it; `assert` is for bugs in tinydata itself.
"""

from __future__ import annotations

from typing import Any

DONE = 0
FIXABLE = 1
USAGE = 2  # click uses this code for usage errors
UNREADABLE = 3
ENGINE = 4
QUARANTINED = 5
INTERRUPTED = 130


class TinydataError(Exception):
    """An error the user can act on: what went wrong, where (path, row, document), how to fix it, the exit code."""

    def __init__(self, what: str, *, where: str = "", fix: str, code: int = FIXABLE):
        super().__init__(what, where, fix, code)
        self.what, self.where, self.fix, self.code = what, where, fix, code

    def __reduce__(self):  # keyword-only arguments do not survive pickling between processes otherwise
        return _rebuild, (self.what, self.where, self.fix, self.code)

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class UpToDate(Exception):
    """Not an error: the output at `path` is complete, from this command and these inputs; `manifest` describes it."""

    def __init__(self, path: str, manifest: dict[str, Any]):
        super().__init__(path, manifest)
        self.path, self.manifest = path, manifest


def _rebuild(what: str, where: str, fix: str, code: int) -> TinydataError:
    return TinydataError(what, where=where, fix=fix, code=code)


def missing_extra(package: str, extra: str) -> TinydataError:
    """Returns the error for an optional dependency that is not installed, with the pip command that installs it."""
    return TinydataError(
        f"not installed: {package}",
        fix=f"pip install 'tinydata[{extra}]'",
    )
