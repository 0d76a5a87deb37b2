"""Shards -> batches. The order is a function of one number, so the whole state of reading is that number.

Shards are read as one long stream of tokens, in the manifest's order. Sequence i is tokens [iT, (i+1)T + 1):
T inputs, and the same moved by one as targets. Sample s of training is sequence order(s), a seeded
permutation per epoch computed on the spot. Who computes which samples of a batch depends on ranks and
micro-batches; which samples are in it does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.errors import UNREADABLE, TrainerError
from trainer.loss import IGNORE

RUN = 4  # consecutive sequences held out at one place: few edges, where a document may be on both sides


@dataclass(frozen=True)
class Shards:
    """A directory that `tinydata encode` or `resample` wrote."""

    directory: Path
    manifest: dict[str, Any]
    parts: list[np.ndarray]  # token ids of each shard, on disk
    loss: list[np.ndarray | None]  # 1 where a token bears loss; None: all do
    bounds: np.ndarray  # int64 [shards + 1]: first token of each in the stream

    @classmethod
    def open(cls, path: str | Path) -> Shards:
        directory = Path(path)
        manifest = read_manifest(directory)
        parts: list[np.ndarray] = []
        loss: list[np.ndarray | None] = []
        dtype = np.dtype(manifest["dtype"])
        for shard in manifest["shards"]:
            file, beside = directory / f"{shard['name']}.bin", directory / f"{shard['name']}.loss"
            _check_size(file, shard["tokens"], dtype)
            if beside.exists():
                _check_size(beside, shard["tokens"], np.dtype(np.uint8))
            empty = not shard["tokens"]
            parts.append(np.empty(0, dtype) if empty else np.memmap(file, dtype, "r"))
            loss.append(np.memmap(beside, np.uint8, "r") if beside.exists() and not empty else None)
        return cls(directory, manifest, parts, loss, np.cumsum([0] + [len(p) for p in parts]))

    @property
    def tokens(self) -> int:
        return int(self.bounds[-1])

    @property
    def vocab(self) -> int:
        return self.manifest["tokenizer"]["size"]

    @property
    def tokenizer(self) -> dict[str, Any]:
        """path, family, size, fingerprint"""
        return self.manifest["tokenizer"]

    @cached_property
    def fingerprint(self) -> str:
        """Of the tokens: the hashes of the shards' files."""
        names = [f"{s['name']}.{end}" for s in self.manifest["shards"] for end in ("bin", "loss")]
        hashes = [self.manifest["files"][n]["sha256"] for n in names if n in self.manifest["files"]]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]

    def read(self, start: int, stop: int) -> np.ndarray:
        """ids int64 [stop - start] of the stream"""
        return self._gather(self.parts, start, stop).astype(np.int64)

    def bears_loss(self, start: int, stop: int) -> np.ndarray | None:
        """bool [stop - start], or None where every token does."""
        if all(x is None for x in self.loss):
            return None
        return self._gather(self.loss, start, stop).astype(bool)

    def _gather(self, parts: Sequence[np.ndarray | None], start: int, stop: int) -> np.ndarray:
        """Of a shard that has none: ones."""
        first = int(np.searchsorted(self.bounds, start, side="right")) - 1
        pieces = []
        while start < stop:
            a = int(self.bounds[first])
            end = min(stop, int(self.bounds[first + 1]))
            part = parts[first]
            pieces.append(np.ones(end - start, np.uint8) if part is None else part[start - a : end - a])
            start, first = end, first + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    @cached_property
    def documents(self) -> np.ndarray:
        """int64: where each document begins in the stream, empty ones included."""
        starts = []
        for shard, base in zip(self.manifest["shards"], self.bounds, strict=False):
            starts.append(base + _document_starts(self.directory / f"{shard['name']}.idx"))
        return np.concatenate(starts) if starts else np.empty(0, np.int64)

    @cached_property
    def domains(self) -> tuple[list[str], np.ndarray]:
        """Names, and the number of each document's."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        labels = []
        for shard in self.manifest["shards"]:
            file = self.directory / f"{shard['name']}.docs.parquet"
            try:
                labels.append(pq.read_table(file, columns=["domain"])["domain"])
            except (OSError, pa.ArrowException) as e:
                raise _torn(file, e) from None
        every = pa.chunked_array([c for x in labels for c in x.chunks], pa.string()).fill_null("")
        found = every.combine_chunks().dictionary_encode()
        return found.dictionary.to_pylist(), found.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _check_size(file: Path, tokens: int, dtype: np.dtype) -> None:
    if file.exists() and file.stat().st_size == tokens * dtype.itemsize:
        return
    found = f"{file.stat().st_size:,} bytes" if file.exists() else "no file"
    raise TrainerError(
        f"{found}, where the manifest says {tokens:,} tokens of {dtype.name}",
        where=str(file),
        fix="encode the corpus again; a half-copied directory is not trained on",
        code=UNREADABLE,
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
    except (OSError, ValueError) as e:
        raise TrainerError(
            f"no finished shards here: {e}",
            where=str(directory),
            fix="make them: tinydata encode, or, of a round, tinydata resample",
            code=UNREADABLE,
        ) from None
    if "shards" not in manifest or manifest.get("options", {}).get("to", "megatron") != "megatron":
        raise TrainerError(
            f"made by {manifest.get('verb', '?')}, not shards in the native format",
            where=str(directory),
            fix="the trainer reads what `tinydata encode` writes without --to",
            code=UNREADABLE,
        )
    return manifest


def _document_starts(index: Path) -> np.ndarray:
    """Megatron's .idx (layout: core/datasets/indexed_dataset.py) -> int64: first token of each document."""
    try:
        data = index.read_bytes()
        sequences, documents = (int(x) for x in np.frombuffer(data, np.uint64, 2, 18))
        lengths = np.frombuffer(data, np.int32, sequences, 34).astype(np.int64)
        bounds = np.frombuffer(data, np.int64, documents, 34 + 12 * sequences)
    except (OSError, ValueError) as e:
        raise _torn(index, e) from None
    return np.concatenate([[0], np.cumsum(lengths)])[bounds[:-1]]


