"""What a user sees. stdout is data (a table, or --json); stderr is talk and progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
