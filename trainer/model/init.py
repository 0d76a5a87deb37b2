"""Random initial weights, which do not depend on the number of processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from trainer.model.transformer import Model, ModelConfig

STD = 0.02
Scheme = Literal["constant", "depth-scaled", "gpt2"]  # the paper recommends the first: one std for all layers


def random_weights(config: ModelConfig, seed: int, scheme: Scheme = "constant") -> Iterator[tuple[str, Tensor]]:
    """(name, float32 tensor) of every parameter, in order.

    constant: N(0, 0.02) everywhere. depth-scaled: the output projections of layer l have a standard deviation of
    0.02 / sqrt(2 (l + 1)), InternEvo's rule. gpt2: 0.02 / sqrt(2 depth) in every layer.
    Norms start at 1, biases and the shortcut's second matrix at 0, the series activation as plain SiLU.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = [(name, p.shape) for name, p in Model(config).named_parameters()]
    for name, shape in shapes:
        yield name, _one(name, shape, config, scheme, generator)


def _one(name: str, shape: torch.Size, c: ModelConfig, scheme: Scheme, generator: torch.Generator) -> Tensor:
    if "norm" in name:
        return torch.ones(shape)
    if name.endswith("series.scale"):
        return torch.cat([torch.ones(c.ffn), torch.zeros(shape[0] - c.ffn)])
    if name.endswith((".bias", "series.shift", "shortcut.up.weight")):
        return torch.zeros(shape)
    std = STD
    if name.endswith(("o_proj.weight", "mlp.down_proj.weight")) and scheme != "constant":
        layer = int(name.split(".")[1])
        std /= math.sqrt(2 * (layer + 1 if scheme == "depth-scaled" else c.depth))
    return torch.empty(shape).normal_(std=std, generator=generator)
