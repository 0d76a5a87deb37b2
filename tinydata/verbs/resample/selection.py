"""Predicted draw -> `selection` of the manifest: inclusion probabilities by loss and by domain, sizes and warnings."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinydata.verbs.resample.candidates import REASONS, Scores
from tinydata.verbs.resample.gumbel import effective_share, inclusion
from tinydata.verbs.resample.passes import LossHistogram
from tinydata.verbs.resample.plan import BARS, Draw, Settings


class Strata(NamedTuple):
    """Groups of domains; of each an exact number is kept."""

    of: np.ndarray  # int64[domains]: stratum of each
    counts: np.ndarray  # int64[strata, bins]: eligible sequences by loss
    sizes: list[int]  # sequences with a loss

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def eligible(self) -> list[int]:
        return self.counts.sum(1).tolist()


class PredictedDraw(NamedTuple):
    """A draw that has been predicted but not carried out."""

    scores: Scores
    draw: Draw
    losses: LossHistogram
    strata: Strata
    weights: np.ndarray  # float64[strata, bins]: log-weights
    keep: list[int]  # of each stratum
    wanted: int  # as requested
    facts: dict[str, Any]  # `selection`


def selection(predicted: PredictedDraw, settings: Settings, edges: np.ndarray) -> dict[str, Any]:
    """Predicted draw, edges float64[BARS + 1] of the histogram -> `selection` of the manifest."""
    draw, losses, strata, keep = predicted.draw, predicted.losses, predicted.strata, predicted.keep
    chances = [inclusion(w, t) for w, t in zip(predicted.weights, draw.expected, strict=True)]
    kept = losses.counts * np.array(chances).reshape(strata.counts.shape)[draw.stratum_of]
    total = sum(strata.eligible)
    effective = [
        effective_share(w, n) * float(n.sum()) for w, n in zip(predicted.weights, strata.counts, strict=True) if n.any()
    ]
    facts: dict[str, Any] = {
        "sequences": strata.size,
        "eligible": total,
        "units": losses.units,
        "wanted": predicted.wanted,
        "expected": sum(keep),
        "effective_size": sum(effective) / max(total, 1),
        "loss": _loss_facts(losses, kept.sum(0), sum(keep)),
        "deciles": _decile_facts(draw, losses, kept),
        "domains": {
            name: {"sequences": int(size), "eligible": int(counts.sum()), "expected": float(row.sum())}
            for name, size, counts, row in zip(draw.source.domains, losses.with_loss, losses.counts, kept, strict=True)
        },
        "excluded": {r: int(n) for r, n in zip(REASONS, losses.reasons.sum(0), strict=True) if r and n},
        "limits": draw.source.limits,
        "strata": _strata_facts(draw, strata, keep),
    }
    bar = np.searchsorted(draw.bars, losses.bins)
    before = np.bincount(bar, weights=losses.counts.sum(0), minlength=BARS).astype(int).tolist()
    histogram = {"edges": edges.tolist(), "before": before}
    return {**facts, "notes": _notes(settings, facts), "histogram": histogram}


def _loss_facts(losses: LossHistogram, kept: np.ndarray, keep: int) -> dict[str, float]:
    """kept float64[bins]: expected rows -> mean loss before and after, and how far chance alone would move it."""
    counts = losses.counts.sum(0)
    total = int(counts.sum())
    mean = float(counts @ losses.middles) / max(total, 1)
    variance = float(counts @ (losses.middles - mean) ** 2) / max(total, 1)
    after = float(kept @ losses.middles) / max(keep, 1)
    units = max(1.0, losses.units * keep / max(total, 1))
    error = math.sqrt(variance * (1 - keep / max(total, 1)) / units)
    return {"before": mean, "expected": after, "standard_error_of_random": error}


def _decile_facts(draw: Draw, losses: LossHistogram, kept: np.ndarray) -> list[dict[str, Any]]:
    decile = np.searchsorted(draw.deciles, losses.bins)
    facts = []
    for d in range(10):
        size = int(losses.counts[:, decile == d].sum())
        facts.append({"sequences": size, "expected": float(kept[:, decile == d].sum()) / max(size, 1)})
    return facts


def _strata_facts(draw: Draw, strata: Strata, keep: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "domain": draw.source.domains[s] if len(keep) > 1 else "",
            "eligible": strata.eligible[s],
            "keep": keep[s],
            "clip": [_finite(v) for v in draw.scales[s][:2]],
            "expected_threshold": _finite(draw.expected[s]),
        }
        for s in range(len(keep))
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _notes(settings: Settings, facts: dict[str, Any]) -> list[str]:
    """`selection` -> warnings to the user."""
    out = []
    if facts["eligible"] <= facts["wanted"]:
        out.append(
            f"all {facts['eligible']:,} eligible sequences are kept, since {facts['wanted']:,} were requested;"
            " use a smaller --keep to select among them, or a looser --exclude to have more"
        )
        return out
    loss = facts["loss"]
    shift = abs(loss["expected"] - loss["before"])
    if facts["effective_size"] > 0.99 or shift < 3 * loss["standard_error_of_random"]:
        change = [] if settings.unit == "sequence" else ["--unit sequence"]
        change += ["a lower --temperature"] + ([] if settings.zscore else ["--zscore"])
        out.append(
            f"this is hardly different from a random selection: the effective size is {facts['effective_size']:.4f} of"
            f" all, and the mean loss changes from {loss['before']:.4f} to {loss['expected']:.4f}, where chance alone"
            f" changes it by {loss['standard_error_of_random']:.4f};"
            f" {' or '.join(change)} gives the losses more influence"
        )
    return out
