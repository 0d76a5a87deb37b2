"""Hashes that decide the same everywhere: which documents are held out, in which order they are shuffled."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import njit

from tinydata.core.kernels import buffers, inlined

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / the golden ratio: the step of splitmix64


def hash_below(share: float) -> np.uint64:
    """The bound below which lies this share of all hashes."""
    return np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def document_hashes(batch: pa.RecordBatch) -> np.ndarray:
    """uint64[docs]: of doc_id where there is one, else of (name, position). Same on every engine."""
    ids = batch.column("doc_id")
    name = np.frombuffer(batch.schema.metadata[b"name"], np.uint8)
    out = np.empty(len(batch), np.uint64)
    _hash_positions(name, batch.column("position").to_numpy(), out)
    if ids.null_count < len(ids):
        offsets, data = buffers(ids)
        _hash_strings(data, offsets, ids.is_valid().to_numpy(zero_copy_only=False), out)
    return out


def held_out(batch: pa.RecordBatch, share: float) -> np.ndarray:
    """bool[docs]: documents that are set aside at this --heldout share."""
    return document_hashes(batch) < hash_below(share)


@njit(cache=True)
def _fnv(data, start, stop):
    """FNV-1a, 64 bits."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return h


@inlined()
def finish(h):
    """The finalizer of splitmix64: every bit depends on every bit."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit(cache=True)
def _hash_positions(name, positions, out):
    base = _fnv(name, 0, len(name))
    for i in range(len(out)):
        out[i] = finish(base + np.uint64(positions[i]) * GOLDEN)


@njit(cache=True)
def _hash_strings(data, offsets, valid, out):
    for i in range(len(out)):
        if valid[i]:
            out[i] = finish(_fnv(data, offsets[i], offsets[i + 1]))


@njit(cache=True)
def shuffle_keys(hashes, seed):
    """hashes, seed uint64 -> uint64: another order for each seed. The mixing of splitmix64."""
    out = np.empty(len(hashes), np.uint64)
    for i in range(len(hashes)):
        out[i] = finish(hashes[i] + (seed + np.uint64(1)) * GOLDEN)
    return out
