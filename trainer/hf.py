"""Hugging Face directories: config.json <-> ModelConfig, safetensors <-> state dict. Renaming only.

Our module names are theirs without `model.`, and our RoPE is laid out as theirs, so a weight that goes
in and out again is the same bits. InternLM2 packs query, key and value; it is taken apart on the way in.
Nothing is ever unpickled: safetensors only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import UNREADABLE, TrainerError
from trainer.model import Model, ModelConfig

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "internlm2", "tinydata")
SHARD_BYTES = 5_000_000_000  # of one safetensors file
CUSTOM = "tinydata"  # model_type of what plain architectures cannot say

_INTERNLM2 = {
    "embed_tokens.weight": "model.tok_embeddings.weight",
    "lm_head.weight": "output.weight",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def read_config(directory: str | Path) -> ModelConfig:
    """config.json -> ModelConfig. Raises TrainerError for what the model here cannot be."""
    path = Path(directory) / "config.json"
    try:
        c = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise TrainerError(
            f"no readable config.json: {e}", where=str(path), fix="name a Hugging Face model directory", code=UNREADABLE
        ) from None
    kind = c.get("model_type")
    if kind not in FAMILIES:
        raise TrainerError(
            f"models of type {kind!r} are not read", where=str(path), fix=f"one of {', '.join(FAMILIES)} is"
        )
    c = {**c.get("text_config", {}), **c}
    if c.get("hidden_act", "silu") not in ("silu", "swish"):
        raise TrainerError(
            f"its activation is {c['hidden_act']}, not silu", where=str(path), fix="use a SwiGLU model as the source"
        )
    rope = c.get("rope_parameters") or {}
    scaling = c.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
    if scaling:
        scaling = {k: v for k, v in scaling.items() if k != "rope_theta"}
        scaling["rope_type"] = scaling.get("rope_type") or scaling.pop("type")
        if scaling["rope_type"] == "dynamic" and kind == "internlm2":
            scaling = None  # stretches only what is longer than the model was trained on
        elif scaling["rope_type"] not in ("llama3", "linear"):
            raise TrainerError(
                f"RoPE scaling {scaling['rope_type']!r} is not known here",
                where=str(path),
                fix="llama3 and linear are; for short sequences, remove rope_scaling from config.json",
            )
    heads = c["num_attention_heads"]
    attention_bias = bool(c.get("attention_bias", c.get("bias", False)))
    return ModelConfig(
        vocab=c["vocab_size"],
        width=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=heads,
        kv_heads=c.get("num_key_value_heads") or heads,
        head_dim=c.get("head_dim") or c["hidden_size"] // heads,
        ffn=c["intermediate_size"],
        seq_len=c.get("max_position_embeddings", 2048),
        tied=c.get("tie_word_embeddings", False),
        qk_norm=kind == "qwen3" or c.get("qk_norm", False),
        qkv_bias=kind == "qwen2" or attention_bias or c.get("qkv_bias", False),
        out_bias=attention_bias and kind != "qwen2",
        mlp_bias=c.get("mlp_bias", False),
        series=c.get("series", 1),
        shortcut=c.get("shortcut", 0),
        rope_theta=float(rope.get("rope_theta") or c.get("rope_theta", 10_000.0)),
        rope_scaling=scaling,
        norm_eps=c.get("rms_norm_eps", 1e-6),
    )


def config_json(c: ModelConfig, dtype: torch.dtype, special: dict[str, int | None] | None = None) -> dict[str, Any]:
    """ModelConfig -> config.json: of LlamaForCausalLM, of Qwen3ForCausalLM with qk_norm, else of the custom model.

    `special`: bos_token_id, eos_token_id. The keys that older readers look for are written beside the new ones.
    """
    name = str(dtype).removeprefix("torch.")
    out: dict[str, Any] = {
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
        "attention_bias": c.qkv_bias or c.out_bias,
        "rope_theta": c.rope_theta,
        "rope_scaling": c.rope_scaling,
        "rope_parameters": {"rope_theta": c.rope_theta, **(c.rope_scaling or {"rope_type": "default"})},
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": name,
        "torch_dtype": name,
        **(special or {}),
    }
    if is_custom(c):
        extra = {k: getattr(c, k) for k in ("qk_norm", "qkv_bias", "out_bias", "mlp_bias", "series", "shortcut")}
        module = f"modeling_{CUSTOM}"
        auto = {"AutoConfig": f"{module}.TinydataConfig", "AutoModelForCausalLM": f"{module}.TinydataForCausalLM"}
        out |= {"model_type": CUSTOM, "architectures": ["TinydataForCausalLM"], **extra, "auto_map": auto}
        out["attention_bias"] = False
    elif c.qk_norm:
        out |= {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "use_sliding_window": False}
    else:
        out |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "mlp_bias": c.mlp_bias}
    return out


def is_custom(c: ModelConfig) -> bool:
    """Whether neither Llama nor Qwen3 can say it."""
    biases = c.qkv_bias != c.out_bias
    return c.series > 1 or c.shortcut > 0 or biases or (c.qk_norm and c.mlp_bias)


@dataclass(frozen=True)
class Weights:
    """Weights of a Hugging Face directory by our names, one read at a time: a 7B model needs no 7B of memory."""

    directory: Path
    config: ModelConfig
    files: dict[str, str]  # tensor's name there -> file
    packed: bool  # InternLM2

    @classmethod
    def open(cls, directory: str | Path) -> Weights:
        from safetensors import safe_open

        directory = Path(directory)
        config = read_config(directory)
        kind = json.loads((directory / "config.json").read_text())["model_type"]
        index = directory / "model.safetensors.index.json"
        try:
            if index.exists():
                files = json.loads(index.read_text())["weight_map"]
            else:
                with safe_open(directory / "model.safetensors", "pt") as f:
                    files = dict.fromkeys(f.keys(), "model.safetensors")
        except Exception as e:
            raise TrainerError(
                f"no readable safetensors: {e}",
                where=str(directory),
                fix="convert the model: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…); "
                "pickled .bin files are not opened, they can run code",
                code=UNREADABLE,
            ) from None
        found = cls(directory, config, files, kind == "internlm2")
        found._check()
        return found

    def names(self) -> list[str]:
        """All of the model's, in our order."""
        with torch.device("meta"):
            return list(Model(self.config).state_dict())

    def read(self, name: str) -> Tensor:
        """A tensor in the file's own type."""
        from safetensors import safe_open

        if name == "lm_head.weight" and self._there(name) not in self.files:
            name = "embed_tokens.weight"
        there = self._there(name)
        with safe_open(self.directory / self.files[there], "pt") as f:
            tensor = f.get_tensor(there)
        if self.packed and any(part in name for part in _QKV):
            return self._unpack(name, tensor)
        return tensor

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.names():
            yield name, self.read(name)

    def _there(self, name: str) -> str:
        if not self.packed:
            return name if name.startswith("lm_head") else f"model.{name}"
        if any(part in name for part in _QKV):
            layer, _, kind = name.rpartition(".self_attn.")[0], "", name.rpartition(".")[2]
            return f"model.{layer}.attention.wqkv.{kind}"
        for ours, theirs in _INTERNLM2.items():
            if name == ours:
                return theirs
            if ours in name:
                return "model." + name.replace(ours, theirs)
        return f"model.{name}"

    def _unpack(self, name: str, packed: Tensor) -> Tensor:
        """Rows lie as (group, queries of the group + key + value, D)."""
        c = self.config
        per = c.heads // c.kv_heads
        rows = packed.view(c.kv_heads, per + 2, c.head_dim, *packed.shape[1:])
        part = {"q": rows[:, :per], "k": rows[:, per : per + 1], "v": rows[:, per + 1 :]}[name.split("_proj")[0][-1]]
        return part.reshape(-1, *packed.shape[1:]).contiguous()

    def _check(self) -> None:
        """Every tensor is there, and none is left over that the model would do without in silence."""
        names = {self._there(n) for n in self.names() if n != "lm_head.weight" or self._there(n) in self.files}
        missing = sorted(names - self.files.keys())
        ignorable = (".rotary_emb.inv_freq", ".masked_bias")
        unread = sorted(n for n in self.files.keys() - names if not n.endswith(ignorable) and n != "lm_head.weight")
        if missing or unread:
            what = f"tensor {missing[0]} is missing" if missing else f"tensor {unread[0]} has no place in this model"
            more = len(missing or unread) - 1
            raise TrainerError(
                what + (f", and {more} more" if more else ""),
                where=str(self.directory),
                fix="config.json and the weights must be of the same model",
            )


