"""Fixtures of the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.processes import Done, command, completed


@pytest.fixture
def train(shards: Path, tmp_path: Path) -> Callable[..., Done]:
    """train(out, flags…, ranks=1): trainer.run as a process of its own, or as several."""

    def run(out: str, *more: str, ranks: int = 1, code: int | None = 0) -> Done:
        done = completed("trainer.run", *command(shards, tmp_path / out, *more), cwd=tmp_path, ranks=ranks)
        assert code is None or done.returncode == code, done.stderr[-3000:]
        return done

    return run
