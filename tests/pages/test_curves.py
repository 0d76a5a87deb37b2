"""Each curve against the plainest way to compute it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from tinydata.core import schema
from tinydata.pages import curves
from tinydata.verbs.resample import gumbel

RANDOM = np.random.default_rng(7)
COUNT = np.where(RANDOM.random(3_000) < 0.2, 0, RANDOM.zipf(1.5, 3_000).clip(max=10**9)).astype(np.int64)
BY_RANK = curves.ranked(COUNT)


def counts_table(rows: list[tuple[str, int, int, int]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.COUNTS.names, r, strict=True)) for r in rows], schema=schema.COUNTS)


def test_per_id() -> None:
    rows = [("a", 0, 5, 1), ("a", 3, 2**62, 0), ("b", 3, 7, 7), ("b", 4, 1, 0)]
    expected = [0] * 6
    for _, token, count, heldout in rows:
        expected[token] += count - heldout
    assert curves.per_id(counts_table(rows), 6).tolist() == expected
    assert curves.per_id(counts_table([]), 2).tolist() == [0, 0]


def test_ranked() -> None:
    assert BY_RANK.tolist() == sorted((int(c) for c in COUNT if c), reverse=True)
    assert len(curves.ranked(np.zeros(4, np.int64))) == 0


def test_coverage() -> None:
    covered, total = curves.coverage(BY_RANK), sum(BY_RANK.tolist())
    for k in (1, 2, 50, len(BY_RANK)):
        assert covered[k - 1] == pytest.approx(sum(BY_RANK.tolist()[:k]) / total, rel=1e-12)
        assert curves.coverage_at(covered, k) == covered[k - 1]
    assert covered[-1] == 1
    assert curves.coverage_at(covered, 0) == 0
    assert curves.coverage_at(covered, 10**6) == 1
    assert len(curves.coverage(BY_RANK[:0])) == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999, 1.0])
def test_ids_for(share: float) -> None:
    covered = curves.coverage(BY_RANK)
    fewest = next(k for k in range(1, len(covered) + 1) if curves.coverage_at(covered, k) >= share)
    assert curves.ids_for(covered, share) == fewest


@pytest.mark.parametrize("span", [(1, 1), (1, 7), (10, 99_999), (1, 10**9)])
def test_log_spaced(span: tuple[int, int]) -> None:
    points = curves.log_spaced(*span, 50).tolist()
    assert (points[0], points[-1]) == span
    assert len(points) <= 50
    assert points == sorted(set(points))
    steps = [b / a for a, b in pairwise(points) if a > 200]
    assert not steps or max(steps) / min(steps) < 1.02
    assert len(curves.log_spaced(5, 4, 50)) == 0


def test_zipf() -> None:
    exact = np.rint(10**7 / np.arange(1, 50_001) ** 1.1).astype(np.int64)
    fit = curves.zipf(exact)
    assert fit is not None
    assert fit.slope == pytest.approx(-1.1, abs=0.01)
    assert fit.intercept == pytest.approx(7, abs=0.02)
    assert (fit.first, fit.last) == (10, max(r for r, c in enumerate(exact.tolist(), 1) if c >= 10))
    # least squares by its textbook formula
    x = [math.log10(r) for r in curves.log_spaced(fit.first, fit.last, 200).tolist()]
    y = [math.log10(exact[round(10**v) - 1]) for v in x]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)
    assert fit.slope == pytest.approx(slope, rel=1e-9)


def test_zipf_needs_ids() -> None:
    assert curves.zipf(np.array([100] * 11)) is None
    assert curves.zipf(np.array([9, 3, 1])) is None
    assert curves.zipf(np.array([], np.int64)) is None


def test_by_domain() -> None:
    rows = [("b", 2, 30, 90, 0, 1, 10, 20), ("a", 1, 70, 140, 0, 0, 0, 0), ("c", 1, 0, 0, 0, 0, 0, 0)]
    table = pa.table(list(zip(*rows, strict=True)), schema=schema.DOMAINS)
    got = curves.by_domain(table)
    assert [(r["domain"], r["share"], r["bytes_per_token"]) for r in got] == [
        ("a", 0.7, 2.0),
        ("b", 0.3, 3.0),
        ("c", 0, 0),
    ]
    assert got[1]["heldout_tokens"] == 10


@pytest.mark.parametrize("k", [1, 50, 4_000, 9_900])
def test_threshold(k: int) -> None:
    """As many are expected as asked for; and drawn by keys, as many lie above it."""
    weight, counts = RANDOM.normal(2.5, 1, 400), RANDOM.integers(0, 40, 400)
    counts[0] += 10_000 - counts.sum()
    t = gumbel.expected_threshold(weight, counts, k)
    assert sum(n * (1 - math.exp(-math.exp(w - t))) for w, n in zip(weight, counts, strict=True)) == pytest.approx(k)
    each = np.repeat(weight, counts)
    drawn = np.sort(each - np.log(-np.log(RANDOM.random((40, 10_000)))), axis=1)[:, -k]
    assert drawn.mean() == pytest.approx(t, abs=4 * drawn.std() / math.sqrt(40) + 0.6 / k)
    assert gumbel.expected_threshold(weight, counts, 0) == math.inf
    assert gumbel.expected_threshold(weight, counts, 10_000) == -math.inf


def test_effective_share() -> None:
    weight, counts = RANDOM.normal(2.5, 1, 30), RANDOM.integers(1, 5, 30)
    w = np.exp(np.repeat(weight, counts))
    assert gumbel.effective_share(weight, counts) == pytest.approx(w.sum() ** 2 / (len(w) * (w**2).sum()))
    assert gumbel.effective_share(weight * 0 + 1e5, counts) == pytest.approx(1)
