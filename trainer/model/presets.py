"""Models by name. `tiny-*` is named by the parameters of its layers, without embedding and head."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from trainer.errors import TrainerError
from trainer.model.transformer import ModelConfig

MULTIPLE = 256  # ffn is a multiple of it: for tensor-core tiles, and llama.cpp's K-quants have blocks of 256 values


class Preset(NamedTuple):
    model: ModelConfig
    batch_tokens: int  # B0 and lr0 of the paper's rule lr = lr0 * sqrt(B / B0)
    lr: float


def ffn_width(width: int, expand: float) -> int:
    """int(width * expand), rounded up to a multiple of 256: 1792 * 8/3 -> 4864, as InternEvo does."""
    return -(-int(width * expand) // MULTIPLE) * MULTIPLE


def _pi(width: int, depth: int, vocab: int) -> Preset:
    heads, ffn = width // 128, ffn_width(width, 8 / 3)
    return Preset(ModelConfig(vocab, width, depth, heads, heads, 128, ffn, series=2, shortcut=32), 2_097_152, 2e-4)


def _tiny(width: int, depth: int, head_dim: int, seq_len: int, batch_tokens: int, lr: float) -> Preset:
    heads, ffn = width // head_dim, ffn_width(width, 8 / 3)
    model = ModelConfig(32_000, width, depth, heads, heads, head_dim, ffn, seq_len=seq_len, tied=True)
    return Preset(model, batch_tokens, lr)


# pi-*: width, depth and vocabulary of PanGu-π and PanGu-π Pro (arXiv 2402.02791, figure of configurations)
PRESETS = {
    #                   width depth  D  seq_len  batch    lr
    "tiny-1m":    _tiny(128,   4,   32,   256,   4_096, 6e-3),
    "tiny-4m":    _tiny(256,   5,   64,   512,  16_384, 2e-3),
    "tiny-10m":   _tiny(384,   6,   64,   512,  32_768, 1.5e-3),
    "tiny-30m":   _tiny(512,   9,   64, 1_024,  65_536, 1e-3),
    "tiny-60m":   _tiny(640,  12,   64, 1_024, 131_072, 8e-4),
    "tiny-125m":  _tiny(768,  18,   64, 2_048, 262_144, 6e-4),
    "tiny-350m":  _tiny(1152, 22,   64, 2_048, 524_288, 3e-4),
    "pi-1b":       _pi(2048, 12, 100_883),
    "pi-1b-pro":   _pi(1792, 21, 48_000),
    "pi-1.5b-pro": _pi(2048, 22, 48_000),
}  # fmt: skip


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise TrainerError(f"unknown preset {name!r}", fix=f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def reshaped(
    c: ModelConfig, *, width: int = 0, depth: int = 0, expand: float = 0.0, heads: int = 0, kv_heads: int = 0
) -> ModelConfig:
    """The same model in another shape; 0 keeps a value. The width of a head changes only if `heads` is given."""
    ratio = expand or c.ffn / c.width
    width = width or c.width
    head_dim = width // heads if heads else c.head_dim
    heads = heads or width // head_dim
    if heads * head_dim != width:
        raise TrainerError(
            f"the width {width} is not a multiple of the head width {head_dim}",
            fix=f"use --width {round(width / head_dim) * head_dim}, or change --heads",
        )
    per = c.heads // c.kv_heads
    kv_heads = kv_heads or (heads // per if heads % per == 0 else heads)
    if heads % kv_heads:
        raise TrainerError(
            f"{heads} heads cannot share {kv_heads} key-value heads equally",
            fix="choose --kv-heads so that it divides --heads",
        )
    ffn = ffn_width(width, ratio) if expand or width != c.width else c.ffn
    return replace(c, width=width, depth=depth or c.depth, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn)