def save(directory: Path, config: ModelConfig, tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> None:
    """Tensors by our names -> safetensors by theirs, split into files of at most 5 GB, one in memory at a time."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    parts: list[list[str]] = []
    held: dict[str, Tensor] = {}
    size = total = 0

    def write() -> None:
        save_file(held, directory / f"part-{len(parts)}", metadata={"format": "pt"})
        parts.append(list(held))
        held.clear()

    for name, tensor in tensors:
        t = tensor.detach().to("cpu", dtype).contiguous()
        if held and size + t.nbytes > SHARD_BYTES:
            write()
            size = 0
        held[name if name.startswith("lm_head") else f"model.{name}"] = t
        size, total = size + t.nbytes, total + t.nbytes
    write()
    if len(parts) == 1:
        (directory / "part-0").rename(directory / "model.safetensors")
        return
    names = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        (directory / f"part-{i}").rename(directory / file)
        names |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def load(directory: str | Path, dtype: torch.dtype = torch.float32) -> Model:
    """A directory -> the model, on this machine's memory."""
    weights = Weights.open(directory)
    with torch.device("meta"):
        model = Model(weights.config)
    model = model.to(dtype).to_empty(device="cpu")
    model.inv_freq = model.inv_freq.float()
    model.fill_buffers()
    own = model.state_dict()
    for name, tensor in weights.items():
        if own[name].shape != tensor.shape:
            raise TrainerError(
                f"{name} is {list(tensor.shape)}, the configuration says {list(own[name].shape)}",
                where=str(directory),
                fix="config.json and the weights must be of the same model",
            )
        own[name].copy_(tensor)
    return model


def describe(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as JSON."""
    return asdict(c)
