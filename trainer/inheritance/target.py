"""Determines the shape to cut to from TARGET of `trainer.inherit`, and refuses impossible shapes with a suggestion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.huggingface.architecture import read_config
from trainer.inheritance.source import sizes
from trainer.model.presets import PRESETS, reshaped
from trainer.model.transformer import ModelConfig

# settings that the meaning of the weights depends on: the source's are used
MEANING = ("head_dim", "rope_theta", "rope_scaling", "norm_eps", "qk_norm")
OPTIONAL = ("qkv_bias", "out_bias", "mlp_bias")  # may be added, starting at zero


def shaped(
    target: str, source: ModelConfig, *, shape: dict[str, Any], series: int, shortcut: int, tied: bool | None
) -> ModelConfig:
    """A preset's name, a config.json or its directory, changed by the options (0, -1 and None change nothing).

    A preset gives only the shape; positions, norms and biases are the source's.
    """
    if target in PRESETS:
        c = reshaped(PRESETS[target].model, **{**shape, "kv_heads": 0})
        _check_head_dim(c, source, shape)
        c = replace(c, kv_heads=shape["kv_heads"] or _fewest_groups(c.heads, source.heads // source.kv_heads))
        c = replace(c, **{k: getattr(source, k) for k in (*MEANING, *OPTIONAL)}, vocab=source.vocab)
        c = replace(c, seq_len=min(c.seq_len, source.seq_len))
    else:
        c = _read(target)
        if any(v for k, v in shape.items() if k != "depth"):
            c = reshaped(c, **shape)
        c = replace(c, depth=shape["depth"] or c.depth)
        _check_head_dim(c, source, shape)
    c = replace(c, series=series or c.series, shortcut=c.shortcut if shortcut < 0 else shortcut)
    if tied is not None:
        c = replace(c, tied=tied)
    check(c, source)
    return c


def _read(target: str) -> ModelConfig:
    path = Path(target)
    if path.name == "config.json":
        path = path.parent
    if not (path / "config.json").exists():
        raise TrainerError(
            f"{target!r} is neither a preset nor a config.json",
            fix=f"use one of {', '.join(PRESETS)}, or a directory with a config.json",
        )
    return read_config(path)


def _fewest_groups(heads: int, most: int) -> int:
    """The smallest number of key-value heads for `heads`, with at most `most` heads per group."""
    return next(k for k in range(1, heads + 1) if heads % k == 0 and heads // k <= most)


def _check_head_dim(c: ModelConfig, source: ModelConfig, shape: dict[str, Any]) -> None:
    if c.head_dim != source.head_dim and c.width <= source.width:  # a wider target is refused for its width
        fits = c.width % source.head_dim == 0
        width = c.width if fits else max(1, round(c.width / source.head_dim)) * source.head_dim
        flag = "" if fits else f"--width {width} "
        raise TrainerError(
            f"heads of {c.head_dim} dimensions cannot be cut from heads of {source.head_dim}: heads are kept whole, "
            "because their rotary frequencies depend on their width",
            fix=f"use {flag}--heads {width // source.head_dim}, for heads of {source.head_dim} dimensions",
        )


def check(target: ModelConfig, source: ModelConfig) -> None:
    """Raises TrainerError if the target is larger than the source in any dimension, or interprets weights otherwise."""
    larger = _larger(target, source)
    if larger:
        raise TrainerError(
            f"the target is larger than the source: {'; '.join(what for what, _ in larger)}",
            fix=f"choose a smaller target or a smaller {larger[0][1]}; inheritance can only remove units",
        )
    if target.vocab != source.vocab:
        raise TrainerError(
            f"the target has {target.vocab:,} ids, but the source has {source.vocab:,}",
            fix="pass the output of `tinydata compact` for the target with --vocab DIR, or use the same vocab_size",
        )
    different = [k for k in MEANING if getattr(target, k) != getattr(source, k)]
    different += [k for k in OPTIONAL if getattr(source, k) and not getattr(target, k)]
    if different:
        pairs = (f"{k} {getattr(target, k)} (source: {getattr(source, k)})" for k in different)
        raise TrainerError(
            f"the target differs in settings that must be the same as in the source: {'; '.join(pairs)}",
            fix="set these in the target's config.json to the values of the source",
        )
    if target.series < source.series or (source.shortcut and not target.shortcut):
        raise TrainerError(
            f"the target would lose learned weights: the source has {source.series} series terms and shortcut r = "
            f"{source.shortcut}, the target {target.series} and {target.shortcut} (0: no shortcut)",
            fix=f"use --series {source.series} --shortcut {source.shortcut}",
        )


def _larger(target: ModelConfig, source: ModelConfig) -> list[tuple[str, str]]:
    """(what is larger, the flag that sets it)"""
    have, want = sizes(source), sizes(target)
    pairs = [("layers", target.depth, source.depth, "--depth"), ("width", target.width, source.width, "--width")]
    pairs += [("ffn", target.ffn, source.ffn, "--expand"), ("heads", target.heads, source.heads, "--heads")]
    pairs.append(("key-value heads", target.kv_heads, source.kv_heads, "--kv-heads"))
    if source.shortcut:  # otherwise it starts without effect
        pairs.append(
            ("inner width of the shortcut", want["shortcut"], have["shortcut"], "width or a larger --shortcut")
        )
    found = [(f"{what} {n:,} > {m:,}", flag) for what, n, m, flag in pairs if n > m]
    per, most = target.heads // target.kv_heads, source.heads // source.kv_heads
    if per > most:
        found.append((f"heads per key-value group {per} > {most}", "--heads, or more --kv-heads"))
    return found
