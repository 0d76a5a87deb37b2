"""Sampling without replacement by keys: log-weight + Gumbel noise, the K largest are the sample (Gumbel-top-k).

The same law as drawing one after another in proportion to the weights (Efraimidis and Spirakis 2006,
doi 10.1016/j.ipl.2005.11.003), and as `torch.multinomial(replacement=False)`. The noise is a hash of
(seed, unit), so nothing depends on where or in which order rows are seen. Keys are whole numbers of 2^-32
nats: the last bit of a logarithm, which machines disagree about, does not matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from tinydata.core.hashing import GOLDEN, finish
from tinydata.core.kernels import compiled, inlined

SHIFT = 14  # bits of a float32 that a bin of losses leaves out: 9 of the fraction stay, 0.2 % of the value
BINS = 1 << (32 - SHIFT)
STEPS = 4096  # bins of a window of keys
LIMIT = 1 << 61  # no key is beyond it, whatever the loss
NO_KEY = -(1 << 63)  # of what is not to be drawn
_PER_NAT = 2.0**32


class Scale(NamedTuple):
    """How a loss becomes a log-weight: ((clipped loss) - centre) * factor, then mixed with a uniform draw."""

    low: float = -np.inf  # losses are clipped to low..high
    high: float = np.inf
    centre: float = 0.0
    factor: float = 1.0  # 1 / (temperature * spread)
    share: float = 0.0  # log of the weighted part's share
    uniform: float = -np.inf  # log of what the uniform part adds to each weight


def table(scales: list[Scale]) -> np.ndarray:
    """-> float64[strata, 6], as kernels take it."""
    return np.array(scales, np.float64).reshape(len(scales), len(Scale._fields))


# -- losses in bins ---------------------------------------------------------------------------


@inlined()
def _bin(raw):
    """Bits of a float32 -> its bin: the order of floats is that of these integers."""
    flipped = ~raw if raw >> np.uint32(31) else raw | np.uint32(0x80000000)
    return np.int64(flipped >> np.uint32(SHIFT))


@compiled()
def tally(raw, reason, domain, counts):
    """raw uint32[n] (bits of float32), reason uint8[n], domain int16[n] -> counts int64[domains, BINS] of reason 0."""
    for i in range(len(raw)):
        if reason[i] == 0:
            counts[domain[i], _bin(raw[i])] += 1


def bins(losses: np.ndarray) -> np.ndarray:
    """float32[n] -> int64[n]: bins, in the order of the values."""
    raw = losses.view(np.uint32)
    return (np.where(raw >> 31, ~raw, raw | np.uint32(0x80000000)) >> SHIFT).astype(np.int64)


def middles(index: np.ndarray) -> np.ndarray:
    """Bins int64[n] -> float64[n]: the value in the middle of each."""
    flipped = (index.astype(np.uint32) << np.uint32(SHIFT)) | np.uint32(1 << (SHIFT - 1))
    raw = np.where(flipped >> 31, flipped & np.uint32(0x7FFFFFFF), ~flipped)
    return raw.astype(np.uint32).view(np.float32).astype(np.float64)


def quantile(counts: np.ndarray, share: float) -> int:
    """int64[bins] -> the bin that the value at rank ceil(share * n) falls into."""
    below = np.cumsum(counts)
    rank = max(1, int(np.ceil(share * float(below[-1]))))
    return int(np.searchsorted(below, rank))


# -- keys -------------------------------------------------------------------------------------


@inlined()
def _log_weight(loss, scale):
    x = (min(max(loss, scale[0]), scale[1]) - scale[2]) * scale[3]
    if scale[5] == -np.inf:
        return x
    x += scale[4]
    top = max(x, scale[5])
    return top + np.log1p(np.exp(min(x, scale[5]) - top))


@inlined()
def _noise(unit, seed):
    """(unit, seed) -> Gumbel noise; the uniform number under it is never 0 or 1. Finalizer of splitmix64, twice."""
    h = np.uint64(unit)
    for k in range(2):
        h = finish(h + (seed + np.uint64(k + 1)) * GOLDEN)
    return -np.log(-np.log((np.float64(h >> np.uint64(12)) + 0.5) * 2.0**-52))


@compiled()
def log_weights(losses, scale, out):
    """losses float64[n], scale float64[6] -> out float64[n]."""
    for i in range(len(losses)):
        out[i] = _log_weight(losses[i], scale)


@compiled()
def keys(losses, reason, domain, units, stratum_of, scales, seed, out):
    """losses float32[n], units int64[n] -> out int64[n]: keys of what has reason 0, NO_KEY for the rest.

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
    """key int64[n] against a window low..high (exclusive) int64[strata] for each stratum.

    -> above int64[strata]: keys at or over high; counts int64[strata, STEPS] of those in the window, in steps of
    `step`; inside int64[n]: which they are. Returns how many.
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
def taken(key, sequence, domain, stratum_of, threshold, last, out):
    """-> out bool[n]: keys over their stratum's threshold, and those equal to it up to sequence `last`."""
    for i in range(len(key)):
        s = stratum_of[domain[i]]
        over = key[i] > threshold[s] or (key[i] == threshold[s] and sequence[i] <= last[s])
        out[i] = over and key[i] != NO_KEY


@compiled()
def chances(losses, at, domain, stratum_of, scales, threshold, out):
    """at int64[n]: which rows -> out float32[n]: their probability of being kept; threshold float64[strata], nats."""
    for i in range(len(at)):
        s = stratum_of[domain[at[i]]]
        x = _log_weight(np.float64(losses[at[i]]), scales[s]) - threshold[s]
        out[i] = -np.expm1(-np.exp(min(x, 50.0)))


@compiled()
def tally_parts(raw, at, part_of, counts):
    """raw uint32[n] (bits of float32), at int64[k]: which rows, part_of uint8[BINS] -> counts int64[parts]."""
    for i in at:
        counts[part_of[_bin(raw[i])]] += 1


# -- units of several sequences ---------------------------------------------------------------


@njit(cache=True)
def unit_losses(units, nll, tokens, reason, before, after, out):
    """units int64[n] (equal ones together), nll int64[n] (2^-16 nats), tokens[n], reason uint8[n] -> out float32[n].

    The loss of a unit is that of all its tokens in sequences with reason 0. before, after: (nll, tokens) of the first
    and of the last unit in rows that lie outside. Whole numbers: a sum does not depend on where rows were cut.
    Returns how many units with something to draw begin here.
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
    """k = sum of shares in proportion to sizes, by largest remainder; what a stratum has no room for goes to the rest.

    Exactly min(k, sum(room)) in all.
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
    """Log-weights float64[n] -> float64[n]: probability of being in a sample by Gumbel keys with this threshold."""
    return -np.expm1(-np.exp(np.minimum(log_weight - threshold, 50.0)))


def threshold(log_weight: np.ndarray, counts: np.ndarray, k: float) -> float:
    """Log-weights float64[n], counts int64[n] -> the threshold at which k are expected in the sample.

    By bisection: 60 halvings of a range of at most some hundred nats leave nothing of it.
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
    """(sum w)^2 / (n sum w^2): 1 if all weights are equal, near 0 if a few have it all."""
    w = np.exp(log_weight - log_weight.max())
    return float((counts @ w) ** 2 / (counts.sum() * (counts @ w**2)))
