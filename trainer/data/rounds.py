"""Reads a ROUND: its base shards, and which of their sequences to train on.

`tinydata resample` writes one without a copy of the tokens: manifest.json (base, seq_len, round) and keep-*.parquet
(sequence, inclusion). One with a copy (--materialize) contains shards and is read like any other.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainer.data.shards import Shards
from trainer.errors import UNREADABLE, TrainerError


class Kept(NamedTuple):
    numbers: np.ndarray  # int64: of the kept sequences
    inclusion: np.ndarray | None  # float32: the probability with which each was kept; None: not read


@dataclass(frozen=True)
class Round:
    """Kept sequences of other shards, by number."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def seq_len(self) -> int:
        return self.manifest["seq_len"]

    def base(self, given: str = "") -> Shards:
        """The shards that the numbers are of: at `given`, else at their original path, else next to the ROUND."""
        facts = self.manifest["base"]
        places = [Path(given)] if given else [Path(facts["absolute"]), self.directory.parent / facts["path"]]
        found = next((p for p in places if (p / "manifest.json").exists()), None)
        if found is None:
            raise TrainerError(
                "the shards that this round selects from were not found: " + ", ".join(str(p) for p in places),
                where=str(self.directory),
                fix="pass their current location: --base SHARDS",
                code=UNREADABLE,
            )
        shards = Shards.open(found)
        if shards.fingerprint != facts["fingerprint"]:
            raise TrainerError(
                f"the round was made from different shards, with the fingerprint {facts['fingerprint']}",
                where=f"{found}, with the fingerprint {shards.fingerprint}",
                fix="pass the shards that were scored: --base SHARDS",
            )
        return shards

    def kept(self, total: int) -> Kept:
        """The kept sequences, sorted, with their probabilities. total: sequences in the base shards."""
        files = sorted(self.directory.glob("keep-*.parquet"))
        tables = [read_kept(f, total, inclusion=True) for f in files]
        numbers = np.concatenate([np.empty(0, np.int64), *(t.numbers for t in tables)])
        inclusion = np.concatenate([np.empty(0, np.float32), *(t.inclusion for t in tables if t.inclusion is not None)])
        if hashlib.sha256(numbers.tobytes()).hexdigest() != self.manifest["kept"]["sha256"]:
            raise TrainerError(
                f"its {len(files)} keep-*.parquet files, of {len(numbers):,} sequences, do not match its manifest",
                where=str(self.directory),
                fix="run `tinydata resample` again, or copy the directory again if the copy is incomplete",
                code=UNREADABLE,
            )
        return Kept(numbers, inclusion)


def opened(path: str | Path, base: str = "") -> tuple[Shards, Round | None]:
    """Opens shards or a ROUND -> the shards, and the round if it selects from other shards."""
    manifest = _manifest(path)
    if manifest.get("verb") != "resample" or "shards" in manifest:
        return Shards.open(path), None
    found = Round(Path(path), manifest)
    return found.base(base), found


def number(path: str | Path) -> int:
    """The number of the round in a directory, with or without a copy of the tokens; 0 for shards that are no round."""
    return _manifest(path).get("round", 0)


def _manifest(path: str | Path) -> dict[str, Any]:
    """The manifest, or {} if it cannot be read; opening the directory as shards then reports the error."""
    try:
        return json.loads((Path(path) / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}


def read_kept(path: str | Path, total: int, inclusion: bool = False) -> Kept:
    """A Parquet list of kept sequences, in the file's order; with `inclusion`, also that column."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["sequence", *(["inclusion"] if inclusion else [])])
        kept = table["sequence"].to_numpy().astype(np.int64)
        chances = table["inclusion"].to_numpy().astype(np.float32) if inclusion else None
    except Exception as e:
        raise TrainerError(
            f"the list of kept sequences cannot be read: {e}",
            where=str(path),
            fix="use a Parquet file with a column `sequence`",
        ) from None
    if len(kept) and not (kept.min() >= 0 and kept.max() < total):
        wrong = kept.max() if kept.max() >= total else kept.min()
        raise TrainerError(
            f"sequence {wrong} does not exist in the shards, which have {total:,}",
            where=str(path),
            fix="use a list that was made for these shards and this --seq-len",
        )
    return Kept(kept, chances)
