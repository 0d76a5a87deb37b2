"""SIGTERM, SIGUSR1 (Slurm's warning) and Ctrl-C finish the step and save; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopped:
    any = False


@contextmanager
def stop_signals() -> Iterator[Stopped]:
    """Yields what says whether one of them came."""
    stopped = Stopped()

    def heard(number: int, frame: Any) -> None:
        stopped.any = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    old = {s: signal.signal(s, heard) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
