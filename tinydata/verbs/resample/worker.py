"""Group of candidates -> its file of kept rows: the part of `resample` that runs on an engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinydata.core import schema
from tinydata.core.location import Location
from tinydata.engines.base import Tell
from tinydata.verbs.resample.candidates import REASONS, Candidates
from tinydata.verbs.resample.examples import HARDEST
from tinydata.verbs.resample.gumbel import BINS, choose, inclusion_of_rows, tally_ranges
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
    """One group -> its KEEP file; returns sums, and the hardest sequences that were kept and that were excluded."""
    candidates, key = candidates_with_keys(draw, group)
    rows = candidates.rows
    kept = np.empty(len(key), np.bool_)
    choose(key, rows.sequence, rows.domain, draw.stratum_of, draw.threshold, draw.last, kept)
    at = np.flatnonzero(kept)
    inclusion = np.empty(len(at), np.float32)
    inclusion_of_rows(candidates.loss, at, rows.domain, draw.stratum_of, draw.scales, draw.expected, inclusion)
    columns = [rows.sequence[at], inclusion, rows.repeats[at].astype(np.int32)]
    name = f"keep-{number:07d}.parquet"
    with (Location.of(place) / name).stream() as sink:
        pq.write_table(pa.table(columns, schema=schema.KEEP), sink, **_KEEP_OPTIONS)
    domains = len(draw.source.domains)
    raw = candidates.loss.view(np.uint32)
    sums = {
        "name": name,
        "file": sink.sum,
        "first": int(rows.sequence[0]),
        "sequences": len(at),
        "tokens": int(rows.tokens[at].sum(dtype=np.int64)),
        "loss": float(candidates.loss[at].astype(np.float64).sum()),
        "domains": np.bincount(rows.domain[at], minlength=domains).tolist(),
        "deciles": _ranges(raw, at, draw.deciles),
        "bars": _ranges(raw, at, draw.bars),
        "hardest": _hardest(candidates, kept),
    }
    tell(len(key) * ROW)
    return sums


def _ranges(raw: np.ndarray, at: np.ndarray, ends: np.ndarray) -> list[int]:
    """raw uint32[n]: bits of losses, rows at int64[k], ends int64[m - 1]: bins -> rows in each of m ranges."""
    counts = np.zeros(len(ends) + 1, np.int64)
    tally_ranges(raw, at, np.searchsorted(ends, np.arange(BINS)).astype(np.uint8), counts)
    return counts.tolist()


def _hardest(candidates: Candidates, kept: np.ndarray) -> dict[str, list[list[Any]]]:
    """{reason, "" for kept rows: [[sequence, domain, loss]] of the hardest, hardest first}."""
    rows = candidates.rows
    out = {}
    for code, reason in enumerate(REASONS):
        at = np.flatnonzero(kept if not code else candidates.reason == code)
        if reason == "no loss" or not len(at):
            continue
        loss = rows.loss[at]
        if len(at) > HARDEST:
            worst = np.flatnonzero(loss >= np.partition(loss, len(at) - HARDEST)[-HARDEST])
            at, loss = at[worst], loss[worst]
        best = at[np.argsort(-loss, kind="stable")[:HARDEST]].tolist()
        out[reason] = [[int(rows.sequence[i]), int(rows.domain[i]), float(rows.loss[i])] for i in best]
    return out
