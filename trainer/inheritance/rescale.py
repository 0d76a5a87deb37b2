"""Corrects the scale after a cut: norms of the narrower residual, output projections with fewer terms.

A norm divides by the rms over all that it sees. x_k g / rms_all = x_k g' / rms_kept with g' = g E[rms_kept] /
E[rms_all]: measured on data, or else estimated from weights. An output projection M that reads k of n inputs
is the best for what comes in, in the source, on the data: M' = M S[:,k] (S[k,k] + r I)^-1, S = X^T X (ridge).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.inheritance.selection import Corrections, Plan, elements
from trainer.inheritance.source import SITES, Passage, Source, passages, sizes
from trainer.model.transformer import Layer

Rescale = Literal["none", "std", "lstsq"]
RIDGE = 1e-2  # of the mean diagonal: data are fewer than inputs in large models
NORMS = ("input_layernorm", "post_attention_layernorm")


def corrected(source: Source, plan: Plan, tokens: Tensor | None, rescale: Rescale, device: str) -> Corrections:
    """tokens int64 [n, T], or None: norms by the weights alone."""
    narrower = len(plan.hidden) < source.config.width
    if tokens is None:
        return Corrections(estimated_norms(source, plan) if narrower else {}, {}, rescale == "std")
    if not narrower and rescale != "lstsq":
        return Corrections({}, {}, rescale == "std")
    norms, projections = measured(source, plan, tokens, rescale == "lstsq", device)
    return Corrections(norms if narrower else {}, projections, rescale == "std")


@torch.no_grad()
def measured(
    source: Source, plan: Plan, tokens: Tensor, lstsq: bool, device: str
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """-> factors of norms and fitted projections, by the target's names; one layer of the source in memory."""
    norms: dict[str, float] = {}
    projections: dict[str, Tensor] = {}
    for passage in passages(source, tokens, device):
        if passage.index in plan.layers:
            at = plan.layers.index(passage.index)
            norms |= _of_layer(passage, at, source, plan, lstsq, projections)
        else:
            passage.run()
        print(f"rescaled layer {passage.index + 1} of {source.config.depth}", file=sys.stderr)
    ratio = _Ratio(plan.hidden.to(device))
    for x in passage.outputs:
        ratio.add(x)
    return norms | {"norm.weight": ratio.value}, projections


def _of_layer(
    passage: Passage, at: int, source: Source, plan: Plan, lstsq: bool, projections: dict[str, Tensor]
) -> dict[str, float]:
    device = passage.inputs[0].device
    ratios = {name: _Ratio(plan.hidden.to(device)) for name in NORMS}
    sites = {a: s for a, s in SITES.items() if lstsq and a in plan.units[at] and _cuts(source, plan, at, a)}
    grams = {axis: torch.zeros((), device=device) for axis in sites}
    with observed(passage.layer, ratios, sites, grams):
        passage.run()
    for axis, site in sites.items():
        index = elements(plan, at, axis, source.config)
        there = source.read(f"layers.{passage.index}.{site}.weight")
        assert index is not None
        fitted = fit(there.to(device), grams[axis], index.to(device))[plan.hidden.to(device)]
        projections[f"layers.{at}.{site}.weight"] = fitted.to("cpu", there.dtype)
    return {f"layers.{at}.{name}.weight": r.value for name, r in ratios.items()}


def _cuts(source: Source, plan: Plan, at: int, axis: str) -> bool:
    return len(plan.units[at][axis]) < sizes(source.config)[axis]


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


def estimated_norms(source: Source, plan: Plan) -> dict[str, float]:
    """Factors as if every output projection had white inputs: a dimension's energy is that of the embedding's
    column and of the rows that write it, summed up to the norm. By the target's names."""
    energy = source.read("embed_tokens.weight").float().square().mean(0)
    out: dict[str, float] = {}

    def ratio() -> float:
        return float((energy[plan.hidden].mean() / energy.mean()).sqrt())

    for i in range(source.config.depth):
        prefix = f"layers.{plan.layers.index(i)}." if i in plan.layers else ""
        for name, axis in zip(NORMS, ("heads", "ffn"), strict=True):
            if prefix:
                out[f"{prefix}{name}.weight"] = ratio()
            energy = energy + source.read(f"layers.{i}.{SITES[axis]}.weight").float().square().sum(1)
    return out | {"norm.weight": ratio()}
