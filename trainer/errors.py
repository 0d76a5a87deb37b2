"""TrainerError(what, where, fix): the message for the user, with an exit code. `assert` is for our own bugs."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

FIXABLE = 1
UNREADABLE = 3
REQUEUE = 75  # stopped by a signal after saving: the same command continues (EX_TEMPFAIL of sysexits.h)


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

    The threads of torch's gloo backend outlive `destroy_process_group`. If one of them needs the interpreter while it
    is being torn down, the process aborts (exit code -6) instead of returning `code`.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):  # the reader has closed the pipe
            stream.flush()
    os._exit(code)
