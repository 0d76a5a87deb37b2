"""Options of `resample`: an exact number of sequences is drawn without replacement in proportion to exp(loss / T).

There are several passes over the groups of SCORES, each with a small result that can be merged in any order: counts of
the priors (if that guard is on), a histogram of the losses, the keys near the threshold that it predicts; the last one
writes the kept rows. Only the few keys near the threshold are sorted, and the result depends on neither engine, workers
nor partitions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.verbs.resample.candidates import GUARDS, Source

BARS = 50  # of the histogram in the manifest
COLLECTED = 1 << 21  # keys of a window that one task returns at most
SPREAD = 1.349  # distance of the quartiles of a normal distribution, in standard deviations
FAR = 8  # standard deviations of the sample size between the predicted threshold and the ends of the window
DEFAULTS = {"periodic": 416.0, "short": 0.1, "unknown": 0.1, "prior": 6.0}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"unit": "batch", "clip": (), "stratify": "none", "exclude": ()},
    "guarded": {"unit": "sequence", "clip": (0.01, 0.99), "stratify": "domain", "exclude": GUARDS},
}


class Settings(NamedTuple):
    """All options that affect the result, and no others."""

    keep: float = 0.5  # share of the sequences with a loss, if tokens is 0
    tokens: int = 0  # of all kept sequences
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
    limits: np.ndarray  # int64[domains, 4]: of priors, see candidates.bounds
    stratum_of: np.ndarray  # int64[domains]
    scales: np.ndarray  # float64[strata, 6]: gumbel.scale_table
    seed: int
    expected: np.ndarray  # float64[strata], nats: the threshold that the losses predict
    threshold: np.ndarray  # int64[strata]: the key of the last row kept
    last: np.ndarray  # int64[strata]: its sequence number
    deciles: np.ndarray  # int64[9]: bins of losses at which they end
    bars: np.ndarray  # int64[BARS - 1]: bins at which the bars of the histogram end
