"""Several gloo processes against one, plain: loss and gradients, with unequal masks and accumulation."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

from safetensors.torch import load_file, save_file

from tests.trainer.processes import completed
from trainer.model.head_loss import IGNORE
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig

CASES = {
    "tied": {"tied": True},
    "untied": {"tied": False},
    "π, grouped queries": {"tied": False, "series": 2, "shortcut": 8, "kv_heads": 2},
}


@pytest.mark.parametrize(
    "case, ranks, micro, compile, bf16, replicas",
    [
        ("tied", 2, 2, False, False, 1),
        pytest.param("untied", 2, 6, True, False, 1, marks=pytest.mark.slow),
        ("tied", 3, 1, False, False, 1),
        ("π, grouped queries", 2, 3, True, False, 1),
        ("untied", 4, 1, False, False, 2),
        ("tied", 1, 4, False, False, 1),
        ("untied", 2, 3, False, True, 1),
    ],
)
def test_gradients_equal_one_plain_process(case, ranks, micro, compile, bf16, replicas, tmp_path):
    config = ModelConfig(**{"vocab": 101, "width": 48, "depth": 3, "heads": 4, "kv_heads": 4, "head_dim": 12, "ffn": 64,
                            "seq_len": 16, **CASES[case]})  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    tokens, targets = (torch.randint(config.vocab, (12, 16), generator=generator) for _ in range(2))
    targets[0] = IGNORE
    targets[1::2, :11] = IGNORE  # so that the second of two ranks has few targets
    save_file({"tokens": tokens, "targets": targets}, tmp_path / "batch")
    options = {"model": asdict(config), "batch": str(tmp_path / "batch"), "out": str(tmp_path / "gradients")}
    options |= {"micro": micro, "compile": compile, "bf16": bf16, "replicas": replicas}
    done = completed("tests.trainer.gradients", json.dumps(options), cwd=tmp_path, ranks=ranks)
    assert done.returncode == 0, done.stderr[-3000:]

    model = Model(config)
    model.load_state_dict(dict(random_weights(config, 0)))
    total, _, count = model(tokens, targets)
    (total / count).backward()
    got = load_file(tmp_path / "gradients")
    tolerance = 3e-2 if bf16 else 1e-5
    assert float(got.pop("loss")) == pytest.approx(float(total) / int(count), rel=tolerance)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert float(got.pop("norm")) == pytest.approx(float(norm), rel=tolerance)
    assert got.keys() == {n for n, _ in model.named_parameters()}
    for name, p in model.named_parameters():
        error = (got[name] - p.grad).abs().max() / p.grad.abs().max().clamp(min=1e-12)
        assert error < tolerance or p.grad.abs().max() == 0 == got[name].abs().max(), (name, float(error))
