"""Scores of sequences: every number against a plain computation, the same everywhere, whatever was killed.

The scorer here is tests/unigram.py, which needs no torch; that of the trainer has its own tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import unigram

from tinydata.core import schema
from tinydata.core.errors import ENGINE, TinydataError
from tinydata.core.location import to_json
from tinydata.engines.local import LocalEngine
from tinydata.formats.dataset import Stream
from tinydata.verbs.score.features import PERIOD, features, rarity
from tinydata.verbs.score.plan import Settings, prepare
from tinydata.verbs.score.verb import score

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
    monkeypatch.setattr("tinydata.verbs.score.plan.UNIT_TOKENS", (3_000, 3_000))


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
    found = features(rows, rarity(counts), 3)
    assert found.periodic.tolist() == [longest(r[1:].tolist()) for r in rows]
    assert found.unknown.tolist() == (rows[:, 1:] == 3).sum(axis=1).tolist()
    rare = -np.log(counts / counts.sum(), where=counts > 0, out=np.zeros(60))[rows[:, 1:]]
    assert np.allclose(found.prior, rare.mean(axis=1), rtol=1e-5)
    assert np.allclose(found.prior_sd, rare.std(axis=1), atol=1e-4)
    assert {p: int(found.periodic[-p]) for p in (13, 14)} == {13: 60, 14: longest(rows[-14, 1:].tolist())}


def test_ids_outside_of_the_counts_are_left_out() -> None:
    found = features(np.array([[0, 1, 7, 1, -1]], np.int32), np.array([5.0, 2.0]), -1)
    assert (found.prior[0], found.prior_sd[0]) == (2.0, 0.0)


# -- what has no loss, and what is held out ---------------------------------------------------


def changed(shards: Path, where: Path, change: Callable[[np.ndarray], None], masked: np.ndarray | None = None) -> str:
    """A copy of shards whose stream `change` wrote to; masked bool[tokens]: those that bear no loss."""
    shutil.copytree(shards, where)
    manifest = json.loads((where / "manifest.json").read_bytes())
    bounds = np.cumsum([0] + [s["tokens"] for s in manifest["shards"]])
    names = [s["name"] for s in manifest["shards"]]
    ids = np.concatenate([np.fromfile(where / f"{n}.bin", manifest["dtype"]) for n in names])
    change(ids)
    for n, a, b in zip(names, bounds, bounds[1:], strict=False):
        ids[a:b].tofile(where / f"{n}.bin")
        if masked is not None:
            (~masked[a:b]).astype(np.uint8).tofile(where / f"{n}.loss")
            manifest["files"][f"{n}.loss"] = {"bytes": int(b - a), "sha256": "0" * 64}
    (where / "manifest.json").write_bytes(to_json(manifest))
    return str(where)


@pytest.fixture(scope="module")
def poisoned(shards: Path, stream: Stream, shares: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Shards and a model: 5 has an id that the model has not, 9 as last target (so 10 begins with it), 20 no targets,
    half of 21's are masked, 30 a loss that is infinite, 40 and 41 are held out; 50 ends with a hundred of one token."""
    root = tmp_path_factory.mktemp("poisoned")
    cut = len(shares) - 2

    def change(ids: np.ndarray) -> None:
        ids[(ids >= cut) | (ids == 1)] = 0
        ids[[5 * T + 7, 10 * T]] = cut + 1
        ids[30 * T + 30] = 1
        ids[50 * T + 10 : 51 * T + 1] = 77

    masked = np.zeros(stream.tokens, bool)
    masked[20 * T + 1 : 21 * T + 1] = True
    masked[21 * T + 1 : 21 * T + 33] = True
    data = changed(shards, root / "shards", change, masked)
    ids = Stream.open(data).read(0, stream.tokens)
    rare = shares[:cut].copy()
    assert (ids == 1).sum() == 1
    rare[1] = 0.0
    return [data, str(unigram.made(root / "model", rare, held=[40, 41]))]


POISON = {5: "id out of range", 9: "id out of range", 10: "id out of range", 20: "no targets", 30: "nan"}


