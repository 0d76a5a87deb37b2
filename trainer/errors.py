"""TrainerError(what, where, fix): what a user sees, with an exit code. `assert` is for our own bugs."""

from __future__ import annotations

import sys
from collections.abc import Callable

FIXABLE = 1
UNREADABLE = 3
REQUEUE = 75  # stopped by a signal with everything saved: the same command goes on (EX_TEMPFAIL of sysexits.h)


class TrainerError(Exception):
    def __init__(self, what: str, *, where: str = "", fix: str, code: int = FIXABLE):
        super().__init__(what, where, fix, code)
        self.what, self.where, self.fix, self.code = what, where, fix, code

    def __str__(self) -> str:
        where = f"\n  where: {self.where}" if self.where else ""
        return f"error: {self.what}{where}\n  fix:   {self.fix}"


def main(program: Callable[[], int | None]) -> None:
    """Runs a program; a TrainerError becomes its text on stderr and its exit code."""
    try:
        sys.exit(program() or 0)
    except TrainerError as e:
        print(e, file=sys.stderr)
        sys.exit(e.code)
