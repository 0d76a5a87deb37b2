"""Batches for the device: read in a thread, ahead of the step that needs them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from trainer.data.order import Batch, Sequences


class Loaded(NamedTuple):
    numbers: np.ndarray  # int64: the sequences of the whole batch, in its order
    batch: Batch  # this rank's rows: row k is number k * ranks + rank


@dataclass(frozen=True)
class Loader:
    """How the sequences are divided into batches, and batches over the ranks."""

    sequences: Sequences
    seed: int
    rows: int  # sequences of a batch, over all ranks
    vocab: int  # ids of the model
    rank: int = 0
    ranks: int = 1
    documents: bool = False  # with document numbers, for masking
    pin: bool = False  # in page-locked memory, from which a GPU copies faster

    def load(self, sample: int) -> Loaded:
        """The batch that starts at sample number `sample`, counted from the start of training."""
        numbers = self.sequences.order(np.arange(sample, sample + self.rows), self.seed)
        own = numbers[self.rank :: self.ranks]
        batch = self.sequences.read(own, self.vocab, self.documents)
        if self.sequences.inclusion is not None:
            batch = batch._replace(weights=torch.from_numpy(self.sequences.weights(own)))
        return Loaded(numbers, batch.pinned() if self.pin else batch)

    def batches(self, sample: int) -> Generator[Loaded, None, None]:
        """Batch after batch from `sample` on; a thread reads ahead. Its errors are raised here."""
        ready: queue.Queue[Loaded | BaseException] = queue.Queue(maxsize=2)
        stop = threading.Event()

        def put(item: Loaded | BaseException) -> None:
            while not stop.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.2)
                    return

        def read_ahead() -> None:
            at = sample
            try:
                while not stop.is_set():
                    put(self.load(at))
                    at += self.rows
            except BaseException as e:
                put(e)

        thread = threading.Thread(target=read_ahead, daemon=True, name="read ahead")
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
