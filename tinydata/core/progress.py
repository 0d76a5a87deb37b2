"""Progress on stderr: a bar in a terminal or a notebook, a line a minute in a log; amount, total, rate, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinydata.core.text import seconds, size

MINUTE = 60.0


@contextmanager
def progress(label: str, total: int, unit: str = "B") -> Iterator[Callable[[int], None]]:
    """Yields advance(n), to be called with each amount of work done, in `unit`s; they add up to `total`."""
    bar = _Bar(label, total, unit) if sys.stderr.isatty() or "ipykernel" in sys.modules else _Lines(label, total, unit)
    try:
        yield bar.advance
    finally:
        bar.close()


class _Lines:
    """For logs: nothing in the first minute, then a line a minute."""

    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.begun = self.said = time.monotonic()
        self.done = 0

    def advance(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.said < MINUTE:
            return
        self.said = now
        rate = self.done / (now - self.begun)
        left = f", {seconds((self.total - self.done) / rate)} left" if rate and self.total > self.done else ""
        share = f" of {self._amount(self.total)} ({self.done / self.total:.0%})" if self.total else ""
        text = f"{self.label}: {self._amount(self.done)}{share}, {self._amount(int(rate))}/s{left}"
        print(text, file=sys.stderr, flush=True)

    def _amount(self, n: int) -> str:
        return size(n) if self.unit == "B" else f"{n:,} {self.unit}"

    def close(self) -> None:
        """Nothing remains on the screen."""


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
