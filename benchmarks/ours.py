"""`tinydata count` with one worker: inside a measuring process, and as the command a user types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.place import Place


def tokens(path: str, tok: str, engine: Any = None) -> int:
    """Counts `path`, throws the result away -> how many tokens there were."""
    return int(_counted(path, tok, engine)[0]["totals"]["tokens"])


def text_bytes(path: str, tok: str) -> int:
    """The same -> bytes of text."""
    return int(_counted(path, tok, None)[0]["totals"]["bytes"])


def counts(path: str, tok: str) -> Any:
    """The same -> int64[ids]."""
    import numpy as np

    manifest, table = _counted(path, tok, None)
    out = np.zeros(manifest["tokenizer"]["size"], np.int64)
    np.add.at(out, table["token_id"].to_numpy(), table["count"].to_numpy())
    return out


def _counted(path: str, tok: str, engine: Any) -> tuple[dict[str, Any], Any]:
    import pyarrow.parquet as pq

    from tinydata.engines.local import LocalEngine
    from tinydata.verbs.count.verb import count

    where = Path(path)
    out = str(where.parent / f"counts-{where.name}")
    manifest = count([path], tok, out, engine or LocalEngine(1))
    table = pq.read_table(f"{out}/counts.parquet")
    shutil.rmtree(out)
    return manifest, table


class Whole:
    """`tinydata count` as a command, start-up and all: its cost, and what it says of the corpus."""

    def __init__(self, place: Place, path: str, tok: str, keep: str = ""):
        out = keep or f"{place.folder}/counts"
        self.run = process.tinydata("count", path, "--tokenizer", tok, "--workers", "1", "-o", out)
        self.totals: dict[str, int] = json.loads((Path(out) / "manifest.json").read_text())["totals"]
        if not keep:
            shutil.rmtree(out)

    def speed(self, unit: str) -> float:
        """Millions of `tokens` or `bytes` per CPU-second."""
        return self.totals[unit] / self.run.cpu / 1e6

    @property
    def cost(self) -> str:
        return f"{self.run.cpu:.1f} CPU-s, {self.run.wall:.1f} s"