def permuted(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """index int64 in [0, size) -> where a permutation of [0, size), chosen by key, takes it.

    A Feistel network of six rounds on the least even number of bits that holds `size`; what falls outside
    walks on until it is inside, fewer than four times on average. Nothing is stored.
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


def _torn(file: Path, error: Exception) -> TrainerError:
    fix = "encode the corpus again; a half-copied directory is not trained on"
    return TrainerError(f"cannot be read: {str(error)[:200]}", where=str(file), fix=fix, code=UNREADABLE)


class Batch(NamedTuple):
    tokens: Tensor  # int64 [B, T]
    targets: Tensor  # int64 [B, T]; -100: no loss
    documents: Tensor | None  # int32 [B, T]: numbers, for masking
    weights: Tensor | None = None  # float32 [B]: of each row's loss


@dataclass(frozen=True)
class Sequences:
    """The sequences of a dataset that are trained on, and those held out.

    `kept`: what a round kept, as numbers of sequences; None: all. Held out is every so-many-th run of 4,
    over the whole stream, so each domain is in it; what is held out does not depend on `kept`.
    """

    shards: Shards
    length: int  # T
    holdout: int  # sequences; below 0: 0.5%, at most 512
    kept: np.ndarray | None = None
    inclusion: np.ndarray | None = None  # float32: the probability with which each of `kept`, sorted, was kept

    def __post_init__(self):
        if self.total < 2 or self.size < 1:
            raise TrainerError(
                f"{self.shards.tokens:,} tokens make {self.total} sequences of {self.length}",
                where=str(self.shards.directory),
                fix="use more data, a smaller --seq-len, or a smaller --holdout",
            )

    @property
    def total(self) -> int:
        return max(0, (self.shards.tokens - 1) // self.length)

    @cached_property
    def held(self) -> np.ndarray:
        """int64, sorted: numbers of the held-out sequences."""
        return held_out(self.total, self.holdout)

    @cached_property
    def _kept(self) -> np.ndarray | None:
        return None if self.kept is None else self.kept[self._trained]

    @cached_property
    def _trained(self) -> np.ndarray:
        """bool, of each kept one: not held out."""
        assert self.kept is not None
        return ~np.isin(self.kept, self.held)

    @property
    def size(self) -> int:
        """Sequences in one epoch."""
        return len(self._kept) if self._kept is not None else self.total - len(self.held)

    def order(self, samples: np.ndarray, seed: int) -> np.ndarray:
        """Samples, counted from the start of training -> numbers of sequences."""
        out = np.empty(len(samples), np.int64)
        epochs = samples // self.size
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = permuted(samples[here] % self.size, self.size, seed * 1_000_003 + int(epoch))
        if self._kept is not None:
            return self._kept[out]
        return out + np.searchsorted(self.held - np.arange(len(self.held)), out, side="right")

    @cached_property
    def _weights(self) -> np.ndarray:
        assert self.inclusion is not None
        inverse = 1 / self.inclusion.astype(np.float64)
        return (inverse / inverse[self._trained].mean()).astype(np.float32)

    def weights(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of kept sequences -> float32: 1 / inclusion, scaled so that its mean over those trained on is one.

        A loss weighted so has the mean, over what might have been kept, of the loss on all (Horvitz and Thompson).
        """
        assert self.kept is not None
        return self._weights[np.searchsorted(self.kept, numbers)]

    def read(self, numbers: np.ndarray, vocab: int, documents: bool = False) -> Batch:
        """Numbers of sequences -> what the model is fed. Raises TrainerError for an id the vocabulary has not."""
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
                fix="the shards were made with another tokenizer than the model",
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
