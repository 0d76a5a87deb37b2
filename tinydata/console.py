"""What a user sees. stdout is data (a table, or --json); stderr is talk and progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Row = dict[str, Any]


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
        """A bar with rate and time left, from the third second on, if stderr is a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda n: None
            return
        bar = _Bar(label, total, unit)
        try:
            yield bar.advance
        finally:
            bar.close()


class _Bar:
    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.begun, self.done = time.monotonic(), 0
        self.rich: Any = None
        self.task: Any = None

    def advance(self, n: int) -> None:
        self.done += n
        if self.rich is None and time.monotonic() - self.begun > 2:
            self._open()
        if self.rich is not None:
            self.rich.update(self.task, completed=self.done)

    def _open(self) -> None:
        from rich import progress as p
        from rich.console import Console as RichConsole
        from rich.text import Text

        unit = self.unit

        class Rate(p.ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.completed:,.0f} of {task.total:,.0f} {unit}, {task.speed or 0:,.0f} {unit}/s")

        amount: list[Any] = [p.DownloadColumn(), p.TransferSpeedColumn()] if unit == "B" else [Rate()]
        columns = [p.TextColumn("{task.description}"), p.BarColumn(), *amount, p.TimeRemainingColumn()]
        self.rich = p.Progress(*columns, console=RichConsole(stderr=True), transient=True)
        self.task = self.rich.add_task(self.label, total=self.total)
        self.rich.start()

    def close(self) -> None:
        if self.rich is not None:
            self.rich.stop()


def table(rows: list[Row], columns: dict[str, str]) -> str:
    """rows + {key: heading} -> aligned text; numbers to the right."""
    if not rows:
        return ""
    cells = [[_shown(r.get(k)) for k in columns] for r in rows]
    heads = list(columns.values())
    right = [all(isinstance(r.get(k), (int, float)) or _number(r.get(k)) for r in rows) for k in columns]
    widths = [max(len(h), *(len(c[i]) for c in cells)) for i, h in enumerate(heads)]

    def line(values: list[str]) -> str:
        return "  ".join(
            v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(heads), *(line(c) for c in cells)])


def _number(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in "+-0123456789" and value.strip("+-0123456789.,% GMkB") == ""


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return str(value)


def many(n: int, word: str) -> str:
    """3, "file" -> "3 files"."""
    return f"{n:,} {word}{'s' * (n != 1)}"


def size(n: float) -> str:
    """Bytes -> "1.96 GB" (10**9)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(n) < 1000 or unit == "TB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:.3g} {unit}"
        n /= 1000
    raise AssertionError


def seconds(n: float) -> str:
    """12.3 -> "12 s", 4000 -> "1 h 7 min"."""
    if n < 100:
        return f"{n:.1f} s" if n < 10 else f"{n:.0f} s"
    if n < 6000:
        return f"{n / 60:.0f} min"
    return f"{n // 3600:.0f} h {n % 3600 // 60:.0f} min"


def visible(text: str) -> str:
    """Token text with blanks and control characters one can see."""
    out = text.replace(" ", "\u2423")
    return "".join(
        c if c.isprintable() else {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c, f"\\x{ord(c):02x}") for c in out
    )
