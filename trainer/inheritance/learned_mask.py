"""Runs the source with a factor z on every unit, to compute Taylor scores and to learn which units to keep.

With z = 0 the model computes exactly what it would without the unit; the Taylor score of the unit is d loss / dz.
The learned mask (the paper's best method) trains z with frozen weights until only as many units are open as the
target has. Its gates are hard concrete (Louizos et al., arXiv 1712.01312), with a Lagrangian for each axis of each
layer, lambda_1 (s - t) + lambda_2 (s - t)^2, where s is the expected share of open units and t the target's, as in
Sheared-LLaMA (arXiv 2310.06694). The gates start in the order of the Taylor scores. At the end their logits rank the
units, so that the target's shape is met exactly.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.inheritance.selection import Scores, Units
from trainer.inheritance.source import SITES, Source, sizes
from trainer.model.head_loss import IGNORE
from trainer.model.transformer import Model, ModelConfig

BETA, LOW, HIGH = 2 / 3, -0.1, 1.1  # temperature of the concrete distribution, and the interval it is stretched to
START = 3.0  # first logit: the gate is open with probability 0.95
SPREAD = 0.5  # of the first logits around START, in the order of the Taylor scores
LR, LR_LAMBDA = 0.1, 1.0


@contextmanager
def masked(model: Model, hidden: Tensor, units: list[Units]) -> Iterator[None]:
    """Multiplies the units by factors while it is open: hidden [..., d], units[layer][axis] [..., n].

    The factors broadcast to [B, T, units]. A norm divides by the root mean square over the open units: the root of
    (sum of squares / sum of z).
    """
    handles = [model.embed_tokens.register_forward_hook(lambda m, a, out: out * hidden)]

    def of_kept(norm: Any, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x = args[0]
        mean = x.square().sum(-1, keepdim=True) / hidden.sum(-1, keepdim=True)
        return x * torch.rsqrt(mean + norm.eps) * norm.weight

    norms = [layer.get_submodule(n) for layer in model.layers for n in ("input_layernorm", "post_attention_layernorm")]
    handles += [n.register_forward_hook(of_kept) for n in (*norms, model.norm)]
    for layer, own in zip(model.layers, units, strict=True):
        for axis, site in SITES.items():
            if axis in own:
                module = layer.get_submodule(site)
                z = own[axis]
                if axis == "heads":
                    z = z.repeat_interleave(model.config.head_dim, dim=-1)
                handles.append(module.register_forward_pre_hook(lambda m, args, z=z: (args[0] * z,)))
                handles.append(module.register_forward_hook(lambda m, args, out: out * hidden))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def open_units(c: ModelConfig, batch: int, device: str) -> tuple[Tensor, list[Units]]:
    """Factors of 1 for each of `batch` sequences: hidden [B, 1, d], units [B, 1, n]."""

    def ones(n: int) -> Tensor:
        return torch.ones(batch, 1, n, device=device, requires_grad=True)

    have = {a: n for a, n in sizes(c).items() if a in SITES and n}
    return ones(c.width), [{a: ones(n) for a, n in have.items()} for _ in range(c.depth)]


def taylor(model: Model, tokens: Tensor, targets: Tensor, device: str, rows: int = 8) -> Scores:
    """tokens, targets int64 [n, T] -> sum over sequences of |d loss / dz|, for every layer of the model."""
    c = model.config
    hidden, units = (
        torch.zeros(c.width),
        [{a: torch.zeros(z.shape[-1]) for a, z in u.items()} for u in open_units(c, 1, "cpu")[1]],
    )
    for at in range(0, len(tokens), rows):
        x, y = tokens[at : at + rows].to(device), targets[at : at + rows].to(device)
        z, zs = open_units(c, len(x), device)
        with masked(model, z, zs):
            loss, _, _ = model(x, y)
        every = [z, *(value for own in zs for value in own.values())]
        gradients = iter(g.abs().sum((0, 1)).cpu() for g in torch.autograd.grad(loss, every))
        hidden += next(gradients)
        for total, own in zip(units, zs, strict=True):
            for axis in own:
                total[axis] += next(gradients)
        print(f"computed gradients of {min(at + rows, len(tokens))} of {len(tokens)} sequences", file=sys.stderr)
    for u in units:
        u["groups"] = u["heads"].view(c.kv_heads, -1).sum(1)
    return Scores(hidden, units)


# -- learned ----------------------------------------------------------------------------------


class Gates(nn.Module):
    """Hard-concrete gates of one axis; `target`: the number of them that should be open at the end."""

    def __init__(self, prior: Tensor, target: int, generator: torch.Generator):
        super().__init__()
        order = torch.linspace(-1, 1, len(prior)).to(prior)
        first = torch.empty_like(prior)
        first[torch.sort(prior, stable=True).indices] = START + SPREAD * order
        self.logits = nn.Parameter(first)
        self.slope, self.curve = (nn.Parameter(torch.zeros((), device=prior.device)) for _ in range(2))
        self.share, self.generator = target / len(prior), generator

    def sample(self) -> Tensor:
        if self.share == 1.0:
            return torch.ones_like(self.logits)
        u = torch.rand(self.logits.shape, generator=self.generator).to(self.logits.device).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid((u.log() - (1 - u).log() + self.logits) / BETA)
        return (s * (HIGH - LOW) + LOW).clamp(0, 1)

    def constraint(self, progress: float) -> Tensor:
        """The Lagrangian term. progress in [0, 1]: the required share of open gates falls from 1 to the target's."""
        open_share = torch.sigmoid(self.logits - BETA * math.log(-LOW / HIGH)).mean()
        gap = open_share - (1 - (1 - self.share) * progress)
        return self.slope * gap + self.curve * gap**2


