"""Sampling without replacement by keys: log-weight + Gumbel noise; the K largest keys are the sample (Gumbel-top-k).

The distribution is that of drawing one by one in proportion to the weights (Efraimidis and Spirakis 2006,
doi 10.1016/j.ipl.2005.11.003), and that of `torch.multinomial(replacement=False)`. The noise is a hash of (seed, unit),
so the sample depends neither on the worker nor on the order of the rows. Keys are integers in units of 2^-32 nats, so
that the last bit of a logarithm, which may differ between machines, does not matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.hashing import GOLDEN, finish
from tinydata.core.kernels import cached, compiled, inlined

SHIFT = 14  # low bits of a float32 that a bin of losses ignores: 9 bits of the fraction remain, 0.2 % of the value
BINS = 1 << (32 - SHIFT)
STEPS = 4096  # bins in a window of keys
LIMIT = 1 << 61  # largest absolute value of a key
NO_KEY = -(1 << 63)  # of rows that cannot be drawn
_PER_NAT = 2.0**32


class Scale(NamedTuple):
    """Loss -> log-weight: ((clipped loss) - centre) * factor, then mixed with a uniform weight."""

    low: float = -np.inf  # losses are clipped to low..high
    high: float = np.inf
    centre: float = 0.0
    factor: float = 1.0  # 1 / (temperature * spread)
    share: float = 0.0  # log of the share of the weighted part
    uniform: float = -np.inf  # log of the weight that the uniform part adds


LOW, HIGH, CENTRE, FACTOR, SHARE, UNIFORM = range(len(Scale._fields))  # columns of scale_table


def scale_table(scales: list[Scale]) -> np.ndarray:
    """-> float64[strata, 6], as kernels take it."""
    return np.array(scales, np.float64).reshape(len(scales), len(Scale._fields))


# -- losses in bins ---------------------------------------------------------------------------


@inlined()
def _bin(raw):
    """Bits of a float32 -> its bin; bins have the order of the floats."""
    flipped = ~raw if raw >> np.uint32(31) else raw | np.uint32(0x80000000)
    return np.int64(flipped >> np.uint32(SHIFT))


@compiled()
def tally(raw, reason, domain, counts):
    """raw uint32[n] (bits of float32), reason uint8[n], domain int16[n] -> counts int64[domains, BINS] of reason 0."""
    for i in range(len(raw)):
        if reason[i] == 0:
            counts[domain[i], _bin(raw[i])] += 1


def bins(losses: np.ndarray) -> np.ndarray:
    """float32[n] -> int64[n]: the bin of each."""
    raw = losses.view(np.uint32)
    return (np.where(raw >> 31, ~raw, raw | np.uint32(0x80000000)) >> SHIFT).astype(np.int64)


def middles(index: np.ndarray) -> np.ndarray:
    """Bins int64[n] -> float64[n]: the middle of each."""
    flipped = (index.astype(np.uint32) << np.uint32(SHIFT)) | np.uint32(1 << (SHIFT - 1))
    raw = np.where(flipped >> 31, flipped & np.uint32(0x7FFFFFFF), ~flipped)
    return raw.astype(np.uint32).view(np.float32).astype(np.float64)


def quantile(counts: np.ndarray, share: float) -> int:
    """counts int64[bins] -> the bin of the value with rank ceil(share * n)."""
    below = np.cumsum(counts)
    rank = max(1, int(np.ceil(share * float(below[-1]))))
    return int(np.searchsorted(below, rank))


# -- keys -------------------------------------------------------------------------------------


@inlined()
def _log_weight(loss, scale):
    """scale float64[6]: a row of scale_table."""
    x = (min(max(loss, scale[LOW]), scale[HIGH]) - scale[CENTRE]) * scale[FACTOR]
    if scale[UNIFORM] == -np.inf:
        return x
    x += scale[SHARE]
    top = max(x, scale[UNIFORM])
    return top + np.log1p(np.exp(min(x, scale[UNIFORM]) - top))


@inlined()
def _noise(unit, seed):
    """(unit, seed) -> Gumbel noise, from a uniform number that is never 0 or 1: finalizer of splitmix64, twice."""
    h = np.uint64(unit)
    for k in range(2):
        h = finish(h + (seed + np.uint64(k + 1)) * GOLDEN)
    return -np.log(-np.log((np.float64(h >> np.uint64(12)) + 0.5) * 2.0**-52))


@compiled()
def log_weights(losses, scale, out):
    """losses float64[n], scale float64[6] -> out float64[n]."""
    for i in range(len(losses)):
        out[i] = _log_weight(losses[i], scale)


def log_weights_of(losses: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """losses float64[n], scale float64[6] -> float64[n]."""
    out = np.empty(len(losses))
    log_weights(losses, scale, out)
    return out


@compiled()
def keys(losses, reason, domain, units, stratum_of, scales, seed, out):
    """losses float32[n], units int64[n] -> out int64[n]: keys of rows with reason 0, NO_KEY for the others.

    stratum_of int64[domains], scales float64[strata, 6], seed uint64.
    """
    for i in range(len(losses)):
        if reason[i] != 0:
            out[i] = NO_KEY
            continue
        x = _log_weight(np.float64(losses[i]), scales[stratum_of[domain[i]]]) + _noise(units[i], seed)
        out[i] = np.int64(np.floor(min(max(x * _PER_NAT, -np.float64(LIMIT)), np.float64(LIMIT))))


@compiled()
def sift(key, domain, stratum_of, low, high, step, above, counts, inside):
    """key int64[n], a window from low to high (exclusive) int64[strata] per stratum -> number of keys in the window.

    above int64[strata]: keys of high or more; counts int64[strata, STEPS] of the keys in the window, in bins of size
    `step`; inside int64[n]: which they are.
    """
    n = 0
    for i in range(len(key)):
        if key[i] == NO_KEY:
            continue
        s = stratum_of[domain[i]]
        if key[i] >= high[s]:
            above[s] += 1
        elif key[i] >= low[s]:
            counts[s, (key[i] - low[s]) // step[s]] += 1
            inside[n] = i
            n += 1
    return n


@compiled()
def choose(key, sequence, domain, stratum_of, threshold, last, out):
    """-> out bool[n]: keys above their stratum's threshold, and those equal to it up to sequence `last`."""
    for i in range(len(key)):
        s = stratum_of[domain[i]]
        chosen = key[i] > threshold[s] or (key[i] == threshold[s] and sequence[i] <= last[s])
        out[i] = chosen and key[i] != NO_KEY


