"""Reads the large model one tensor or layer at a time, with its vocabulary already reduced to the small model's.

d width, h heads, k key-value heads, D head_dim, F ffn, V vocabulary of the target, n sequences of T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.huggingface.weights import Weights
from trainer.inheritance.id_map import Rows
from trainer.model.head_loss import IGNORE, head_loss
from trainer.model.transformer import Layer, Model, ModelConfig, Norm, angles, inverse_frequencies

TOKENS = 4096  # tokens in one forward pass of a layer

# the axis of each dimension of a tensor; `terms`: the terms of the series activation, F values each
AXES: dict[str, tuple[str, ...]] = {
    "embed_tokens.weight": ("vocab", "hidden"),
    "lm_head.weight": ("vocab", "hidden"),
    "norm.weight": ("hidden",),
    "input_layernorm.weight": ("hidden",),
    "post_attention_layernorm.weight": ("hidden",),
    "self_attn.q_proj.weight": ("heads", "hidden"),
    "self_attn.k_proj.weight": ("groups", "hidden"),
    "self_attn.v_proj.weight": ("groups", "hidden"),
    "self_attn.o_proj.weight": ("hidden", "heads"),
    "self_attn.q_proj.bias": ("heads",),
    "self_attn.k_proj.bias": ("groups",),
    "self_attn.v_proj.bias": ("groups",),
    "self_attn.o_proj.bias": ("hidden",),
    "self_attn.q_norm.weight": ("head_dim",),
    "self_attn.k_norm.weight": ("head_dim",),
    "mlp.gate_proj.weight": ("ffn", "hidden"),
    "mlp.up_proj.weight": ("ffn", "hidden"),
    "mlp.down_proj.weight": ("hidden", "ffn"),
    "mlp.gate_proj.bias": ("ffn",),
    "mlp.up_proj.bias": ("ffn",),
    "mlp.down_proj.bias": ("hidden",),
    "mlp.series.scale": ("terms",),
    "mlp.series.shift": ("terms",),
    "shortcut.down.weight": ("shortcut", "hidden"),
    "shortcut.up.weight": ("hidden", "shortcut"),
}
SITES = {
    "heads": "self_attn.o_proj",
    "ffn": "mlp.down_proj",
    "shortcut": "shortcut.up",
}  # the module that reads the units of an axis


def axes(name: str) -> tuple[str, ...]:
    return AXES[name.split(".", 2)[2] if name.startswith("layers.") else name]


def sizes(c: ModelConfig) -> dict[str, int]:
    """Number of units on each axis."""
    inner = max(1, c.width // c.shortcut) if c.shortcut else 0
    return {"hidden": c.width, "heads": c.heads, "groups": c.kv_heads, "ffn": c.ffn, "shortcut": inner}


@dataclass(frozen=True)
class Source:
    weights: Weights
    rows: Rows | None = None  # None: the vocabulary is not reduced

    @classmethod
    def open(cls, directory: str | Path, vocab: str = "") -> Source:
        weights, rows = Weights.open(directory), Rows.read(vocab) if vocab else None
        if rows and rows.old > weights.config.vocab:
            raise TrainerError(
                f"the vocabulary was made from one of {rows.old:,} ids, but the source has {weights.config.vocab:,}",
                where=str(rows.directory),
                fix="run `tinydata count` and `tinydata compact` with the source's own tokenizer",
            )
        return cls(weights, rows)

    @property
    def config(self) -> ModelConfig:
        return replace(self.weights.config, vocab=len(self.rows)) if self.rows else self.weights.config

    def names(self) -> list[str]:
        return self.weights.names()

    def read(self, name: str) -> Tensor:
        """A tensor in the file's own type. A tied source can be asked for its head as well."""
        tensor = self.weights.read(name)
        if axes(name)[0] == "vocab" and self.rows:
            return self.rows.gather(tensor)
        return tensor

    def layer(self, i: int, device: str = "cpu") -> Layer:
        """Layer i in float32, without gradients."""
        with torch.device("meta"):
            layer = Layer(self.config)
        state = {n: self.read(f"layers.{i}.{n}").to(device, torch.float32) for n in layer.state_dict()}
        layer.load_state_dict(state, assign=True)
        return layer.requires_grad_(False)

    def model(self, layers: list[int], device: str = "cpu") -> Model:
        """The model with only these layers, in float32, without gradients; all of it in memory."""
        with torch.device("meta"):
            model = Model(replace(self.config, depth=len(layers)))
        state = {}
        for name in model.state_dict():
            original = name
            if name.startswith("layers."):
                _, i, rest = name.split(".", 2)
                original = f"layers.{layers[int(i)]}.{rest}"
            state[name] = self.read(original).to(device, torch.float32)
        model.load_state_dict(state, assign=True)
        model.inv_freq = inverse_frequencies(self.config).to(device)
        return model.requires_grad_(False)


@dataclass
class LayerPass:
    """One layer and its input, batches of the residual float32 [B, T, d]; after run() also its output."""

    index: int
    layer: Layer
    inputs: list[Tensor]
    cos: Tensor
    sin: Tensor
    outputs: list[Tensor] = field(default_factory=list)

    def run(self) -> None:
        self.outputs = [self.layer(x, self.cos, self.sin) for x in self.inputs]


def layer_passes(source: Source, tokens: Tensor, device: str = "cpu") -> Iterator[LayerPass]:
    """tokens int64 [n, T] -> each layer of the source in turn, with its input; one layer is in memory at a time.

    The caller may add hooks to the layer and call run(); if it does not, run() is called here.
    """
    rows = max(1, TOKENS // tokens.shape[1])
    embedding = source.read("embed_tokens.weight")
    xs = [embedding[t].to(device, torch.float32) for t in tokens.split(rows)]
    del embedding
    cos, sin = angles(inverse_frequencies(source.config).to(device), tokens.shape[1])
    for i in range(source.config.depth):
        layer_pass = LayerPass(i, source.layer(i, device), xs, cos, sin)
        yield layer_pass
        if not layer_pass.outputs:
            with torch.no_grad():
                layer_pass.run()
        xs = layer_pass.outputs


@torch.no_grad()
def source_loss(source: Source, tokens: Tensor, targets: Tensor, device: str = "cpu") -> float:
    """tokens, targets int64 [n, T] -> nats per token; one layer is in memory at a time."""
    outputs: list[Tensor] = []
    for layer_pass in layer_passes(source, tokens, device):
        layer_pass.run()
        outputs = layer_pass.outputs
    norm = Norm(source.config.width, source.config.norm_eps)
    norm.weight.copy_(source.read("norm.weight"))
    x = norm.to(device)(torch.cat(outputs)).flatten(0, 1)
    head = source.read("lm_head.weight").to(device, torch.float32)
    total, _ = head_loss(x, head, targets.flatten().to(device))
    return float(total / (targets != IGNORE).sum())
