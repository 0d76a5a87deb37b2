"""Scores the importance of each unit of the kept layers, from the source's weights or from data.

l1, l2       norm of all weights that read or write a unit (hidden: over all kept layers, embedding and head).
             No forward pass, one tensor in memory at a time.
activation   Minitron's rule: mean |activation| over a sequence, L2 over sequences; a head by the L2 norm of its
             output, hidden by the outputs of all norms. One layer in memory at a time.
taylor       sum over sequences of |d loss / d z|, z = 1 a factor on the unit: first-order change of the loss if
             the unit is removed, which is |sum of w * dL/dw| over its output weights. The whole source in memory.
mask         factors z that are learned: trainer.inheritance.learned_mask.
uniform      evenly spaced units, and random by seed: baselines for the other methods.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainer.inheritance.selection import Scores, Units
from trainer.inheritance.source import SITES, Source, axes, layer_passes, sizes
from trainer.model.transformer import Layer, ModelConfig

METHODS = ("l1", "l2", "taylor", "activation", "mask", "uniform", "random")
FORWARD = ("taylor", "activation", "mask")  # need data


def weight_norms(source: Source, layers: list[int], power: int) -> Scores:
    """l1 (power 1) and l2 (power 2), in float32."""
    c = source.config
    hidden = torch.zeros(c.width)
    units = [_zeros(c) for _ in layers]
    for name in source.names():
        own = units[layers.index(_layer(name))] if _layer(name) in layers else None
        if "norm" in name or (own is None and name.startswith("layers.")):
            continue
        weight = source.read(name).float().abs_() ** power
        for dim, axis in enumerate(axes(name)):
            of_unit = weight.sum(dim=tuple(d for d in range(weight.dim()) if d != dim)) if weight.dim() > 1 else weight
            if axis == "hidden":
                hidden += of_unit
            elif own is not None and axis in own:
                own[axis] += of_unit.view(len(own[axis]), -1).sum(1)
        _report(f"scored {name}", name.endswith("mlp.down_proj.weight"))
    for u in units:  # a group consists of its key, its value and all its heads
        u["groups"] += u["heads"].view(c.kv_heads, -1).sum(1)
    return Scores(hidden, units)


def _zeros(c: ModelConfig) -> Units:
    return {axis: torch.zeros(n) for axis, n in sizes(c).items() if axis != "hidden" and n}


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("layers.") else -1


def _report(what: str, now: bool = True) -> None:
    if now:
        print(what, file=sys.stderr)


# -- without scores ---------------------------------------------------------------------------


def uniform(c: ModelConfig, target: ModelConfig, depth: int) -> Scores:
    """1 for evenly spaced units, the same in every layer, also within a group of heads."""
    per, keep = c.heads // c.kv_heads, target.heads // target.kv_heads
    want = sizes(target)
    units = {a: spaced(n, want[a]) for a, n in sizes(c).items() if a not in ("hidden", "heads") and n}
    units["heads"] = spaced(per, keep).repeat(c.kv_heads)
    return Scores(spaced(c.width, target.width), [units] * depth)


def spaced(n: int, keep: int) -> Tensor:
    """float32 [n]: 1 at `keep` evenly spaced positions."""
    out = torch.zeros(n)
    out[torch.arange(keep) * n // max(1, keep)] = 1.0
    return out


def random(c: ModelConfig, depth: int, seed: int) -> Scores:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.rand(c.width, generator=g)
    return Scores(hidden, [{a: torch.rand(len(z), generator=g) for a, z in _zeros(c).items()} for _ in range(depth)])


# -- by a forward pass ------------------------------------------------------------------------


@torch.no_grad()
def activations(source: Source, layers: list[int], tokens: Tensor, device: str) -> Scores:
    """tokens int64 [n, T] -> Scores by mean |activation|."""
    c, units = source.config, [_zeros(source.config) for _ in layers]
    hidden = torch.zeros(c.width)
    for layer_pass in layer_passes(source, tokens, device):
        if layer_pass.index in layers:
            own = units[layers.index(layer_pass.index)]
            with watched(layer_pass.layer, own, c) as of_norms:
                layer_pass.run()
            hidden += sum(of_norms.values(), torch.zeros(c.width)).sqrt()
            own["groups"] = own["heads"].view(c.kv_heads, -1).sum(1)
        else:
            layer_pass.run()
        _report(f"measured activations of layer {layer_pass.index + 1} of {c.depth}")
    for u in units:
        for axis in u:
            u[axis].sqrt_()
    norm, final = source.read("norm.weight").float(), torch.zeros(c.width)
    for x in layer_pass.outputs:
        rms = x.square().mean(-1, keepdim=True).add(c.norm_eps).sqrt()
        final += _over_sequence(x / rms * norm.to(device))
    return Scores(hidden + final.sqrt(), units)


@contextmanager
def watched(layer: Layer, units: Units, c: ModelConfig) -> Iterator[Units]:
    """While the layer runs, adds squared means over each sequence to `units`; yields the same for its norms."""
    norms: Units = {}

    def at_site(axis: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]
            units[axis] += _over_sequence(x.unflatten(-1, (c.heads, -1)).norm(dim=-1) if axis == "heads" else x)

        return hook

    def at_norm(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: object, out: Tensor) -> None:
            norms[name] = norms.get(name, torch.zeros(c.width)) + _over_sequence(out)

        return hook

    handles = [layer.get_submodule(SITES[a]).register_forward_pre_hook(at_site(a)) for a in units if a in SITES]
    for name in ("input_layernorm", "post_attention_layernorm"):
        handles.append(layer.get_submodule(name).register_forward_hook(at_norm(name)))
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()


def _over_sequence(x: Tensor) -> Tensor:
    """[B, T, units] -> sum over sequences of (mean over T of |x|)^2, on the CPU."""
    return x.abs().mean(1).square().sum(0).cpu()


@torch.no_grad()
def block_influence(source: Source, tokens: Tensor, device: str) -> Tensor:
    """ShortGPT's measure: 1 - mean cosine between the input and the output of a layer -> float32 [depth]."""
    out = torch.zeros(source.config.depth)
    for layer_pass in layer_passes(source, tokens, device):
        layer_pass.run()
        pairs = zip(layer_pass.inputs, layer_pass.outputs, strict=True)
        out[layer_pass.index] = 1 - torch.cat([nn.functional.cosine_similarity(a, b, dim=-1) for a, b in pairs]).mean()
    return out
