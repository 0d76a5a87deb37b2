"""Sequence numbers in training order: a permutation that is a function of one number, with held-out ones left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.data.shards import Shards
from trainer.errors import TrainerError
from trainer.model.head_loss import IGNORE

RUN = 4  # consecutive sequences held out at one place; at each edge, a document may be partly trained on


def permuted(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """index int64 in [0, size) -> its image under a permutation of [0, size) that is determined by `key`.

    A Feistel network of six rounds on the smallest even number of bits that can represent `size`. A result outside
    the range is mapped again until it is inside, fewer than four times on average. Nothing is stored.
    """
    half = max(1, -(-int(size - 1).bit_length() // 2)) if size > 1 else 1
    low = np.uint64((1 << half) - 1)
    x = index.astype(np.uint64)
    outside = np.ones(len(x), bool)
    while outside.any():
        y = x[outside]
        left, right = y >> np.uint64(half), y & low
        for k in range(6):
            left, right = right, left ^ (_mixed(right, key, k) & low)
        x[outside] = (left << np.uint64(half)) | right
        outside = x >= np.uint64(size)
    return x.astype(np.int64)


def _mixed(x: np.ndarray, key: int, k: int) -> np.ndarray:
    """splitmix64's finalizer of (x, key, k)."""
    with np.errstate(over="ignore"):
        z = x + np.uint64((key * 0x9E3779B97F4A7C15 + (k + 1) * 0xD1342543DE82EF95) % (1 << 64))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Batch(NamedTuple):
    tokens: Tensor  # int64 [B, T]
    targets: Tensor  # int64 [B, T]; -100: no loss
    documents: Tensor | None  # int32 [B, T]: document numbers, for masking
    weights: Tensor | None = None  # float32 [B]: weight of each row's loss

    def rows(self, start: int, stop: int) -> Batch:
        return Batch(*(None if x is None else x[start:stop] for x in self))

    def to(self, device: torch.device) -> Batch:
        return Batch(*(None if x is None else x.to(device, non_blocking=True) for x in self))

    def pinned(self) -> Batch:
        """In page-locked memory."""
        return Batch(*(None if x is None else x.pin_memory() for x in self))


@dataclass(frozen=True)
class Sequences:
    """The sequences of a dataset that are used for training, and those held out for validation.

    `kept`: what a round kept, as numbers of sequences; None: all. Groups of 4 consecutive
    sequences are held out, spaced evenly over all shards, so every domain is included. `kept` has no effect on them.
    """

    shards: Shards
    length: int  # T
    holdout: int  # sequences; below 0: 0.5%, at most 512
    kept: np.ndarray | None = None
    inclusion: np.ndarray | None = None  # float32: the probability with which each of `kept`, sorted, was kept

    def __post_init__(self):
        if self.total < 2 or self.size < 1:
            raise TrainerError(
                f"too little data: {self.shards.tokens:,} tokens give {self.total} sequences of {self.length} tokens",
                where=str(self.shards.directory),
                fix="use more data, a smaller --seq-len, or a smaller --holdout",
            )

    @property
    def total(self) -> int:
        return max(0, (self.shards.tokens - 1) // self.length)

    @cached_property
    def held_out(self) -> np.ndarray:
        """int64, sorted: numbers of the held-out sequences."""
        return held_out(self.total, self.holdout)

    @cached_property
    def _kept(self) -> np.ndarray | None:
        return None if self.kept is None else self.kept[self._trained]

    @cached_property
    def _trained(self) -> np.ndarray:
        """bool, for each kept sequence: whether it is trained on, because it is not held out."""
        assert self.kept is not None
        return ~np.isin(self.kept, self.held_out)

    @property
    def size(self) -> int:
        """Sequences in one epoch."""
        return len(self._kept) if self._kept is not None else self.total - len(self.held_out)

    def order(self, samples: np.ndarray, seed: int) -> np.ndarray:
        """Samples, counted from the start of training -> numbers of sequences."""
        out = np.empty(len(samples), np.int64)
        epochs = samples // self.size
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = permuted(samples[here] % self.size, self.size, seed * 1_000_003 + int(epoch))
        if self._kept is not None:
            return self._kept[out]
        return out + np.searchsorted(self.held_out - np.arange(len(self.held_out)), out, side="right")

    @cached_property
    def _weights(self) -> np.ndarray:
        assert self.inclusion is not None
        inverse = 1 / self.inclusion.astype(np.float64)
        return (inverse / inverse[self._trained].mean()).astype(np.float32)

    def weights(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of kept sequences -> float32: 1 / inclusion, scaled so that its mean over those trained on is one.

        The expected value of a loss with these weights is the loss on all sequences (Horvitz and Thompson).
        """
        assert self.kept is not None
        return self._weights[np.searchsorted(self.kept, numbers)]

    def read(self, numbers: np.ndarray, vocab: int, documents: bool = False) -> Batch:
        """Numbers of sequences -> the model's input. Raises TrainerError for an id outside the vocabulary."""
        T = self.length
        ids = np.empty((len(numbers), T + 1), np.int64)
        targets = np.empty((len(numbers), T), np.int64)
        which = np.empty((len(numbers), T), np.int32) if documents else None
        for row, i in enumerate(numbers.tolist()):
            a = i * T
            ids[row] = self.shards.read(a, a + T + 1)
            bears = self.shards.bears_loss(a + 1, a + T + 1)
            targets[row] = ids[row, 1:] if bears is None else np.where(bears, ids[row, 1:], IGNORE)
            if which is not None:
                which[row] = np.searchsorted(self.shards.documents, np.arange(a, a + T), side="right") % (1 << 31)
        if ids.size and int(ids.max()) >= vocab:
            row = int(np.argmax(ids.max(axis=1)))
            raise TrainerError(
                f"token id {ids.max()} is outside the model's vocabulary of {vocab:,}",
                where=f"{self.shards.directory}, sequence {numbers[row]}",
                fix="encode the data with the tokenizer of the model",
            )
        return Batch(
            torch.from_numpy(ids[:, :-1].copy()),
            torch.from_numpy(targets),
            None if which is None else torch.from_numpy(which),
        )


def held_out(total: int, holdout: int) -> np.ndarray:
    """Of `total` sequences -> int64, sorted: numbers of those held out; `holdout` below 0: 0.5%, at most 512."""
    holdout = holdout if holdout >= 0 else min(512, max(1, total // 200))
    runs = -(-holdout // RUN)
    if not runs:
        return np.empty(0, np.int64)
    starts = (np.arange(runs) * 2 + 1) * (total // (2 * runs))
    return np.unique(np.minimum((starts[:, None] + np.arange(RUN)).ravel()[:holdout], total - 1))
