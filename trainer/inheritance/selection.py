"""Chooses the units to keep (Selection), and cuts the small model's tensors out of the large model's.

One set of hidden indices for the whole residual stream; heads whole, equally many in each kept key-value
group; the rest layer by layer. Norms and output projections are rescaled to correct for the cut (Corrections).
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

Units = dict[str, Tensor]  # axis -> a value or an index of each unit


@dataclass(frozen=True)
class Scores:
    """Units with higher scores are kept first. `layers`: kept layers, in order; axes heads, groups, ffn, shortcut."""

    hidden: Tensor  # [d]
    layers: list[Units]


@dataclass(frozen=True)
class Selection:
    """Sorted indices into the source."""

    layers: list[int]
    hidden: Tensor
    units: list[Units]  # by kept layer; heads lie group by group


@dataclass(frozen=True)
class Corrections:
    """Rescaling of norms and output projections, by the target's parameter names."""

    norms: dict[str, float] = field(default_factory=dict)  # factor of a norm's weight
    projections: dict[str, Tensor] = field(default_factory=dict)  # weights instead of those cut out
    spread: bool = False  # scale so that sums over fewer terms keep their variance


def choose(scores: Scores, layers: list[int], source: ModelConfig, target: ModelConfig) -> Selection:
    """The highest scores fill the target's shape exactly; of equal ones the first."""
    want, per, keep = sizes(target), source.heads // source.kv_heads, target.heads // target.kv_heads
    units = []
    for s in scores.layers:
        groups = top(s["groups"], target.kv_heads)
        heads = [g * per + top(s["heads"][g * per : (g + 1) * per], keep) for g in groups.tolist()]
        found = {"groups": groups, "heads": torch.cat(heads), "ffn": top(s["ffn"], target.ffn)}
        if "shortcut" in s:
            found["shortcut"] = top(s["shortcut"], want["shortcut"])
        units.append(found)
    return Selection(layers, top(scores.hidden, target.width), units)


def top(scores: Tensor, n: int) -> Tensor:
    return torch.sort(scores, descending=True, stable=True).indices[:n].sort().values


def expand(index: Tensor, width: int) -> Tensor:
    """Units of `width` elements each -> elements."""
    return (index.unsqueeze(1) * width + torch.arange(width)).flatten()


def elements(selection: Selection, layer: int, axis: str, c: ModelConfig) -> Tensor | None:
    """Indices along a tensor's dimension, of the kept layer number `layer`; None: all of it stays.

    c: the source's.
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
    """A tensor of the source, by its name, without the units that go."""
    for dim, axis in enumerate(axes(name)):
        index = elements(selection, layer, axis, c)
        if index is not None and len(index) != tensor.shape[dim]:
            tensor = tensor.index_select(dim, index)
    return tensor


def sliced(
    source: Source, target: ModelConfig, selection: Selection, corrections: Corrections, *, tie: str = "", seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor in the source's type) of every parameter of the target, in order; one is in memory at a time.

    tie: which rows a tied target takes from an untied source: embedding, head or mean. What the source has
    not (PanGu-π's parts, biases) starts as the identity.
    """
    with torch.device("meta"):
        names = list(Model(target).state_dict())
    own = {*source.names(), "lm_head.weight"}
    added = {n for n in names if _there(n, selection) not in own}
    fresh = {n: t for n, t in random_weights(target, seed) if n in added} if added else {}
    for name in names:
        done = fresh.get(name, corrections.projections.get(name))
        if done is not None:
            yield name, done
            continue
        layer = int(name.split(".")[1]) if name.startswith("layers.") else 0
        if name == "embed_tokens.weight" and tie in ("head", "mean"):
            tensor = _tied_rows(source, tie)
        else:
            tensor = source.read(_there(name, selection))
        kept = cut(tensor, name, selection, layer, source.config)
        if name.endswith(("series.scale", "series.shift")) and target.series > source.config.series:
            kept = torch.cat([kept, kept.new_zeros((target.series - source.config.series) * target.ffn)])
        factor = _factor(name, source.config, target, corrections)
        yield name, kept if factor == 1.0 else (kept.float() * factor).to(kept.dtype)


def _there(name: str, selection: Selection) -> str:
    """The target's name -> the source's."""
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
    """Of a norm: rms of the kept dimensions / rms of all. With `spread`: sqrt(terms before / terms now) too.

    What reads the residual reads it through a norm, so the spread of q, k, v, gate, up and the head lies there.
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
