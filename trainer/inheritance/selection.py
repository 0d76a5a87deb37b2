"""Chooses the units to keep (Selection), and cuts the small model's tensors out of the large model's.

The whole residual stream has one set of hidden indices. Heads are kept whole, the same number in each kept key-value
group. Everything else is chosen per layer. Norms and output projections are rescaled to correct for the cut
(Corrections).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.inheritance.source import SITES, Source, axes, sizes
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig

Units = dict[str, Tensor]  # axis -> one value, or one index, per unit


@dataclass(frozen=True)
class Scores:
    """The score of every unit; the highest are kept. The axes of a layer are heads, groups, ffn and shortcut."""

    hidden: Tensor  # [d]
    layers: list[Units]  # of the kept layers, in order


@dataclass(frozen=True)
class Selection:
    """The layers and units to keep, as sorted indices into the source."""

    layers: list[int]
    hidden: Tensor
    units: list[Units]  # for each kept layer; heads are sorted by group


@dataclass(frozen=True)
class Corrections:
    """Rescaling of norms and output projections, by the target's parameter names."""

    norms: dict[str, float] = field(default_factory=dict)  # factor of a norm's weight
    projections: dict[str, Tensor] = field(default_factory=dict)  # replace the weights that were cut out
    spread: bool = False  # scale so that sums over fewer terms keep their variance


def choose(scores: Scores, layers: list[int], source: ModelConfig, target: ModelConfig) -> Selection:
    """The units with the highest scores, as many as the target has; of equal scores, the first."""
    want, per, keep = sizes(target), source.heads // source.kv_heads, target.heads // target.kv_heads
    units = []
    for s in scores.layers:
        groups = top(s["groups"], target.kv_heads)
        heads = [g * per + top(s["heads"][g * per : (g + 1) * per], keep) for g in groups.tolist()]
        kept = {"groups": groups, "heads": torch.cat(heads), "ffn": top(s["ffn"], target.ffn)}
        if "shortcut" in s:
            kept["shortcut"] = top(s["shortcut"], want["shortcut"])
        units.append(kept)
    return Selection(layers, top(scores.hidden, target.width), units)


def top(scores: Tensor, n: int) -> Tensor:
    return torch.sort(scores, descending=True, stable=True).indices[:n].sort().values


def expand(index: Tensor, width: int) -> Tensor:
    """Indices of units with `width` elements each -> indices of their elements."""
    return (index.unsqueeze(1) * width + torch.arange(width)).flatten()


def elements(selection: Selection, layer: int, axis: str, c: ModelConfig) -> Tensor | None:
    """Indices along a tensor's dimension, for the kept layer number `layer`; None: all are kept.

    c: the source's configuration.
    """
    if axis in ("vocab", "head_dim"):
        return None
    if axis == "hidden":
        return selection.hidden
    units = selection.units[layer]
    if axis == "terms":
        return torch.cat([i * c.ffn + units["ffn"] for i in range(c.series)])
    return expand(units[axis], c.head_dim) if axis in ("heads", "groups") else units[axis]


def cut(tensor: Tensor, name: str, selection: Selection, layer: int, c: ModelConfig) -> Tensor:
    """A tensor of the source, without the units that are not kept."""
    for dim, axis in enumerate(axes(name)):
        index = elements(selection, layer, axis, c)
        if index is not None and len(index) != tensor.shape[dim]:
            tensor = tensor.index_select(dim, index)
    return tensor


def sliced(
    source: Source, target: ModelConfig, selection: Selection, corrections: Corrections, *, tie: str = "", seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor in the source's type) of every parameter of the target, in order; one is in memory at a time.

    tie: the rows that a tied target takes from an untied source: embedding, head or mean. Parts that the source
    lacks (PanGu-π's additions, biases) start without effect.
    """
    with torch.device("meta"):
        names = list(Model(target).state_dict())
    existing = {*source.names(), "lm_head.weight"}
    added = {n for n in names if _source_name(n, selection) not in existing}
    fresh = {n: t for n, t in random_weights(target, seed) if n in added} if added else {}
    for name in names:
        ready = fresh.get(name, corrections.projections.get(name))
        if ready is not None:
            yield name, ready
            continue
        layer = int(name.split(".")[1]) if name.startswith("layers.") else 0
        if name == "embed_tokens.weight" and tie in ("head", "mean"):
            tensor = _tied_rows(source, tie)
        else:
            tensor = source.read(_source_name(name, selection))
        kept = cut(tensor, name, selection, layer, source.config)
        if name.endswith(("series.scale", "series.shift")) and target.series > source.config.series:
            kept = torch.cat([kept, kept.new_zeros((target.series - source.config.series) * target.ffn)])
        factor = _factor(name, source.config, target, corrections)
        yield name, kept if factor == 1.0 else (kept.float() * factor).to(kept.dtype)


def _source_name(name: str, selection: Selection) -> str:
    """A parameter's name in the target -> its name in the source."""
    if not name.startswith("layers."):
        return name
    _, i, rest = name.split(".", 2)
    return f"layers.{selection.layers[int(i)]}.{rest}"


def _tied_rows(source: Source, tie: str) -> Tensor:
    head = source.read("lm_head.weight")
    if tie == "head":
        return head
    return ((source.read("embed_tokens.weight").float() + head.float()) / 2).to(head.dtype)


def _factor(name: str, source: ModelConfig, target: ModelConfig, corrections: Corrections) -> float:
    """For a norm: rms of the kept dimensions / rms of all; with `spread`, also sqrt(terms before / terms now).

    Everything that reads the residual reads it through a norm, so the factor for q, k, v, gate, up and the head is
    applied there.
    """
    factor = corrections.norms.get(name, 1.0)
    if not corrections.spread:
        return factor
    have, want = sizes(source), sizes(target)
    if name.endswith(("layernorm.weight",)) or name == "norm.weight":
        return factor * math.sqrt(have["hidden"] / want["hidden"])
    for axis, site in SITES.items():
        if name.endswith(f"{site}.weight"):
            return math.sqrt(have[axis] / want[axis])
    return factor
