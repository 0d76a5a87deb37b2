"""Shards on disk, memory-mapped: tokens, loss masks and document starts of any sequence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import UNREADABLE, TrainerError

INCOMPLETE = "encode the corpus again, or copy the directory again if the copy is incomplete"


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
            file, mask = directory / f"{shard['name']}.bin", directory / f"{shard['name']}.loss"
            _check_size(file, shard["tokens"], dtype)
            if mask.exists():
                _check_size(mask, shard["tokens"], np.dtype(np.uint8))
            empty = not shard["tokens"]
            parts.append(np.empty(0, dtype) if empty else np.memmap(file, dtype, "r"))
            loss.append(np.memmap(mask, np.uint8, "r") if mask.exists() and not empty else None)
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
        """Concatenates [start, stop) over the shards; a shard without a part (no .loss file) gives ones."""
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
        """int64: position in the stream where each document begins, including empty ones."""
        starts = []
        for shard, base in zip(self.manifest["shards"], self.bounds, strict=False):
            starts.append(base + _document_starts(self.directory / f"{shard['name']}.idx"))
        return np.concatenate(starts) if starts else np.empty(0, np.int64)

    @cached_property
    def domains(self) -> tuple[list[str], np.ndarray]:
        """The names of the domains, and for each document the index of its domain."""
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
    found = f"the file has {file.stat().st_size:,} bytes" if file.exists() else "the file is missing"
    raise TrainerError(
        f"{found}, but the manifest lists {tokens:,} tokens of type {dtype.name}",
        where=str(file),
        fix=INCOMPLETE,
        code=UNREADABLE,
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
    except (OSError, ValueError) as e:
        raise TrainerError(
            f"the directory contains no complete shards: {e}",
            where=str(directory),
            fix="create them with `tinydata encode`, or, for a round, with `tinydata resample`",
            code=UNREADABLE,
        ) from None
    if "shards" not in manifest or manifest.get("options", {}).get("to", "megatron") != "megatron":
        raise TrainerError(
            f"the directory, written by tinydata {manifest.get('verb', '?')}, has no shards in the native format",
            where=str(directory),
            fix="use an output of `tinydata encode` without --to",
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


def _torn(file: Path, error: Exception) -> TrainerError:
    return TrainerError(
        f"the file cannot be read: {str(error)[:200]}", where=str(file), fix=INCOMPLETE, code=UNREADABLE
    )
