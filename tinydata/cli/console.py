"""What a user sees: stdout has the result (a table, or JSON), stderr has messages and progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinydata.core.progress import progress as bar


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
