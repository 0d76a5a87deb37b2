"""Schedules, the guard, AdamW's groups, metrics and the speedometer."""

from __future__ import annotations

import json
import math

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

from trainer.errors import TrainerError
from trainer.model.transformer import Model, ModelConfig
from trainer.training.metrics import Meter, Metrics, read
from trainer.training.optim import Guard, adamw, scaled_lr, schedule


def test_schedules_by_hand():
    kind = {"steps": 100, "warmup": 10, "floor": 0.1}
    for name in ("cosine", "linear", "wsd", "constant"):
        assert [schedule(name, s, **kind) for s in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert schedule("cosine", 54, **kind) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 45 / 90)) / 2)
    assert schedule("linear", 54, **kind) == pytest.approx(0.55)
    assert [schedule("wsd", s, **kind) for s in (10, 50, 79)] == [1.0, 1.0, 1.0]
    assert schedule("wsd", 84, **kind) == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(5 / 20)))
    assert schedule("constant", 99, **kind) == 1.0
    for name in ("cosine", "linear", "wsd"):
        values = [schedule(name, s, **kind) for s in range(10, 130)]
        assert values[89] == pytest.approx(0.1) and values == sorted(values, reverse=True)


def test_rule_of_the_paper():
    assert scaled_lr(2e-4, 491_520, 2_000_000) == pytest.approx(0.99e-4, rel=0.01)  # its released configuration: 1e-4


def test_guard_skips_what_is_not_finite_and_spikes():
    guard = Guard()
    values = [2.0 + 0.01 * math.sin(k) for k in range(40)]
    assert not any(guard.reason(v, 1 + v / 10) for v in values)
    assert "loss is nan" in guard.reason(math.nan, 1.0)
    assert "gradient norm is inf" in guard.reason(2.0, math.inf)
    assert guard.skipped == 2
    assert "loss 3 is more than 6 sigma" in guard.reason(3.0, 1.2)
    assert "gradient norm" in guard.reason(2.0, 40.0)
    again = Guard(**json.loads(json.dumps(guard.state())))
    assert again.reason(2.0, 1.2) is None and again.skipped == 0
    assert Guard().reason(1e9, 1e9) is None  # nothing to compare with yet


def test_guard_accepts_a_new_level_after_a_while():
    guard = Guard()
    for k in range(128):
        guard.reason(2.0 + 0.001 * (k % 5), 1.0 + 0.001 * (k % 7))
    refused = [guard.reason(2.5, 1.0) is not None for _ in range(20)]
    assert refused[0] and not refused[-1]


def test_adamw_decays_matrices_only_and_is_fused():
    config = ModelConfig(vocab=50, width=32, depth=1, heads=2, kv_heads=2, head_dim=16, ffn=64, series=2, qkv_bias=True)
    model = Model(config)
    optimizer = adamw(model, 1e-3, (0.9, 0.95), 0.1)
    assert optimizer.defaults["fused"] is True
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    for name, p in model.named_parameters():
        assert (id(p) in decayed) == (p.ndim == 2), name
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_meter():
    meter = Meter(flops_per_token=100.0, peak=1e4)
    assert meter.rates() == {}
    for k in range(5):
        meter.mark(50 * k, now=float(k))
    assert meter.rates() == {"tokens_per_s": 50.0, "mfu": 0.5}
    assert "mfu" not in Meter(1.0, None).rates()


def test_metrics_drop_what_will_be_taken_again(tmp_path):
    metrics = Metrics(tmp_path, [], {}, 0, 10)
    for step in range(1, 7):
        metrics.log(step, {"loss": math.nan if step == 2 else 1.0 / step})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 7, "lo')  # killed while writing
    Metrics(tmp_path, [], {}, 4, 10).close()
    assert [x["step"] for x in read(tmp_path)] == [1, 2, 3, 4] and read(tmp_path)[1]["loss"] is None


def test_trackers_by_name(tmp_path):
    with pytest.raises(TrainerError, match="unknown tracker 'neptune'"):
        Metrics(tmp_path, ["neptune"], {}, 0, 1)
