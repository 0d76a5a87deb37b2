"""Converts between config.json of Hugging Face and ModelConfig.

A ModelConfig is written as the first of these architectures that can represent it: Qwen2 (bias only on q, k, v),
Llama, Mistral (heads that do not divide the width, which Llama's configuration refuses), Qwen3 (qk_norm), our own
code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from trainer.errors import UNREADABLE, TrainerError
from trainer.model.transformer import ModelConfig

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "internlm2", "tinydata")
CUSTOM = "tinydata"  # model_type of models that no standard architecture can represent
BIASED = ("llama", "qwen3", CUSTOM)  # have attention_bias, for q, k, v and o together; CUSTOM has separate switches


def read_config(directory: str | Path) -> ModelConfig:
    """config.json -> ModelConfig. Raises TrainerError for architectures and settings that are not supported."""
    path = Path(directory) / "config.json"
    try:
        c = json.loads(path.read_text())
        kind = c.get("model_type")
        if kind not in FAMILIES:
            raise _refused(f"models of type {kind!r} are not supported", path, f"use one of {', '.join(FAMILIES)}")
        return _model_config(c, kind, path)
    except (OSError, ValueError, AttributeError) as e:
        fix = "pass a Hugging Face model directory"
        raise TrainerError(
            f"config.json is missing or cannot be read: {e}", where=str(path), fix=fix, code=UNREADABLE
        ) from None
    except KeyError as e:
        raise _refused(
            f"the key {e} is missing in config.json", path, "download the model's config.json again"
        ) from None


def _model_config(c: dict[str, Any], kind: str, path: Path) -> ModelConfig:
    if c.get("hidden_act", "silu") not in ("silu", "swish"):
        raise _refused(f"the activation {c['hidden_act']} is not supported, only silu", path, "use a model with SwiGLU")
    heads = c["num_attention_heads"]
    head_dim = c.get("head_dim") or (128 if kind == "qwen3" else c["hidden_size"] // heads)
    seq_len = c.get("max_position_embeddings", 2048)
    window = c.get("sliding_window") if kind == "mistral" or c.get("use_sliding_window") else None
    own = kind == CUSTOM
    bias = bool(c.get("attention_bias", c.get("bias", False))) and not own
    return ModelConfig(
        vocab=c["vocab_size"],
        width=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=heads,
        kv_heads=c.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        ffn=c["intermediate_size"],
        seq_len=min(seq_len, window or seq_len),  # within its window, sliding attention is plain attention
        tied=c.get("tie_word_embeddings", False),
        qk_norm=kind == "qwen3" or (own and c["qk_norm"]),
        qkv_bias=kind == "qwen2" or bias or (own and c["qkv_bias"]),
        out_bias=(bias and kind != "qwen2") or (own and c["out_bias"]),
        mlp_bias=bool(c.get("mlp_bias", False)),
        series=c["series"] if own else 1,
        shortcut=c["shortcut"] if own else 0,
        rope_theta=float((c.get("rope_parameters") or {}).get("rope_theta") or c.get("rope_theta", 10_000.0)),
        rope_scaling=_rope_scaling(c, kind, path),
        norm_eps=c.get("rms_norm_eps", 1e-6),
    )


def _rope_scaling(c: dict[str, Any], kind: str, path: Path) -> dict[str, Any] | None:
    """In the form of transformers 5 (rope_parameters) or 4 (rope_scaling, with `type` before 4.43)."""
    scaling = dict(c.get("rope_scaling") or c.get("rope_parameters") or {})
    scaling.pop("rope_theta", None)
    name = scaling.get("rope_type") or scaling.pop("type", "default")
    partial = scaling.pop("partial_rotary_factor", None) or c.get("partial_rotary_factor") or 1.0
    if partial != 1.0:
        raise _refused(f"RoPE applies to only {partial:.0%} of each head", path, "use a model with RoPE on all of it")
    if name == "default" or (name == "dynamic" and kind == "internlm2"):
        return None  # dynamic scaling only affects sequences longer than in training
    if name not in ("llama3", "linear"):
        fix = "use a model with llama3 or linear scaling; for short sequences, remove rope_scaling from config.json"
        raise _refused(f"RoPE scaling {name!r} is not supported", path, fix)
    return {**scaling, "rope_type": name}


def _refused(what: str, path: Path, fix: str) -> TrainerError:
    return TrainerError(what, where=str(path), fix=fix)


def architecture(c: ModelConfig) -> str:
    """The model_type of config.json: the most widely supported one that represents the model exactly."""
    only_qkv = c.qkv_bias and not c.out_bias
    if c.series > 1 or c.shortcut or (c.qk_norm and c.mlp_bias):
        return CUSTOM
    if c.qk_norm:
        return "qwen3"
    if only_qkv and not c.mlp_bias and c.heads * c.head_dim == c.width:
        return "qwen2"
    if c.width % c.heads == 0:
        return "llama"
    return CUSTOM if c.qkv_bias or c.out_bias or c.mlp_bias else "mistral"


def is_custom(c: ModelConfig) -> bool:
    """Whether no standard architecture can represent the model."""
    return architecture(c) == CUSTOM


_CLASS = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", CUSTOM: "Tinydata"}
_MODULE = f"modeling_{CUSTOM}"
_MORE: dict[str, dict[str, Any]] = {  # keys of one architecture
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"use_sliding_window": False},
    CUSTOM: {
        "auto_map": {
            "AutoConfig": f"{_MODULE}.{_CLASS[CUSTOM]}Config",
            "AutoModelForCausalLM": f"{_MODULE}.{_CLASS[CUSTOM]}ForCausalLM",
        }
    },
}


def config_json(c: ModelConfig, dtype: torch.dtype, special: dict[str, int | None] | None = None) -> dict[str, Any]:
    """ModelConfig -> config.json of its `architecture`.

    `special`: bos_token_id, eos_token_id; null if not given, because Llama's defaults would be 1 and 2. The keys that
    older readers look for are written as well as the new ones.
    """
    name, kind = str(dtype).removeprefix("torch."), architecture(c)
    out: dict[str, Any] = {
        "model_type": kind,
        "architectures": [f"{_CLASS[kind]}ForCausalLM"],
        "vocab_size": c.vocab,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.ffn,
        "hidden_act": "silu",
        "max_position_embeddings": c.seq_len,
        "tie_word_embeddings": c.tied,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": c.rope_scaling,
        "rope_parameters": {"rope_theta": c.rope_theta, **(c.rope_scaling or {"rope_type": "default"})},
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": name,
        "torch_dtype": name,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if kind in BIASED:
        out["attention_bias"] = c.qkv_bias or c.out_bias
    if kind in ("llama", CUSTOM):
        out["mlp_bias"] = c.mlp_bias
    if kind == CUSTOM:
        out |= {k: getattr(c, k) for k in ("qk_norm", "qkv_bias", "out_bias", "series", "shortcut")}
    return out | _MORE.get(kind, {}) | (special or {})
