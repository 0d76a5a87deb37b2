"""Diagnostics of each layer: attention sinks, and how much the hidden states of different tokens differ.

Sink rate: Gu et al., "When Attention Sink Emerges" (arXiv 2410.10781), T = 64, eps = 0.3, first token.
Diversity and effective dimension: PanGu-π (arXiv 2312.17276), section 3.1 and figure 4. The first token of a
sequence is left out of these two, as in its figure 5: if it is a sink, its norm exceeds all others by far.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainer.model.transformer import Attention, Model

LENGTH, SAMPLES = 64, 100  # tokens, sequences
EPS = 0.3  # a head with more attention on the first token, averaged over queries, is a sink
EXPLAINED = 0.8  # of the variance


def attention(module: Attention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, T, d] -> weights float32 [B, h, T, T], a row per query."""
    q, k, _ = module.project(x, cos, sin)
    k = k.repeat_interleave(module.heads // module.kv_heads, dim=1)
    scores = (q @ k.transpose(2, 3)).float() / module.head_dim**0.5
    T = x.shape[1]
    return scores.masked_fill(~torch.ones(T, T, dtype=torch.bool, device=x.device).tril(), float("-inf")).softmax(3)


def attention_to(weights: Tensor, key: int = 0) -> Tensor:
    """weights [B, h, T, T] -> [B, h]: attention to one key, averaged over the queries that can attend to it."""
    return weights[:, :, key:, key].mean(dim=2)


def diversity(h: Tensor) -> Tensor:
    """h [..., T, d] -> [...]: ||H - mean over tokens||_F; 0 if all tokens are equal."""
    return torch.linalg.matrix_norm(h - h.mean(dim=-2, keepdim=True))


def effective_dimension(h: Tensor, share: float = EXPLAINED) -> int:
    """h [n, d] -> the smallest number of principal components that explain `share` of the variance."""
    variance = torch.linalg.svdvals(h - h.mean(dim=0)) ** 2
    explained = variance.cumsum(0) / variance.sum().clamp(min=torch.finfo(variance.dtype).tiny)
    return int((explained < share - 1e-9).sum()) + 1


@contextmanager
def watched(model: Model) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Records the forward passes inside it: hidden states (embedding, each layer) and attention to token 0."""
    hidden: list[Tensor] = []
    sinks: list[Tensor] = []
    hooks = [model.embed_tokens.register_forward_hook(lambda m, a, out: hidden.append(out.float()))]
    for layer in model.layers:
        attn: Any = layer.self_attn
        hooks.append(attn.register_forward_pre_hook(lambda m, a: sinks.append(attention_to(attention(m, *a[:3])))))
        hooks.append(layer.register_forward_hook(lambda m, a, out: hidden.append(out.float())))
    try:
        yield hidden, sinks
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def diagnosed(model: Model, tokens: Tensor, rows: int = 16) -> list[dict[str, Any]]:
    """tokens int64 [N, T] -> a row for the embedding (layer 0) and for each layer."""
    states: list[list[Tensor]] = []
    attending: list[list[Tensor]] = []
    for part in tokens.split(rows):
        with watched(model) as (hidden, sinks):
            model.hidden(part)
        states.append([h.cpu() for h in hidden])
        attending.append([s.cpu() for s in sinks])
    out = []
    for layer in range(len(states[0])):
        h = torch.cat([s[layer] for s in states])
        rest = h[:, 1:]
        row: dict[str, Any] = {
            "layer": layer,
            "diversity": diversity(rest).mean().item(),
            "relative_diversity": (diversity(rest) / torch.linalg.matrix_norm(rest)).mean().item(),
            "effective_dimension": effective_dimension(rest.flatten(0, 1)),
            "norm_first": h[:, 0].norm(dim=-1).mean().item(),
            "norm_rest": rest.norm(dim=-1).mean().item(),
        }
        if layer:
            heads = torch.cat([s[layer - 1] for s in attending])  # [N, h]
            by_head = (heads > EPS).float().mean(dim=0)
            row |= {"sink_rate": by_head.mean().item(), "sink_rate_by_head": by_head.tolist()}
            row |= {"attention_to_first": heads.mean().item()}
        out.append(row)
    return out


def sink_rate(rows: list[dict[str, Any]]) -> float:
    """The mean over all layers and heads."""
    return sum(r["sink_rate"] for r in rows[1:]) / (len(rows) - 1)


def table(rows: list[dict[str, Any]], samples: int, length: int, width: int) -> str:
    lines = [
        f"attention sinks: {sink_rate(rows):.1%} of layers, heads and sequences give their first token more than "
        f"{EPS:g} of their attention ({samples} sequences of {length} tokens)",
        "",
        f"{'layer':>5}{'sink rate':>11}{'to first':>10}{'diversity':>11}{'relative':>10}{f'd({EXPLAINED})':>8}"
        f"{'|h| first':>11}{'|h| rest':>10}",
    ]
    for r in rows:
        sink = f"{r['sink_rate']:>11.1%}{r['attention_to_first']:>10.3f}" if r["layer"] else " " * 21
        lines.append(
            f"{r['layer'] or 'embed':>5}{sink}{r['diversity']:>11.3g}{r['relative_diversity']:>10.3f}"
            f"{r['effective_dimension']:>8}{r['norm_first']:>11.3g}{r['norm_rest']:>10.3g}"
        )
    lines.append(
        "diversity: ||H - mean over tokens||_F of a sequence; relative: divided by ||H||_F; "
        f"d({EXPLAINED:g}): principal components,\nof {width}, that explain {EXPLAINED:.0%} of the variance; "
        "all without the first token. |h|: norm of hidden states"
    )
    return "\n".join(lines)
