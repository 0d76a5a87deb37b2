"""Kernels of sampling against a few lines each, and the law they draw by against torch.multinomial."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydata.verbs.resample import gumbel as sampling
from tinydata.verbs.resample.gumbel import BINS, LIMIT, NO_KEY, Scale

RANDOM = np.random.default_rng(5)
MASK = (1 << 64) - 1
LOSSES = np.concatenate([RANDOM.normal(2.5, 1.5, 3_000), [0.0, -0.0, 1e-30, -1e-30, 1e6, -1e6]]).astype(np.float32)
SCALES = [Scale(), Scale(1.0, 4.0, 2.5, 1 / 0.7), Scale(-3.0, 9.0, 0.0, 2.0, np.log(0.9), np.log(0.1) + 1.3)]


def uniform(unit: int, seed: int) -> float:
    h = unit & MASK
    for k in (1, 2):
        h = (h + (seed + k) * 0x9E3779B97F4A7C15) & MASK
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & MASK
        h ^= h >> 31
    return ((h >> 12) + 0.5) * 2.0**-52


def weight(loss: float, s: Scale) -> float:
    x = (min(max(loss, s.low), s.high) - s.centre) * s.factor
    return float(np.logaddexp(x + s.share, s.uniform))


def keys(losses: np.ndarray, scales: list[Scale], seed: int, **more: np.ndarray) -> np.ndarray:
    n = len(losses)
    given = {"reason": np.zeros(n, np.uint8), "domain": np.zeros(n, np.int16), "units": np.arange(n), **more}
    out = np.empty(n, np.int64)
    strata = np.arange(len(scales))
    columns = (given["reason"], given["domain"], given["units"])
    sampling.keys(losses, *columns, strata, sampling.scale_table(scales), np.uint64(seed), out)
    return out


def test_keys() -> None:
    domain = RANDOM.integers(0, 3, len(LOSSES)).astype(np.int16)
    reason = (RANDOM.random(len(LOSSES)) < 0.1).astype(np.uint8)
    units = RANDOM.integers(0, 1 << 40, len(LOSSES))
    got = keys(LOSSES, SCALES, 7, domain=domain, reason=reason, units=units)
    for i in range(0, len(LOSSES), 7):
        wanted = weight(float(LOSSES[i]), SCALES[domain[i]]) - np.log(-np.log(uniform(int(units[i]), 7)))
        assert got[i] == NO_KEY if reason[i] else abs(int(got[i]) - wanted * 2.0**32) <= 4 + abs(wanted)


def test_log_weights() -> None:
    out = np.empty(len(LOSSES))
    for scale in SCALES:
        sampling.log_weights(LOSSES.astype(np.float64), np.array(scale), out)
        np.testing.assert_allclose(out, [weight(float(x), scale) for x in LOSSES], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [1e-9, 0.01, 1.0, 1e9])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_keys_are_finite_and_differ(temperature: float, floor: float) -> None:
    losses = np.concatenate([np.linspace(-1e6, 1e6, 20_001), RANDOM.normal(2, 1, 20_000)]).astype(np.float32)
    mixed = {"share": np.log(0.9), "uniform": np.log(floor) + 3} if floor else {}
    got = keys(losses, [Scale(factor=1 / temperature, **mixed)], 3)
    assert got.min() >= -LIMIT and got.max() <= LIMIT
    if temperature >= 1:
        assert len(np.unique(got)) == len(got)


def test_noise_is_gumbel() -> None:
    """Mean and deviation of 400,000, and no two equal; another seed is another draw."""
    n = 400_000
    noise = keys(np.zeros(n, np.float32), [Scale()], 0) / 2.0**32
    assert abs(noise.mean() - np.euler_gamma) < 4 * 1.2825 / np.sqrt(n)
    assert abs(noise.std() - np.pi / np.sqrt(6)) < 0.01
    other = keys(np.zeros(n, np.float32), [Scale()], 1) / 2.0**32
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.01
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.01


def test_the_law_is_that_of_multinomial() -> None:
    """How often each item, and each pair, is among 4 of 9, over 40,000 draws of either, by chi-square."""
    torch = pytest.importorskip("torch", reason="compared with torch.multinomial")
    n, k, draws = 9, 4, 40_000
    losses = np.linspace(0, 2.5, n).astype(np.float32)
    units = np.tile(np.arange(n), draws) + np.repeat(np.arange(draws), n) * n
    key = keys(np.tile(losses, draws), [Scale()], 11, units=units).reshape(draws, n)
    ours = np.zeros((draws, n), bool)
    np.put_along_axis(ours, np.argsort(-key, axis=1)[:, :k], True, axis=1)
    weights = torch.exp(torch.from_numpy(losses).double()).expand(draws, n)
    found = torch.multinomial(weights, k, generator=torch.Generator().manual_seed(0)).numpy()
    theirs = np.zeros((draws, n), bool)
    np.put_along_axis(theirs, found, True, axis=1)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        """Chi-square over the sets drawn: 126 of them, 125 degrees of freedom."""
        places = 1 << np.arange(n)
        x, y = (np.bincount(s @ places, minlength=1 << n) for s in (a, b))
        seen = x + y > 0
        return float((((x - y) ** 2)[seen] / (x + y)[seen]).sum())

    assert distance(ours, theirs) < 125 + 4 * np.sqrt(2 * 125)
    twice = np.zeros((draws, n), bool)  # another law is found out
    key = keys(np.tile(losses, draws), [Scale(factor=1.1)], 11, units=units).reshape(draws, n)
    np.put_along_axis(twice, np.argsort(-key, axis=1)[:, :k], True, axis=1)
    assert distance(twice, theirs) > 125 + 8 * np.sqrt(2 * 125)


def test_bins() -> None:
    values = np.sort(LOSSES)
    index = sampling.bins(values)
    assert (np.diff(index) >= 0).all() and index.min() >= 0 and index.max() < BINS
    near = sampling.middles(index)
    assert (np.abs(near - values) <= np.abs(values) / 512 + 1e-38).all()
    every = np.unique(index)
    assert (sampling.bins(sampling.middles(every).astype(np.float32)) == every).all()


def test_tally() -> None:
    domain = RANDOM.integers(0, 3, len(LOSSES)).astype(np.int16)
    reason = RANDOM.integers(0, 2, len(LOSSES)).astype(np.uint8)
    got, wanted = np.zeros((2, 3, BINS), np.int64)
    sampling.tally(LOSSES.view(np.uint32), reason, domain, got)
    np.add.at(wanted, (domain[reason == 0], sampling.bins(LOSSES)[reason == 0]), 1)
    assert (got == wanted).all()
    at = np.flatnonzero(reason)
    parts = np.zeros(4, np.int64)
    part_of = RANDOM.integers(0, 4, BINS).astype(np.uint8)
    sampling.tally_ranges(LOSSES.view(np.uint32), at, part_of, parts)
    assert (parts == np.bincount(part_of[sampling.bins(LOSSES)[at]], minlength=4)).all()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999, 1.0])
def test_quantile(share: float) -> None:
    index = sampling.bins(LOSSES)
    rank = max(1, int(np.ceil(share * len(index))))
    assert sampling.quantile(np.bincount(index), share) == np.sort(index)[rank - 1]


def test_sift_and_taken() -> None:
    n, strata = 5_000, 3
    key = RANDOM.integers(-50, 50, n)
    key[RANDOM.random(n) < 0.1] = NO_KEY
    domain, of = RANDOM.integers(0, 5, n).astype(np.int16), np.array([0, 1, 2, 1, 0])
    low, high, step = np.array([-20, 0, 5]), np.array([10, 1, 45]), np.array([7, 1, 1])
    above, counts, at = np.zeros(strata, np.int64), np.zeros((strata, sampling.STEPS), np.int64), np.empty(n, np.int64)
    at = at[: sampling.sift(key, domain, of, low, high, step, above, counts, at)]
    s, real = of[domain], key != NO_KEY
    inside = real & (key >= low[s]) & (key < high[s])
    assert at.tolist() == np.flatnonzero(inside).tolist()
    assert above.tolist() == [int((real & (key >= high[s]) & (s == k)).sum()) for k in range(strata)]
    wanted = np.zeros_like(counts)
    np.add.at(wanted, (s[inside], (key[inside] - low[s[inside]]) // step[s[inside]]), 1)
    assert (counts == wanted).all()
    out, last = np.empty(n, np.bool_), np.array([3_000, 10, -1])
    sampling.choose(key, np.arange(n), domain, of, low, last, out)
    assert (out == (real & ((key > low[s]) | ((key == low[s]) & (np.arange(n) <= last[s]))))).all()


def test_chances() -> None:
    at, domain = np.arange(0, 3_000, 3), RANDOM.integers(0, 3, len(LOSSES)).astype(np.int16)
    out, threshold = np.empty(len(at), np.float32), np.array([2.0, -np.inf, 3.0])
    sampling.inclusion_of_rows(LOSSES, at, domain, np.arange(3), sampling.scale_table(SCALES), threshold, out)
    wanted = [
        1 - np.exp(-np.exp(min(weight(float(LOSSES[i]), SCALES[domain[i]]) - threshold[domain[i]], 50))) for i in at
    ]
    np.testing.assert_allclose(out, wanted, rtol=1e-6, atol=1e-7)


def test_unit_losses() -> None:
    units = np.sort(RANDOM.integers(0, 300, 2_000))
    nll, tokens = RANDOM.integers(0, 1 << 30, 2_000), RANDOM.integers(1, 200, 2_000).astype(np.uint8)
    reason = RANDOM.integers(0, 2, 2_000).astype(np.uint8)
    reason[units == 7] = 1
    whole = np.empty(2_000, np.float32)
    begun = sampling.unit_losses(units, nll, tokens, reason, (0, 0), (0, 0), whole)
    sums = [np.bincount(units, weights=np.where(reason == 0, x, 0), minlength=300) for x in (nll, tokens.astype(int))]
    np.testing.assert_array_equal(whole, (sums[0] / 65536 / np.maximum(sums[1], 1))[units].astype(np.float32))
    assert begun == (sums[1] > 0).sum()
    for cut in (1, 777, 1_999):  # in two pieces, each told what the other has of the unit between
        a, b = slice(0, cut), slice(cut, None)
        of = [[int(x[s][(units[s] == u) & (reason[s] == 0)].sum()) for x in (nll, tokens)]
              for s, u in ((b, units[cut - 1]), (a, units[cut]))]  # fmt: skip
        out, some = np.empty(2_000, np.float32), 0
        for s, before, after in ((a, (0, 0), tuple(of[0])), (b, tuple(of[1]), (0, 0))):
            some += sampling.unit_losses(units[s], nll[s], tokens[s], reason[s], before, after, out[s])
        assert (out == whole).all() and some == begun


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8), st.integers(0, 300))
def test_allocate(strata: list[tuple[int, int]], k: int) -> None:
    sizes, room = [max(a, b) for a, b in strata], [min(a, b) for a, b in strata]
    got = sampling.allocate(sizes, room, k)
    assert sum(got) == min(k, sum(room))
    assert all(0 <= g <= r for g, r in zip(got, room, strict=True))
    free = [s for s, (g, r) in enumerate(zip(got, room, strict=True)) if g < r]
    for a, b in itertools.permutations(free, 2):  # among those with room left, shares are equal up to one
        assert got[a] * sizes[b] <= (got[b] + 1) * sizes[a] + sizes[b]


def test_allocate_in_proportion() -> None:
    assert sampling.allocate([60, 30, 10], [60, 30, 10], 50) == [30, 15, 5]
    assert sampling.allocate([60, 30, 10], [20, 30, 10], 50) == [20, 23, 7]
    assert sampling.allocate([1, 1, 1], [1, 1, 1], 2) == [1, 1, 0]
