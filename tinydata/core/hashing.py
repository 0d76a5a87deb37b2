"""Hashes that are equal on every engine and machine: they select held-out documents and define the shuffled order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tinydata.core.kernels import buffers, cached, inlined

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / the golden ratio: the step of splitmix64


def hash_below(share: float) -> np.uint64:
    """share in [0, 1] -> uint64 bound such that this share of all hashes is below it."""
    return np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def document_hashes(batch: pa.RecordBatch) -> np.ndarray:
    """batch -> uint64[docs]: hash of doc_id, or of (file name, position) where it is null; equal on every engine."""
    ids = batch.column("doc_id")
    name = np.frombuffer(batch.schema.metadata[b"name"], np.uint8)
    out = np.empty(len(batch), np.uint64)
    _hash_positions(name, batch.column("position").to_numpy(), out)
    if ids.null_count < len(ids):
        offsets, data = buffers(ids)
        _hash_strings(data, offsets, ids.is_valid().to_numpy(zero_copy_only=False), out)
    return out


def held_out(batch: pa.RecordBatch, share: float) -> np.ndarray:
    """batch -> bool[docs]: true for documents that belong to the held-out share (--heldout)."""
    return document_hashes(batch) < hash_below(share)


@cached()
def _fnv(data, start, stop):
    """FNV-1a, 64 bits."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return h


@inlined()
def finish(h):
    """uint64 -> uint64: the finalizer of splitmix64, after which every output bit depends on every input bit."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@cached()
def _hash_positions(name, positions, out):
    base = _fnv(name, 0, len(name))
    for i in range(len(out)):
        out[i] = finish(base + np.uint64(positions[i]) * GOLDEN)


@cached()
def _hash_strings(data, offsets, valid, out):
    for i in range(len(out)):
        if valid[i]:
            out[i] = finish(_fnv(data, offsets[i], offsets[i + 1]))


@cached()
def shuffle_keys(hashes, seed):
    """hashes uint64[docs], seed uint64 -> sort keys uint64[docs]: a different order per seed (splitmix64)."""
    out = np.empty(len(hashes), np.uint64)
    for i in range(len(hashes)):
        out[i] = finish(hashes[i] + (seed + np.uint64(1)) * GOLDEN)
    return out
