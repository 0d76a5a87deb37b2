"""Corrects the scale after a cut: norms of the narrower residual, output projections with fewer terms.

A norm divides by the rms over all dimensions of its input. x_k g / rms_all = x_k g' / rms_kept with g' = g
E[rms_kept] / E[rms_all]: measured on data, otherwise estimated from weights. An output projection M that keeps k of n
inputs is fitted by ridge regression to the inputs that it has in the source: M' = M S[:,k] (S[k,k] + r I)^-1,
S = X^T X.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.inheritance.selection import Corrections, Selection, elements
from trainer.inheritance.source import SITES, LayerPass, Source, layer_passes, sizes
from trainer.model.transformer import Layer

Rescale = Literal["none", "std", "lstsq"]
RIDGE = 1e-2  # fraction of the mean diagonal; large models have more inputs than calibration tokens
NORMS = ("input_layernorm", "post_attention_layernorm")


def corrected(
    source: Source, selection: Selection, tokens: Tensor | None, rescale: Rescale, device: str
) -> Corrections:
    """tokens int64 [n, T]; None: norms are estimated from the weights."""
    narrower = len(selection.hidden) < source.config.width
    if tokens is None:
        return Corrections(estimated_norms(source, selection) if narrower else {}, {}, rescale == "std")
    if not narrower and rescale != "lstsq":
        return Corrections({}, {}, rescale == "std")
    norms, projections = measured(source, selection, tokens, rescale == "lstsq", device)
    return Corrections(norms if narrower else {}, projections, rescale == "std")


@torch.no_grad()
def measured(
    source: Source, selection: Selection, tokens: Tensor, lstsq: bool, device: str
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """-> factors of norms and fitted projections, by the target's names; one layer of the source in memory."""
    norms: dict[str, float] = {}
    projections: dict[str, Tensor] = {}
    for layer_pass in layer_passes(source, tokens, device):
        if layer_pass.index in selection.layers:
            at = selection.layers.index(layer_pass.index)
            norms |= _of_layer(layer_pass, at, source, selection, lstsq, projections)
        else:
            layer_pass.run()
        print(f"rescaled layer {layer_pass.index + 1} of {source.config.depth}", file=sys.stderr)
    ratio = _Ratio(selection.hidden.to(device))
    for x in layer_pass.outputs:
        ratio.add(x)
    return norms | {"norm.weight": ratio.value}, projections


def _of_layer(
    layer_pass: LayerPass, at: int, source: Source, selection: Selection, lstsq: bool, projections: dict[str, Tensor]
) -> dict[str, float]:
    device = layer_pass.inputs[0].device
    ratios = {name: _Ratio(selection.hidden.to(device)) for name in NORMS}
    sites = {a: s for a, s in SITES.items() if lstsq and a in selection.units[at] and _cuts(source, selection, at, a)}
    grams = {axis: torch.zeros((), device=device) for axis in sites}
    with observed(layer_pass.layer, ratios, sites, grams):
        layer_pass.run()
    for axis, site in sites.items():
        index = elements(selection, at, axis, source.config)
        weight = source.read(f"layers.{layer_pass.index}.{site}.weight")
        assert index is not None
        fitted = fit(weight.to(device), grams[axis], index.to(device))[selection.hidden.to(device)]
        projections[f"layers.{at}.{site}.weight"] = fitted.to("cpu", weight.dtype)
    return {f"layers.{at}.{name}.weight": r.value for name, r in ratios.items()}


def _cuts(source: Source, selection: Selection, at: int, axis: str) -> bool:
    return len(selection.units[at][axis]) < sizes(source.config)[axis]


def fit(weight: Tensor, gram: Tensor, kept: Tensor) -> Tensor:
    """weight [m, n], gram [n, n] of its inputs, kept int64 [k] -> [m, k], least squares with ridge, in float64."""
    gram = gram.double()
    inner = gram[kept][:, kept]
    inner.diagonal().add_(RIDGE * gram.diagonal().mean())
    return torch.linalg.solve(inner, gram[kept] @ weight.double().T).T


class _Ratio:
    """E[rms over kept] / E[rms over all]"""

    def __init__(self, kept: Tensor):
        self.kept, self.of_kept, self.of_all = kept, 0.0, 0.0

    def add(self, x: Tensor) -> None:
        self.of_kept += float(x[..., self.kept].square().mean(-1).sqrt().double().sum())
        self.of_all += float(x.square().mean(-1).sqrt().double().sum())

    @property
    def value(self) -> float:
        return self.of_kept / self.of_all if self.of_all else 1.0


@contextmanager
def observed(
    layer: Layer, ratios: dict[str, _Ratio], sites: dict[str, str], grams: dict[str, Tensor]
) -> Iterator[None]:
    def at_norm(ratio: _Ratio) -> Callable[..., None]:
        return lambda m, args: ratio.add(args[0])

    def at_site(axis: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].flatten(0, -2)
            grams[axis] = grams[axis] + x.T @ x

        return hook

    handles = [layer.get_submodule(name).register_forward_pre_hook(at_norm(r)) for name, r in ratios.items()]
    handles += [layer.get_submodule(site).register_forward_pre_hook(at_site(axis)) for axis, site in sites.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def estimated_norms(source: Source, selection: Selection) -> dict[str, float]:
    """Factors by the target's names, on the assumption that every output projection has white inputs.

    The energy of a dimension at a norm is then that of its column of the embedding and of the rows that write to it
    before the norm.
    """
    energy = source.read("embed_tokens.weight").float().square().mean(0)
    out: dict[str, float] = {}

    def ratio() -> float:
        return float((energy[selection.hidden].mean() / energy.mean()).sqrt())

    for i in range(source.config.depth):
        prefix = f"layers.{selection.layers.index(i)}." if i in selection.layers else ""
        for name, axis in zip(NORMS, ("heads", "ffn"), strict=True):
            if prefix:
                out[f"{prefix}{name}.weight"] = ratio()
            energy = energy + source.read(f"layers.{i}.{SITES[axis]}.weight").float().square().sum(1)
    return out | {"norm.weight": ratio()}
