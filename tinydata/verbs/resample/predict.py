"""Losses -> predicted draw: how many are kept of each stratum, and the threshold that the losses predict."""

from __future__ import annotations

import math

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.verbs.resample.candidates import Scores, ScoresPart, Source, groups, open_scores
from tinydata.verbs.resample.gumbel import (
    Scale,
    allocate,
    bins,
    expected_threshold,
    log_weights_of,
    quantile,
    scale_table,
)
from tinydata.verbs.resample.passes import LossHistogram, Passes, loss_histogram, prior_limits
from tinydata.verbs.resample.plan import BARS, SPREAD, Draw, Settings
from tinydata.verbs.resample.selection import PredictedDraw, Strata, selection


def predict(
    opened: Scores, passes: Passes, settings: Settings, reference: str = "", *, cache: str = ""
) -> PredictedDraw:
    """Scores -> PredictedDraw, in at most two passes; cache: directory for what later passes read, "" for none.

    Raises TinydataError if no sequence would be kept, or the reference scores are of other sequences.
    """
    source = _source(opened, settings, reference, cache)
    limits = prior_limits(passes, source)
    losses = loss_histogram(passes, source, limits)
    strata = _strata(settings, losses)
    wanted = settings.tokens // source.seq_len if settings.tokens else math.floor(settings.keep * strata.size + 0.5)
    keep = allocate(strata.sizes, strata.eligible, wanted)
    if not sum(keep):
        raise TinydataError(
            f"no sequence would be kept: {sum(strata.eligible):,} of {strata.size:,} are eligible,"
            f" {wanted:,} were requested",
            where=opened.path,
            fix="raise --keep, or loosen the guards with --exclude",
        )
    scales = scale_table([_scale(settings, losses, counts) for counts in strata.counts])
    weights = np.array([log_weights_of(losses.middles, scale) for scale in scales]).reshape(strata.counts.shape)
    thresholds = [expected_threshold(*row) for row in zip(weights, strata.counts, keep, strict=True)]
    ends, edges = _decile_ends(losses), _edges(losses)
    nobody = np.zeros(len(keep), np.int64)
    draw = Draw(
        source=source,
        limits=limits,
        stratum_of=strata.of,
        scales=scales,
        seed=settings.seed,
        expected=np.array(thresholds),
        threshold=nobody,
        last=nobody,
        deciles=ends,
        bars=bins(edges[1:-1].astype(np.float32)),
    )
    predicted = PredictedDraw(opened, draw, losses, strata, weights, keep, wanted, {})
    return predicted._replace(facts=selection(predicted, settings, edges))


def _strata(settings: Settings, losses: LossHistogram) -> Strata:
    """Each domain is a stratum, or all together are one."""
    domains = len(losses.counts)
    by_domain = settings.stratify == "domain"
    of = np.arange(domains) if by_domain else np.zeros(domains, np.int64)
    counts = np.zeros((domains if by_domain else 1, losses.counts.shape[1]), np.int64)
    np.add.at(counts, of, losses.counts)
    sizes = losses.with_loss.tolist() if by_domain else [int(losses.with_loss.sum())]
    return Strata(of, counts, sizes)


def _decile_ends(losses: LossHistogram) -> np.ndarray:
    """int64[9]: bins at which the deciles of all losses end."""
    counts = losses.counts.sum(0)
    return np.array([int(losses.bins[quantile(counts, d / 10)]) if counts.any() else 0 for d in range(1, 10)])


def _edges(losses: LossHistogram) -> np.ndarray:
    """float64[BARS + 1], nats: edges of a histogram of nearly all losses, rounded."""
    counts = losses.counts.sum(0)
    low, high = (losses.middles[quantile(counts, q)] if counts.any() else q for q in (0.001, 0.999))
    if high - low < 1e-3:
        low, high = low - 0.5, high + 0.5
    return np.round(np.linspace(low, high, BARS + 1), 6)


def _source(opened: Scores, settings: Settings, reference: str, cache: str) -> Source:
    manifest = opened.manifest
    limits = dict(settings.exclude) | ({"repeats": settings.max_repeats} if settings.max_repeats else {})
    if "periodic" in limits:  # half of a short sequence is enough
        limits["periodic"] = min(limits["periodic"], manifest["seq_len"] / 2)
    nonempty = groups(opened.parts)
    if not nonempty:
        raise TinydataError("the scores contain no rows", where=opened.path, fix="score some shards first")
    return Source(
        groups=nonempty,
        domains=sorted(manifest["domains"]),
        seq_len=manifest["seq_len"],
        unit=settings.unit,
        batch=max(1, settings.batch_tokens // manifest["seq_len"]),
        limits=limits,
        reference=_reference_parts(opened, reference) if reference else [],
        cache=cache,
    )


def _reference_parts(opened: Scores, reference: str) -> list[ScoresPart]:
    """Raises TinydataError if the reference scores are of other sequences."""
    own, other = opened.manifest, open_scores(reference)
    for what, a, b in (
        ("base fingerprint", own["base"]["fingerprint"], other.manifest["base"]["fingerprint"]),
        ("seq_len", own["seq_len"], other.manifest["seq_len"]),
    ):
        if a != b:
            raise TinydataError(
                f"the reference scores are of different sequences: {what} differs",
                where=reference,
                fix="score the same shards with the reference model and the same --seq-len",
            )
    return other.parts


def _scale(settings: Settings, losses: LossHistogram, counts: np.ndarray) -> Scale:
    """counts int64[bins] of a stratum -> the Scale that turns its losses into log-weights."""
    if not counts.any():
        return Scale()

    def loss_at(share: float) -> float:
        return float(losses.middles[quantile(counts, share)])

    low, high = (loss_at(q) for q in settings.clip) if settings.clip else (-np.inf, np.inf)
    centre, spread = 0.0, 1.0
    if settings.zscore:
        centre, spread = loss_at(0.5), max((loss_at(0.75) - loss_at(0.25)) / SPREAD, 1e-6)
    scale = Scale(low, high, centre, 1.0 / (settings.temperature * spread))
    if not settings.floor:
        return scale
    weights = log_weights_of(losses.middles, np.array(scale))
    top = float(weights[counts > 0].max())
    mean = top + math.log(float(counts @ np.exp(weights - top)) / float(counts.sum()))
    return scale._replace(share=math.log1p(-settings.floor), uniform=math.log(settings.floor) + mean)
