"""Directories that tinydata made -> what the page needs of them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core import schema
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes, read_table
from tinydata.core.output import MANIFEST, read_manifest
from tinydata.pages import curves

RUN = ".run.json"
VERBS = "`tinydata count`, `compact`, `encode`, `score` or `resample`"
SAMPLE = 1 << 22  # rows of SCORES that a page is drawn from
_LOOKED_AT = ["domain", "status", "tokens", "mean", "periodic", "unknown", "prior", "prior_sd"]


class CountsDir(NamedTuple):
    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]  # command, seconds, engine, workers, bytes; {} if nobody wrote them down
    per_id: np.ndarray  # int64[ids], held-out documents left out
    domains: pa.Table  # DOMAINS
    quarantine: pa.Table  # QUARANTINE


class VocabDir(NamedTuple):
    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]


class ShardsDir(NamedTuple):
    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]


class ScoresDir(NamedTuple):
    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]
    sample: pa.Table  # rows of SCORES with a loss: domain, tokens, mean, and what guards look at


class RoundDir(NamedTuple):
    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]
    examples: pa.Table  # EXAMPLES


Directory = CountsDir | VocabDir | ShardsDir | ScoresDir | RoundDir


class Inputs(NamedTuple):
    """What the page is about, each kind in the order given."""

    counts: list[CountsDir]
    vocabs: list[VocabDir]
    shards: list[ShardsDir]
    scores: list[ScoresDir]
    rounds: list[RoundDir]

    @property
    def every(self) -> list[Directory]:
        return [*self.counts, *self.vocabs, *self.shards, *self.scores, *self.rounds]


def open_all(dirs: list[str]) -> Inputs:
    """Paths -> what they hold; raises TinydataError for anything tinydata did not finish."""
    if not dirs:
        raise TinydataError("nothing to report on", fix=f"name directories made by {VERBS}")
    found = [_open(path) for path in dict.fromkeys(str(Location.of(d)) for d in dirs)]
    return Inputs(
        [f for f in found if isinstance(f, CountsDir)],
        [f for f in found if isinstance(f, VocabDir)],
        [f for f in found if isinstance(f, ShardsDir)],
        [f for f in found if isinstance(f, ScoresDir)],
        [f for f in found if isinstance(f, RoundDir)],
    )


def _open(path: str) -> Directory:
    verb = _verb(path)
    if verb == "count":
        return _open_counts(path)
    if verb == "compact":
        return VocabDir(path, read_manifest(path, "compact"), _run(path))
    if verb == "encode":
        return ShardsDir(path, read_manifest(path, "encode"), _run(path))
    if verb == "score":
        manifest = read_manifest(path, "score")
        return ScoresDir(path, manifest, _run(path), _sample(path, manifest))
    if verb == "resample":
        examples = Location.of(path) / "examples.parquet"
        table = read_table(examples) if examples.exists() else schema.EXAMPLES.empty_table()
        return RoundDir(path, read_manifest(path, "resample"), _run(path), table)
    raise TinydataError(
        f"there is no report on what `tinydata {verb}` makes",
        where=path,
        fix=f"pass directories made by {VERBS}",
        code=UNREADABLE,
    )


def _verb(path: str) -> str:
    """Which verb made the directory. Where nothing says so, "count": reading it as that gives the right error."""
    where = Location.of(path) / MANIFEST
    if not where.exists():
        return "count"
    try:
        return str(json.loads(read_bytes(where)).get("verb"))
    except (ValueError, AttributeError):
        raise TinydataError(
            "the manifest cannot be read as JSON",
            where=str(where),
            fix="copy the directory again, or make it anew with --force",
            code=UNREADABLE,
        ) from None


def _open_counts(path: str) -> CountsDir:
    manifest = read_manifest(path, "count")
    where = Location.of(path)
    count = curves.per_id(read_table(where / "counts.parquet"), manifest["tokenizer"]["size"])
    bad = where / "quarantine.parquet"
    quarantine = read_table(bad) if bad.exists() else schema.QUARANTINE.empty_table()
    return CountsDir(path, manifest, _run(path), count, read_table(where / "domains.parquet"), quarantine)


def _sample(path: str, manifest: dict[str, Any]) -> pa.Table:
    """Rows with a loss, of as many parts, spread evenly, as have SAMPLE rows together."""
    parts = manifest["parts"]
    step = max(1, -(-sum(p["sequences"] for p in parts) // SAMPLE))
    tables = [read_table(Location.of(path) / p["name"], columns=_LOOKED_AT) for p in parts[::step]]
    rows = pa.concat_tables(tables) if tables else schema.SCORES.empty_table().select(_LOOKED_AT)
    return rows.filter(pc.equal(rows["status"].cast(pa.string()), "ok"))


def _run(path: str) -> dict[str, Any]:
    """Command and time of the run; only talk about the data, so a damaged file is as good as none."""
    where = Location.of(path) / RUN
    try:
        run = json.loads(read_bytes(where)) if where.exists() else {}
    except ValueError:
        return {}
    return run if isinstance(run, dict) else {}
