"""How a run is started as a process of its own, and what it left."""

from __future__ import annotations

import json
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ["--preset", "tiny-1m", "--width", "64", "--depth", "2", "--expand", "2", "--seq-len", "32"]
TINY += [
    "--device",
    "cpu",
    "--batch-tokens",
    "384",
    "--holdout",
    "24",
]  # 12 sequences a step: 1, 2 and 3 ranks share them


def command(shards: Path, out: Path, *more: str) -> list[str]:
    return ["-m", "trainer.run", "--data", str(shards), "-o", str(out), *TINY, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def curve(run: Path) -> list[tuple[int, float, float]]:
    """(step, loss, gradient norm) of every step of a run."""
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return [(x["step"], x["loss"], x["grad_norm"]) for x in lines if "loss" in x]
