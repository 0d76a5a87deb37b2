"""Directories that tinydata made -> what the page needs of them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata import curves, schema
from tinydata.errors import UNREADABLE, TinydataError
from tinydata.store import MANIFEST, Location, read_bytes, read_manifest, read_table

RUN = ".run.json"


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


def open_all(dirs: list[str]) -> tuple[list[CountsDir], list[VocabDir], list[ShardsDir]]:
    """Paths -> what they hold, in the order given; raises TinydataError for anything tinydata did not finish."""
    if not dirs:
        raise TinydataError(
            "nothing to report on", fix="name directories made by `tinydata count`, `compact` or `encode`"
        )
    found = [_open(path) for path in dict.fromkeys(str(Location.of(d)) for d in dirs)]
    counts = [f for f in found if isinstance(f, CountsDir)]
    vocabs = [f for f in found if isinstance(f, VocabDir)]
    return counts, vocabs, [f for f in found if isinstance(f, ShardsDir)]


def _open(path: str) -> CountsDir | VocabDir | ShardsDir:
    verb = _verb(path)
    if verb == "count":
        return _open_counts(path)
    if verb == "compact":
        return VocabDir(path, read_manifest(path, "compact"), _run(path))
    if verb == "encode":
        return ShardsDir(path, read_manifest(path, "encode"), _run(path))
    raise TinydataError(
        f"there is no report on what `tinydata {verb}` makes",
        where=path,
        fix="pass directories made by `tinydata count`, `compact` or `encode`",
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


def _run(path: str) -> dict[str, Any]:
    """Command and time of the run; only talk about the data, so a damaged file is as good as none."""
    where = Location.of(path) / RUN
    try:
        run = json.loads(read_bytes(where)) if where.exists() else {}
    except ValueError:
        return {}
    return run if isinstance(run, dict) else {}
