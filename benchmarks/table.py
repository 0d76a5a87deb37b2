"""Rows of the table: ours, the other, their ratio, and whether that is what we want."""

from __future__ import annotations

import statistics
from typing import NamedTuple


class Row(NamedTuple):
    """`goal` is ">= x" or "<= x"; it is about the ratio, or about `ours` where there is no other."""

    name: str
    ours: float | None = None
    other: float | None = None
    unit: str = ""
    ratio: float | None = None
    goal: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        value = self.ours if self.other is None else self.ratio
        if not self.goal or value is None:
            return None
        sign, limit = self.goal.split()
        return value >= float(limit) if sign == ">=" else value <= float(limit)


class Peak(NamedTuple):
    name: str
    bytes: int


def compare(name: str, unit: str, ours: list[float], other: list[float], goal: str = "", note: str = "") -> Row:
    """Speeds of the same rounds -> Row: medians, and the median of the rounds' own ratios."""
    ratio = statistics.median(a / b for a, b in zip(ours, other, strict=True))
    return Row(name, statistics.median(ours), statistics.median(other), unit, ratio, goal, note)


def alone(name: str, unit: str, ours: list[float], goal: str = "", note: str = "") -> Row:
    return Row(name, statistics.median(ours), None, unit, None, goal, note)


def text(rows: list[Row], peaks: list[Peak]) -> str:
    """Two Markdown tables."""
    lines = ["| | ours | other | unit | ratio | goal | met | |", "|---|--:|--:|---|--:|---|---|---|"]
    for r in rows:
        met = {True: "yes", False: "**no**", None: ""}[r.met]
        cells = [r.name, _number(r.ours), _number(r.other), r.unit, _number(r.ratio), r.goal, met, r.note]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| peak memory of our runs | MB |", "|---|--:|"]
    lines += [f"| {p.name} | {p.bytes / 1e6:,.0f} |" for p in peaks]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
