"""What inheritance did, as JSON next to the weights and as text: shape, kept units, scores, losses, vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.inheritance.selection import Scores, Selection

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
Quantiles = dict[str, dict[str, list[float]]]  # axis -> kept, gone (removed) -> at POINTS
_LABELS = {"kept": "kept", "gone": "cut"}  # as the text shows them


def quantiles(scores: Scores, selection: Selection) -> Quantiles:
    """Quantiles of the scores of kept and of removed units, over all kept layers."""
    out = {"hidden": _of([scores.hidden], [selection.hidden])}
    for axis in scores.layers[0] if scores.layers else ():
        out[axis] = _of([s[axis] for s in scores.layers], [u[axis] for u in selection.units])
    return out


def _of(scores: list[Tensor], kept: list[Tensor]) -> dict[str, list[float]]:
    stays = [torch.zeros(len(s), dtype=torch.bool).index_fill(0, k, True) for s, k in zip(scores, kept, strict=True)]
    every, stay = torch.cat(scores).double(), torch.cat(stays)
    found = {"kept": every[stay], "gone": every[~stay]}
    return {k: torch.quantile(_thinned(v), torch.tensor(POINTS).double()).tolist() for k, v in found.items() if len(v)}


def _thinned(x: Tensor, most: int = 1_000_000) -> Tensor:
    """Every n-th value, at most `most`: torch.quantile accepts no more than 16 million."""
    return x[:: -(-len(x) // most)]


@dataclass(frozen=True)
class Report:
    settings: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    source: dict[str, Any]  # configurations
    target: dict[str, Any]
    selection: Selection
    quantiles: Quantiles
    norms: dict[str, float]  # factors
    losses: dict[str, float]  # nats per token
    tied: str
    vocabulary: dict[str, Any]
    seconds: float

    def json(self) -> dict[str, Any]:
        kept = {"layers": self.selection.layers, "hidden": self.selection.hidden.tolist()}
        kept |= {"units": [{a: x.tolist() for a, x in u.items()} for u in self.selection.units]}
        own = {k: v for k, v in vars(self).items() if k != "selection"}
        return {**own, "kept": kept, "quantiles at": POINTS, "torch": torch.__version__}

    def text(self) -> str:
        s, t = self.source, self.target
        lines = [f"{self.settings['out']}: {self.settings['method']}, rescale {self.settings['rescale']}", ""]
        rows = [("layers", "depth"), ("width", "width"), ("heads", "heads"), ("key-value heads", "kv_heads")]
        lines += [f"{name:<18}{s[k]:>9,} -> {t[k]:>9,}" for name, k in [*rows, ("ffn", "ffn")]]
        lines += self._vocabulary()
        lines += [f"kept layers: {', '.join(map(str, self.selection.layers))}", self.tied]
        lines += self._new_parts()
        lines += ["", "scores                min      25%   median      75%      max"]
        for axis, found in self.quantiles.items():
            lines += [f"{axis:<9}{_LABELS[k]:<7}" + "".join(f"{x:>9.3g}" for x in v) for k, v in found.items()]
        if self.norms:
            how = "measured" if self.settings["data"] else "estimated from the weights, without --data"
            lines += [
                "",
                f"norm weights multiplied by {min(self.norms.values()):.3f} to {max(self.norms.values()):.3f} ({how})",
            ]
        if self.losses:
            lines += ["", "loss in nats per token, on sequences that were not used for fitting"]
            lines += [f"{name:<10}{loss:>9.4f}" for name, loss in self.losses.items()]
        return "\n".join([*lines, "", f"{self.seconds:.1f} s"])

    def _vocabulary(self) -> list[str]:
        v = self.vocabulary
        if not v:
            return [f"{'vocabulary':<18}{self.source['vocab']:>9,} -> {self.target['vocab']:>9,}"]
        line = f"{'vocabulary':<18}{v['of']:>9,} -> {v['ids']:>9,}"
        mean = (
            f", {v['mean of rows']:,} learned ids start from the mean of {v['rows per mean']:.1f} rows on average"
            * (v["mean of rows"] > 0)
        )
        return [line, f"ids that keep their own row: {v['own row']:,}{mean}"]

    def _new_parts(self) -> list[str]:
        out = []
        if self.target["series"] > self.source["series"]:
            out.append(f"the series activation has {self.target['series']} terms, starting as {self.source['series']}")
        if self.target["shortcut"] and not self.source["shortcut"]:
            out.append(f"the augmented shortcut d/{self.target['shortcut']} starts without effect")
        return out
