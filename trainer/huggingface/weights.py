"""Hugging Face directories: config.json <-> ModelConfig, safetensors <-> state dict. Renaming only.

Our module names are Hugging Face's without `model.`, and our RoPE has the same layout, so reading and writing a
weight preserves its bits. InternLM2 packs query, key and value into one tensor, which is split when it is read.
Only safetensors are read; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import UNREADABLE, TrainerError
from trainer.huggingface.architecture import CUSTOM, architecture, read_config
from trainer.model.transformer import Model, ModelConfig

SHARD_BYTES = 5_000_000_000  # largest size of one safetensors file

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


@dataclass(frozen=True)
class Weights:
    """Weights of a Hugging Face directory by our names, read one at a time, so that little memory is needed."""

    directory: Path
    config: ModelConfig
    files: dict[str, str]  # tensor's name in the file -> file
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
                f"the safetensors files are missing or cannot be read: {e}",
                where=str(directory),
                fix="convert the model with AutoModelForCausalLM.from_pretrained(…).save_pretrained(…); "
                "pickled .bin files are not opened because they can run code",
                code=UNREADABLE,
            ) from None
        absent = sorted({f for f in files.values() if not (directory / f).exists()})
        if absent:
            raise TrainerError(
                f"{absent[0]} is missing, and {len(absent) - 1} more files"
                if absent[1:]
                else f"{absent[0]} is missing",
                where=str(directory),
                fix="download the model again; its index lists files that do not exist",
                code=UNREADABLE,
            )
        weights = cls(directory, config, files, kind == "internlm2")
        weights._check()
        return weights

    def names(self) -> list[str]:
        """Names of all parameters, in the order of this trainer's model."""
        with torch.device("meta"):
            return list(Model(self.config).state_dict())

    def read(self, name: str) -> Tensor:
        """A tensor in the file's own type."""
        from safetensors import SafetensorError, safe_open

        if name == "lm_head.weight" and self._stored_name(name) not in self.files:
            name = "embed_tokens.weight"
        stored = self._stored_name(name)
        try:
            with safe_open(self.directory / self.files[stored], "pt") as f:
                tensor = f.get_tensor(stored)
        except (OSError, SafetensorError) as e:
            fix = "download the model again"
            what = f"{self.files[stored]} cannot be read: {e}"
            raise TrainerError(what, where=str(self.directory), fix=fix, code=UNREADABLE) from None
        if self.packed and any(part in name for part in _QKV):
            return self._unpack(name, tensor)
        return tensor

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.names():
            yield name, self.read(name)

    def _stored_name(self, name: str) -> str:
        if not self.packed:
            return _exported(name)
        if any(part in name for part in _QKV):
            layer, kind = name.partition(".self_attn.")[0], name.rpartition(".")[2]
            return f"model.{layer}.attention.wqkv.{kind}"
        for ours, theirs in _INTERNLM2.items():
            if name == ours:
                return theirs
            if ours in name:
                return "model." + name.replace(ours, theirs)
        return f"model.{name}"

    def _unpack(self, name: str, packed: Tensor) -> Tensor:
        """Splits a packed tensor, whose rows are ordered as (group, queries of the group + key + value, D)."""
        c = self.config
        per = c.heads // c.kv_heads
        rows = packed.view(c.kv_heads, per + 2, c.head_dim, *packed.shape[1:])
        part = {"q": rows[:, :per], "k": rows[:, per : per + 1], "v": rows[:, per + 1 :]}[name.split("_proj")[0][-1]]
        return part.reshape(-1, *packed.shape[1:]).contiguous()

    def _check(self) -> None:
        """Raises TrainerError if a tensor of the model is missing, or if a file has one that the model does not use."""
        names = {self._stored_name(n) for n in self.names()}
        missing = sorted(names - self.files.keys())
        ignorable = (".rotary_emb.inv_freq", ".masked_bias")
        unread = sorted(n for n in self.files.keys() - names if not n.endswith(ignorable) and n != "lm_head.weight")
        if missing or unread:
            what = f"tensor {missing[0]} is missing" if missing else f"tensor {unread[0]} does not belong to this model"
            more = len(missing or unread) - 1
            raise TrainerError(
                what + (f", and {more} more" if more else ""),
                where=str(self.directory),
                fix="use a config.json and weights that belong to the same model",
            )


def _zero_biases(c: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Llama and Qwen3 have biases on all of q, k, v, o or on none; the missing ones are written as zeros."""
    if architecture(c) not in ("llama", "qwen3") or c.qkv_bias == c.out_bias:
        return
    rows = {"o_proj": c.width}
    if c.out_bias:
        rows = {"q_proj": c.heads * c.head_dim, "k_proj": c.kv_heads * c.head_dim, "v_proj": c.kv_heads * c.head_dim}
    for layer in range(c.depth):
        for name, size in rows.items():
            yield f"layers.{layer}.self_attn.{name}.bias", torch.zeros(size)


def _exported(name: str) -> str:
    """Our name -> Hugging Face's. The shortcut is stored in the attention module, which has the same input."""
    return name if name.startswith("lm_head") else "model." + name.replace(".shortcut.", ".self_attn.shortcut.")


def save(directory: Path, config: ModelConfig, tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> None:
    """Tensors by our names -> safetensors by theirs, split into files of at most 5 GB, one in memory at a time."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    parts: list[list[str]] = []
    held: dict[str, Tensor] = {}
    size = total = 0

    def write() -> None:
        save_file(held, directory / f"part-{len(parts)}", metadata={"format": "pt"})
        (directory / f"part-{len(parts)}").chmod(0o644)  # safetensors makes it readable by its owner only
        parts.append(list(held))
        held.clear()

    for name, tensor in chain(tensors, _zero_biases(config)):
        t = tensor.detach().to("cpu", dtype).contiguous()
        if held and size + t.nbytes > SHARD_BYTES:
            write()
            size = 0
        held[_exported(name)] = t
        size, total = size + t.nbytes, total + t.nbytes
    write()
    if len(parts) == 1:
        (directory / "part-0").rename(directory / "model.safetensors")
        return
    names: dict[str, str] = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        (directory / f"part-{i}").rename(directory / file)
        names |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def save_code(directory: Path, config: ModelConfig) -> None:
    """Copies the custom code that transformers needs for a model that no standard architecture can represent."""
    if architecture(config) == CUSTOM:
        code = f"modeling_{CUSTOM}.py"
        shutil.copyfile(Path(__file__).with_name(code), directory / code)


def load(directory: str | Path, dtype: torch.dtype = torch.float32) -> Model:
    """A directory -> the model, on the CPU."""
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
                f"{name} has the shape {list(tensor.shape)}, but config.json requires {list(own[name].shape)}",
                where=str(directory),
                fix="use a config.json and weights that belong to the same model",
            )
        own[name].copy_(tensor)
    return model
