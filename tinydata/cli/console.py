"""What a user sees: stdout has the result (a table, or JSON), stderr has messages and progress."""

from __future__ import annotations

import codecs
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinydata.core.progress import progress as bar

# What a terminal that has no Unicode shows instead of the signs that commands print.
_PLAIN = str.maketrans({
    "█": "#", "▉": "#", "▊": "#", "▋": "#", "▌": "=", "▍": "-", "▎": "-", "▏": "-", "│": "|", "├": "|", "└": "`",
    "─": "-", "►": ">", "→": "->", "·": "-", "…": "...",
    "–": "-", "—": "-", "−": "-", "×": "x", "÷": "/", "±": "+-", "≤": "<=", "≥": ">=",
    "␣": "_", "\u00a0": " ", "\u202f": " ", "“": '"', "”": '"', "‘": "'", "’": "'", "✓": "ok", "✗": "no",
})  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: a plain sign for each character that the encoding lacks, and its number for others."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


def use_plain_signs() -> None:
    """Lets stdout and stderr print any text, whatever their encoding: cp1252 on Windows, ASCII in containers."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


class _Stderr(logging.Handler):
    """Prints to what stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def show_messages() -> None:
    """Prints what the package logs, such as that kernels are being compiled, to stderr."""
    log = logging.getLogger("tinydata")
    if not log.handlers:
        log.addHandler(_Stderr())
    log.setLevel(logging.INFO)


class Console:
    """Where output goes and how much of it: `as_json`, `quiet` (errors only), `verbose` (traces)."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False):
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def result(self, value: Any, text: str) -> None:
        """The result: `value` as JSON if that was asked for, else `text`."""
        print(json.dumps(value, indent=2, ensure_ascii=False) if self.as_json else text, flush=True)

    @contextmanager
    def progress(self, label: str, total: int, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """A bar with rate and time left, from the third second on, if stderr is a terminal and messages are wanted."""
        if self.quiet:
            yield lambda n: None
            return
        with bar(label, total, unit) as advance:
            yield advance
