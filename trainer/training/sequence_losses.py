"""RUN/losses/step-00000100.parquet: the loss of every sequence trained on, one file per checkpoint.

Columns step, sequence, tokens, nll, max: one row per sequence, in the order of the batch. The losses are those before
the update of that step. `tinydata score --losses` computes scores from them without a forward pass.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.training.parallel import World

FOLDER = "losses"


class SequenceLosses:
    """Collects losses on the device, so that no step waits for them, and writes a file before each checkpoint.

    Files newer than the checkpoint that a run resumes from are deleted, because those steps are repeated.
    """

    def __init__(self, run: Path, w: World, step: int):
        self._folder, self._w = run / FOLDER, w
        self._steps: list[int] = []
        self._numbers: list[np.ndarray] = []
        self._sums: list[Tensor] = []
        if w.first:
            for file in self._folder.glob("step-*"):
                if file.suffix != ".parquet" or int(file.stem.removeprefix("step-")) > step:
                    file.unlink()

    def add(self, step: int, numbers: np.ndarray, sums: Tensor) -> None:
        """numbers int64 [rows]: all sequences of the batch; sums float64 [rows / ranks, 3]: this rank's by_sequence."""
        self._steps.append(step)
        self._numbers.append(numbers)
        self._sums.append(sums)

    def save(self, step: int) -> None:
        """Called by all ranks before the checkpoint of `step` is saved, so that a checkpoint always has its losses."""
        if not self._steps:
            return
        own = torch.stack(self._sums)  # [steps, rows / ranks, 3]
        every = [torch.empty_like(own) for _ in range(self._w.size)]
        dist.all_gather(every, own)
        if self._w.first:
            # row k of rank r is row k * ranks + r of the batch
            self._write(step, torch.stack(every, dim=2).flatten(0, 2).cpu().numpy())
        self._steps, self._numbers, self._sums = [], [], []

    def _write(self, step: int, table: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        counts, nll, largest = table.T
        columns = {
            "step": np.repeat(np.array(self._steps), [len(x) for x in self._numbers]),
            "sequence": np.concatenate(self._numbers),
            "tokens": counts.astype(np.int32),
            "nll": nll,
            "max": largest.astype(np.float32),
        }
        self._folder.mkdir(exist_ok=True)
        file = self._folder / f"step-{step:08d}.parquet"
        part = file.with_suffix(".part")
        with part.open("wb") as f:
            pq.write_table(pa.table(columns), f, compression="zstd")
            os.fsync(f.fileno())
        part.rename(file)


def by_sequence(nll: Tensor, targets: Tensor) -> Tensor:
    """nll, targets [B, T] -> float64 [B, 3]: number of targets that count, sum of their nll, largest nll."""
    largest = nll.amax(dim=1).double()
    return torch.stack([(targets >= 0).sum(dim=1).double(), nll.sum(dim=1, dtype=torch.float64), largest], dim=1)
