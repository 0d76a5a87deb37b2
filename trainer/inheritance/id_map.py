"""Reads the id map of a compact vocabulary: which rows of the large embedding each new id starts from.

A kept token starts from its own row, a learned one (`compact --adapt`) from the mean of the rows of the old
tokens that spell it. The head is treated in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.errors import UNREADABLE, TrainerError


@dataclass(frozen=True)
class Rows:
    """The rows of the large embedding for each new id."""

    directory: Path
    old: int  # ids of the big tokenizer
    source: Tensor  # int64 [V]: old id of a kept token, -1 for a learned one
    learned: dict[int, list[int]]  # new id -> old ids

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def read(cls, path: str | Path) -> Rows:
        """A directory that `tinydata compact` wrote. Raises TrainerError if its id map has a hole."""
        directory = Path(path)
        table = _table(directory / "idmap.parquet", ["old_id", "kept", "parts"])
        kept = table.filter(table["kept"])
        pairs = {
            p[0] if len(p) == 1 else -1: o
            for o, p in zip(kept["old_id"].to_pylist(), kept["parts"].to_pylist(), strict=True)
        }
        learned: dict[int, list[int]] = {}
        if (directory / "learned.parquet").exists():
            taught = _table(directory / "learned.parquet", ["new_id", "old_parts"])
            learned = dict(zip(taught["new_id"].to_pylist(), taught["old_parts"].to_pylist(), strict=True))
        size = len(pairs) + len(learned)
        whole = len(pairs) == len(kept) and pairs.keys() | learned.keys() == set(range(size))
        if not whole or any(not p or max(p) >= len(table) for p in learned.values()):
            raise TrainerError(
                f"the id map has {len(kept):,} kept and {len(learned):,} learned tokens, which do not cover the ids "
                f"0 to {size - 1:,}",
                where=str(directory),
                fix="create the vocabulary again with `tinydata compact --force`",
                code=UNREADABLE,
            )
        source = torch.tensor([pairs.get(i, -1) for i in range(size)], dtype=torch.int64)
        return cls(directory, int(np.max(table["old_id"].to_numpy(), initial=-1)) + 1, source, learned)

    def gather(self, weight: Tensor) -> Tensor:
        """[old ids, d] -> [V, d], in the same type; means in float32."""
        out = weight[self.source.clamp(min=0)]
        for i, parts in self.learned.items():
            out[i] = weight[parts].float().mean(dim=0)
        return out

    def new(self, old: int) -> int | None:
        """The new id of an old one; None if its token was removed."""
        positions = (self.source == old).nonzero()
        return int(positions[0]) if len(positions) else None

    def coverage(self) -> dict[str, Any]:
        """How many ids start from their own row of the large model, and how many from a mean."""
        parts = [len(p) for p in self.learned.values()]
        return {
            "ids": len(self),
            "of": self.old,
            "own row": len(self) - len(parts),
            "mean of rows": len(parts),
            "rows per mean": sum(parts) / len(parts) if parts else 0.0,
        }


def _table(path: Path, columns: list[str]) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=columns)
    except Exception as e:
        raise TrainerError(
            f"the id map is missing or cannot be read: {str(e).splitlines()[0]}",
            where=str(path),
            fix="pass a directory written by `tinydata compact`: --vocab DIR",
            code=UNREADABLE,
        ) from None
