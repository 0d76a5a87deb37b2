"""The bench: its meter, its peaks, its decoder, and a run of tiny shapes through every loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install tinydata[train]")
pytest.importorskip("tyro", reason="the trainer's programs need tyro: pip install tinydata[train]")

import torch

from tests.trainer.processes import completed
from trainer.bench import (
    OURS,
    BenchConfig,
    Setting,
    head,
    random_ids,
    random_shards,
    row,
    settings,
    table,
    timed,
    train,
)
from trainer.errors import TrainerError
from trainer.evaluation.baselines import Plain, loop
from trainer.evaluation.cached_decode import decode
from trainer.model.cost import PEAK, flops_per_token, peak_flops
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig
from trainer.training.metrics import Meter

TINY = ModelConfig(64, width=32, depth=2, heads=4, kv_heads=2, head_dim=8, ffn=64, seq_len=16)


def made(config: ModelConfig) -> Model:
    model = Model(config)
    for (name, tensor), p in zip(random_weights(config, 0), model.parameters(), strict=True):
        p.data.copy_(tensor if "norm" in name else tensor * 8)
    return model


# -- what is computed --------------------------------------------------------------------------


def test_peaks() -> None:
    assert peak_flops("NVIDIA H200") == 989e12  # dense; 1,979 is with sparsity
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == PEAK["H100 PCIe"] < 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("NVIDIA GeForce GTX 1080") is None
    assert peak_flops("CPU") is None


def test_the_meter_leaves_out_what_was_no_training() -> None:
    meter = Meter(flops_per_token=2e9, peak=1e12)
    assert meter.rates() == {}
    meter.mark(100, now=10.0)
    assert meter.rates() == {}
    for k in range(1, 4):
        meter.mark(100 + 50 * k, now=10.0 + 2 * k)
    assert meter.rates() == {"tokens_per_s": 25.0, "mfu": 25 * 2e9 / 1e12}
    for k in range(4, 60):  # the last 20 steps are twice as fast
        meter.mark(100 + 50 * k, now=16.0 + (k - 3))
    assert meter.rates()["tokens_per_s"] == 50.0
    meter.start(10_000)
    assert meter.rates() == {}
    assert "mfu" not in Meter(1.0, None).rates()


def test_a_row_by_hand() -> None:
    setting = Setting("a", OURS, TINY, rows=4, parts=2, steps=2, device="cpu", bf16=False, compile=False)
    found = {"seconds": [0.5, 1.5], "memory": 7_000_000}
    machine = {"peak": 1e9, "matrix_product": 5e8, "device": "CPU", "threads": 1, "torch": "2"}
    got = row(setting, machine, found)
    flops = flops_per_token(TINY, 16)
    assert got["tokens_per_s"] == 2 * 4 * 2 * 16 / 2.0
    assert got["mfu"] == pytest.approx(got["tokens_per_s"] * flops / 1e9)
    assert got["of_matrix_product"] == pytest.approx(2 * got["mfu"])
    assert (got["median_s"], got["slowest_s"]) == (1.0, 1.5)
    unknown = row(setting, {**machine, "peak": None}, found)
    assert unknown["mfu"] is None
    failed = row(setting, machine, {"error": "killed"})
    shown = table({"machine": {**machine, "peak": None}, "convention": "PaLM", "rows": [unknown, failed]})
    assert "n/a" in shown and "killed" in shown and "PaLM" in shown


def test_first_steps_are_not_timed() -> None:
    calls: list[int] = []
    setting = Setting("a", OURS, TINY, 1, 1, steps=10, device="cpu", bf16=False, compile=False)
    found = timed(lambda: calls.append(1), setting)
    assert (len(calls), len(found["seconds"])) == (12, 10)
    assert found["memory"] > 1_000_000


def test_beside_others_pi_is_also_measured_without_its_parts() -> None:
    found = settings(BenchConfig(("pi-1b-pro", "tiny-1m"), beside=("plain",)), "cpu")
    assert [(s.shape, s.loop, s.model.series, s.model.shortcut) for s in found] == [
        ("pi-1b-pro", OURS, 2, 32),
        ("pi-1b-pro without π", OURS, 1, 0),
        ("pi-1b-pro without π", "plain", 1, 0),
        ("tiny-1m", OURS, 1, 0),
        ("tiny-1m", "plain", 1, 0),
    ]
    assert [s.loop for s in settings(BenchConfig(("pi-1b",), beside=("none",)), "cpu")] == [OURS]
    with pytest.raises(TrainerError, match="unknown training loop"):
        settings(BenchConfig(beside=("megatron",)), "cpu")


# -- what is measured --------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_the_plain_model_is_ours(tied: bool) -> None:
    """The same weights give the same loss: so the two loops do the same work."""
    config = replace(TINY, tied=tied)
    ours, plain = made(config), Plain(config)
    plain.norm.weight.data.copy_(ours.norm.weight)
    plain.embedding.weight.data.copy_(ours.embed_tokens.weight)
    plain.head.weight.data.copy_(ours.head())
    for a, b in zip(ours.layers, plain.blocks, strict=True):
        attn = a.self_attn
        b.qkv.weight.data.copy_(torch.cat([attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight]))
        b.out.weight.data.copy_(attn.o_proj.weight)
        b.gate_up.weight.data.copy_(torch.cat([a.mlp.gate_proj.weight, a.mlp.up_proj.weight]))
        b.down.weight.data.copy_(a.mlp.down_proj.weight)
    tokens, targets = torch.randint(0, 64, (2, 3, 16))
    total, _, n = ours(tokens, targets)
    torch.testing.assert_close(plain(tokens, targets), total / n, atol=2e-5, rtol=1e-4)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize("name", ["plain", "transformers"])
def test_other_loops_learn(name: str) -> None:
    pytest.importorskip("transformers") if name == "transformers" else None
    ids = np.tile(np.arange(8, dtype=np.uint16), 100)
    options = {"rows": 4, "parts": 2, "device": "cpu", "bf16": False, "compile": False}
    step = loop(name, TINY, ids, **options)
    losses = [step() for _ in range(40)]
    assert losses[0] == pytest.approx(np.log(64), rel=0.1)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("pi", [False, True])
def test_decoding_is_the_whole_models_choice(pi: bool) -> None:
    """With keys and values kept, the same tokens as with everything computed again."""
    model = made(replace(TINY, series=2, shortcut=4, qk_norm=True) if pi else TINY)
    for layer in model.layers:
        if layer.shortcut is not None:
            layer.shortcut.up.weight.data.normal_()
    ids = torch.randint(0, 64, (3, 2))
    found = decode(model, ids, 10)
    assert found.shape == (3, 12)
    for _ in range(10):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids)[:, -1].argmax(1, keepdim=True)], dim=1)
    assert torch.equal(found, ids)


def test_the_random_data_last() -> None:
    setting = Setting("a", OURS, TINY, rows=2, parts=3, steps=5, device="cpu", bf16=False, compile=False)
    ids = random_ids(setting)
    assert (ids.dtype, int(ids.max())) == (np.uint16, 63)
    assert (random_shards(setting).tokens - 1) // 16 == 2 * 3 * (5 * 2 + 2)


def test_steps_are_the_trainers() -> None:
    setting = Setting("a", OURS, TINY, rows=2, parts=2, steps=3, device="cpu", bf16=False, compile=False)
    found = train(setting)
    assert len(found["seconds"]) == 3
    assert min(found["seconds"]) > 0


def test_both_heads_compute_the_same() -> None:
    config = BenchConfig(head_tokens=300, head_vocab=500, head_width=16, steps=1)
    by_chunks, at_once = (head(kind, config, "cpu") for kind in ("by chunks", "all at once"))
    assert by_chunks["loss"] == pytest.approx(at_once["loss"], rel=1e-5)


@pytest.mark.slow
def test_the_program(tmp_path: Path) -> None:
    """One row, in a process of its own, from a directory that has nothing to do with it."""
    asked = ["--shapes", "tiny-1m", "--beside", "none", "--seq-len", "16", "--micro-batch", "1", "--steps", "1"]
    done = completed("trainer.bench", *asked, "--device", "cpu", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [got] = found["rows"]
    assert got["mfu"] is None
    assert got["tokens_per_s"] == pytest.approx(16 / got["median_s"])
    assert got["memory_bytes"] > 5_145_728 * 16  # weights, gradients, two moments
    assert found["machine"]["matrix_product"] > 1e8
