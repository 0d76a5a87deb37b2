"""Held-out sequences -> loss and bits per byte, by domain, over all ranks: the number that compares vocabularies.

bits per byte = sum of nll in nats / (ln 2 x bytes of text that the targets stand for). Special tokens stand for
no text: they are in the loss and not in the bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from trainer.data.order import Sequences
from trainer.data.shards import Shards
from trainer.model.head_loss import IGNORE

LONGEST = 2048  # tokens of a sequence, where a model of other origin could do more
PIECES = "pieces.parquet"  # token_id, bytes, special; beside the shards


def piece_bytes(directory: Path) -> np.ndarray | None:
    """int64 [vocab]: bytes of text each id stands for, 0 for special ones; None where the shards do not say."""
    import pyarrow.parquet as pq

    if not (directory / PIECES).exists():
        return None
    table = pq.read_table(directory / PIECES)
    out = np.zeros(len(table), np.int64)
    out[table["token_id"].to_numpy()] = table["bytes"].to_numpy()
    return out


class Sums:
    """Of each domain: nll of all targets, their number, nll of those that stand for text, bytes of it."""

    def __init__(self, shards: Shards):
        self.names, self._domain_of = shards.domains
        self._starts = shards.documents
        self._bytes = piece_bytes(shards.directory)
        self.table = np.zeros((len(self.names), 4))

    def add(self, first: np.ndarray, targets: np.ndarray, nll: np.ndarray) -> None:
        """first int64 [B]: where in the stream each row's first target is; targets, nll [B, T]."""
        at = first[:, None] + np.arange(targets.shape[1])
        domain = self._domain_of[np.searchsorted(self._starts, at, side="right") - 1]
        counts = targets != IGNORE
        size = np.zeros_like(targets) if self._bytes is None else self._bytes[np.where(counts, targets, 0)]
        text = counts & (size > 0)
        for k, values in enumerate((nll * counts, counts, nll * text, size * text)):
            self.table[:, k] += np.bincount(domain.ravel(), values.ravel().astype(np.float64), len(self.names))

    def result(self) -> dict[str, Any]:
        """loss, bits_per_byte where bytes are known, and the same of each domain that occurs."""
        values = _measures(self.table.sum(axis=0))
        domains = {n: _measures(row) for n, row in zip(self.names, self.table, strict=True) if row[1]}
        return values | ({"domains": domains} if len(domains) > 1 else {})


def _measures(row: np.ndarray) -> dict[str, float]:
    nll, count, text_nll, size = row.tolist()
    out = {"loss": nll / max(count, 1), "targets": int(count)}
    return out | ({"bits_per_byte": text_nll / (math.log(2) * size), "bytes": int(size)} if size else {})


def measured(
    model: nn.Module,
    sequences: Sequences,
    numbers: np.ndarray,
    *,
    rows: int,
    device: torch.device,
    vocab: int,
    documents: bool = False,
    done: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Numbers of sequences -> Sums.result(), `rows` sequences at once, the same shape every time, split over ranks.

    `done` hears of each step's tokens. All ranks must call it.
    """
    together = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    sums, T = Sums(sequences.shards), sequences.length
    # all ranks take as many steps: sharded weights are gathered in each
    each = -(-len(numbers) // (rows * world)) * rows
    own = numbers[rank::world]
    was = model.training
    model.eval()
    with torch.no_grad():
        for a in range(0, each, rows):
            here = own[a : a + rows]
            padded = np.concatenate([here, np.full(rows - len(here), numbers[0])])
            batch = sequences.read(padded, vocab, documents)
            batch.targets[len(here) :] = IGNORE
            _, nll, _ = model(*(None if x is None else x.to(device) for x in batch))
            sums.add(padded * T + 1, batch.targets.numpy(), nll.float().cpu().numpy())
            done(len(here) * T)
    model.train(was)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # no backward does it here; whole weights would be saved without their moments
    if together:
        t = torch.from_numpy(sums.table).to(device)
        dist.all_reduce(t)
        sums.table = t.cpu().numpy()
    return sums.result()
