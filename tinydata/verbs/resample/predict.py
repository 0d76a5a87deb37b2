"""Losses -> predicted draw: inclusion probabilities by loss and by domain, expected sizes, and warnings."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.engines.base import Tell, Units
from tinydata.verbs.resample import gumbel as curves
from tinydata.verbs.resample.candidates import (
    REASONS,
    Part,
    Scores,
    Source,
    apply_guards,
    bounds,
    groups,
    no_bounds,
    open_scores,
    read,
    tally_priors,
)
from tinydata.verbs.resample.gumbel import BINS, Scale, allocate, bins, log_weights, middles, quantile, table, tally
from tinydata.verbs.resample.passes import Passes
from tinydata.verbs.resample.plan import BARS, SPREAD, Draw, Losses, Plan, Settings


def predict(opened: Scores, passes: Passes, settings: Settings, reference: str = "", *, cache: str = "") -> Plan:
    """Scores -> Plan, in at most two passes: what will be kept by decile and domain, before the draw."""
    source = _source(opened, settings, reference, cache)
    limits = no_bounds(len(source.domains))
    if "prior" in source.limits:
        priors = passes.run("priors", source, partial(count_priors, source))
        limits = bounds(_added(priors, (len(source.domains), 2, 65536)), source.limits["prior"])
    losses = _losses(passes.run("losses", source, partial(count_losses, source, limits)), len(source.domains))
    stratify = settings.stratify == "domain"
    stratum_of = np.arange(len(source.domains)) if stratify else np.zeros(len(source.domains), np.int64)
    strata = len(source.domains) if stratify else 1
    by = np.zeros((strata, losses.counts.shape[1]), np.int64)
    np.add.at(by, stratum_of, losses.counts)
    with_loss = _with_loss(losses.reasons)
    sizes = with_loss.tolist() if stratify else [int(with_loss.sum())]
    wanted = settings.tokens // source.seq_len if settings.tokens else math.floor(settings.keep * sum(sizes) + 0.5)
    keep = allocate(sizes, by.sum(1).tolist(), wanted)
    if not sum(keep):
        raise TinydataError(
            f"no sequence would be kept: {int(by.sum()):,} of {sum(sizes):,} are eligible, {wanted:,} were requested",
            where=opened.path,
            fix="raise --keep, or loosen the guards with --exclude",
        )
    scales = table([_scale(settings, losses, row) for row in by])
    weights = np.array([log_weights_of(losses.middles, scale) for scale in scales]).reshape(by.shape)
    expected = np.array([curves.threshold(w, n, k) for w, n, k in zip(weights, by, keep, strict=True)])
    every = losses.counts.sum(0)
    ends = [int(losses.bins[quantile(every, d / 10)]) if every.any() else 0 for d in range(1, 10)]
    nobody = np.zeros(strata, np.int64)
    edges = _edges(losses.middles, every)
    bars = bins(edges[1:-1].astype(np.float32))
    draw = Draw(source, limits, stratum_of, scales, settings.seed, expected, nobody, nobody, np.array(ends), bars)
    before = np.bincount(np.searchsorted(bars, losses.bins), weights=every, minlength=BARS).astype(int).tolist()
    facts = _facts(settings, draw, losses, keep, wanted, weights, by)
    return Plan(opened, draw, losses, keep, {**facts, "histogram": {"edges": edges.tolist(), "before": before}})


def _edges(middles: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64[BARS + 1], nats: edges of a histogram of nearly all losses, rounded."""
    low, high = (middles[quantile(counts, q)] if counts.any() else q for q in (0.001, 0.999))
    if high - low < 1e-3:
        low, high = low - 0.5, high + 0.5
    return np.round(np.linspace(low, high, BARS + 1), 6)


