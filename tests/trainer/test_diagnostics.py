"""Diagnostics against five-line references, and against models whose attention is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install tinydata[train]")

import torch
import torch.nn.functional as F

from trainer.evaluation.diagnostics import (
    EPS,
    attention,
    attention_to,
    diagnosed,
    diversity,
    effective_dimension,
    sink_rate,
    table,
)
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig, angles

CONFIG = ModelConfig(50, width=32, depth=3, heads=4, kv_heads=2, head_dim=8, ffn=64, seq_len=16, qk_norm=True)


def made(scale: float = 8.0) -> Model:
    model = Model(CONFIG)
    for (name, tensor), p in zip(random_weights(CONFIG, 0), model.parameters(), strict=True):
        p.data.copy_(tensor if "norm" in name else tensor * scale)
    return model


def test_attention_is_what_the_model_computes() -> None:
    """Values that are the identity come out as the weights."""
    module, x = made().layers[1].self_attn, torch.randn(3, 12, CONFIG.width)
    cos, sin = angles(torch.rand(4), 12)
    q, k, _ = module.project(x, cos, sin)
    identity = torch.eye(12).expand(3, 2, 12, 12)
    want = F.scaled_dot_product_attention(q, k, identity, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(attention(module, x, cos, sin), want, atol=1e-5, rtol=1e-5)


def test_attention_to_a_key_is_averaged_over_the_queries_that_see_it() -> None:
    weights = torch.rand(2, 3, 6, 6).tril()
    for key in (0, 4):
        for b in range(2):
            for h in range(3):
                seen = [weights[b, h, i, key].item() for i in range(key, 6)]
                assert attention_to(weights, key)[b, h].item() == pytest.approx(sum(seen) / (6 - key))


def test_equal_attention_is_a_harmonic_sum() -> None:
    """Queries of zero look at all alike: 1/1, 1/2, ... 1/T of it goes to the first token."""
    model = made()
    for layer in model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    for length in (3, 16):
        rows = diagnosed(model, torch.randint(0, 50, (5, length)))
        share = sum(1 / k for k in range(1, length + 1)) / length
        assert [r["attention_to_first"] for r in rows[1:]] == pytest.approx([share] * 3, rel=1e-5)
        assert sink_rate(rows) == float(share > EPS)


def test_rates_are_over_heads_and_sequences() -> None:
    """Against the definition, a sequence, layer and head at a time."""
    model, tokens = made(40.0), torch.randint(0, 50, (20, 16))
    rows = diagnosed(model, tokens, rows=7)
    counts = np.zeros((3, 4))
    for sequence in tokens:
        x = model.embed_tokens(sequence[None])
        cos, sin = angles(model.inv_freq, 16)
        for k, layer in enumerate(model.layers):
            weights: Any = attention(layer.self_attn, layer.input_layernorm(x), cos, sin)
            for head in range(4):
                counts[k, head] += weights[0, head, :, 0].mean().item() > EPS
            x = layer(x, cos, sin)
    assert 0 < counts.sum() < counts.size * 20
    assert [r["sink_rate_by_head"] for r in rows[1:]] == [pytest.approx(c) for c in (counts / 20).tolist()]
    assert sink_rate(rows) == pytest.approx(counts.mean() / 20)
    assert not model.layers[0]._forward_hooks and not model.layers[0].self_attn._forward_pre_hooks


def test_diversity_is_the_distance_to_one_row_for_all() -> None:
    h = torch.randn(2, 9, 5, dtype=torch.float64)
    for b in range(2):
        e = np.ones((9, 1)) / 3.0
        want = np.linalg.norm((np.eye(9) - e @ e.T) @ h[b].numpy())
        assert diversity(h)[b].item() == pytest.approx(want)
    collapsed = torch.ones(9, 1) * torch.randn(1, 5)
    assert diversity(collapsed).item() == pytest.approx(0, abs=1e-5)


def test_effective_dimension_is_that_of_the_covariance() -> None:
    h = torch.randn(300, 12, dtype=torch.float64) * torch.linspace(0.1, 3, 12)
    values = np.sort(np.linalg.eigvalsh(np.cov(h.numpy().T)))[::-1]
    for share in (0.3, 0.8, 0.99):
        want = next(k for k in range(1, 13) if values[:k].sum() >= share * values.sum())
        assert effective_dimension(h, share) == want
    line = torch.arange(30.0)[:, None] * torch.randn(1, 12)
    assert effective_dimension(line) == 1


def test_rows_are_of_the_hidden_states() -> None:
    model, tokens = made(), torch.randint(0, 50, (6, 16))
    rows = diagnosed(model, tokens, rows=4)
    h = model.embed_tokens(tokens)
    cos, sin = angles(model.inv_freq, 16)
    states = [h]
    for layer in model.layers:
        h = layer(h, cos, sin)
        states.append(h)
    for row, state in zip(rows, states, strict=True):
        s = state.detach()
        assert row["diversity"] == pytest.approx(diversity(s[:, 1:]).mean().item(), rel=1e-5)
        assert row["effective_dimension"] == effective_dimension(s[:, 1:].reshape(-1, CONFIG.width))
        assert row["norm_first"] == pytest.approx(s[:, 0].norm(dim=-1).mean().item(), rel=1e-5)
        assert 0 < row["relative_diversity"] <= 1
    shown = table(rows, 6, 16, CONFIG.width).splitlines()
    assert [line.split()[0] for line in shown[3:7]] == ["embed", "1", "2", "3"]
