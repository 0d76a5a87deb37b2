"""Batches for the device: read in a thread, one ahead of the step that needs them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator
from typing import Any

import numpy as np
import torch

from trainer.data.order import Batch, Sequences


def pinned(batch: Batch) -> Batch:
    return Batch(*(None if x is None else x.pin_memory() for x in batch))  # type: ignore[arg-type]


def steps(
    sequences: Sequences,
    *,
    seed: int,
    sample: int,
    batch: int,
    rank: int,
    world: int,
    vocab: int,
    documents: bool,
    pin: bool,
) -> Generator[tuple[np.ndarray, Batch], None, None]:
    """From sample number `sample` on, step after step: (numbers of all sequences of the batch, this rank's of them).

    A thread reads ahead. The rank's rows lie in the batch's order: row k is sample k * world + rank.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return

    def work() -> None:
        at = sample
        try:
            while not stop.is_set():
                numbers = sequences.order(np.arange(at, at + batch), seed)
                own = sequences.read(numbers[rank::world], vocab, documents)
                if sequences.inclusion is not None:
                    own = own._replace(weights=torch.from_numpy(sequences.weights(numbers[rank::world])))
                if pin:
                    own = pinned(own)
                put((numbers, own))
                at += batch
        except BaseException as e:
            put(e)

    thread = threading.Thread(target=work, daemon=True, name="read ahead")
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
