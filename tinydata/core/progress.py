"""A progress bar on stderr or in a notebook: amount done, total, rate, and remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress(label: str, total: int, unit: str = "B") -> Iterator[Callable[[int], None]]:
    """Yields advance(n), to be called with each amount of work done, in `unit`s; they add up to `total`.

    Shows nothing unless stderr is a terminal or the code runs in a notebook.
    """
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield lambda n: None
        return
    bar = _Bar(label, total, unit)
    try:
        yield bar.advance
    finally:
        bar.close()


class _Bar:
    """The bar appears after two seconds, so that short operations show none."""

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
