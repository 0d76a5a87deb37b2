"""Numbers -> Vega-Lite specs as plain dicts that include their data; nothing is rendered here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinydata.pages import curves
from tinydata.pages.text import change, number, share, thousands

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH, HEIGHT = 440, 290  # narrow enough that 12 px text still measures 10 px on a phone
POINTS = 160  # per curve: one every three pixels
BARS = 40
MARKS = (16_000, 32_000, 48_000, 64_000)

# Each colour in light and dark mode; the page swaps them in the SVG.
PALETTE = {
    "ink": ("#1f2733", "#e3e7ee"),
    "soft": ("#5d6878", "#a2adbd"),
    "grid": ("#e3e7ec", "#303948"),
    "line": ("#2b6ca3", "#6fb2e6"),
    "mark": ("#c2571a", "#f2985f"),
}
INK, SOFT, GRID, LINE, MARK = (day for day, _ in PALETTE.values())
OTHERS = ("#8a5fb5", "#3a9270", "#b08428", "#c04f7d", "#6b7f94")  # readable in both modes

# Liberation Sans comes with the renderer and has the same metrics as Arial and Helvetica
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"

_POINT = {"type": "point", "filled": True, "size": 75, "opacity": 1}


class Chart(NamedTuple):
    """A chart with its caption and the data behind it."""

    name: str  # file name of its data and spec when downloaded
    title: str
    caption: str
    spec: Spec
    rows: Rows  # the data that can be downloaded


def coverage(by_rank: np.ndarray, sizes: dict[str, tuple[int, float]]) -> Chart:
    """Counts by rank, {vocabulary: (ids, coverage)} -> share of tokens covered by the top k ids."""
    covered = curves.coverage(by_rank)
    size = len(covered)
    first = 100 if size > 10_000 else 1  # with all five powers of ten the tick labels would be too close
    ks = sorted({*curves.log_spaced(first, size, POINTS).tolist(), *(m for m in MARKS if m <= size)})
    rows = [{"ids": k, "coverage": float(covered[k - 1])} for k in ks]
    ends = [k for k, _ in sizes.values()]  # a vocabulary may keep ids that never occur
    x = {"field": "ids", **powers("token ids, most frequent first", [min(first, *ends, size), max(size, *ends, 2)])}
    y = {"field": "coverage", **quantity("share of tokens", ".0%", [0, 1])}
    marks = [{"ids": m, "at": f"{thousands(m)}: {share(covered[m - 1])}", "coverage": 0.02} for m in MARKS if m < size]
    rule = {"type": "rule", "color": SOFT, "strokeDash": [2, 3], "opacity": 0.7}
    label = {
        "type": "text",
        "angle": 270,
        "align": "left",
        "baseline": "bottom",
        "fontSize": 10,
        "dy": -1,
        "color": SOFT,
    }
    layers = [
        layer(marks, rule, x=x),
        layer(marks, label, x=x, y=y, text={"field": "at"}),
        layer(rows, {"type": "line", "color": LINE, "strokeWidth": 2}, x=x, y=y),
    ]
    caption = "Dotted: coverage by the most frequent ids alone." if marks else ""
    if sizes:
        points = [{"vocabulary": f"{n} ({k:,})", "ids": k, "coverage": c} for n, (k, c) in sizes.items()]
        layers.append(layer(points, _POINT, x=x, y=y, color=_legend(points)))
        caption += " Points: vocabularies; they lie below the curve because they also keep what their merges need."
    return Chart("coverage", "Share of tokens that the top ids cover", caption.strip(), drawing(layers), rows)


def rank_frequency(by_rank: np.ndarray, fit: curves.Zipf | None) -> Chart:
    """Counts by rank -> the log-log plot, with the fitted line."""
    ranks = curves.log_spaced(1, len(by_rank), POINTS)
    rows = [{"rank": int(r), "count": int(by_rank[r - 1])} for r in ranks]
    x = {"field": "rank", **powers("rank", [1, max(len(by_rank), 2)])}
    y = {"field": "count", **powers("occurrences", [1, max(int(by_rank.max(initial=1)), 2)])}
    layers = [layer(rows, {"type": "line", "color": LINE, "strokeWidth": 2}, x=x, y=y)]
    caption = "No line fitted: too few ids occur ten times or more."
    if fit:
        ends = [{"rank": r, "count": 10 ** (fit.intercept + fit.slope * np.log10(r))} for r in (fit.first, fit.last)]
        layers.append(layer(ends, {"type": "line", "color": MARK, "strokeDash": [5, 4], "strokeWidth": 1.5}, x=x, y=y))
        caption = (
            f"Dashed: fitted slope {fit.slope:.2f}".replace("-", "−")
            + f" between ranks {fit.first:,} and {fit.last:,}."
        )
    return Chart("rank-frequency", "Occurrences by rank", caption, drawing(layers), rows)


def size_against(points: Rows, chosen: int, field: str, adapted: float | None = None) -> Chart:
    """Points of `compact --curve` -> vocabulary size against `inflation` or `embedding_and_head_parameters`.

    adapted: inflation of the chosen size with learned tokens.
    """
    rows = [{"vocab": p["vocab"], field: p[field]} for p in points if p[field] is not None]
    inflated = field == "inflation"
    title = "tokens added to held-out text" if inflated else "parameters"
    x = {"field": "vocab", **quantity("vocabulary size", ",d", [0, max(r["vocab"] for r in rows)])}
    span = [1.2 * min(0, adapted or 0), max(max(r[field] for r in rows), 1e-4)]
    y = {"field": field, **quantity(title, ".0%" if inflated else "~s", span)}
    here = [{**r, "label": change(r[field]) if inflated else number(r[field])} for r in rows if r["vocab"] == chosen]
    label = {"type": "text", "align": "left" if inflated else "right", "dx": 6 if inflated else -6, "dy": -10}
    layers = [
        layer(rows, {"type": "line", "color": LINE, "strokeWidth": 2, "point": {"color": LINE, "size": 24}}, x=x, y=y),
        layer(here, {**_POINT, "color": MARK}, x=x, y=y),
        layer(here, {**label, "color": INK, "fontWeight": "bold"}, x=x, y=y, text={"field": "label"}),
    ]
    caption = f"Marked: the chosen vocabulary, {chosen:,} ids."
    if adapted is not None:
        learned = [{"vocab": chosen, field: adapted, "label": f"{change(adapted)} adapted"}]
        layers += [
            layer(learned, {**_POINT, "color": MARK, "shape": "diamond"}, x=x, y=y),
            layer(learned, {**label, "color": INK, "fontWeight": "bold"}, x=x, y=y, text={"field": "label"}),
        ]
        caption = f"Marked: {chosen:,} ids, pruned (circle), and with tokens learned from the corpus (diamond)."
    name = "inflation" if inflated else "parameters"
    heading = "Vocabulary size and inflation" if inflated else "Vocabulary size and embedding + head parameters"
    return Chart(f"size-{name}", heading, caption, drawing(layers), rows)


def inflation_bars(domains: Rows, total: float) -> Chart:
    """`domains` of the trade-off, worst first -> inflation by domain as bars."""
    rows = [{"domain": r["domain"], "inflation": r["inflation"]} for r in domains]
    whole = {"domain": "all held-out text", "inflation": total}
    shown = [{**r, "label": change(r["inflation"])} for r in (whole, *rows[:BARS])]
    most, least = max(r["inflation"] for r in shown), min(r["inflation"] for r in shown)
    scale = [min(least, 0), max(most, 1e-4) * 1.25]  # room for the longest bar's label
    x = {"field": "inflation", **quantity("tokens added", ".1%" if most < 0.05 else ".0%", scale)}
    axis = {"title": None, "labelLimit": 170, "ticks": False, "grid": False, "domain": False, "labelPadding": 6}
    y = {"field": "domain", "type": "nominal", "sort": [r["domain"] for r in shown], "axis": axis}
    bar = {"type": "bar", "height": {"band": 0.66}}
    label = {"type": "text", "align": "left", "dx": 4, "color": INK}
    layers = [
        layer(shown[1:], {**bar, "color": LINE}, x=x, y=y),
        layer(shown[:1], {**bar, "color": MARK}, x=x, y=y),
        layer(shown, label, x=x, y=y, text={"field": "label"}),
    ]
    caption = f"Worst first; {BARS} of {len(rows)} domains." if len(rows) > BARS else "Worst first."
    return Chart("inflation-by-domain", "Tokens added by domain", caption, drawing(layers, 19 * len(shown) + 50), rows)


# -- parts of a spec --------------------------------------------------------------------------


def drawing(layers: list[Spec], height: int = HEIGHT) -> Spec:
    """Layers -> a complete spec with the page's fonts and colours."""
    # no clip and no gradient: both would add ids to the SVG that depend on what was rendered before
    return {
        "$schema": SCHEMA,
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "layer": layers,
        "config": {
            "aria": False,
            "background": "transparent",
            "font": FONT,
            "padding": 4,
            "view": {"stroke": None},
            "text": {"fontSize": 11},
            "axis": {
                "labelColor": SOFT,
                "titleColor": SOFT,
                "gridColor": GRID,
                "tickColor": GRID,
                "domainColor": SOFT,
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "titlePadding": 8,
            },
            "legend": {
                "orient": "bottom",
                "title": None,
                "labelColor": INK,
                "labelFontSize": 12,
                "labelLimit": 360,
                "columns": 1,
            },
        },
    }


def layer(rows: Sequence[Spec], mark: Spec, **encoding: Spec) -> Spec:
    """One layer of a chart, with its data."""
    return {"data": {"values": list(rows)}, "mark": mark, "encoding": encoding}


def quantity(title: str, form: str, domain: list[float]) -> Spec:
    """A linear axis over exactly this domain."""
    axis = {"title": title, "format": form, "tickCount": 6}
    return {"type": "quantitative", "axis": axis, "scale": {"domain": domain, "nice": False, "zero": False}}


def powers(title: str, domain: list[float]) -> Spec:
    """A logarithmic axis with a grid line at each power of ten only."""
    marks = [10**p for p in range(20) if domain[0] <= 10**p <= domain[1]]
    axis = {"title": title, "format": "~s", "values": marks}
    return {"type": "quantitative", "axis": axis, "scale": {"type": "log", "domain": domain, "nice": False}}


def _legend(points: Rows) -> Spec:
    names = [p["vocabulary"] for p in points]
    colours = [(MARK, *OTHERS)[i % (len(OTHERS) + 1)] for i in range(len(names))]
    return {"field": "vocabulary", "type": "nominal", "scale": {"domain": names, "range": colours}}
