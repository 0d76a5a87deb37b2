"""The model and its head against plain torch; the parts of PanGu-π against autograd and the model without them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

import torch.nn.functional as F
from torch import Tensor

from trainer.model.cost import flops_per_token, memory, parameters, peak_flops, table, vocabulary_share
from trainer.model.head_loss import IGNORE, chunk_tokens, head_loss
from trainer.model.init import STD, Scheme, random_weights
from trainer.model.presets import PRESETS, ffn_width, preset, reshaped
from trainer.model.transformer import Model, ModelConfig, Series, Shortcut

SMALL = ModelConfig(vocab=97, width=48, depth=3, heads=4, kv_heads=2, head_dim=12, ffn=64, seq_len=32)
SWITCHES = [
    {}, {"tied": True}, {"qk_norm": True}, {"qkv_bias": True}, {"mlp_bias": True, "out_bias": True},
    {"series": 2}, {"series": 3}, {"shortcut": 8}, {"series": 2, "shortcut": 8, "tied": True, "kv_heads": 4},
]  # fmt: skip


def made(config: ModelConfig, seed: int = 0, std: float = 0.0) -> Model:
    """Random weights; with std, every parameter is moved away from where it starts."""
    model = Model(config)
    model.load_state_dict(dict(random_weights(config, seed)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * std)
    return model


def batch(config: ModelConfig, rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(config.vocab, (rows, config.seq_len), generator=generator)
    targets = torch.randint(config.vocab, (rows, config.seq_len), generator=generator)
    targets[0, :9] = IGNORE
    return tokens, targets


def plain_loss(model: Model, tokens: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="none")


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("chunk", [0, 7])
def test_loss_and_gradients_are_those_of_whole_logits(switches, chunk, monkeypatch):
    if chunk:
        monkeypatch.setattr("trainer.model.head_loss.chunk_tokens", lambda vocab, device: chunk)
    model = made(replace(SMALL, **switches), std=0.05).double()
    tokens, targets = batch(model.config)
    total, nll, count = model(tokens, targets)
    total.backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    expected = plain_loss(model, tokens, targets)
    expected.sum().backward()
    assert count == (targets != IGNORE).sum() == targets.numel() - 9
    torch.testing.assert_close(nll.flatten(), expected.detach())
    for name, p in model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-10, atol=1e-12, msg=name)


def test_head_alone_gradcheck_in_float64():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(13, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(13, (11,), generator=generator)
    targets[3] = IGNORE

    def plain(h: Tensor, w: Tensor) -> Tensor:
        return 3 * F.cross_entropy(h @ w.T, targets, reduction="sum")

    (3 * head_loss(hidden, weight, targets, chunk=4)[0]).backward()
    got = hidden.grad.clone(), weight.grad.clone()
    expected = torch.autograd.grad(plain(hidden, weight), (hidden, weight))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_head_in_bfloat16_is_near_and_needs_no_gradient():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(64, 32, generator=generator), torch.randn(500, 32, generator=generator) * 0.1
    targets = torch.randint(500, (64,), generator=generator)
    exact = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    with torch.no_grad():
        total, _ = head_loss(hidden.bfloat16(), weight.bfloat16(), targets)
    assert abs(float(total) - float(exact)) < 0.01 * float(exact)
    assert chunk_tokens(100_000, "cpu") == 256 and chunk_tokens(1 << 40, "cpu") == 128


@pytest.mark.parametrize("part", ["series", "shortcut"])
def test_parts_of_pangu_gradcheck(part):
    generator = torch.Generator().manual_seed(0)
    module = (Series(2, 5) if part == "series" else Shortcut(8, 4)).double()
    for p in module.parameters():
        p.data = torch.randn(p.shape, dtype=torch.float64, generator=generator)
    x = torch.randn(3, 5 if part == "series" else 8, dtype=torch.float64, generator=generator, requires_grad=True)
    names, values = zip(*module.named_parameters(), strict=True)

    def f(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(f, (x, *values))


def test_series_is_the_sum_it_says():
    module = Series(3, 4)
    module.scale.data, module.shift.data = torch.randn(12), torch.randn(12)
    x = torch.randn(5, 4)
    expected = sum(F.silu(module.scale[i * 4 : i * 4 + 4] * x + module.shift[i * 4 : i * 4 + 4]) for i in range(3))
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("switches", [{"series": 2}, {"shortcut": 8}, {"series": 2, "shortcut": 8}], ids=str)
def test_parts_of_pangu_start_as_nothing_and_learn(switches):
    with_parts = made(replace(SMALL, **switches))
    plain = Model(SMALL)
    plain.load_state_dict({k: v for k, v in with_parts.state_dict().items() if k in plain.state_dict()})
    tokens, targets = batch(SMALL)
    torch.testing.assert_close(with_parts(tokens), plain(tokens), rtol=0, atol=0)
    with_parts(tokens, targets)[0].backward()
    for name, p in with_parts.named_parameters():
        if "shortcut.down" not in name:  # its gradient comes through the zero matrix, which moves first
            assert p.grad.abs().max() > 0, name


def test_documents_do_not_look_into_each_other():
    model = made(SMALL, std=0.1)
    tokens, _ = batch(SMALL, rows=1)
    documents = torch.zeros(1, 32, dtype=torch.int32)
    documents[0, 10:] = 5
    whole, alone = model.hidden(tokens, documents), model.hidden(tokens[:, :10])
    torch.testing.assert_close(whole[:, :10], alone)
    changed = tokens.clone()
    changed[0, :10] = 1
    torch.testing.assert_close(model.hidden(changed, documents)[:, 10:], whole[:, 10:])
    assert not torch.allclose(model.hidden(changed)[:, 10:], model.hidden(tokens)[:, 10:])


def test_tied_model_has_one_matrix():
    model = made(replace(SMALL, tied=True))
    assert model.head() is model.embed_tokens.weight and "lm_head.weight" not in model.state_dict()


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_random_weights(scheme):
    config = replace(SMALL, width=96, series=2, shortcut=8, depth=4)
    weights, again = dict(random_weights(config, 3, scheme)), dict(random_weights(config, 3, scheme))
    assert list(weights) == [n for n, _ in Model(config).named_parameters()]
    assert all(torch.equal(weights[n], again[n]) for n in weights)
    assert not torch.equal(weights["embed_tokens.weight"], dict(random_weights(config, 4))["embed_tokens.weight"])
    ratio = {"constant": (1, 1), "depth-scaled": (2**-0.5, 8**-0.5), "gpt2": (8**-0.5, 8**-0.5)}[scheme]
    for layer, r in ((0, ratio[0]), (3, ratio[1])):
        std = float(weights[f"layers.{layer}.mlp.down_proj.weight"].std())
        assert std == pytest.approx(STD * r, rel=0.05)
    assert float(weights["layers.0.mlp.up_proj.weight"].std()) == pytest.approx(STD, rel=0.05)


def test_presets_and_plan_are_the_papers():
    pro = replace(preset("pi-1b-pro").model, series=1, shortcut=0)
    assert (pro.width, pro.depth, pro.ffn, pro.vocab) == (1792, 21, 4864, 48_000)
    assert round(vocabulary_share(reshaped(pro, depth=20)), 4) == 0.1807
    assert round(vocabulary_share(replace(reshaped(pro, depth=15), vocab=100_883)), 4) == 0.3820
    assert (ffn_width(1792, 8 / 3), ffn_width(2048, 8 / 3)) == (4864, 5632)
    for name, p in PRESETS.items():
        parts = parameters(p.model)
        layers = sum(parts.values()) - parts["embedding"] - parts["head"]
        if name.startswith("tiny"):
            assert layers == pytest.approx(int(name[5:-1]) * 1e6, rel=0.07), name


def test_parameters_are_counted_part_by_part():
    config = replace(SMALL, series=2, shortcut=8)
    assert sum(parameters(config).values()) == sum(p.numel() for p in Model(config).parameters())
    d, L = config.width, config.depth
    matrices = L * (2 * d * 48 + 2 * d * 24 + 3 * d * 64 + 2 * d * (d // 8))
    others = L * (2 * d + 4 * 64) + d
    assert flops_per_token(config, 32) == 6 * (matrices + others + 97 * d) + 12 * L * 48 * 32


def test_plan_prints_and_unknown_cards_have_no_peak():
    assert peak_flops("NVIDIA H200") == 989e12 and peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("Radeon 9000") is None
    pro = preset("pi-1b-pro").model
    shape = {"seq_len": 2048, "micro_tokens": 16_384, "world": 8}
    text = table(pro, **shape, device="cuda", name="NVIDIA H200", bf16=True)
    assert "995,604,736" in text and "55%" in text and "8 x NVIDIA H200" in text
    assert "MFU is n/a" in table(pro, **shape, device="cuda", name="Radeon", bf16=True)
    assert memory(pro, 16_384, 2048, 8, "cuda", True)["weights, gradients, AdamW in float32"] == 2 * 995_604_736


def test_shapes_that_do_not_fit_say_so():
    from trainer.errors import TrainerError

    with pytest.raises(TrainerError, match="not a multiple"):
        reshaped(preset("pi-1b-pro").model, width=1800)
    with pytest.raises(TrainerError, match="unknown preset"):
        preset("pi-2b")
    with pytest.raises(TrainerError, match="cannot share"):
        reshaped(preset("pi-1b-pro").model, kv_heads=5)
    assert reshaped(preset("pi-1b-pro").model, width=1024, expand=4).ffn == 4096