@compiled()
def inclusion_of_rows(losses, at, domain, stratum_of, scales, threshold, out):
    """Rows at int64[n], threshold float64[strata] in nats -> out float32[n]: their probabilities of being kept."""
    for i in range(len(at)):
        s = stratum_of[domain[at[i]]]
        x = _log_weight(np.float64(losses[at[i]]), scales[s]) - threshold[s]
        out[i] = -np.expm1(-np.exp(min(x, 50.0)))


@compiled()
def tally_ranges(raw, at, range_of, counts):
    """raw uint32[n] (bits of float32), rows at int64[k], range_of uint8[BINS] -> counts int64[ranges]."""
    for i in at:
        counts[range_of[_bin(raw[i])]] += 1


# -- units of several sequences ---------------------------------------------------------------


@cached()
def unit_losses(units, nll, tokens, reason, before, after, out):
    """units int64[n] (ascending), nll int64[n] (2^-16 nats), tokens[n], reason uint8[n] -> out float32[n].

    The loss of a unit is the mean over all its tokens in sequences with reason 0. before, after: (nll, tokens) of the
    rows of the first and of the last unit that are in other groups. Sums are of integers, so they do not depend on the
    groups. Returns the number of units with such sequences that begin here.
    """
    n, begun, a = len(units), 0, 0
    while a < n:
        b, total, count = a, 0, 0
        if a == 0:
            total, count = before
        while b < n and units[b] == units[a]:
            if reason[b] == 0:
                total += int(nll[b])
                count += int(tokens[b])
            b += 1
        begun += count > 0 and not (a == 0 and before[1] > 0)
        if b == n:
            total += after[0]
            count += after[1]
        out[a:b] = np.float32(total / 65536.0 / (count if count else 1))
        a = b
    return begun


# -- how many of each stratum -----------------------------------------------------------------


def allocate(sizes: list[int], room: list[int], k: int) -> list[int]:
    """Divides k in proportion to sizes, by largest remainder; what exceeds the room of a stratum goes to the others.

    The sum is exactly min(k, sum(room)).
    """
    out = [0] * len(sizes)
    free = list(range(len(sizes)))
    left = min(k, sum(room))
    while free:
        total = sum(sizes[s] for s in free)
        full = [s for s in free if left * sizes[s] >= room[s] * total]
        if not full:
            break
        for s in full:
            out[s] = room[s]
        left -= sum(room[s] for s in full)
        free = [s for s in free if s not in full]
    for s in free:
        out[s] = left * sizes[s] // total
    rest = sorted(free, key=lambda s: (-(left * sizes[s] % total), s))
    for s in rest[: left - sum(out[s] for s in free)]:
        out[s] += 1
    return out


def inclusion(log_weight: np.ndarray, threshold: float) -> np.ndarray:
    """Log-weights float64[n] -> float64[n]: probability that a Gumbel key is above the threshold."""
    return -np.expm1(-np.exp(np.minimum(log_weight - threshold, 50.0)))


def expected_threshold(log_weight: np.ndarray, counts: np.ndarray, k: float) -> float:
    """Log-weights float64[n], counts int64[n] -> the threshold at which k are expected in the sample.

    By bisection: after 60 halvings, a range of some hundred nats is smaller than a float's last bit.
    """
    total = float(counts.sum())
    if k <= 0 or k >= total:
        return np.inf if k <= 0 else -np.inf
    log_weight, counts = log_weight[counts > 0], counts[counts > 0]
    low, high = float(log_weight.min()) - 40, float(log_weight.max()) + np.log(total) + 40
    for _ in range(60):
        middle = (low + high) / 2
        if counts @ inclusion(log_weight, middle) > k:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def effective_share(log_weight: np.ndarray, counts: np.ndarray) -> float:
    """(sum w)^2 / (n sum w^2): 1 if all weights are equal, near 0 if a few weights dominate."""
    w = np.exp(log_weight - log_weight.max())
    return float((counts @ w) ** 2 / (counts.sum() * (counts @ w**2)))