def learned(
    model: Model, target: ModelConfig, prior: Scores, tokens: Tensor, targets: Tensor, *, steps: int, seed: int,
    device: str, rows: int = 8,
) -> Scores:  # fmt: skip
    """tokens, targets int64 [n, T] -> the logits of the gates, learned for the target's shape.

    The model consists of the kept layers only. A head is open if its own gate and that of its group are open.
    """
    c, want = model.config, sizes(target)
    g = torch.Generator().manual_seed(seed)
    per, keep = c.heads // c.kv_heads, target.heads // target.kv_heads
    hidden = Gates(prior.hidden.to(device), want["hidden"], g)
    layers = [{a: _gates(a, s, want, per, keep, g, device) for a, s in u.items()} for u in prior.layers]
    every = [hidden, *(m for own in layers for m in own.values())]
    logits = [m.logits for m in every]
    lambdas = [p for m in every for p in (m.slope, m.curve)]
    optimizer = torch.optim.Adam([{"params": logits, "lr": LR}, {"params": lambdas, "lr": LR_LAMBDA, "maximize": True}])
    for step in range(steps):
        at = torch.randint(0, len(tokens), (rows,), generator=g)
        x, y = tokens[at].to(device), targets[at].to(device)
        with masked(model, hidden.sample(), [_samples(m, per) for m in layers]):
            loss, _, _ = model(x, y)
        loss = loss / (y != IGNORE).sum()
        progress = min(1.0, 2 * step / max(1, steps))
        total = loss + sum(m.constraint(progress) for m in every)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            print(f"mask: step {step + 1} of {steps}, loss {loss.item():.4f}", file=sys.stderr)
    layer_logits = [{a: m.logits.detach().cpu() for a, m in own.items()} for own in layers]
    return Scores(hidden.logits.detach().cpu(), layer_logits)


def _gates(
    axis: str, prior: Tensor, want: dict[str, int], per: int, keep: int, g: torch.Generator, device: str
) -> Gates:
    """The gates of one axis. Heads are gated within their groups: `keep` of each group."""
    target = keep * (len(prior) // per) if axis == "heads" else want[axis]
    return Gates(prior.to(device), target, g)


def _samples(gates: dict[str, Gates], per: int) -> Units:
    z = {axis: m.sample() for axis, m in gates.items()}
    z["heads"] = z["heads"] * z.pop("groups").repeat_interleave(per)
    return z


def mask_scores(
    source: Source, target: ModelConfig, layers: list[int], tokens: Tensor, targets: Tensor, *, steps: int, seed: int,
    device: str,
) -> Scores:  # fmt: skip
    model = source.model(layers, device)
    prior = taylor(model, tokens, targets, device)
    return learned(model, target, prior, tokens, targets, steps=steps, seed=seed, device=device)
