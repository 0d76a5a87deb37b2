"""Drawing a round from scores that are made up: 100 M sequences against the clock, beside torch.multinomial and Spark.

torch draws from weights that are in memory already, at the most it takes (2^24); ours reads scores and writes a round.
Spark sorts the keys of the same files and takes as many (orderBy and limit), on a tenth of them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.place import Place
from benchmarks.table import Peak, Row

T = 2048
PART = 1 << 15  # rows in a file: what `score` writes
MANY, TORCH, SORTED, COPIED = 100_000_000, 1 << 24, 10_000_000, 1 << 17
DOMAINS = 8
WRITTEN: dict[str, Any] = {  # as `score` does
    "compression": "none",
    "use_dictionary": ["domain", "tokens", "status", "repeats", "periodic", "unknown"],
    "column_encoding": {"sequence": "DELTA_BINARY_PACKED", "document": "DELTA_BINARY_PACKED"},
}
GOAL = "<= 30"  # seconds on 2 cores


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    many, torch, few, copied = (int(n * place.scale) for n in (MANY, TORCH, SORTED, COPIED))
    out: list[Row] = []
    peaks: list[Peak] = []
    for n in (many, torch, few):
        process.call("benchmarks.resample:scores", f"{place.folder}/{n}", n)
    for n in (many, torch, few):
        run = _resample(place, str(n))
        ours = n / run.cpu / 1e6
        if n == many:
            goal = GOAL if place.scale == 1 else ""
            out.append(
                Row(f"resample {n / 1e6:.0f} M scores, keep half", run.wall, unit="s", goal=goal, note=_cost(run))
            )
            peaks.append(Peak(f"resample {n / 1e6:.0f} M scores, largest process", run.peak))
        elif n == torch:
            other = process.call("benchmarks.resample:multinomial", n).value
            name = f"resample {n / 1e6:.1f} M, all in / torch.multinomial, weights in memory"
            out.append(Row(name, ours, other, "M rows/CPU-s", ours / other, note=_cost(run)))
        else:
            spark = process.call("benchmarks.resample:sorting", f"{place.folder}/{n}", n // 2)
            note = f"{_cost(run)}; Spark {spark.cpu:.1f} CPU-s, {spark.value:.1f} s without start-up"
            name = f"resample {n / 1e6:.0f} M, all in / Spark orderBy + limit"
            out.append(
                Row(name, n / run.wall / 1e6, n / spark.value / 1e6, "M rows/s", spark.value / run.wall, note=note)
            )
        shutil.rmtree(f"{place.folder}/{n}")
    for order, goal in (("concatenated", ">= 100"), ("shuffled", "")):
        speed = process.call("benchmarks.resample:copying", place.folder, copied, order).value
        out.append(Row(f"materialize, {order}", speed, unit="M tokens/CPU-s", goal=goal))
    return out, peaks


def _resample(place: Place, name: str) -> process.Run:
    run = process.tinydata("resample", f"{place.folder}/{name}", "-o", f"{place.folder}/round", "-q")
    shutil.rmtree(f"{place.folder}/round")
    return run


def _cost(run: process.Run) -> str:
    return f"{run.cpu:.1f} CPU-s, {run.wall:.1f} s"


def scores(folder: str, n: int, base: dict[str, Any] | None = None) -> None:
    """SCORES of n sequences: losses are those of a million, over and over."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tinydata.core import schema

    where = Path(folder)
    where.mkdir()
    rng = np.random.default_rng(0)
    block = 1 << 20
    domain = np.repeat(rng.integers(0, DOMAINS, block // 8), 8)
    mean = (rng.normal(2.5, 0.5, block) + 0.1 * domain).astype(np.float32)
    columns = {
        "sequence": np.arange(block),
        "document": np.arange(block) // 3,
        "domain": np.array([f"domain {d}" for d in range(DOMAINS)])[domain],
        "tokens": np.full(block, T),
        "nll": mean.astype(float) * T,
        "mean": mean,
        "max": mean * 3,
        "status": np.full(block, "ok"),
        "repeats": np.ones(block, int),
        "periodic": rng.integers(0, 40, block),
        "unknown": np.zeros(block, int),
        "prior": rng.normal(7, 0.3, block),
        "prior_sd": rng.normal(2, 0.1, block),
    }
    whole = pa.table(columns).cast(schema.SCORES)
    parts = []
    for k, first in enumerate(range(0, n, PART)):
        size = min(PART, n - first)
        numbers = pa.array(np.arange(first, first + size))
        some = whole.slice(first % block, size).set_column(0, schema.SCORES.field(0), numbers)
        name = f"scores-{k:07d}.parquet"
        pq.write_table(some, where / name, **WRITTEN)
        parts.append({"name": name, "first": first, "sequences": size})
    base = base or {"path": "nowhere", "absolute": "/nowhere", "fingerprint": "", "tokens": n * T + 1}
    tokenizer = {"path": "nowhere", "family": "bpe", "size": 50_000, "fingerprint": ""}
    domains = {f"domain {d}": {} for d in range(DOMAINS)}
    facts = {"verb": "score", "seq_len": T, "round": 0, "base": base, "tokenizer": tokenizer, "domains": domains}
    (where / "manifest.json").write_text(json.dumps({**facts, "parts": parts}))


def multinomial(n: int) -> float:
    """torch.multinomial(replacement=False) of half of n weights -> M rows per CPU-second."""
    import torch

    torch.set_num_threads(1)
    weights = torch.exp(torch.randn(n, generator=torch.Generator().manual_seed(0)) * 0.5 + 2.5)
    return process.speed(lambda: (torch.multinomial(weights, n // 2, replacement=False), n)[1])


def sorting(folder: str, k: int) -> float:
    """Spark's own way, on all cores -> seconds."""
    from pyspark.sql import functions as f

    from tinydata.engines.spark import connect

    for name in process.ONE_CORE:
        os.environ.pop(name, None)
    session, _ = connect()
    session.conf.set("spark.sql.execution.topKSortFallbackThreshold", 1)  # its top-k holds all k in one heap: no memory
    frame = session.read.parquet(f"{folder}/*.parquet").select("sequence", "mean", "repeats")
    frame.limit(1).count()
    began = time.perf_counter()
    key = f.col("mean") - f.log(-f.log(f.rand(0)))
    top = frame.withColumn("key", key).orderBy(f.desc("key"), "sequence").limit(k)
    top.write.mode("overwrite").parquet(f"{folder}-sorted")
    took = time.perf_counter() - began
    session.stop()
    shutil.rmtree(f"{folder}-sorted")
    return took


def copying(folder: str, n: int, order: str) -> float:
    """Half of n sequences to new shards -> M tokens per CPU-second, without the drawing."""
    from tinydata.engines.local import LocalEngine
    from tinydata.verbs.resample.copy_shards import ShardLayout
    from tinydata.verbs.resample.plan import settings
    from tinydata.verbs.resample.verb import resample

    place = Path(folder) / f"copying-{order}"
    place.mkdir()
    base = _shards(place / "shards", n * T + 1)
    scores(str(place / "scores"), n, base)
    spent = {}
    for target in (ShardLayout(order=order), None, ShardLayout(order=order)):  # the first compiles
        began = process.cpu()
        made = resample(str(place / "scores"), str(place / "round"), LocalEngine(1), settings(), target=target)
        spent[target] = process.cpu() - began
        shutil.rmtree(place / "round")
    shutil.rmtree(place)
    return made["totals"]["tokens"] / (spent[ShardLayout(order=order)] - spent[None]) / 1e6


def _shards(where: Path, tokens: int) -> dict[str, Any]:
    """Shards of uint16, documents of some 1,000 tokens -> what a manifest says of them as base."""
    import numpy as np
    import pyarrow as pa

    from tinydata.core import schema
    from tinydata.core.location import Location
    from tinydata.formats.dataset import Stream
    from tinydata.formats.megatron import write
    from tinydata.formats.writing import Piece

    where.mkdir()
    rng = np.random.default_rng(0)
    shards, files, left = [], {}, tokens
    while left:
        size = min(left, 1 << 27)
        ends = np.append(np.arange(1_000, size, 1_000), size)
        lengths = np.diff(ends, prepend=0)
        labels = pa.table([[""] * len(lengths), ["web"] * len(lengths)], schema=schema.DOCUMENTS)
        ids = rng.integers(0, 50_000, size, dtype=np.uint16)
        name = f"shard-{len(shards):05d}"
        files |= write(Location.of(where), name, ids.dtype, False, iter([Piece(ids, None, lengths, labels)]))
        shards.append({"name": name, "documents": len(lengths), "tokens": size})
        left -= size
    tokenizer = {"path": "nowhere", "family": "bpe", "size": 50_000, "fingerprint": ""}
    facts = {"verb": "encode", "dtype": "uint16", "tokenizer": tokenizer, "shards": shards, "files": files}
    (where / "manifest.json").write_text(json.dumps(facts))
    return Stream.open(str(where)).facts
