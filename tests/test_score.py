"""Scores of sequences: every number against a plain computation, the same everywhere, whatever was killed.

The scorer here is tests/unigram.py, which needs no torch; that of the trainer has its own tests.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import unigram

from tinydata import schema
from tinydata.engines.local import LocalEngine
from tinydata.guards import PERIOD, guards, rarity
from tinydata.score import Settings, score
from tinydata.sequences import Stream

T = 64
SCORER = "unigram:load"


@pytest.fixture(scope="module")
def stream(shards: Path) -> Stream:
    return Stream.open(str(shards))


@pytest.fixture(scope="module")
def shares(stream: Stream) -> np.ndarray:
    counts = np.bincount(stream.read(0, stream.tokens), minlength=stream.tokenizer["size"])
    return (counts + 1) / (counts + 1).sum()


@pytest.fixture(scope="module")
def model(shares: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(unigram.made(tmp_path_factory.mktemp("model") / "model", shares))


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many units in a small corpus as in a big one."""
    monkeypatch.setattr("tinydata.score.UNIT_TOKENS", (3_000, 3_000))


def settings(model: str, **more: Any) -> Settings:
    return Settings(model=model, scorer=SCORER, **more)


def table(scores: Path) -> pa.Table:
    """All rows, in the order of the manifest."""
    parts = json.loads((scores / "manifest.json").read_bytes())["parts"]
    return pa.concat_tables([pq.read_table(scores / p["name"]) for p in parts])


def content(directory: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    found.pop(".run.json", None)
    return found


# -- the numbers ------------------------------------------------------------------------------


def test_every_number(
    shards: Path, stream: Stream, shares: np.ndarray, model: str, tmp_path: Path, small_units: None
) -> None:
    """Row by row what a loop over the stream says."""
    manifest, _ = score(str(shards), str(tmp_path / "scores"), LocalEngine(1), settings(model))
    found = table(tmp_path / "scores")
    assert found.schema.equals(schema.SCORES)
    ids = stream.read(0, stream.tokens).astype(int)
    share = np.bincount(ids) / len(ids)
    documents = stream.documents(0, stream.tokens)
    total = (len(ids) - 1) // T
    assert len(manifest["parts"]) > 10
    assert found["sequence"].to_pylist() == list(range(total))
    for row in found.to_pylist():
        at = np.arange(row["sequence"] * T + 1, (row["sequence"] + 1) * T + 1)
        losses, rare = -np.log(shares[ids[at]]), -np.log(share[ids[at]])
        domains = Counter(documents.domains[documents.domain[d]] for d in documents.at(at))
        assert row["document"] == documents.at(at[:1] - 1)[0]
        assert domains[row["domain"]] == max(domains.values())
        assert (row["tokens"], row["status"], row["repeats"], row["unknown"]) == (T, "ok", 0, 0)
        assert row["nll"] == pytest.approx(losses.sum(), rel=1e-6)
        assert row["mean"] == pytest.approx(losses.mean(), rel=1e-6)
        assert row["max"] == pytest.approx(losses.max(), rel=1e-6)
        assert row["prior"] == pytest.approx(rare.mean(), rel=1e-5)
        assert row["prior_sd"] == pytest.approx(rare.std(), rel=1e-4)
        assert row["periodic"] == longest(ids[at].tolist())
    t = manifest["totals"]
    assert (t["sequences"], t["ok"], t["tokens"]) == (total, total, total * T)
    assert t["nll"] == pytest.approx(sum(found["nll"].to_pylist()))
    assert t["loss"] == pytest.approx(t["nll"] / t["tokens"])
    assert sum(d["tokens"] for d in manifest["domains"].values()) == t["tokens"]
    assert manifest["data"] == manifest["base"]
    assert manifest["base"]["fingerprint"] == stream.fingerprint
    assert manifest["seq_len"] == T
    assert manifest["round"] == 0


def longest(ids: list[int]) -> int:
    """The longest stretch that is a pattern of p <= PERIOD tokens at least twice."""
    best = 0
    for p in range(1, PERIOD + 1):
        for a in range(len(ids)):
            b = a + p
            while b < len(ids) and ids[b] == ids[b - p]:
                b += 1
            if b - a >= 2 * p:
                best = max(best, b - a)
    return best


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_guards(dtype: type) -> None:
    """Few ids, so that there are repetitions of every period; the first column is no target."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.integers(0, k, (60, 90)) for k in (1, 2, 3, 5, 50)]).astype(dtype)
    for r, p in enumerate(range(1, 16)):
        rows[-1 - r, 20:80] = np.tile(rows[-1 - r, :p], 60)[:60]
    counts = np.bincount(rows.ravel(), minlength=60)
    found = guards(rows, rarity(counts), 3)
    assert found.periodic.tolist() == [longest(r[1:].tolist()) for r in rows]
    assert found.unknown.tolist() == (rows[:, 1:] == 3).sum(axis=1).tolist()
    rare = -np.log(counts / counts.sum(), where=counts > 0, out=np.zeros(60))[rows[:, 1:]]
    assert np.allclose(found.prior, rare.mean(axis=1), rtol=1e-5)
    assert np.allclose(found.prior_sd, rare.std(axis=1), atol=1e-4)
    assert {p: int(found.periodic[-p]) for p in (13, 14)} == {13: 60, 14: longest(rows[-14, 1:].tolist())}


def test_ids_outside_of_the_counts_are_left_out() -> None:
    found = guards(np.array([[0, 1, 7, 1, -1]], np.int32), np.array([5.0, 2.0]), -1)
    assert (found.prior[0], found.prior_sd[0]) == (2.0, 0.0)
