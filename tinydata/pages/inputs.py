"""Output directories of tinydata -> what the page needs of them: manifests, tables, samples of scores."""

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
SAMPLE = 1 << 22  # at most so many rows of SCORES are read for a page
_LOOKED_AT = ["domain", "status", "tokens", "mean", "periodic", "unknown", "prior", "prior_sd"]


class CountsDir(NamedTuple):
    """Output of `tinydata count`."""

    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]  # command, seconds, engine, workers, bytes; {} if they were not recorded
    per_id: np.ndarray  # int64[ids], without held-out documents
    domains: pa.Table  # DOMAINS
    quarantine: pa.Table  # QUARANTINE


class VocabDir(NamedTuple):
    """Output of `tinydata compact`."""

    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]


class ShardsDir(NamedTuple):
    """Output of `tinydata encode`."""

    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]


class ScoresDir(NamedTuple):
    """Output of `tinydata score`."""

    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]
    sample: pa.Table  # rows of SCORES with a loss: domain, tokens, mean, and the features that guards use


class RoundDir(NamedTuple):
    """Output of `tinydata resample`."""

    path: str
    manifest: dict[str, Any]
    run: dict[str, Any]
    examples: pa.Table  # EXAMPLES


Directory = CountsDir | VocabDir | ShardsDir | ScoresDir | RoundDir


class Inputs(NamedTuple):
    """All directories of the page, by kind, each kind in the order given."""

    counts: list[CountsDir]
    vocabs: list[VocabDir]
    shards: list[ShardsDir]
    scores: list[ScoresDir]
    rounds: list[RoundDir]

    @property
    def every(self) -> list[Directory]:
        return [*self.counts, *self.vocabs, *self.shards, *self.scores, *self.rounds]


def open_all(dirs: list[str]) -> Inputs:
    """Paths -> Inputs; raises TinydataError for a directory that no finished verb of tinydata wrote."""
    if not dirs:
        raise TinydataError("nothing to report on", fix=f"name output directories of {VERBS}")
    opened = [_open(path) for path in dict.fromkeys(str(Location.of(d)) for d in dirs)]
    return Inputs(
        [d for d in opened if isinstance(d, CountsDir)],
        [d for d in opened if isinstance(d, VocabDir)],
        [d for d in opened if isinstance(d, ShardsDir)],
        [d for d in opened if isinstance(d, ScoresDir)],
        [d for d in opened if isinstance(d, RoundDir)],
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
        f"a report cannot show the output of `tinydata {verb}`",
        where=path,
        fix=f"pass output directories of {VERBS}",
        code=UNREADABLE,
    )


def _verb(path: str) -> str:
    """The verb that wrote a directory; "count" if it has no manifest, since reading counts then raises a good error."""
    where = Location.of(path) / MANIFEST
    if (where.parent / "recipe.json").exists():
        raise TinydataError(
            "a report cannot show a training run",
            where=path,
            fix=f"plot its curve with `python -m trainer.curve {path}`; a report shows output directories of {VERBS}",
            code=UNREADABLE,
        )
    if not where.exists():
        return "count"
    try:
        return str(json.loads(read_bytes(where)).get("verb"))
    except (ValueError, AttributeError):
        raise TinydataError(
            "the manifest cannot be read as JSON",
            where=str(where),
            fix="copy the directory again, or recreate it with --force",
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
    """Rows with a loss from evenly spaced parts, SAMPLE rows or a little more in all."""
    parts = manifest["parts"]
    step = max(1, -(-sum(p["sequences"] for p in parts) // SAMPLE))
    tables = [read_table(Location.of(path) / p["name"], columns=_LOOKED_AT) for p in parts[::step]]
    rows = pa.concat_tables(tables) if tables else schema.SCORES.empty_table().select(_LOOKED_AT)
    return rows.filter(pc.equal(rows["status"].cast(pa.string()), "ok"))


def _run(path: str) -> dict[str, Any]:
    """Command and time of the run; {} if the file is missing or damaged, since it only describes the data."""
    where = Location.of(path) / RUN
    try:
        run = json.loads(read_bytes(where)) if where.exists() else {}
    except ValueError:
        return {}
    return run if isinstance(run, dict) else {}
