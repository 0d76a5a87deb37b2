"""Where a benchmark works, and how much of it there is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

SHARED = Path(__file__).parents[2] / "shared" / "data"  # real text and tokenizers, where there are any


class Place(NamedTuple):
    folder: str
    scale: float
    rounds: int