def test_statuses(poisoned: list[str], tmp_path: Path, small_units: None) -> None:
    """What is poisoned says why; what lies beside it, in the same batch, is as it would be alone."""
    data, model = poisoned
    manifest, _ = score(data, str(tmp_path / "scores"), LocalEngine(1), settings(model))
    found = table(tmp_path / "scores").to_pylist()
    wanted = {**POISON, 40: "held out", 41: "held out"}
    assert {r["sequence"]: r["status"] for r in found if r["status"] != "ok"} == wanted
    assert manifest["statuses"] == {**Counter(wanted.values()), "ok": len(found) - len(wanted)}
    for row in found:
        assert (row["nll"] is None) == (row["mean"] is None) == (row["max"] is None) == (row["sequence"] in POISON)
    stream, shares = Stream.open(data), np.load(Path(model) / "shares.npy")
    for i in (4, 6, 8, 11, 19, 21, 22, 29, 31, 40):
        ids = stream.read(i * T + 1, i * T + T + 1)
        bears = stream.bears_loss(i * T + 1, i * T + T + 1)
        assert bears is not None
        assert found[i]["tokens"] == bears.sum() == (32 if i == 21 else 64)
        assert found[i]["nll"] == pytest.approx(-np.log(shares[ids[bears]]).sum(), rel=1e-6)
    assert found[20]["tokens"] == 0
    assert found[50]["periodic"] == 55
    ok = [r for r in found if r["status"] == "ok"]
    assert manifest["totals"]["ok"] == len(ok)
    assert manifest["totals"]["tokens"] == sum(r["tokens"] for r in ok)
    assert manifest["totals"]["loss"] == pytest.approx(sum(r["nll"] for r in ok) / sum(r["tokens"] for r in ok))
    held = [r["nll"] / T for r in found if r["status"] == "held out"]
    assert manifest["totals"]["held_out_loss"] == pytest.approx(np.mean(held))


def test_documents_reach_a_scorer_that_masks_them(
    shards: Path, stream: Stream, shares: np.ndarray, tmp_path: Path
) -> None:
    """The scorer adds 1 wherever the document changes among a sequence's inputs."""
    plain = str(unigram.made(tmp_path / "plain", shares))
    masking = str(unigram.made(tmp_path / "masking", shares, masks_documents=True))
    found = []
    for model in (plain, masking):
        score(str(shards), f"{model}-scores", LocalEngine(1), settings(model))
        found.append(np.array(table(Path(f"{model}-scores"))["nll"]))
    documents = stream.documents(0, stream.tokens)
    inputs = documents.at(np.arange(len(found[0]) * T)).reshape(-1, T)
    changes = (np.diff(inputs, axis=1) != 0).sum(axis=1)
    assert changes.any()
    assert np.allclose(found[1] - found[0], changes, atol=1e-4)


def test_unknown_tokens(shards: Path, model: str, stream: Stream, tmp_path: Path) -> None:
    """Counted where the tokenizer has an unknown token; shards of before it was noted have none."""
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    assert manifest["unknown"] == -1
    manifest["unknown"] = 10
    (copy / "manifest.json").write_bytes(to_json(manifest))
    score(str(copy), str(tmp_path / "scores"), LocalEngine(1), settings(model))
    unknown = table(tmp_path / "scores")["unknown"].to_numpy()
    ids = stream.read(1, len(unknown) * T + 1).reshape(-1, T)
    assert unknown.tolist() == (ids == 10).sum(axis=1).tolist()
    assert unknown.any()


# -- the same everywhere ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(poisoned: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of one worker."""
    out = tmp_path_factory.mktemp("plain") / "scores"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinydata.verbs.score.plan.UNIT_TOKENS", (3_000, 3_000))
        score(poisoned[0], str(out), LocalEngine(1), settings(poisoned[1]))
    return content(out)


@pytest.mark.parametrize("partitions", [1, 2, 7])
@pytest.mark.parametrize("engine", ["local-1", "local-2"], indirect=True)
def test_same_bytes(
    engine: Any, partitions: int, poisoned: list[str], plain: dict[str, bytes], tmp_path: Path, small_units: None
) -> None:
    out = tmp_path / "scores"
    _, workers = score(poisoned[0], str(out), engine, settings(poisoned[1]), partitions=partitions)
    assert content(out) == plain
    assert len(workers) == min(engine.slots, partitions)
    assert {w["loads"] for w in workers} == {1}
    assert sum(w["units"] for w in workers) == len(json.loads(plain["manifest.json"])["parts"])


