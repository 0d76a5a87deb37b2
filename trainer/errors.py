"""TrainerError(what, where, fix): what a user sees, with an exit code. `assert` is for our own bugs."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

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


def main(program: Callable[[], int | None]) -> NoReturn:
    """Runs a program and ends the process; a TrainerError becomes its text on stderr and its exit code."""
    try:
        code = program() or 0
    except TrainerError as e:
        print(e, file=sys.stderr)
        code = e.code
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends the process with this exit code, after exit handlers and buffers, without tearing the interpreter down.

    The threads of torch's gloo backend outlive `destroy_process_group`. One that needs the interpreter while it is
    being torn down is ended in the middle of C++, and the process aborts (exit code -6) instead of saying `code`.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):  # whoever read it has left
            stream.flush()
    os._exit(code)