def _source(opened: Scores, settings: Settings, reference: str, cache: str) -> Source:
    manifest = opened.manifest
    limits = dict(settings.exclude) | ({"repeats": settings.max_repeats} if settings.max_repeats else {})
    if "periodic" in limits:  # half of a short sequence is enough
        limits["periodic"] = min(limits["periodic"], manifest["seq_len"] / 2)
    others: list[Part] = []
    if reference:
        other = open_scores(reference)
        for what in (("base", "fingerprint"), ("seq_len",)):
            if _at(manifest, what) != _at(other.manifest, what):
                raise TinydataError(
                    "the reference scores are of different sequences: " + " ".join(what) + " differs",
                    where=reference,
                    fix="score the same shards with the reference model and the same --seq-len",
                )
        others = other.parts
    nonempty = groups(opened.parts)
    if not nonempty:
        raise TinydataError("the scores contain no rows", where=opened.path, fix="score some shards first")
    batch = max(1, settings.batch_tokens // manifest["seq_len"])
    names = sorted(manifest["domains"])
    return Source(nonempty, names, manifest["seq_len"], settings.unit, batch, limits, others, cache)


def _at(manifest: dict[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = manifest
    for key in keys:
        value = value[key]
    return value


def _with_loss(reasons: np.ndarray) -> np.ndarray:
    """int64[domains]: sequences that have a loss, whether they are eligible or not."""
    return reasons.sum(1) - reasons[:, REASONS.index("no loss")]


def _scale(settings: Settings, losses: Losses, counts: np.ndarray) -> Scale:
    """counts int64[bins] of a stratum -> the Scale that turns its losses into log-weights."""
    if not counts.any():
        return Scale()

    def at(share: float) -> float:
        return float(losses.middles[quantile(counts, share)])

    low, high = (at(q) for q in settings.clip) if settings.clip else (-np.inf, np.inf)
    centre, spread = 0.0, 1.0
    if settings.zscore:
        centre, spread = at(0.5), max((at(0.75) - at(0.25)) / SPREAD, 1e-6)
    scale = Scale(low, high, centre, 1.0 / (settings.temperature * spread))
    if not settings.floor:
        return scale
    weights = log_weights_of(losses.middles, np.array(scale))
    top = float(weights[counts > 0].max())
    mean = top + math.log(float(counts @ np.exp(weights - top)) / float(counts.sum()))
    return scale._replace(share=math.log1p(-settings.floor), uniform=math.log(settings.floor) + mean)


def log_weights_of(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    out = np.empty(len(values))
    log_weights(values, scale, out)
    return out


def _facts(
    settings: Settings,
    draw: Draw,
    losses: Losses,
    keep: list[int],
    wanted: int,
    weights: np.ndarray,
    by: np.ndarray,
) -> dict[str, Any]:
    """Predicted draw -> `selection` of the manifest."""
    source, counts = draw.source, losses.counts
    chance = np.array([curves.inclusion(w, t) for w, t in zip(weights, draw.expected, strict=True)]).reshape(by.shape)
    kept = counts * chance[draw.stratum_of]
    decile = np.searchsorted(draw.deciles, losses.bins)
    total, eligible = int(counts.sum()), by.sum(1)
    effective = [curves.effective_share(w, n) * float(n.sum()) for w, n in zip(weights, by, strict=True) if n.any()]
    mean = float(counts.sum(0) @ losses.middles) / max(total, 1)
    variance = float(counts.sum(0) @ (losses.middles - mean) ** 2) / max(total, 1)
    after = float(kept.sum(0) @ losses.middles) / max(sum(keep), 1)
    drawn = max(1.0, losses.units * sum(keep) / max(total, 1))
    error = math.sqrt(variance * (1 - sum(keep) / max(total, 1)) / drawn)
    with_loss = _with_loss(losses.reasons)
    facts: dict[str, Any] = {
        "sequences": int(with_loss.sum()),
        "eligible": total,
        "units": losses.units,
        "wanted": wanted,
        "expected": sum(keep),
        "effective_size": sum(effective) / max(total, 1),
        "loss": {"before": mean, "expected": after, "standard_error_of_random": error},
        "deciles": [
            {
                "sequences": int(counts[:, decile == d].sum()),
                "expected": float(kept[:, decile == d].sum()) / max(int(counts[:, decile == d].sum()), 1),
            }
            for d in range(10)
        ],
        "domains": {
            name: {"sequences": int(with_loss[d]), "eligible": int(counts[d].sum()), "expected": float(kept[d].sum())}
            for d, name in enumerate(source.domains)
        },
        "excluded": {r: int(n) for r, n in zip(REASONS, losses.reasons.sum(0), strict=True) if r and n},
        "limits": source.limits,
        "strata": [
            {
                "domain": source.domains[s] if len(keep) > 1 else "",
                "eligible": int(eligible[s]),
                "keep": keep[s],
                "clip": [_finite(v) for v in draw.scales[s][:2]],
                "expected_threshold": _finite(draw.expected[s]),
            }
            for s in range(len(keep))
        ],
    }
    return {**facts, "notes": _notes(settings, facts)}


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


Sparse = tuple[np.ndarray, np.ndarray]  # indices into a flat array, and the values there


def _sparse(counts: np.ndarray) -> Sparse:
    at = np.flatnonzero(counts)
    return at, counts.ravel()[at]


def _added(partial_counts: list[Sparse], shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, np.int64)
    for at, counts in partial_counts:
        out.ravel()[at] += counts
    return out


def count_priors(source: Source, task: Units, tell: Tell) -> Sparse:
    """Groups -> counts int64[domains, 2, 65536] of priors and of their standard deviations, sparse."""
    counts = np.zeros((len(source.domains), 2, 65536), np.int64)
    for unit in task.units:
        rows = read(source, unit.about)
        tally_priors(rows.prior, rows.spread, rows.reason, rows.domain, counts)
        tell(unit.bytes)
    return _sparse(counts)


def count_losses(source: Source, limits: np.ndarray, task: Units, tell: Tell) -> tuple[Sparse, np.ndarray, int]:
    """Groups -> counts of losses [domains, BINS] and of reasons [domains, REASONS], number of units."""
    counts = np.zeros((len(source.domains), BINS), np.int64)
    reasons = np.zeros(len(source.domains) * len(REASONS), np.int64)
    units = 0
    for unit in task.units:
        candidates = apply_guards(source, unit.about, limits)
        tally(candidates.loss.view(np.uint32), candidates.reason, candidates.rows.domain, counts)
        code = candidates.rows.domain.astype(np.int64) * len(REASONS) + candidates.reason
        reasons += np.bincount(code, minlength=len(reasons))
        units += candidates.units
        tell(unit.bytes)
    return _sparse(counts), reasons.reshape(-1, len(REASONS)), units


def _losses(results: list[tuple[Sparse, np.ndarray, int]], domains: int) -> Losses:
    index = np.unique(np.concatenate([at % BINS for (at, _), _, _ in results]))
    if not len(index):
        index = np.zeros(1, np.int64)
    counts = np.zeros((domains, len(index)), np.int64)
    for (at, n), _, _ in results:
        counts[at // BINS, np.searchsorted(index, at % BINS)] += n
    reasons = np.sum([r for _, r, _ in results], axis=0)
    return Losses(counts, middles(index), index, reasons, sum(u for _, _, u in results))
