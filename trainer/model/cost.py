"""Estimates the cost of a model before training: parameters by part, FLOPs per token, memory, speed."""

from __future__ import annotations

import torch

from trainer.model.head_loss import chunk_tokens
from trainer.model.transformer import Model, ModelConfig

# dense bf16 FLOP/s of one card, without sparsity, by torch's name for it (vendors' data sheets)
PEAK = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "GH200": 989e12, "H20": 148e12,
    "B200": 2250e12, "B100": 1750e12, "A100": 312e12, "A800": 312e12, "H800": 989e12, "A40": 149.7e12, "A10G": 70e12,
    "L40S": 362e12, "L4": 121e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12, "RTX 5090": 209.5e12,
}  # fmt: skip
CONVENTION = "PaLM: 6 x (parameters without the embedding, with the head) + 12 x layers x heads x D x T per token"


def peak_flops(device_name: str) -> float | None:
    """Peak FLOP/s of a GPU by its name; None if it is not in the table, so that no wrong MFU is printed."""
    names = [name for name in PEAK if name in device_name]
    return PEAK[max(names, key=len)] if names else None


def parameters(c: ModelConfig) -> dict[str, int]:
    """Parameters by part; a tied head counts once, as embedding."""
    with torch.device("meta"):
        model = Model(c)
    parts = {"embedding": 0, "head": 0, "attention": 0, "feed-forward": 0, "shortcut": 0, "series": 0, "norms": 0}
    for name, p in model.named_parameters():
        parts[_part(name)] += p.numel()
    return {k: v for k, v in parts.items() if v or k == "head"}


def _part(name: str) -> str:
    for key, part in _PARTS.items():
        if key in name:
            return part
    raise AssertionError(name)


_PARTS = {
    "embed_tokens": "embedding",
    "lm_head": "head",
    "norm": "norms",
    "self_attn": "attention",
    "shortcut": "shortcut",
}
_PARTS |= {"series": "series", "mlp": "feed-forward"}


def vocabulary_share(c: ModelConfig) -> float:
    """(embedding + head) / all, as the paper counts: 0.1807 for 1792 x 20 at 48,000."""
    p = parameters(c)
    return (p["embedding"] + p["head"]) / sum(p.values())


def flops_per_token(c: ModelConfig, seq_len: int) -> float:
    """FLOPs per token of a training step, forward and backward; see CONVENTION."""
    p = parameters(c)
    matrices = sum(p.values()) - (0 if c.tied else p["embedding"])  # tied: the one matrix is the head
    return 6.0 * matrices + 12.0 * c.depth * c.heads * c.head_dim * seq_len


def memory(c: ModelConfig, micro_tokens: int, seq_len: int, world: int, device: str, bf16: bool) -> dict[str, float]:
    """Estimated bytes on each device during a training step, by purpose. Activations assume autograd per block.

    Saved per token and layer: about 10 vectors of the width, 4 of the heads and 4 of the ffn.
    """
    n, size = sum(parameters(c).values()), 2 if bf16 else 4
    per_token = 10 * c.width + 4 * c.heads * c.head_dim + 4 * c.ffn
    chunk = min(micro_tokens, chunk_tokens(c.vocab, device))
    return {
        "weights, gradients, AdamW in float32": 16.0 * n / world,
        "weights used in products": float(size * n) if bf16 or world > 1 else 0.0,
        "activations": float(micro_tokens * c.depth * per_token * size),
        "head and loss, per chunk": chunk * c.vocab * (4.0 + size) + c.vocab * c.width * 4.0,
    }


def table(c: ModelConfig, *, seq_len: int, micro_tokens: int, world: int, device: str, name: str, bf16: bool) -> str:
    """The plan as text. `name`: of the device, as torch calls it."""
    parts, total = parameters(c), sum(parameters(c).values())
    lines = [
        f"{c.width} x {c.depth} layers, {c.heads} heads of {c.head_dim}"
        + (f" ({c.kv_heads} key-value)" if c.kv_heads != c.heads else "")
        + f", ffn {c.ffn} ({c.ffn / c.width:.2f}x), {c.vocab:,} ids, {'tied' if c.tied else 'untied'}"
        + (f", series {c.series}" if c.series > 1 else "")
        + (f", shortcut d/{c.shortcut}" if c.shortcut else ""),
        "",
        *(f"{part:<24}{n:>16,}{n / total:>9.2%}" for part, n in parts.items()),
        f"{'parameters':<24}{total:>16,}",
        f"embedding + head are {vocabulary_share(c):.2%} of all parameters",
        "",
        f"{flops_per_token(c, seq_len) / 1e9:,.3f} GFLOP per token at sequence {seq_len:,} ({CONVENTION})",
    ]
    needs = memory(c, micro_tokens, seq_len, world, device, bf16)
    lines += ["", *(f"{what:<40}{b / 1e9:>9.2f} GB" for what, b in needs.items() if b)]
    lines.append(f"{f'estimated total, each of {world} devices':<40}{sum(needs.values()) / 1e9:>9.2f} GB")
    peak = peak_flops(name) if device == "cuda" else None
    if peak:
        speed = [peak * world * u / flops_per_token(c, seq_len) for u in (0.4, 0.55)]
        lines.append(f"{world} x {name}: {speed[0]:,.0f} tokens/s at an MFU of 40%, {speed[1]:,.0f} at 55%")
    else:
        lines.append(
            f"{name}: its peak FLOP/s are not known, so MFU is n/a; measure the speed with `python -m trainer.bench`"
        )
    return "\n".join(lines)
