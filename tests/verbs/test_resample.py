"""Rounds: exactly as many as asked for, the same everywhere, as predicted, without junk; and what is copied of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import unigram
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from tests import scores as fake
from tinydata.cli.main import main
from tinydata.core import schema
from tinydata.core.errors import TinydataError
from tinydata.engines.local import LocalEngine
from tinydata.formats.corpus import plan, read
from tinydata.formats.dataset import Stream
from tinydata.verbs.resample import candidates
from tinydata.verbs.resample import gumbel as sampling
from tinydata.verbs.resample.copy_shards import ShardLayout
from tinydata.verbs.resample.estimate import estimate
from tinydata.verbs.resample.plan import Settings, settings
from tinydata.verbs.resample.verb import resample
from tinydata.verbs.score import plan as scoring
from tinydata.verbs.score import verb

LOCAL = LocalEngine(1)
N = 5_000


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many groups among few rows as among many."""
    monkeypatch.setattr(candidates, "GROUP", 700)


def kept(where: Path | str) -> np.ndarray:
    parts = json.loads((Path(where) / "manifest.json").read_bytes())["parts"]
    return np.concatenate([pq.read_table(Path(where) / p["name"])["sequence"].to_numpy() for p in parts])


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.name[0] != "."}


def told(how: Settings, rows: dict[str, Any]) -> np.ndarray:
    """What is to be kept, by sorting: no guards, no clipping, no mixture. Keys are those of the kernel."""
    can = rows["status"] == "ok"
    step = max(1, how.batch_tokens // fake.T)
    unit = {"sequence": rows["sequence"], "document": rows["document"], "batch": rows["sequence"] // step}[how.unit]
    _, place = np.unique(unit, return_inverse=True)
    nll = np.rint(np.where(can, rows["nll"], 0) * 65536)
    sums = [np.bincount(place, weights=np.where(can, x, 0)) for x in (nll, rows["tokens"])]
    loss = (sums[0] / 65536 / np.maximum(sums[1], 1))[place].astype(np.float32)
    loss = rows["mean"] if how.unit == "sequence" else loss
    key = np.empty(len(unit), np.int64)
    none = np.zeros(len(unit), np.int16)
    scale = sampling.scale_table([sampling.Scale(factor=1 / how.temperature)])
    seed = np.uint64(how.seed)
    sampling.keys(loss, (~can).astype(np.uint8), none, unit, np.zeros(1, np.int64), scale, seed, key)
    names, stratum = np.unique(rows["domain"], return_inverse=True)
    stratum = stratum if how.stratify == "domain" else np.zeros(len(unit), int)
    sizes = np.bincount(stratum[can], minlength=len(names)).tolist()
    wanted = how.tokens // fake.T if how.tokens else int(how.keep * sum(sizes) + 0.5)
    out = []
    for s, k in enumerate(sampling.allocate(sizes, sizes, wanted)):
        mine = np.flatnonzero(can & (stratum == s))
        out.append(rows["sequence"][mine[np.lexsort((rows["sequence"][mine], -key[mine]))[:k]]])
    return np.sort(np.concatenate(out))


def rows_with_gaps(n: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    status = np.where(rng.random(n) < 0.05, "held out", "ok")
    document = np.cumsum(rng.random(n) < 0.02)  # some of them span groups
    return fake.made(n, seed, status=status, document=document, sequence=np.cumsum(rng.integers(1, 3, n)))


@given_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([("sequence", "none"), ("sequence", "domain"), ("document", "none"), ("document", "domain"),
                     ("batch", "none")]),
    st.floats(0.002, 1), st.sampled_from([0.05, 1.0, 30.0]), st.integers(0, 5), st.sampled_from([50, 700, 9_999]),
)  # fmt: skip
def test_exactly_what_sorting_would_keep(
    tmp_path_factory: pytest.TempPathFactory,
    way: tuple[str, str],
    keep: float,
    temperature: float,
    seed: int,
    group: int,
) -> None:
    place = tmp_path_factory.mktemp("drawn")
    rows = rows_with_gaps(1_500, seed)
    fake.write(place / "scores", rows, part=311)
    how = Settings(
        keep=keep, unit=way[0], stratify=way[1], temperature=temperature, seed=seed, clip=(), exclude=(),
        batch_tokens=40 * fake.T,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "GROUP", group)
        made = resample(str(place / "scores"), str(place / "round"), LOCAL, how)
    found = kept(place / "round")
    assert made["kept"]["sequences"] == len(found) == int(keep * (rows["status"] == "ok").sum() + 0.5)
    assert found.tolist() == told(how, rows).tolist()
    for stratum in made["selection"]["strata"]:
        if 0 < stratum["keep"] < stratum["eligible"]:
            assert 1 <= stratum["last_unit"]["kept"] <= stratum["last_unit"]["of"]
            assert stratum["last_unit"]["of"] == 1 or way[0] != "sequence"
    assert made["kept"]["sha256"] == hashlib.sha256(found.tobytes()).hexdigest()
    shutil.rmtree(place)


def test_the_window_is_only_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_groups: None) -> None:
    """Windows that lie wrong, or hold more keys than are handed back, cost passes and change nothing."""
    fake.write(tmp_path / "scores", fake.made(N))
    how = Settings(exclude=(), keep=0.3)
    resample(str(tmp_path / "scores"), str(tmp_path / "right"), LOCAL, how)
    top = sampling.LIMIT

    for k, (low, high) in enumerate([(top - 5, top), (-top, 5 - top), (-top, top + 1), (0, 1)]):
        monkeypatch.setattr("tinydata.verbs.resample.threshold.COLLECTED", 20)
        monkeypatch.setattr(
            "tinydata.verbs.resample.threshold._expected_ranges",
            lambda p, a=low, b=high: (np.full(len(p.keep), a), np.full(len(p.keep), b)),
        )
        resample(str(tmp_path / "scores"), str(tmp_path / f"wrong-{k}"), LOCAL, how)
        assert (kept(tmp_path / f"wrong-{k}") == kept(tmp_path / "right")).all()


def test_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_with_gaps(N, 1)
    for k, (part, group) in enumerate([(400, 700), (400, 1 << 20), (5_000, 700), (77, 300)]):
        monkeypatch.setattr(candidates, "GROUP", group)
        where = fake.write(tmp_path / f"scores-{k}", rows, part=part)
        for unit in ("sequence", "document"):
            resample(str(where), str(tmp_path / f"{unit}-{k}"), LOCAL, settings(unit=unit))
            assert (kept(tmp_path / f"{unit}-{k}") == kept(tmp_path / f"{unit}-0")).all()


@pytest.mark.parametrize(
    ("workers", "partitions"), [(1, 2), (2, 7), pytest.param(0, 3, marks=pytest.mark.spark, id="spark")]
)
def test_the_same_bytes(
    workers: int, partitions: int, tmp_path: Path, small_groups: None, request: pytest.FixtureRequest
) -> None:
    scores = fake.write(tmp_path / "scores", rows_with_gaps(N, 2), part=400)
    engine = LocalEngine(workers) if workers else request.getfixturevalue("spark")
    resample(str(scores), str(tmp_path / "one"), LOCAL, settings(unit="document"))
    with engine.together():
        resample(str(scores), str(tmp_path / "other"), engine, settings(unit="document"), partitions=partitions)
    assert content(tmp_path / "one") == content(tmp_path / "other")
    assert len(json.loads((tmp_path / "one" / "manifest.json").read_bytes())["parts"]) == 7


def test_rows_out_of_order(tmp_path: Path) -> None:
    rows = fake.made(100)
    shuffled = {k: v[::-1] for k, v in rows.items()}
    for k, wrong in enumerate([shuffled, {**rows, "sequence": np.minimum(rows["sequence"], 90)}]):
        scores = fake.write(tmp_path / f"scores-{k}", wrong, part=100)
        with pytest.raises(TinydataError, match="not sorted by sequence"):
            resample(str(scores), str(tmp_path / f"round-{k}"), LOCAL, settings())
    scores = fake.write(tmp_path / "parts", rows, part=50)
    manifest = json.loads((scores / "manifest.json").read_bytes())
    manifest["parts"][1]["first"] = 49
    (scores / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TinydataError, match="not sorted by sequence"):
        resample(str(scores), str(tmp_path / "round"), LOCAL, settings())


@pytest.mark.slow
def test_more_than_multinomial_takes(tmp_path: Path) -> None:
    """2^24 + 1 sequences, of which torch.multinomial can draw none."""
    n, part = (1 << 24) + 1, 1 << 20
    scores = fake.write(tmp_path / "scores", fake.made(part), part=part)
    block = pq.read_table(scores / "scores-0000000.parquet")
    manifest = json.loads((scores / "manifest.json").read_bytes())
    manifest["parts"] = []
    for k, first in enumerate(range(0, n, part)):
        rows = min(part, n - first)
        numbers = pa.array(np.arange(first, first + rows))
        name = f"scores-{k:07d}.parquet"
        some = block.slice(0, rows).set_column(0, schema.SCORES.field(0), numbers)
        pq.write_table(some, scores / name, compression="none", use_dictionary=["domain", "status"])
        manifest["parts"].append({"name": name, "first": first, "sequences": rows})
    (scores / "manifest.json").write_text(json.dumps(manifest))
    made = resample(str(scores), str(tmp_path / "round"), LOCAL, settings(exclude=("none",), keep=0.25))
    numbers = kept(tmp_path / "round")
    assert len(numbers) == made["kept"]["sequences"] == (n + 2) // 4
    assert (np.diff(numbers) > 0).all()
    for d in made["selection"]["deciles"]:
        assert d["kept"] == pytest.approx(d["expected"], abs=0.003)


@pytest.mark.parametrize("more", [{}, {"temperature": 0.4, "zscore": True}, {"floor": 0.2, "stratify": "none"}])
def test_deciles_are_as_predicted(more: dict[str, Any], tmp_path: Path) -> None:
    rows = fake.made(1_000_000)
    scores = fake.write(tmp_path / "scores", rows, part=1 << 18)
    before = estimate(str(scores), LOCAL, settings(**more))
    made = resample(str(scores), str(tmp_path / "round"), LOCAL, settings(**more))
    for said, found in zip(before["deciles"], made["selection"]["deciles"], strict=True):
        assert said["expected"] == found["expected"]
        assert found["kept"] == pytest.approx(said["expected"], abs=0.005)
        assert said["sequences"] == pytest.approx(100_000, rel=0.1)
    for domain in made["selection"]["domains"].values():
        assert domain["kept"] == pytest.approx(domain["expected"], rel=0.005)
    assert made["selection"]["loss"]["kept"] == pytest.approx(before["loss"]["expected"], abs=0.003)
    histogram = made["selection"]["histogram"]
    assert (sum(histogram["before"]), sum(histogram["kept"])) == (1_000_000, 500_000)
    table = pa.concat_tables([pq.read_table(tmp_path / "round" / p["name"]) for p in made["parts"]])
    weighted = rows["mean"][table["sequence"].to_numpy()] / table["inclusion"].to_numpy()
    assert weighted.sum() / 1e6 == pytest.approx(rows["mean"].mean(), abs=0.01)  # Horvitz and Thompson's estimate
    assert table.schema.equals(schema.KEEP)


# -- guards -----------------------------------------------------------------------------------


def test_guards(tmp_path: Path) -> None:
    rows = fake.made(N)
    rng = np.random.default_rng(3)
    rows["periodic"][:100] = fake.T // 2
    rows["tokens"][100:200] = 5
    rows["nll"][100:200] = rows["mean"][100:200] * 5.0
    rows["unknown"][200:300] = 20
    rows["prior"][300:400] += 4
    rows["prior_sd"][400:500] -= 1.5
    rows["repeats"][500:600] = 3
    rows["periodic"][600:700] = rng.integers(2, fake.T // 2, 100)  # not long enough
    rows["status"] = np.where(np.arange(N) < 10, "nan", "ok")
    scores = fake.write(tmp_path / "scores", rows, part=999)
    made = resample(str(scores), str(tmp_path / "all"), LOCAL, settings(max_repeats=3, keep=0.99))
    excluded = {"no loss": 10, "periodic": 90, "short": 100, "unknown": 100, "prior": 200, "repeats": 100}
    assert made["selection"]["excluded"] == excluded
    assert kept(tmp_path / "all").tolist() == list(range(600, N))  # fewer than asked for: all of them, and it is said
    assert "all 4,400 eligible sequences" in made["selection"]["notes"][0]
    table = pq.read_table(tmp_path / "all" / "examples.parquet")
    assert table.schema.equals(schema.EXAMPLES)
    refused = table.filter(pa.compute.equal(table["kind"], "excluded")).to_pylist()
    assert sorted({r["reason"] for r in refused}) == ["periodic", "prior", "repeats", "short", "unknown"]
    assert len(refused) == 10
    best = {r: max(rows["mean"][a:b]) for r, a, b in (("short", 100, 200), ("prior", 300, 500), ("periodic", 10, 100))}
    for reason, loss in best.items():
        assert max(r["mean"] for r in refused if r["reason"] == reason) == pytest.approx(loss)
    hardest = table.filter(pa.compute.equal(table["kind"], "hardest kept"))["sequence"].to_pylist()
    assert hardest == (600 + np.argsort(-rows["mean"][600:], kind="stable")[:10]).tolist()
    some = resample(str(scores), str(tmp_path / "some"), LOCAL, settings(exclude=("unknown=0.5", "short")))
    assert some["selection"]["excluded"] == {"no loss": 10, "short": 100}
    none = resample(str(scores), str(tmp_path / "none"), LOCAL, settings(exclude=("none",)))
    assert none["selection"]["excluded"] == {"no loss": 10}
    for wrong in ("rude", "short=much"):
        with pytest.raises(TinydataError, match="unknown guard"):
            settings(exclude=(wrong,))
    with pytest.raises(TinydataError, match="no sequence would be kept"):
        resample(str(scores), str(tmp_path / "nothing"), LOCAL, settings(exclude=("short=2",)))


def test_priors_are_judged_by_their_domain(tmp_path: Path) -> None:
    """A domain whose ids are rarer is not junk; and of a handful of sequences nothing is known."""
    rows = fake.made(N, domains=("a", "b", "few"))
    domain = np.where(rows["domain"] == "few", "b", rows["domain"])
    domain[:20] = "few"
    rows["domain"] = domain
    rows["prior"] += np.where(domain == "b", 5.0, 0.0)
    rows["prior"][20] = 16  # far from either
    rows["prior"][10] = 20
    scores = fake.write(tmp_path / "scores", rows)
    found = estimate(str(scores), LOCAL, settings(exclude=("prior",)))
    assert found["excluded"] == {"prior": 1}
    prior = rows["prior"][domain == "a"]
    median = np.median(prior)
    far = 3 * 1.4826 * np.median(np.abs(prior - median))
    rows["domain"] = np.full(N, "a")
    rows["prior"] = np.resize(prior, N)
    found = estimate(str(fake.write(tmp_path / "other", rows)), LOCAL, settings(exclude=("prior=3",)))
    sd = rows["prior_sd"]
    out = np.abs(rows["prior"] - median) > far
    out |= np.abs(sd - np.median(sd)) > 3 * 1.4826 * np.median(np.abs(sd - np.median(sd)))
    assert found["excluded"]["prior"] == pytest.approx(out.sum(), abs=5)  # priors are rounded to 1/2048


def test_excess_loss(tmp_path: Path) -> None:
    rows, other = fake.made(N), fake.made(N, seed=9)
    other["status"] = np.where(np.arange(N) % 50 == 0, "nan", "ok")
    scores = fake.write(tmp_path / "scores", rows, part=300)
    reference = fake.write(tmp_path / "reference", other, part=777)
    how = settings("paper", unit="sequence")
    made = resample(str(scores), str(tmp_path / "round"), LOCAL, how, reference=str(reference))
    assert made["selection"]["excluded"] == {"no reference": 100}
    rest = np.flatnonzero(np.arange(N) % 50 > 0)
    excess = {k: v[rest] for k, v in rows.items()}
    excess["mean"] = rows["mean"][rest] - other["mean"][rest]
    assert kept(tmp_path / "round").tolist() == told(how._replace(tokens=N // 2 * fake.T), excess).tolist()
    (reference / "manifest.json").write_text((reference / "manifest.json").read_text().replace('"f"', '"g"'))
    with pytest.raises(TinydataError, match="different sequences"):
        estimate(str(scores), LOCAL, how, reference=str(reference))


def test_it_says_when_losses_hardly_matter(tmp_path: Path) -> None:
    scores = str(fake.write(tmp_path / "scores", fake.made(200_000)))
    (note,) = estimate(scores, LOCAL, settings("paper", batch_tokens=500 * fake.T))["notes"]
    assert "hardly different from a random selection" in note and "--unit sequence" in note
    assert not estimate(scores, LOCAL, settings("paper", unit="sequence"))["notes"]
    with pytest.raises(TinydataError, match="cannot be assigned to one stratum"):
        settings("paper", stratify="domain")


# -- killed -----------------------------------------------------------------------------------

_SLOW = """
import sys, time
from tinydata.engines.local import LocalEngine
from tinydata.verbs.resample import candidates, verb
from tinydata.verbs.resample.plan import settings
candidates.GROUP = 100
before = verb.write_group
def slow(*args):
    time.sleep(0.05)
    return before(*args)
slow.__module__, slow.__qualname__ = "__main__", "slow"
verb.write_group = slow
verb.resample(sys.argv[1], sys.argv[2], LocalEngine(1), settings())
"""


def test_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL while what is kept is written; the same command again: the same bytes."""
    monkeypatch.setattr(candidates, "GROUP", 100)
    scores = fake.write(tmp_path / "scores", rows_with_gaps(N, 4), part=100)
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(scores), str(tmp_path / "killed")])
    parts = tmp_path / ".killed.partial" / "parts"
    until = time.monotonic() + 60
    while len(list(parts.glob("keep-*.json"))) < 5 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {p.name for p in parts.glob("keep-*.json")}
    assert 5 <= len(done) < 50
    written = {p.name: p.stat().st_mtime_ns for p in parts.parent.glob("keep-*.parquet")}
    resample(str(scores), str(tmp_path / "killed"), LOCAL, settings())
    for name in done:
        file = name.replace(".json", ".parquet")
        assert (tmp_path / "killed" / file).stat().st_mtime_ns == written[file]
    resample(str(scores), str(tmp_path / "whole"), LOCAL, settings())
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


# -- shards -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCORES of the trainer's shards by a unigram model."""
    place = tmp_path_factory.mktemp("scored")
    stream = Stream.open(str(shards))
    counts = np.bincount(stream.read(0, stream.tokens), minlength=stream.tokenizer["size"]) + 1
    model = unigram.made(place / "model", counts / counts.sum())
    how = scoring.Settings(model=str(model), scorer="unigram:load", seq_len=fake.T)
    verb.score(str(shards), str(place / "scores"), LOCAL, how)
    return place / "scores"


def test_examples_are_text(scored: Path, shards: Path, text: list[str], tmp_path: Path) -> None:
    resample(str(scored), str(tmp_path / "round"), LOCAL, settings())
    rows = pq.read_table(tmp_path / "round" / "examples.parquet").to_pylist()
    corpus = "\n".join(text)
    inside = [r["text"].split("<|endoftext|>")[0].strip("\ufffd") in corpus for r in rows if r["text"]]
    assert len(rows) >= 10 and sum(inside) >= 0.7 * len(rows)
    moved = json.loads((scored / "manifest.json").read_bytes())
    moved["base"] |= {"path": "gone", "absolute": "/gone"}
    shutil.copytree(scored, tmp_path / "scores")
    (tmp_path / "scores" / "manifest.json").write_text(json.dumps(moved))
    resample(str(tmp_path / "scores"), str(tmp_path / "without"), LOCAL, settings())
    assert {r["text"] for r in pq.read_table(tmp_path / "without" / "examples.parquet").to_pylist()} == {""}
    with pytest.raises(TinydataError, match="are not at"):
        resample(str(tmp_path / "scores"), str(tmp_path / "copy"), LOCAL, settings(), target=ShardLayout())
    found = resample(str(tmp_path / "scores"), str(tmp_path / "told"), LOCAL, settings(), data=str(shards))
    assert pq.read_table(tmp_path / "told" / "examples.parquet").to_pylist() == rows
    assert found["kept"]["sequences"] == len(kept(tmp_path / "round"))


@pytest.mark.parametrize("order", ["concatenated", "shuffled"])
@pytest.mark.parametrize("shard_tokens", [1 << 27, 100 * fake.T])
def test_copied_sequences_are_the_same(
    order: str, shard_tokens: int, scored: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token, target for target but at seams; documents where they were, and where something was cut."""
    monkeypatch.setattr("tinydata.verbs.resample.copy_shards.PIECE", 37 * fake.T)
    target = ShardLayout("megatron", order, shard_tokens)
    made = resample(str(scored), str(tmp_path / "round"), LOCAL, settings(), target=target)
    old, new, numbers = Stream.open(str(shards)), Stream.open(str(tmp_path / "round")), kept(tmp_path / "round")
    total = len(numbers)
    assert new.total(fake.T) == total and new.tokens == total * fake.T + 1 == made["totals"]["tokens"]
    ours, theirs = new.rows(np.arange(total), fake.T), old.rows(numbers, fake.T)
    at = np.arange(total)
    if order == "shuffled":
        place = {row.tobytes(): i for i, row in enumerate(theirs[:, :-1])}
        at = np.array([place[row.tobytes()] for row in ours[:, :-1]])
        assert sorted(at.tolist()) == list(range(total)) and abs(np.corrcoef(at, np.arange(total))[0, 1]) < 0.2
    else:
        assert (ours[:, :-1] == theirs[:, :-1]).all()
    bears = new.targets_bear_loss(np.arange(total), fake.T)
    assert bears is not None and bears[:, :-1].all()
    follows = np.append(np.diff(numbers[at]) == 1, True)  # the last has its last target
    assert ours[:, 1:][bears].tolist() == theirs[at][:, 1:][bears].tolist()
    if order == "concatenated":
        assert (bears[:, -1] == follows).all()
    else:
        assert not bears[:-1, -1].any() and bears[-1, -1]
    for i in (0, 1, total // 2, total - 1):
        mine = new.documents(i * fake.T, (i + 1) * fake.T)
        was = old.documents(int(numbers[at[i]]) * fake.T, (int(numbers[at[i]]) + 1) * fake.T)
        inner = [(mine.starts - i * fake.T), (was.starts - numbers[at[i]] * fake.T)]
        assert [x[(x > 0) & (x < fake.T)].tolist() for x in inner[:1]] == [
            sorted(set(x[(x > 0) & (x < fake.T)].tolist())) for x in inner[1:]
        ]
        labels = [[d.domains[k] for k in d.domain[d.at(np.arange(s, s + fake.T))]] for d, s in
                  ((mine, i * fake.T), (was, int(numbers[at[i]]) * fake.T))]  # fmt: skip
        assert labels[0] == labels[1]
    assert sum(d["tokens"] for d in made["domains"].values()) == new.tokens
    if shard_tokens < 1 << 20 and order == "concatenated":
        assert len(made["shards"]) == -(-total // 100)


@pytest.mark.parametrize("to", ["parquet", "internevo", "llmc"])
def test_copied_in_any_format(to: str, scored: Path, tmp_path: Path) -> None:
    resample(str(scored), str(tmp_path / "native"), LOCAL, settings(), target=ShardLayout())
    made = resample(str(scored), str(tmp_path / to), LOCAL, settings(), target=ShardLayout(to))
    ids, masks = [], []
    names = [f["name"] for f in made["shards"]]
    for where in sorted(p for p in (tmp_path / to).iterdir() if p.name.split(".")[0] in names):
        if where.name.endswith((".docs.parquet", ".meta")):
            continue
        for split in plan([str(where)]).splits:
            for batch in read(split, lambda p, r, e, **lost: pytest.fail(r)):
                ids += np.abs(batch.column("ids").flatten().to_numpy()).tolist()
                if "mask" in batch.schema.names:
                    masks += batch.column("mask").flatten().to_pylist()
    native = Stream.open(str(tmp_path / "native"))
    assert ids == native.read(0, native.tokens).tolist()
    if to == "parquet":
        bears = native.bears_loss(0, native.tokens)
        assert bears is not None and masks == (~bears).tolist()


def test_the_trainer_reads_a_copy(scored: Path, shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the trainer's own reader")
    from trainer.data.order import Sequences
    from trainer.data.shards import Shards

    made = resample(str(scored), str(tmp_path / "round"), LOCAL, settings(), target=ShardLayout())
    new, old = (Sequences(Shards.open(p), fake.T, 0) for p in (tmp_path / "round", shards))
    numbers = kept(tmp_path / "round")
    assert new.total == len(numbers) == made["kept"]["sequences"]
    a, b = (s.read(n, 10_000, True) for s, n in ((new, np.arange(new.total)), (old, numbers)))
    assert (a.tokens == b.tokens).all()
    seam = a.targets == -100
    assert (a.targets == b.targets)[~seam].all() and not seam[:, :-1].any()


# -- junk -------------------------------------------------------------------------------------


def test_junk(shared: Path, tmp_path: Path) -> None:
    """0.5 % of sequences are random tokens. exp(loss) takes them all; with guards hardly one is left."""
    corpus = [str(shared / "corpora" / f"{n}.jsonl.zst") for n in ("en_rust_rfcs", "en_eltec_novels", "code_redis")]
    tokenizer = next(p for p in sorted((shared / "tokenizers" / "bytebpe").iterdir()) if "gpt2" in p.name.lower())
    where = tmp_path / "shards"
    run("encode", *corpus, "--vocab", str(tokenizer), "-o", str(where), "-q")
    manifest = json.loads((where / "manifest.json").read_bytes())
    stream, rng = Stream.open(str(where)), np.random.default_rng(0)
    counts = np.bincount(stream.read(0, stream.tokens), minlength=stream.tokenizer["size"]) + 1
    total = stream.total(128)
    junk = rng.choice(total, total // 200, replace=False)
    (shard,) = manifest["shards"]
    ids = np.fromfile(where / f"{shard['name']}.bin", manifest["dtype"])
    for i in junk.tolist():
        ids[i * 128 : (i + 1) * 128] = rng.integers(0, len(counts), 128)
    ids.tofile(where / f"{shard['name']}.bin")
    model = unigram.made(tmp_path / "model", counts / counts.sum())
    how = scoring.Settings(model=str(model), scorer="unigram:load", seq_len=128, rows=256)
    verb.score(str(where), str(tmp_path / "scores"), LOCAL, how)
    share = {}
    for name, draw in (("paper", settings("paper", unit="sequence", keep=0.1)), ("guarded", settings(keep=0.1))):
        resample(str(tmp_path / "scores"), str(tmp_path / name), LOCAL, draw)
        share[name] = float(np.isin(kept(tmp_path / name), junk).mean())
    print(f"junk among {total:,} sequences: 0.50 %, kept by paper {share['paper']:.2%}, guarded {share['guarded']:.2%}")
    assert share["paper"] > 0.04
    assert share["guarded"] < 0.005


# -- command line -----------------------------------------------------------------------------


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as e:
        main(list(args))
    assert not e.value.code or isinstance(e.value.code, int)
    return int(e.value.code or 0)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    fake.write(tmp_path / "scores", fake.made(N))
    fake.write(tmp_path / "scores-1", fake.made(N), round=1)
    (tmp_path / "tinydata.toml").write_text('[resample]\nscores = "scores"\nout = "round-1"\n')
    assert run("resample", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["expected"] == N // 2
    assert not (tmp_path / "round-1").exists()
    assert run("resample", "--keep", "0.2", "--workers", "1") == 0
    assert "kept 1,000 sequences" in capsys.readouterr().out
    assert run("resample", "--round", "1", "--tokens", str(77 * fake.T + 1), "--workers", "1") == 0
    made = json.loads((tmp_path / "round-2" / "manifest.json").read_bytes())
    assert (made["round"], made["kept"]["sequences"], made["scores"]["path"]) == (2, 77, "scores-1")
    assert run("resample", "--to", "parquet") == 2
    for wrong in (("--clip-quantile", "0.9,0.1"), ("--exclude", "rude"), ("--unit", "batch")):
        assert run("resample", *wrong, "-o", "other") == 1


@pytest.mark.parametrize("told", [("--batch-tokens", "4096"), ("--keep", "0.5", "--tokens", "4096")])
def test_options_that_would_be_ignored_are_refused(tmp_path: Path, told: tuple[str, ...]) -> None:
    assert run("resample", "scores", "-o", str(tmp_path / "round"), *told) == 2
