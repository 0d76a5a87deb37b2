"""Shapes of one size, correlations against scipy or by hand, and a whole sweep of three tiny shapes, resumed."""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install tinydata[train]")
pytest.importorskip("tyro", reason="the trainer's programs need tyro: pip install tinydata[train]")

from tests.trainer.processes import Done, completed
from tinydata.engines.local import LocalEngine
from tinydata.verbs.encode import verb as encode
from trainer import sweep
from trainer.errors import TrainerError
from trainer.model.cost import parameters
from trainer.model.presets import preset, reshaped
from trainer.sweep import EXPANSION, SweepConfig, correlations, count, drawn, nearest, remember, score, size, spearman


def test_sizes_as_said() -> None:
    assert count("10M") == count("10_000_000") == 10_000_000
    assert count("1.2B") == 1_200_000_000
    for wrong in ("ten", "", "M"):
        with pytest.raises(TrainerError, match="is not a number"):
            count(wrong)


@pytest.mark.parametrize(
    ("name", "vocab", "wanted"), [("tiny-1m", 4096, 10_000_000), ("pi-1b-pro", 48_000, 1_000_000_000)]
)
def test_shapes_have_the_size(name: str, vocab: int, wanted: int) -> None:
    base = replace(preset(name).model, vocab=vocab)
    shapes = drawn(base, wanted, 0.02, 12, seed=1)
    assert len(set(shapes)) == len(shapes) >= 8
    for s in shapes:
        model = reshaped(base, width=s.width, depth=s.depth, expand=s.expand)  # as trainer.run is told
        assert (model.ffn, sum(parameters(model).values())) == (s.ffn, s.parameters)
        assert abs(s.parameters - wanted) <= 0.02 * wanted
        assert EXPANSION[0] <= s.ffn / s.width <= EXPANSION[1]
    assert drawn(base, wanted, 0.02, 12, seed=1) == shapes
    assert len({s.depth for s in shapes}) > 3 < len({s.width for s in shapes})


def test_the_formula_is_the_models_size() -> None:
    base = replace(preset("pi-1b").model, kv_heads=4, qk_norm=True, vocab=999)
    fixed, layer = size(base, 1024, 2560)
    model = replace(reshaped(base, width=1024, depth=3), ffn=2560)
    assert sum(parameters(model).values()) == fixed + 3 * layer


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(TrainerError, match="shapes have 1,000,000 parameters"):
        drawn(replace(preset("tiny-1m").model, vocab=32_000), 1_000_000, 0.02, 5, 0)


def test_what_is_not_drawn_comes_from_the_nearest_preset() -> None:
    assert nearest(10_000_000, 4096) == "tiny-4m"
    assert nearest(1_000, 4096) == "tiny-1m"
    assert nearest(10**9, 4096) == "tiny-350m"


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 25, 100]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # ranks 1 2 3 4 5 and 2 1 4 3 5: d = 1 1 1 1 0, rho = 1 - 6 * 4 / (5 * 24)
    assert spearman([1, 2, 3, 4, 5], [20, 10, 40, 30, 50]) == pytest.approx(0.8)
    # with a tie: ranks 1 2.5 2.5 4 and 1 2 3 4: 4.5 / sqrt(4.5 * 5)
    assert spearman([1, 7, 7, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    chance = random.Random(0)
    for _ in range(20):
        x, y = ([float(chance.randint(0, 9)) for _ in range(30)] for _ in range(2))
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_correlations_are_with_bits_per_byte_where_all_have_them() -> None:
    rows = [
        {
            "depth": d,
            "width": 10 - d,
            "expansion": 2.0 + d % 2,
            "tokens_per_s": 100 / d,
            "loss": d,
            "bits_per_byte": 9 - d,
        }
        for d in (2, 3, 4, 6)
    ]
    assert score(rows) == "bits_per_byte"
    assert correlations(rows)["depth"] == pytest.approx(-1)
    assert correlations(rows)["width"] == pytest.approx(1)
    rows[2]["bits_per_byte"] = None
    assert score(rows) == "loss"
    assert correlations(rows)["tokens_per_s"] == pytest.approx(-1)


@pytest.fixture(scope="module")
def shards(text: list[str], byte_bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    (root / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in text[:30]), encoding="utf-8")
    encode.encode([str(root / "a.jsonl")], str(byte_bpe / "gpt2"), str(root / "shards"), LocalEngine(1))
    return root / "shards"


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """swept(flags…) -> what it prints. The runs it starts are processes that need not import torch first."""

    def run(command: list[str], **how: Any) -> Done:
        assert command[:3] == [sys.executable, "-m", "trainer.run"]
        return completed("trainer.run", *command[3:], cwd=tmp_path)

    def program(*flags: str) -> str:
        given = ["--params", "1M", "-o", "out", "--draws", "3", "--steps", "2", "--tolerance", "0.1", "--device", "cpu"]
        given += ["--batch-tokens", "512", "--preset", "tiny-1m", *flags]
        monkeypatch.setattr(sys, "argv", ["", *given])
        sweep.program()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep.subprocess, "run", run)
    return program


@pytest.mark.slow
def test_a_sweep_and_its_resumption(shards: Path, tmp_path: Path, swept: Any) -> None:
    pytest.importorskip("vl_convert", reason="pictures need vl-convert: pip install tinydata[report]")
    shown = swept("--data", str(shards))
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert len(rows) == 3
    for row in rows:
        assert abs(row["parameters"] - 1e6) <= 1e5
        assert 0 < row["bits_per_byte"] < 5
        assert row["tokens_per_s"] > 0
        lines = (tmp_path / "out" / row["run"] / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["validation"]["bits_per_byte"] == row["bits_per_byte"]
    assert "Spearman correlation with bits per byte over 3 shapes" in shown
    assert "<script" in (tmp_path / "out" / "sweep.html").read_text()

    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/metrics.jsonl")}
    (tmp_path / "out" / rows[0]["run"] / "result.json").unlink()  # as if it had been stopped before that
    swept("--data", str(shards))
    same = [{k: v for k, v in r.items() if k != "tokens_per_s"} for r in rows]
    found = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [{k: v for k, v in r.items() if k != "tokens_per_s"} for r in found] == same
    changed = [p for p, t in stamps.items() if p.stat().st_mtime_ns != t and p.parent.name != rows[0]["run"]]
    assert not changed  # those that were done were left alone


def test_another_sweep_is_not_mixed_in(tmp_path: Path) -> None:
    config = SweepConfig("shards", "1M", str(tmp_path))
    remember(tmp_path / "sweep.json", config, [])
    remember(tmp_path / "sweep.json", replace(config, draws=9, picture="a.png"), [])  # neither changes a shape's run
    with pytest.raises(TrainerError, match="other settings: --seed: 0 -> 7"):
        remember(tmp_path / "sweep.json", replace(config, seed=7), [])
