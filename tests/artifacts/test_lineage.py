"""What an artifact was produced from: a whole chain on disk, and what of it has changed or is missing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scores import made as rows
from tests.scores import write as write_scores
from tinydata.artifacts.artifact import fingerprints, open_artifact
from tinydata.artifacts.lineage import lineage
from tinydata.artifacts.listing import listing
from tinydata.core.errors import TinydataError
from tinydata.engines.local import LocalEngine
from tinydata.verbs.compact.plan import Goal
from tinydata.verbs.compact.verb import compact
from tinydata.verbs.encode.plan import Settings
from tinydata.verbs.encode.verb import encode
from tinydata.verbs.resample.plan import settings
from tinydata.verbs.resample.verb import resample

SHAPE = {"vocab": 300, "width": 64, "depth": 2, "heads": 2, "seq_len": 64}
TRAIN = {"data": "shards", "out": "run", "init": "", "kept": "", "steps": 8, "batch_tokens": 256}


@pytest.fixture(scope="module")
def whole(text: list[str], byte_bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus -> counts -> vocab -> shards -> start -> run -> scores -> round-1 -> run-1 -> model, in a workspace."""
    from tinydata.verbs.count import plan as count
    from tinydata.verbs.count import verb

    home = tmp_path_factory.mktemp("lineage") / "workspace"
    (home / "corpus").mkdir(parents=True)
    for k in range(3):
        lines = [json.dumps({"text": t, "domain": str(k)}) for t in text[k::3]]
        (home / "corpus" / f"{k}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shutil.copytree(byte_bpe / "gpt2", home / "big")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        one = LocalEngine(1)
        verb.count(["corpus"], "big", "counts", one, count.Settings(heldout=0.1))
        compact("counts", "big", "vocab", Goal(vocab=600))
        encode(["corpus/*.jsonl"], "vocab", "shards", one, Settings())
        weights(Path("source"), 1)
        start()
        trained("run", {"init": "start"}, {"path": "start", "weights": print_of("start", "weights")}, step=8)
        scored()
        resample("scores", "round-1", one, settings())
        again()
        exported()
    return home


@pytest.fixture
def chain(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the workspace, which is the working directory."""
    monkeypatch.chdir(shutil.copytree(whole, tmp_path / "workspace"))
    yield Path(".")


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def print_of(path: str, kind: str) -> str:
    artifact = open_artifact(path)
    assert artifact
    return fingerprints(artifact)[kind]


def weights(where: Path, seed: int) -> None:
    put(where / "config.json", {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 128, "vocab_size": 300})
    (where / "model.safetensors").write_bytes(bytes([seed]) * 200_000)


def start() -> None:
    """As trainer.inherit writes it."""
    weights(Path("start"), 2)
    facts = {"settings": {"source": "source", "vocab": "vocab", "data": "shards", "method": "l2"}, "target": SHAPE}
    facts |= {"source": {**SHAPE, "depth": 4, "width": 128}}
    facts["inputs"] = {
        "source": {"weights": print_of("source", "weights")},
        "data": {"data": print_of("shards", "data")},
    }
    put(Path("start/inherit.json"), facts)
    put(Path("start/tinydata.json"), {"tokenizer": {"fingerprint": print_of("vocab", "tokenizer")}})


def trained(out: str, train: dict[str, Any], init: dict[str, Any], step: int, **data: Any) -> None:
    """As trainer.run writes it."""
    manifest = json.loads(Path("shards/manifest.json").read_text())
    facts = {
        "model": SHAPE,
        "train": {**TRAIN, "out": out, **train},
        "data": {"fingerprint": print_of("shards", "data"), "tokens": manifest["totals"]["tokens"], **data},
        "tokenizer": manifest["tokenizer"],
        "init": init,
        "fingerprint": hashlib.sha256(out.encode()).hexdigest()[:32],
    }
    put(Path(out) / "recipe.json", facts)
    (Path(out) / "latest").write_text(f"step-{step:08d}")
    line = {"step": step, "validation": {"loss": 3.25}}
    (Path(out) / "metrics.jsonl").write_text(json.dumps(line) + '\n{"step": 9, "loss": 1.0}\n')


def scored() -> None:
    """Scores as `tinydata score` writes them, with invented losses."""
    place = {"path": "shards", "absolute": str(Path("shards").absolute()), "fingerprint": print_of("shards", "data")}
    place["tokens"] = 64 * 400 + 1
    model = {"path": "run", "step": 8, "tokens": 2048, "recipe": print_of("run", "recipe")}
    totals = {"sequences": 400, "ok": 400, "tokens": 400 * 64, "loss": 2.5}
    facts = {"data": place, "base": place, "model": model, "totals": totals, "statuses": {"ok": 390, "held out": 10}}
    write_scores(Path("scores"), rows(400), options={"model": "run"}, files={}, **facts)


def again() -> None:
    kept = print_of("round-1", "kept")
    init = {"path": "run", "step": 8, "recipe": print_of("run", "recipe")}
    trained("run-1", {"data": "round-1", "init": "run"}, init, step=4, round=1, kept=kept)


def exported() -> None:
    """As trainer.export writes it: names instead of paths."""
    weights(Path("model"), 3)
    put(Path("model/tinydata.json"), {**json.loads(Path("run-1/recipe.json").read_text()), "step": 4, "tokens": 1024})


def states(graph: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """(from, as, to) of what is not as it was -> what it is now."""
    return {(e["from"], e["as"], e["to"]): f"{e['state']} {e.get('why', '')}" for e in graph["edges"] if "state" in e}


def test_the_whole_chain(chain: Path) -> None:
    graph, text = lineage(["model"])
    assert not states(graph), text
    assert not any("problem" in n or "missing" in n for n in graph["nodes"])
    edges = {(e["from"], e["as"], e["to"]) for e in graph["edges"]}
    assert edges == {
        ("model", "run", "run-1"),
        ("run-1", "data", "round-1"),
        ("run-1", "init", "run"),
        ("run-1", "tokenizer", "vocab"),
        ("round-1", "scores", "scores"),
        ("round-1", "base", "shards"),
        ("scores", "data", "shards"),
        ("scores", "model", "run"),
        ("run", "data", "shards"),
        ("run", "init", "start"),
        ("run", "tokenizer", "vocab"),
        ("start", "source", "source"),
        ("start", "vocab", "vocab"),
        ("start", "data", "shards"),
        ("shards", "tokenizer", "vocab"),
        ("shards", "corpus", "corpus"),
        ("vocab", "counts", "counts"),
        ("vocab", "tokenizer", "big"),
        ("counts", "tokenizer", "big"),
        ("counts", "corpus", "corpus"),
    }
    lines = text.splitlines()
    assert len(lines) == len(edges) + 1
    assert lines[0].startswith("model  ") and "trainer.export" in lines[0]
    assert lines[1].startswith("└─ run: run-1  ")
    described = [line for line in lines if "(shown above)" not in line]
    assert len(described) == len(graph["nodes"])
    for node in graph["nodes"]:
        what = re.escape(f"{node['path']}  "), re.escape(node.get("by") or node["holds"])
        (line,) = [x for x in described if re.search(rf"(^| ){what[0]} *{what[1]} ", x)]
        assert f" {node['fingerprint'][:12]}  {node['detail']}" in line


def test_from_elsewhere(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths start next to the directory that records them or in its parents, wherever tinydata runs."""
    Path("runs").mkdir()
    shutil.move("run-1", "runs/run-1")
    home = Path.cwd()
    monkeypatch.chdir("/")
    graph, text = lineage([str(home / "runs" / "run-1")])
    assert not states(graph), text
    assert graph["roots"] == [str(home / "runs" / "run-1").lstrip("/")]


def test_the_place_with_the_right_fingerprint(chain: Path) -> None:
    """Another directory of the same name is nearer: it is not what the run was trained on."""
    shutil.copytree("run", "old/run")
    shutil.copytree("shards", "old/shards")
    manifest = json.loads(Path("old/shards/manifest.json").read_text())
    manifest["files"][f"{manifest['shards'][0]['name']}.bin"]["sha256"] = "0" * 64
    put(Path("old/shards/manifest.json"), manifest)
    graph, text = lineage(["old/run"])
    assert ("old/run", "data", "shards") in {(e["from"], e["as"], e["to"]) for e in graph["edges"]}
    assert not states(graph), text


def test_changed_since(chain: Path) -> None:
    with open("corpus/1.jsonl", "a") as f:
        f.write('\n{"text": "more"}')
    weights(Path("source"), 9)
    (Path("run") / "latest").write_text("step-00000016")
    put(Path("scores/manifest.json"), {**json.loads(Path("scores/manifest.json").read_text()), "round": 0.0})
    graph, text = lineage(["model"])
    found = states(graph)
    assert set(found) == {
        ("counts", "corpus", "corpus"),
        ("shards", "corpus", "corpus"),
        ("start", "source", "source"),
        ("run-1", "init", "run"),
        ("scores", "model", "run"),
        ("round-1", "scores", "scores"),
    }
    assert found["counts", "corpus", "corpus"].startswith("changed since 1 of 3 files differ: ")
    assert "corpus/1.jsonl has " in found["counts", "corpus", "corpus"]
    assert found["scores", "model", "run"] == "changed since step was 8, is now 16"
    assert text.count("CHANGED SINCE") == 6


def test_what_is_missing_is_shown(chain: Path) -> None:
    for name in ("counts", "corpus"):
        shutil.rmtree(name)
    graph, text = lineage(["vocab", "shards"])
    assert set(states(graph).values()) == {"missing "}
    assert {n["path"] for n in graph["nodes"] if n.get("missing")} == {"counts", "corpus/*.jsonl"}
    assert text.count("MISSING") == 2


def test_not_what_its_manifest_says(chain: Path) -> None:
    (shard,) = Path("shards").glob("*.bin")
    shard.write_bytes(shard.read_bytes()[:-2])
    graph, text = lineage(["shards"])
    (node,) = [n for n in graph["nodes"] if n["path"] == "shards"]
    assert node["problem"].startswith(f"{shard.name} has ")
    assert "DIFFERS FROM ITS MANIFEST" in text


def test_scores_of_a_round(chain: Path) -> None:
    """Their data are known by the numbers that were kept."""
    facts = json.loads(Path("scores/manifest.json").read_text())
    kept = json.loads(Path("round-1/manifest.json").read_text())["kept"]
    data = {"path": "round-1", "fingerprint": kept["sha256"], "tokens": kept["tokens"], "verb": "resample"}
    put(Path("scores-1/manifest.json"), {**facts, "data": data, "round": 1})
    graph, text = lineage(["scores-1"])
    assert not states(graph), text
    assert ("scores-1", "data", "round-1") in {(e["from"], e["as"], e["to"]) for e in graph["edges"]}


def test_nothing_says_what_it_was_made_of(chain: Path) -> None:
    with pytest.raises(TinydataError, match="no metadata that says what it was produced from"):
        lineage(["corpus"])
    with pytest.raises(TinydataError, match="the directory does not exist"):
        lineage(["nowhere"])


def test_listing(chain: Path) -> None:
    facts, _ = listing(["."])
    by_path = {f["path"]: f for f in facts}
    assert {p: f["holds"] for p, f in by_path.items()} == {
        "counts": "counts",
        "model": "model",
        "round-1": "round 1",
        "run": "run",
        "run-1": "run",
        "scores": "scores",
        "shards": "shards",
        "source": "model",
        "start": "model",
        "vocab": "vocabulary",
    }
    assert by_path["run"]["detail"] == "2 layers x 64; step 8 of 8, 2,048 tokens; held-out loss 3.250 nats per token"
    assert by_path["scores"]["detail"] == "400 sequences of 64, 2.500 nats per token; 10 held out"
    assert by_path["round-1"]["detail"] == "200 sequences of 64 kept, guarded by sequence, seed 0"
    assert by_path["start"]["detail"] == "2 layers x 64, cut by l2 out of 4 layers x 128"
    assert by_path["source"]["detail"] == "llama, 4 layers x 128, not produced by tinydata"
