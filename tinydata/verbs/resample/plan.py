"""scores -> the next round: an exact number of sequences, drawn without replacement in proportion to exp(loss / T).

Several passes over the groups of SCORES, each with a small result that can be merged in any order: priors (if that
guard is on), binned losses, keys near the threshold that these predict, and finally the kept rows are written. Only the
few keys near the threshold are sorted, and the result depends on neither engine, workers nor partitions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.verbs.resample.candidates import GUARDS, Scores, Source

BARS = 50  # of the histogram in the manifest
COLLECTED = 1 << 21  # at most so many keys of a window are returned by one task
SPREAD = 1.349  # distance of the quartiles of a normal distribution, in standard deviations
FAR = 8  # standard deviations of a sample's size, between the predicted threshold and the ends of the window
DEFAULTS = {"periodic": 416.0, "short": 0.1, "unknown": 0.1, "prior": 6.0}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"unit": "batch", "clip": (), "stratify": "none", "exclude": ()},
    "guarded": {"unit": "sequence", "clip": (0.01, 0.99), "stratify": "domain", "exclude": GUARDS},
}


class Settings(NamedTuple):
    """What decides the result, and nothing else."""

    keep: float = 0.5  # share of the sequences with a loss; or
    tokens: int = 0  # as many sequences as make so many tokens
    preset: str = "guarded"
    unit: str = "sequence"
    batch_tokens: int = 1 << 21
    temperature: float = 1.0
    clip: tuple[float, ...] = (0.01, 0.99)  # quantiles of the stratum
    zscore: bool = False
    floor: float = 0.0
    stratify: str = "domain"
    exclude: tuple[tuple[str, float], ...] = tuple(DEFAULTS.items())
    max_repeats: int = 0
    seed: int = 0


def settings(preset: str = "guarded", exclude: tuple[str, ...] = (), **options: Any) -> Settings:
    """Preset and options that override it (None: not given) -> Settings.

    exclude: GUARD or GUARD=VALUE, or "none". Raises TinydataError for an unknown guard or options that contradict.
    """
    chosen = {**PRESETS[preset], **{k: v for k, v in options.items() if v is not None}}
    named = exclude or chosen["exclude"]
    chosen["exclude"] = tuple(_guard(text) for text in named if text != "none")
    if chosen["unit"] == "batch" and chosen["stratify"] == "domain":
        raise TinydataError(
            "a batch contains sequences of many domains, so it cannot be assigned to one stratum",
            where="--unit batch with --stratify domain",
            fix="pass --stratify none, or another --unit",
        )
    return Settings(preset=preset, **chosen)


def _guard(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value) if value else DEFAULTS[name]
    except (KeyError, ValueError):
        raise TinydataError(
            f"unknown guard {text!r}", where="--exclude", fix=f"pass {', '.join(GUARDS)}, NAME=NUMBER, or none"
        ) from None


def quantiles(text: str) -> tuple[float, ...]:
    """Value of --clip-quantile, "LO,HI" or "none" -> (low, high) or ()."""
    if text == "none":
        return ()
    try:
        low, high = (float(v) for v in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise TinydataError(
            f"not a pair of quantiles: {text}", where="--clip-quantile", fix="pass LO,HI, for example 0.01,0.99"
        )
    return low, high


class Draw(NamedTuple):
    """Everything that decides which rows are kept, for a worker."""

    source: Source
    limits: np.ndarray  # int64 [domains, 4]: of priors
    stratum_of: np.ndarray  # int64 [domains]
    scales: np.ndarray  # float64 [strata, 6]
    seed: int
    expected: np.ndarray  # float64 [strata]: the threshold the losses predict, in nats
    threshold: np.ndarray  # int64 [strata]: the key of the last row kept
    last: np.ndarray  # int64 [strata]: and its sequence number
    deciles: np.ndarray  # int64 [9]: bins of losses at which they end
    bars: np.ndarray  # int64 [BARS - 1]: bins at which the bars of the histogram end


class Losses(NamedTuple):
    """Histogram of the losses of all candidates."""

    counts: np.ndarray  # int64 [domains, bins]
    middles: np.ndarray  # float64 [bins]: nats
    bins: np.ndarray  # int64 [bins]: their numbers
    reasons: np.ndarray  # int64 [domains, REASONS]: rows that can be drawn, and those that cannot
    units: int


class Plan(NamedTuple):
    """A draw that has been predicted but not carried out."""

    scores: Scores
    draw: Draw
    losses: Losses
    keep: list[int]  # of each stratum
    facts: dict[str, Any]  # `selection`
