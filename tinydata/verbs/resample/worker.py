"""What runs on an engine: a group of candidates -> the rows of the round that are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinydata.core import schema
from tinydata.core.location import Location
from tinydata.engines.base import Tell
from tinydata.verbs.resample.candidates import REASONS, Judged
from tinydata.verbs.resample.examples import HARDEST
from tinydata.verbs.resample.gumbel import BINS, chances, taken, tally_parts
from tinydata.verbs.resample.passes import ROW
from tinydata.verbs.resample.plan import Draw
from tinydata.verbs.resample.threshold import candidates_with_keys

_KEEP_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["repeats"],
    "column_encoding": {"sequence": "DELTA_BINARY_PACKED", "inclusion": "BYTE_STREAM_SPLIT"},
    "write_statistics": ["sequence"],
}


def write_group(draw: Draw, place: str, group: int, number: int, tell: Tell) -> dict[str, Any]:
    """One group -> its KEEP file; returns sums, and the hardest of what was kept and of what was not."""
    found, key = candidates_with_keys(draw, group)
    rows = found.rows
    kept = np.empty(len(key), np.bool_)
    taken(key, rows.sequence, rows.domain, draw.stratum_of, draw.threshold, draw.last, kept)
    at = np.flatnonzero(kept)
    chance = np.empty(len(at), np.float32)
    chances(found.loss, at, rows.domain, draw.stratum_of, draw.scales, draw.expected, chance)
    columns = [rows.sequence[at], chance, rows.repeats[at].astype(np.int32)]
    name = f"keep-{number:07d}.parquet"
    with (Location.of(place) / name).stream() as sink:
        pq.write_table(pa.table(columns, schema=schema.KEEP), sink, **_KEEP_OPTIONS)
    domains = len(draw.source.domains)
    raw = found.loss.view(np.uint32)
    sums = {
        "name": name,
        "file": sink.sum,
        "first": int(rows.sequence[0]),
        "sequences": len(at),
        "tokens": int(rows.tokens[at].sum(dtype=np.int64)),
        "loss": float(found.loss[at].astype(np.float64).sum()),
        "domains": np.bincount(rows.domain[at], minlength=domains).tolist(),
        "deciles": _parts(raw, at, draw.deciles),
        "bars": _parts(raw, at, draw.bars),
        "hardest": _hardest(found, kept),
    }
    tell(len(key) * ROW)
    return sums


def _parts(raw: np.ndarray, at: np.ndarray, ends: np.ndarray) -> list[int]:
    """raw uint32[n]: bits of losses, at int64[k]: which, ends int64[m - 1]: bins -> how many there are in each of m."""
    counts = np.zeros(len(ends) + 1, np.int64)
    tally_parts(raw, at, np.searchsorted(ends, np.arange(BINS)).astype(np.uint8), counts)
    return counts.tolist()


def _hardest(found: Judged, kept: np.ndarray) -> dict[str, list[list[Any]]]:
    """{"" for kept, or the reason: [[sequence, domain, loss]] of the hardest}."""
    rows = found.rows
    out = {}
    for code, reason in enumerate(REASONS):
        at = np.flatnonzero(kept if not code else found.reason == code)
        if reason == "no loss" or not len(at):
            continue
        loss = rows.loss[at]
        if len(at) > HARDEST:
            worst = np.flatnonzero(loss >= np.partition(loss, len(at) - HARDEST)[-HARDEST])
            at, loss = at[worst], loss[worst]
        best = at[np.argsort(-loss, kind="stable")[:HARDEST]].tolist()
        out[reason] = [[int(rows.sequence[i]), int(rows.domain[i]), float(rows.loss[i])] for i in best]
    return out