@pytest.mark.spark
@pytest.mark.parametrize(
    "partitions", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(7, marks=pytest.mark.slow)]
)
def test_same_bytes_on_spark(
    spark: Any, partitions: int, poisoned: list[str], plain: dict[str, bytes], tmp_path: Path, small_units: None
) -> None:
    """Through mapInPandas; as many Python workers as Spark had at once, each of which loaded the model once."""
    from tinydata.engines.spark import SparkEngine

    engine = SparkEngine(pandas=True)
    engine._session.sparkContext.addPyFile(unigram.__file__)
    out = tmp_path / "scores"
    _, workers = score(poisoned[0], str(out), engine, settings(poisoned[1]), partitions=partitions)
    assert content(out) == plain
    assert 1 <= len(workers) <= min(2, partitions)
    assert {w["loads"] for w in workers} == {1}


def test_a_gpu_for_each_worker(poisoned: list[str], plain: dict[str, bytes], tmp_path: Path, small_units: None) -> None:
    """Two workers on a machine that says it has two: one each, and none for a worker that is told where."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIGRAM_DEVICES", "cuda:0 cuda:1")
        _, workers = score(poisoned[0], str(tmp_path / "a"), LocalEngine(2), settings(poisoned[1]))
        told = settings(poisoned[1], device="cpu")
        _, on_cpu = score(poisoned[0], str(tmp_path / "b"), LocalEngine(2), told)
    assert sorted(d for w in workers for d in w["devices"]) == ["cuda:0", "cuda:1"]
    assert {d for w in on_cpu for d in w["devices"]} == {"cpu"}
    assert content(tmp_path / "a") == content(tmp_path / "b") == plain


# -- killed and resumed -----------------------------------------------------------------------


def command(*args: str, **environment: str) -> dict[str, Any]:
    """`tinydata score` with the scorer of these tests, in a process group of its own."""
    code = "import sys; from tinydata.cli.main import main; main(sys.argv[1:])"
    path = os.pathsep.join([str(Path(unigram.__file__).parent), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-c", code, "score", "--scorer", SCORER, *args]
    return {"args": line, "env": {**os.environ, "PYTHONPATH": path, **environment}, "start_new_session": True}


@pytest.fixture(scope="module")
def long(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of 3 M tokens: those of the fixture forty times over. That makes twelve units."""
    out = tmp_path_factory.mktemp("long") / "shards"
    out.mkdir()
    manifest = json.loads((shards / "manifest.json").read_bytes())
    found = []
    for _ in range(40):
        for s in manifest["shards"]:
            name = f"shard-{len(found):05d}"
            for end in ("bin", "idx", "docs.parquet"):
                os.link(shards / f"{s['name']}.{end}", out / f"{name}.{end}")
                manifest["files"][f"{name}.{end}"] = manifest["files"][f"{s['name']}.{end}"]
            found.append({**s, "name": name})
    manifest["shards"] = found
    (out / "manifest.json").write_bytes(to_json(manifest))
    return str(out)


@pytest.mark.slow
def test_killed_and_run_again(long: str, shares: np.ndarray, tmp_path: Path) -> None:
    """SIGKILL half-way, then the same command: the same bytes, and what was done is not done again."""
    model = str(unigram.made(tmp_path / "model", shares, nap=0.001, seq_len=256))
    args = [long, "--model", model, "--rows", "16", "--workers", "2", "-o"]
    subprocess.run(**command(*args, str(tmp_path / "whole")), check=True, capture_output=True, timeout=120)
    process = subprocess.Popen(**command(*args, str(tmp_path / "killed")), stdout=subprocess.DEVNULL)
    parts, until = tmp_path / ".killed.partial" / "parts", time.monotonic() + 60
    while len(done := marks(parts)) < 4 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 4 <= len(done) < 12, "it was not killed half-way"
    before = marks(parts)
    tables = {p.name: p.stat().st_mtime_ns for p in parts.parent.glob("scores-*") if p.name[7:14] in str(list(before))}
    subprocess.run(**command(*args, str(tmp_path / "killed")), check=True, capture_output=True, timeout=120)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert len(tables) == len(before)
    assert {n: (tmp_path / "killed" / n).stat().st_mtime_ns for n in tables} == tables
    processes = json.loads((tmp_path / "killed" / ".run.json").read_bytes())["processes"]
    assert sum(p["units"] for p in processes) == 12
    assert {p["loads"] for p in processes} == {1}


def marks(parts: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in parts.glob("scores-*.json")} if parts.exists() else {}


