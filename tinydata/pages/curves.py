"""Counts of token ids -> the numbers that are plotted: rank, coverage, Zipf fit, shares by domain.

Pure functions of arrays and tables; nothing here reads or writes a file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa


class Zipf(NamedTuple):
    """log10(count) = intercept + slope x log10(rank), fitted on the ranks first..last."""

    slope: float
    intercept: float
    first: int
    last: int


def per_id(counts: pa.Table, size: int) -> np.ndarray:
    """COUNTS -> int64[size]: occurrences in all domains, without held-out documents: what `compact` uses."""
    out = np.zeros(size, np.int64)
    np.add.at(out, counts["token_id"].to_numpy(), counts["count"].to_numpy() - counts["heldout"].to_numpy())
    return out


def ranked(count: np.ndarray) -> np.ndarray:
    """count int64[ids] -> int64[ids that occur], most frequent first."""
    return np.sort(count[count > 0])[::-1]


def coverage(by_rank: np.ndarray) -> np.ndarray:
    """Counts int64[n], most frequent first -> float64[n]: at k - 1, the share of tokens among the top k ids."""
    return np.cumsum(by_rank) / max(int(by_rank.sum()), 1)


def coverage_at(covered: np.ndarray, ids: int) -> float:
    """Share of tokens that the `ids` most frequent ids cover; 1 if fewer ids than that occur."""
    if ids <= 0:
        return 0.0
    return float(covered[ids - 1]) if ids <= len(covered) else 1.0


def ids_for(covered: np.ndarray, share: float) -> int:
    """The smallest number of ids that covers `share` of the tokens."""
    return min(int(np.searchsorted(covered, share)) + 1, len(covered))


def log_spaced(first: int, last: int, points: int) -> np.ndarray:
    """int64[<= points]: whole numbers from first to last, both included, evenly spaced on a logarithmic axis."""
    if last < first:
        return np.zeros(0, np.int64)
    return np.unique(np.rint(np.geomspace(first, last, points)).astype(np.int64))


def zipf(by_rank: np.ndarray, first: int = 10, least: int = 10) -> Zipf | None:
    """int64[n], most frequent first -> line through the log-log plot, or None if there are too few ids to fit.

    Ranks before `first` (function words and punctuation deviate from the line) and counts below
    `least` (noise, in steps) are left out. The points are log-spaced because otherwise the tail
    would dominate: of 80,000 ranks, 79,000 lie beyond the first thousand. The line describes the
    plot and is no test of a power law (Clauset, Shalizi and Newman 2009, doi 10.1137/070710111).
    """
    last = int(np.searchsorted(-by_rank, -least, side="right"))
    rank = log_spaced(first, last, 200)
    if len(rank) < 3:
        return None
    slope, intercept = np.polyfit(np.log10(rank), np.log10(by_rank[rank - 1]), 1)
    return Zipf(float(slope), float(intercept), int(rank[0]), int(rank[-1]))


def by_domain(domains: pa.Table) -> list[dict[str, Any]]:
    """DOMAINS -> its rows, largest domain first, with `share` (of all tokens) and `bytes_per_token` added."""
    rows = domains.to_pylist()
    total = max(sum(r["tokens"] for r in rows), 1)
    more = [{**r, "share": r["tokens"] / total, "bytes_per_token": r["bytes"] / max(r["tokens"], 1)} for r in rows]
    return sorted(more, key=lambda r: (-r["tokens"], r["domain"]))
