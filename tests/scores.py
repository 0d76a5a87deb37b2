"""SCORES made up for tests and benchmarks: as `tinydata score` writes them, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.manifests import whole_manifest
from tinydata.core import schema

T = 64


def made(n: int, seed: int = 0, domains: tuple[str, ...] = ("books", "code", "web"), **columns: Any) -> dict[str, Any]:
    """n rows as columns, all of them ok; `columns` replace some."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(domains), n)
    mean = np.float32(columns.pop("mean", rng.normal(2.5, 0.5, n) + 0.2 * which))
    tokens = np.full(n, T)
    rows = {
        "sequence": np.arange(n),
        "document": np.arange(n) // 3,
        "domain": np.array(domains)[which],
        "tokens": tokens,
        "nll": mean.astype(np.float64) * tokens,
        "mean": mean,
        "max": mean * 2,
        "status": np.full(n, "ok"),
        "repeats": np.ones(n, np.int32),
        "periodic": np.zeros(n, np.int32),
        "unknown": np.zeros(n, np.int32),
        "prior": rng.normal(7, 0.3, n),
        "prior_sd": rng.normal(2, 0.1, n),
    }
    return {**rows, **columns}


def write(where: Path, rows: dict[str, Any], part: int = 1 << 15, **manifest: Any) -> Path:
    """Columns -> a directory of SCORES with `part` rows in a file."""
    where.mkdir(parents=True)
    arrays = [pa.array(np.asarray(rows[f.name])).cast(f.type) for f in schema.SCORES]
    lost = pa.array(np.asarray(rows["status"]) != "ok")
    nothing = {f.name: pa.scalar(None, f.type) for f in schema.SCORES}
    for k, f in enumerate(schema.SCORES):
        if f.name in ("nll", "mean", "max"):
            arrays[k] = pa.compute.if_else(lost, nothing[f.name], arrays[k])
    table = pa.table(arrays, schema=schema.SCORES)
    parts = []
    for k, at in enumerate(range(0, len(table), part)):
        some = table.slice(at, part)
        name = f"scores-{k:07d}.parquet"
        pq.write_table(some, where / name, compression="none", use_dictionary=["domain", "status"])
        parts.append({"name": name, "first": some["sequence"][0].as_py(), "sequences": len(some)})
    base = {
        "path": "shards",
        "absolute": str(where.parent / "shards"),
        "fingerprint": "f",
        "tokens": len(table) * T + 1,
    }
    facts = {
        "seq_len": T,
        "base": base,
        "data": base,
        "round": 0,
        "tokenizer": {"path": "nowhere", "fingerprint": "t", "size": 1000, "family": "bpe"},
        "domains": {d: {} for d in sorted(set(rows["domain"]))},
        "parts": parts,
    }
    (where / "manifest.json").write_text(json.dumps(whole_manifest("score", **{**facts, **manifest})))
    return where
