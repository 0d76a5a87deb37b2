"""A ROUND -> its base shards, and which of their sequences are trained on again.

`tinydata resample` writes one without a copy of the tokens: manifest.json (base, seq_len, round) and keep-*.parquet
(sequence, inclusion). One with a copy (--materialize) holds shards and is opened as any.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.shards import Shards
from trainer.errors import UNREADABLE, TrainerError


@dataclass(frozen=True)
class Round:
    """Kept sequences of other shards, by number."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def seq_len(self) -> int:
        return self.manifest["seq_len"]

    def base(self, told: str = "") -> Shards:
        """The shards that the numbers are of: where `told`, else where they were, else beside the ROUND."""
        facts = self.manifest["base"]
        places = [Path(told)] if told else [Path(facts["absolute"]), self.directory.parent / facts["path"]]
        found = next((p for p in places if (p / "manifest.json").exists()), None)
        if found is None:
            raise TrainerError(
                "the shards of the round are not there: " + ", ".join(str(p) for p in places),
                where=str(self.directory),
                fix="--base SHARDS: where they are now",
                code=UNREADABLE,
            )
        shards = Shards.open(found)
        if shards.fingerprint != facts["fingerprint"]:
            raise TrainerError(
                f"the round is of other shards: their fingerprint is {facts['fingerprint']}",
                where=f"{found}: {shards.fingerprint}",
                fix="--base SHARDS: those that were scored",
            )
        return shards

    def kept(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """-> numbers int64, sorted; inclusion float32: the probability of each."""
        files = sorted(self.directory.glob("keep-*.parquet"))
        tables = [read_kept(f, total, inclusion=True) for f in files]
        numbers = np.concatenate([np.empty(0, np.int64), *(n for n, _ in tables)])
        inclusion = np.concatenate([np.empty(0, np.float32), *(p for _, p in tables if p is not None)])
        if hashlib.sha256(numbers.tobytes()).hexdigest() != self.manifest["kept"]["sha256"]:
            raise TrainerError(
                f"its {len(files)} lists of {len(numbers):,} kept sequences are not those of its manifest",
                where=str(self.directory),
                fix="resample again; a half-copied directory is not trained on",
                code=UNREADABLE,
            )
        return numbers, inclusion


def opened(path: str | Path, base: str = "") -> tuple[Shards, Round | None]:
    """Shards, or a ROUND -> the shards, and the round if it has none of its own."""
    manifest = _manifest(path)
    if manifest.get("verb") != "resample" or "shards" in manifest:
        return Shards.open(path), None
    found = Round(Path(path), manifest)
    return found.base(base), found


def number(path: str | Path) -> int:
    """Which round a directory holds, with a copy of the tokens or without; 0: the shards that rounds begin with."""
    return _manifest(path).get("round", 0)


def _manifest(path: str | Path) -> dict[str, Any]:
    """{} where none is readable: who opens the directory as shards says what is wrong."""
    try:
        return json.loads((Path(path) / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}


def read_kept(path: str | Path, total: int, inclusion: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """A Parquet list of kept sequences -> their numbers int64, in the file's order; with `inclusion`, that column."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["sequence", *(["inclusion"] if inclusion else [])])
        kept = table["sequence"].to_numpy().astype(np.int64)
        chances = table["inclusion"].to_numpy().astype(np.float32) if inclusion else None
    except Exception as e:
        raise TrainerError(
            f"no list of kept sequences: {e}", where=str(path), fix="a Parquet file with a column `sequence`"
        ) from None
    if len(kept) and not (kept.min() >= 0 and kept.max() < total):
        raise TrainerError(
            f"sequence {kept.max() if kept.max() >= total else kept.min()} is not among the {total:,} of the shards",
            where=str(path),
            fix="the list belongs to other shards, or to another --seq-len",
        )
    return kept, chances
