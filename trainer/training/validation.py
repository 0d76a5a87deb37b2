"""Held-out sequences -> loss and bits per byte, by domain, over all ranks.

bits per byte = sum of nll in nats / (ln 2 x bytes of text that the targets encode): the measure that can be compared
between vocabularies. Special tokens encode no text, so they count in the loss but not in the bits per byte.
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

LONGEST = 2048  # tokens per sequence, for models of other origin that would accept more
PIECES = "pieces.parquet"  # token_id, bytes, special; in the directory of the shards


def piece_bytes(directory: Path) -> np.ndarray | None:
    """int64 [vocab]: bytes of text that each id encodes, 0 for special tokens; None if the shards lack the table."""
    import pyarrow.parquet as pq

    if not (directory / PIECES).exists():
        return None
    table = pq.read_table(directory / PIECES)
    out = np.zeros(len(table), np.int64)
    out[table["token_id"].to_numpy()] = table["bytes"].to_numpy()
    return out


class Sums:
    """For each domain: nll of all targets, their number, nll of the targets that encode text, bytes of that text."""

    def __init__(self, shards: Shards):
        self.names, self._domain_of = shards.domains
        self._starts = shards.documents
        self._bytes = piece_bytes(shards.directory)
        self.table = np.zeros((len(self.names), 4))

    def add(self, first: np.ndarray, targets: np.ndarray, nll: np.ndarray) -> None:
        """first int64 [B]: position of each row's first target in the token stream; targets, nll [B, T]."""
        at = first[:, None] + np.arange(targets.shape[1])
        domain = self._domain_of[np.searchsorted(self._starts, at, side="right") - 1]
        counts = targets != IGNORE
        size = np.zeros_like(targets) if self._bytes is None else self._bytes[np.where(counts, targets, 0)]
        text = counts & (size > 0)
        for k, values in enumerate((nll * counts, counts, nll * text, size * text)):
            self.table[:, k] += np.bincount(domain.ravel(), values.ravel().astype(np.float64), len(self.names))

    def result(self) -> dict[str, Any]:
        """loss; bits_per_byte if the bytes are known; and both for each domain that occurs."""
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
    """Numbers of sequences -> Sums.result(), computed `rows` sequences at a time, divided over the ranks.

    Every forward pass has the same shape. `done` is called with the number of tokens after each of them. All ranks
    must call this function.
    """
    together = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    sums, T = Sums(sequences.shards), sequences.length
    # all ranks need the same number of forward passes, because each gathers the sharded weights
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
            module.reshard()  # without a backward pass nothing else does; a checkpoint would store whole weights
    if together:
        t = torch.from_numpy(sums.table).to(device)
        dist.all_reduce(t)
        sums.table = t.cpu().numpy()
    return sums.result()