# -- rounds, logged losses, forgetting --------------------------------------------------------


def made_round(where: Path, base: Stream, kept: list[int]) -> str:
    """A round that was not copied, as `resample` writes it."""
    where.mkdir()
    rows = {"sequence": kept, "inclusion": [0.5] * len(kept), "repeats": [i % 3 for i in kept]}
    pq.write_table(pa.table(rows).cast(schema.KEEP), where / "keep-0000000.parquet")
    manifest = {"verb": "resample", "round": 1, "seq_len": T, "base": base.facts, "files": {}}
    manifest["parts"] = [{"name": "keep-0000000.parquet", "sequences": len(kept)}]
    manifest["kept"] = {"sequences": len(kept), "tokens": len(kept) * T, "sha256": "1" * 64}
    (where / "manifest.json").write_bytes(to_json(manifest))
    return str(where)


def test_scores_of_a_round(shards: Path, stream: Stream, model: str, tmp_path: Path, small_units: None) -> None:
    """The kept sequences' rows are those of the shards' scores, numbers and all; they were trained on before."""
    kept = sorted(np.random.default_rng(0).permutation(stream.total(T))[:300].tolist())
    data = made_round(tmp_path / "round-1", stream, kept)
    score(str(shards), str(tmp_path / "scores"), LocalEngine(1), settings(model))
    manifest, _ = score(data, str(tmp_path / "scores-1"), LocalEngine(1), settings(model))
    every, some = table(tmp_path / "scores"), table(tmp_path / "scores-1")
    assert some.drop(["repeats"]).equals(every.take(pa.array(kept)).drop(["repeats"]))
    assert some["repeats"].to_pylist() == [i % 3 for i in kept]
    assert manifest["round"] == 1
    assert manifest["base"] == stream.facts
    assert (manifest["data"]["fingerprint"], manifest["data"]["tokens"]) == ("1" * 64, 300 * T)
    assert [p["first"] for p in manifest["parts"]] == some["sequence"].to_numpy()[:: -(-3_000 // T)].tolist()


@pytest.fixture
def run(stream: Stream, shares: np.ndarray, tmp_path: Path) -> tuple[Path, pa.Table]:
    """A run on the shards with its log: 24 steps of 50 sequences, one and a bit times over all but the first 8."""
    run = unigram.made(tmp_path / "run", shares, step=24, held=list(range(8)), losses=str(tmp_path / "run" / "losses"))
    recipe = {"data": {"fingerprint": stream.fingerprint, "directory": "shards"}, "model": {"seq_len": T}}
    (run / "recipe.json").write_text(json.dumps(recipe))
    (run / "losses").mkdir()
    order = np.random.default_rng(1).permutation(np.arange(8, stream.total(T)))
    rows = np.concatenate([order, order])[: 24 * 50]
    assert 50 * 24 - len(order) > 20
    logged = {
        "step": np.arange(len(rows)) // 50 + 1,
        "sequence": rows,
        "tokens": np.full(len(rows), T, np.int32),
        "nll": np.arange(len(rows)) * 0.5,
        "max": np.arange(len(rows), dtype=np.float32),
    }
    table = pa.table(logged)
    pq.write_table(table.slice(0, 500), run / "losses" / "step-00000010.parquet")
    pq.write_table(table.slice(500), run / "losses" / "step-00000024.parquet")
    return run, table


def test_logged_losses(
    shards: Path, stream: Stream, run: tuple[Path, pa.Table], tmp_path: Path, small_units: None
) -> None:
    """The last row of each sequence, and no model; the first eight were held out, and are in no row."""
    where, logged = run
    found, workers = score(str(shards), str(tmp_path / "scores"), LocalEngine(1), Settings(losses=str(where)))
    last = {r["sequence"]: r for r in logged.to_pylist()}
    times = Counter(logged["sequence"].to_pylist())
    assert max(times.values()) == 2
    for row in table(tmp_path / "scores").to_pylist():
        if row["sequence"] < 8:
            assert (row["status"], row["nll"], row["repeats"], row["tokens"]) == ("not trained", None, 0, T)
            continue
        then = last[row["sequence"]]
        assert (row["nll"], row["max"], row["status"]) == (then["nll"], then["max"], "ok")
        assert row["mean"] == pytest.approx(then["nll"] / T)
        assert row["repeats"] == times[row["sequence"]]
    assert found["statuses"] == {"not trained": 8, "ok": stream.total(T) - 8}
    assert found["logged_until"] == 24
    assert workers == []


def test_forgetting(shards: Path, run: tuple[Path, pa.Table], tmp_path: Path, small_units: None) -> None:
    """By tenth of the run: the mean of what was logged, and of the scores of the same sequences."""
    where, logged = run
    found, _ = score(str(shards), str(tmp_path / "scores"), LocalEngine(2), settings(str(where)))
    now = {r["sequence"]: r["nll"] for r in table(tmp_path / "scores").to_pylist()}
    last = {r["sequence"]: (k * 10 // len(logged), r["nll"]) for k, r in enumerate(logged.to_pylist())}
    for k, row in enumerate(found["forgetting"]):
        here = [(s, then) for s, (tenth, then) in last.items() if tenth == k]
        assert row["tenth"] == k + 1
        assert row["sequences"] == len(here)
        assert row["when_trained"] == pytest.approx(np.mean([then for _, then in here]) / T)
        assert row["now"] == pytest.approx(np.mean([now[s] for s, _ in here]) / T)
    scored = table(tmp_path / "scores").to_pylist()
    times = Counter(logged["sequence"].to_pylist())
    assert [r["repeats"] for r in scored] == [times[r["sequence"]] for r in scored]
    assert found["statuses"]["held out"] == 8


def test_a_log_beyond_the_checkpoint_is_left_out(shards: Path, run: tuple[Path, pa.Table], tmp_path: Path) -> None:
    where, _ = run
    facts = json.loads((where / "facts.json").read_text())
    (where / "facts.json").write_text(json.dumps({**facts, "step": 10}))
    found, _ = score(str(shards), str(tmp_path / "scores"), LocalEngine(1), settings(str(where)))
    assert found["logged_until"] == 10
    assert [r["sequences"] for r in found["forgetting"]] == [50] * 10


def test_a_run_without_a_log(shards: Path, run: tuple[Path, pa.Table], tmp_path: Path) -> None:
    """All but what it held out counts as trained on once, if it was trained on these shards."""
    where, _ = run
    shutil.rmtree(where / "losses")
    facts = json.loads((where / "facts.json").read_text())
    (where / "facts.json").write_text(json.dumps({**facts, "losses": ""}))
    found, _ = score(str(shards), str(tmp_path / "a"), LocalEngine(1), settings(str(where)))
    assert "forgetting" not in found
    repeats = table(tmp_path / "a")["repeats"].to_pylist()
    assert repeats == [0] * 8 + [1] * (len(repeats) - 8)
    recipe = json.loads((where / "recipe.json").read_text())
    recipe["data"]["fingerprint"] = "another"
    (where / "recipe.json").write_text(json.dumps(recipe))
    score(str(shards), str(tmp_path / "b"), LocalEngine(1), settings(str(where)))
    assert set(table(tmp_path / "b")["repeats"].to_pylist()) == {0}


# -- what a user may do wrong -----------------------------------------------------------------


def test_a_model_of_another_tokenizer(shards: Path, shares: np.ndarray, tmp_path: Path) -> None:
    other = {"fingerprint": "f" * 32, "path": "other.json", "size": 7}
    model = str(unigram.made(tmp_path / "model", shares, tokenizer=other))
    with pytest.raises(TinydataError, match=r"a different tokenizer than the shards: other\.json") as caught:
        prepare(str(shards), settings(model))
    assert "encode the corpus with the model's tokenizer" in caught.value.fix


@pytest.mark.parametrize(
    ("scorer", "what", "fix"),
    [
        ("needs_torch:load", "not installed: torch", r"pip install 'tinydata\[train\]'"),
        ("needs_torch_too:load", "no module 'needs_torch_too'", "MODULE:LOAD"),
        ("unigram:nothing", "module unigram has no function 'nothing'", "MODULE:LOAD"),
    ],
)
def test_scorers_that_are_not_there(
    scorer: str, what: str, fix: str, shards: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TinydataError, match=what) as caught:
        prepare(str(shards), Settings(model=model, scorer=scorer))
    assert re.search(fix, caught.value.fix)


def test_errors_of_the_trainer_are_ours(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing.py").write_text(
        "class E(Exception):\n    what, where, fix, code = 'gone', 'run', 'look', 3\ndef load(*args):\n    raise E()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TinydataError, match="gone") as caught:
        prepare(str(shards), Settings(model="run", scorer="failing:load"))
    assert (caught.value.where, caught.value.fix, caught.value.code) == ("run", "look", 3)


def test_a_gpu_without_room(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's error of that name; another error of the scorer's stays what it is."""
    (tmp_path / "large.py").write_text(
        "import unigram\n"
        "class OutOfMemoryError(RuntimeError): pass\n"
        "class Large(unigram.Unigram):\n"
        "    def __call__(self, *args):\n"
        "        raise (OutOfMemoryError if self.rows > 1 else KeyError)('no room')\n"
        "load = Large\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = str(unigram.made(tmp_path / "model", np.ones(3_000)))
    with pytest.raises(TinydataError, match="memory is too small: no room") as caught:
        score(str(shards), str(tmp_path / "a"), LocalEngine(1), Settings(model=model, scorer="large:load"))
    assert "fewer --rows" in caught.value.fix
    with pytest.raises(KeyError, match="no room"):
        score(str(shards), str(tmp_path / "b"), LocalEngine(1), Settings(model=model, scorer="large:load", rows=1))


def test_a_log_of_other_shards(shards: Path, run: tuple[Path, pa.Table], tmp_path: Path) -> None:
    where, _ = run
    with pytest.raises(TinydataError, match="the run's sequences have 64 tokens, not 32"):
        prepare(str(shards), Settings(losses=str(where), seq_len=32))
    data = changed(shards, tmp_path / "other", lambda ids: None, np.zeros(Stream.open(str(shards)).tokens, bool))
    with pytest.raises(TinydataError, match="trained on other shards"):
        prepare(data, Settings(losses=str(where)))
    shutil.rmtree(where / "losses")
    with pytest.raises(TinydataError, match="logged no losses") as caught:
        score(str(shards), str(tmp_path / "scores"), LocalEngine(1), Settings(losses=str(where)))
    assert "--log-sequence-loss" in caught.value.fix
    (where / "recipe.json").unlink()
    with pytest.raises(TinydataError, match=r"recipe\.json cannot be read"):
        prepare(str(shards), Settings(losses=str(where)))


def test_a_run_that_goes_on_meanwhile(shards: Path, run: tuple[Path, pa.Table], tmp_path: Path) -> None:
    """A worker that finds another step than was planned with."""
    where, _ = run
    prepared = prepare(str(shards), settings(str(where)))
    facts = json.loads((where / "facts.json").read_text())
    (where / "facts.json").write_text(json.dumps({**facts, "step": 30}))
    with pytest.raises(TinydataError, match="newer checkpoint since scoring began"):
        score(str(shards), str(tmp_path / "scores"), LocalEngine(1), settings(str(where)), prepared=prepared)


def test_too_few_tokens(shards: Path, model: str) -> None:
    with pytest.raises(TinydataError, match=r"75,\d+ tokens are too few for one sequence of 100000"):
        prepare(str(shards), settings(model, seq_len=100_000))


# -- the command ------------------------------------------------------------------------------


def test_the_command(shards: Path, run: tuple[Path, pa.Table], tmp_path: Path) -> None:
    """Names of a workspace; a plan first; a table of domains, statuses and what was forgotten."""
    where, _ = run
    toml = f'[score]\nshards = "{shards}"\nmodel = "{where}"\nout = "scores"\n'
    (tmp_path / "tinydata.toml").write_text(toml)
    options: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
    planned = subprocess.run(**command("--dry-run"), **options)
    assert planned.returncode == 0, planned.stderr
    assert re.match(
        r"1,178 sequences of 64 tokens in \d shards, 1 unit of work\nabout .* on one worker", planned.stdout
    )
    assert not (tmp_path / "scores").exists()
    done = subprocess.run(**command(), **options)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^code +[\d,]+ +[\d,]+ +\d\.\d{3}$", done.stdout, re.M)
    assert "1,178 sequences of 64 tokens: 8 held out, 1,170 ok" in done.stdout
    assert re.search(r"^ +10 +\d+ +\d+\.\d{3} +\d\.\d{3} +-\d+\.\d{3} ", done.stdout, re.M)
    assert "forgetting" in json.loads((tmp_path / "scores" / "manifest.json").read_bytes())
    logged = subprocess.run(**command("--losses", str(where), "-o", "logged", "--json"), **options)
    assert logged.returncode == 0, logged.stderr
    assert json.loads(logged.stdout)["statuses"] == {"not trained": 8, "ok": 1170}
    (tmp_path / "run-2").symlink_to(where)
    made_round(tmp_path / "round-2", Stream.open(str(shards)), [10, 20, 30])
    second = subprocess.run(**command("--round", "2", "--json"), **options)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["totals"]["sequences"] == 3
    assert table(tmp_path / "scores-2")["repeats"].to_pylist() == [1 + 1, 2 + 1, 0 + 1]
    both = subprocess.run(**command("--losses", str(where), "--model", str(where)), **options)
    assert both.returncode == 2
    assert "pass only one" in both.stderr


# -- Spark and its GPUs -----------------------------------------------------------------------


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["spark.task.resource.gpu.amount", "spark.executor.resource.gpu.amount"])
def test_gpus_are_not_asked_of_a_session_on_this_machine(
    submit: Callable[..., subprocess.CompletedProcess[str]], name: str, shards: Path, model: str, tmp_path: Path
) -> None:
    """Spark would wait for ever, without a word."""
    done = submit("local[2]", "--conf", f"{name}=1", args=[str(shards), "--model", model, "-o", str(tmp_path / "s")])
    assert done.returncode == ENGINE, done.stderr
    said = done.stdout + done.stderr  # spark-submit puts what Python says to stderr on stdout
    assert f"error: {name} is set, but a local Spark session (local[2]) cannot assign GPUs" in said
    assert "fix:   remove it for a local session" in said


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("master", "gpus", "devices"), [("local-cluster[2,1,2048]", 1, 1), ("local-cluster[1,2,2048]", 2, 2)]
)
def test_executors_with_gpus(
    master: str,
    gpus: int,
    devices: int,
    submit: Callable[..., subprocess.CompletedProcess[str]],
    shares: np.ndarray,
    long: str,
    tmp_path: Path,
) -> None:
    """Two workers, each with a script that finds two GPUs: two machines give out the first of theirs, one both of its
    own. A worker loads the model once for each GPU that it is given."""
    script = tmp_path / "two_gpus.sh"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0", "1"]}\'\n')
    script.chmod(0o755)
    confs = [f"spark.executor.resource.gpu.amount={gpus}", "spark.task.resource.gpu.amount=1"]
    confs += ["spark.worker.resource.gpu.amount=2", "spark.speculation=false"]
    confs += [f"spark.{who}.resource.gpu.discoveryScript={script}" for who in ("worker", "executor")]
    model = str(unigram.made(tmp_path / "model", shares, nap=0.02))
    score(long, str(tmp_path / "local"), LocalEngine(2), settings(model, seq_len=256, rows=16))
    args = [long, "--model", model, "--seq-len", "256", "--rows", "16", "-o", str(tmp_path / "scores")]
    options = [o for c in confs for o in ("--conf", c)]
    done = submit(master, *options, args=args, UNIGRAM_DEVICES="cuda:0 cuda:1")
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "scores") == content(tmp_path / "local")
    processes = json.loads((tmp_path / "scores" / ".run.json").read_bytes())["processes"]
    assert len(processes) == 2
    assert len({d for p in processes for d in p["devices"]}) == devices
    assert all(p["loads"] == len(p["devices"]) for p in processes), processes
    assert sum(p["units"] for p in processes) == 12


@pytest.fixture(scope="module")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(master, options, args=arguments of score) -> `spark-submit jobs/score.py …`, in a process of its own."""
    pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'tinydata[spark]'")
    from tinydata.engines.spark import java

    try:
        home = java()
    except TinydataError as e:
        pytest.skip(f"{e.what}: {e.fix}")
    spark_home = Path(pyspark.__file__).parent
    job = Path(__file__).parents[2] / "jobs" / "score.py"
    elsewhere = tmp_path_factory.mktemp("driver")

    def run(master: str, *options: str, args: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        line = [spark_home / "bin" / "spark-submit", "--master", master, *options, job, "--scorer", SCORER, *args]
        environment = {**command(**more)["env"], "PYSPARK_PYTHON": sys.executable}
        environment |= {"JAVA_HOME": home} if home else {}
        return subprocess.run(line, env=environment, cwd=elsewhere, capture_output=True, text=True, timeout=300)

    before = set(spark_home.glob("work/*"))
    yield run
    for left in set(spark_home.glob("work/*")) - before:  # local-cluster leaves its executors' logs there
        shutil.rmtree(left)
