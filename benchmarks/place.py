"""Where a benchmark works and how much of it there is; and counts as an array, to compare results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

SHARED = Path(__file__).parents[2] / "shared" / "data"  # real text and tokenizers, where there are any


class Place(NamedTuple):
    folder: str
    scale: float
    rounds: int


def counts_of(path: str, tok: str) -> Any:
    """`tinydata count` with one worker -> int64[ids]."""
    import numpy as np
    import pyarrow.parquet as pq

    from tinydata.count import count
    from tinydata.engines.local import LocalEngine

    out = f"{Path(path).parent}/counts-{Path(path).name}"
    size = count([path], tok, out, LocalEngine(1))["tokenizer"]["size"]
    table = pq.read_table(f"{out}/counts.parquet")
    shutil.rmtree(out)
    counts = np.zeros(size, np.int64)
    np.add.at(counts, table["token_id"].to_numpy(), table["count"].to_numpy())
    return counts
