"""Losses of sequences, before and after a draw -> charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinydata.pages.charts import INK, LINE, MARK, OTHERS, SOFT, Chart, Rows, Spec, drawing, layer, quantity
from tinydata.pages.text import share

BINS = 60
NAMED = 7  # at most so many domains have a colour of their own; the rest share one
HEIGHT = 240
_COLOURS = (LINE, MARK, *OTHERS)
_REST = "#9aa4b2"


def losses_by_domain(counts: dict[str, np.ndarray], edges: np.ndarray, of: str) -> Chart:
    """{domain: sequences int64[bins]}, largest first; edges float64[bins + 1], nats -> stacked histogram."""
    names = list(counts)[: NAMED if len(counts) <= NAMED else NAMED - 1]
    others = [n for n in counts if n not in names]
    rows: Rows = []
    for name in names:
        rows += _bars(counts[name], edges, domain=name)
    if others:
        rest = f"{len(others)} others"
        rows += _bars(np.sum([counts[n] for n in others], axis=0), edges, domain=rest)
        names.append(rest)
    top = int(np.sum(list(counts.values()), axis=0).max(initial=1))
    order = {n: i for i, n in enumerate(names)}
    shown = [{**r, "order": order[r["domain"]]} for r in rows]
    colour = {
        "field": "domain",
        "type": "nominal",
        "scale": {"domain": names, "range": [*_COLOURS[: len(names) - bool(others)], _REST][: len(names)]},
        "legend": {"columns": 4},
    }
    y = {"field": "sequences", **_whole("sequences", [0, top * 1.05]), "stack": "zero"}
    bars = layer(
        shown, {"type": "bar", "binSpacing": 0.5}, **_across(edges, _NATS), y=y, color=colour, order={"field": "order"}
    )
    return Chart("losses", "Loss of a sequence, by domain", of, drawing([bars], HEIGHT + 60), rows)


def before_after(h: dict[str, Any]) -> Chart:
    """{edges, before, kept: sequences} -> histogram of all eligible sequences, overlaid with the kept ones."""
    edges = np.asarray(h["edges"])
    rows = [{**b, "kept": k} for b, k in zip(_bars(np.asarray(h["before"]), edges), h["kept"], strict=True)]
    folded = [
        {"from": r["from"], "to": r["to"], "n": r[key], "what": what}
        for r in rows
        for key, what in (("sequences", "scored"), ("kept", "kept"))
    ]
    scale = {"domain": ["scored", "kept"], "range": [_REST, MARK]}
    colour = {"field": "what", "type": "nominal", "scale": scale, "legend": {"columns": 2}}
    opacity = {"condition": {"test": "datum.what == 'scored'", "value": 0.45}, "value": 0.9}
    y = {"field": "n", **_whole("sequences", [0, max(h["before"], default=1) * 1.05]), "stack": None}
    bars = layer(
        folded, {"type": "bar", "binSpacing": 0.5}, **_across(edges, _NATS), y=y, color=colour, opacity=opacity
    )
    caption = "Eligible sequences only. The first and last bars include all values further out."
    return Chart("losses-kept", "Losses before and after the draw", caption, drawing([bars]), rows)


def deciles(tenths: Sequence[dict[str, Any]]) -> Chart:
    """[{sequences, expected, kept: shares}] of the tenths by loss -> shares kept as bars, expected shares as ticks."""
    rows = [
        {"tenth": n, "sequences": d["sequences"], "kept": d.get("kept"), "expected": d["expected"]}
        for n, d in enumerate(tenths, 1)
    ]
    every = sum(r["sequences"] for r in rows)
    overall = sum(r["sequences"] * (r["kept"] or 0.0) for r in rows) / max(every, 1)
    x = {"field": "tenth", "type": "ordinal", "axis": {"title": _TENTHS, "labelAngle": 0, "ticks": False}}
    top = max(0.05, *(max(r["kept"] or 0.0, r["expected"]) for r in rows)) * 1.2
    y = {"field": "kept", **quantity("share kept", ".0%", [0, top])}
    labels = [{**r, "label": f"{r['kept']:.0%}", "at": top * 0.97} for r in rows]
    layers = [
        layer([{"share": overall}], _DASHED, y=_of(y, "share")),
        layer(rows, {"type": "bar", "color": LINE, "width": {"band": 0.72}}, x=x, y=y),
        layer(
            rows, {"type": "tick", "color": MARK, "thickness": 3, "width": {"band": 0.72}}, x=x, y=_of(y, "expected")
        ),
        layer(labels, {"type": "text", "color": INK}, x=x, y=_of(y, "at"), text={"field": "label"}),
    ]
    caption = f"Tick across a bar: predicted from the losses alone. Dashed line: all sequences, {share(overall)}."
    return Chart("deciles", "Share kept, by tenths of loss", caption, drawing(layers), rows)


def mix(domains: Rows) -> Chart:
    """[{domain, before, after: shares}], largest first -> how each domain's share changed."""
    shown = domains[:25]
    axis = {"title": None, "labelLimit": 150, "ticks": False, "grid": False, "domain": False, "labelPadding": 6}
    y = {"field": "domain", "type": "nominal", "sort": [r["domain"] for r in shown], "axis": axis}
    top = max((max(r["before"], r["after"]) for r in shown), default=0.01)
    kind = quantity("share of sequences", ".0%" if top > 0.05 else ".1%", [0, top * 1.12])
    points = [
        {"domain": r["domain"], "share": r[k], "what": what}
        for r in shown
        for k, what in (("before", "scored"), ("after", "kept"))
    ]
    scale = {"domain": ["scored", "kept"], "range": [_REST, MARK]}
    colour = {"field": "what", "type": "nominal", "scale": scale, "legend": {"columns": 2}}
    size = {"condition": {"test": "datum.what == 'scored'", "value": 150}, "value": 60}
    way = {"type": "rule", "color": SOFT, "strokeWidth": 2, "opacity": 0.5}
    point = {"type": "point", "filled": True, "opacity": 1}
    layers = [
        layer(shown, way, y=y, x={"field": "before", **kind}, x2={"field": "after"}),
        layer(points, point, y=y, x={"field": "share", **kind}, color=colour, size=size),
    ]
    caption = f"The {len(shown)} largest of {len(domains)} domains." if len(domains) > len(shown) else ""
    return Chart("mix", "Domains before and after", caption, drawing(layers, 24 * len(shown) + 90), domains)


def forgetting(tenths: Rows) -> Chart:
    """[{tenth, sequences, when_trained, now}] -> both losses over the run."""
    rows = [r for r in tenths if r["now"] is not None]
    values = [r[k] for r in rows for k in ("when_trained", "now")]
    room = (max(values) - min(values)) * 0.08 or 0.01
    folded = [
        {"at": (r["tenth"] - 0.5) / 10, "loss": r[k], "what": what}
        for k, what in (("when_trained", "when it was trained on"), ("now", "now"))
        for r in rows
    ]
    x = {"field": "at", **quantity("position in the run", ".0%", [0, 1])}
    y = {"field": "loss", **quantity(_NATS, ".2f", [min(values) - room, max(values) + room])}
    scale = {"domain": ["when it was trained on", "now"], "range": [LINE, MARK]}
    colour = {"field": "what", "type": "nominal", "scale": scale, "legend": {"columns": 2}}
    line = {"type": "line", "strokeWidth": 2, "point": {"size": 36}}
    lines = layer(folded, line, x=x, y=y, color=colour)
    caption = "Current loss below the earlier one: the model kept learning. Above it: the model forgot."
    return Chart("forgetting", "Loss when trained, and now", caption, drawing([lines]), tenths)


def feature(name: str, title: str, axis: str, values: np.ndarray) -> Chart:
    """Values of sequences -> histogram with a logarithmic count axis, so that rare values are visible too."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    counts, edges = np.histogram(values, bins=BINS, range=(low, high if high > low else low + 1))
    rows = _bars(counts, edges)
    top = max(int(counts.max(initial=1)), 2)
    scale = {"type": "log", "domain": [0.8, top * 1.3], "nice": False}
    marks = [10**p for p in range(12) if 10**p <= top]
    y = {"field": "sequences", "type": "quantitative", "scale": scale}
    y["axis"] = {"title": "sequences", "format": "~s", "values": marks}
    shown = [{**r, "ground": 0.8} for r in rows if r["sequences"]]
    bar = {"type": "bar", "binSpacing": 0.5, "color": LINE}
    bars = layer(shown, bar, **_across(edges, axis), y=y, y2={"field": "ground"})
    return Chart(name, title, "", drawing([bars], 190), rows)


# -- parts ------------------------------------------------------------------------------------

_NATS = "nats per token"
_TENTHS = "tenths of the sequences by loss, easiest first"
_DASHED = {"type": "rule", "color": SOFT, "strokeDash": [4, 3], "strokeWidth": 1.5}


def _bars(counts: np.ndarray, edges: np.ndarray, **more: Any) -> Rows:
    ends = np.round(edges, 6).tolist()
    return [
        {"from": a, "to": b, "sequences": n, **more} for a, b, n in zip(ends, ends[1:], counts.tolist(), strict=False)
    ]


def _across(edges: np.ndarray, title: str) -> dict[str, Spec]:
    """x and x2 channels of bars that begin and end at the edges."""
    kind = quantity(title, ",.3~f", [float(edges[0]), float(edges[-1])])
    return {"x": {"field": "from", "bin": {"binned": True}, **kind}, "x2": {"field": "to"}}


def _whole(title: str, domain: list[float]) -> Spec:
    return quantity(title, "~s" if domain[1] >= 10 else "d", domain)


def _of(channel: Spec, field: str) -> Spec:
    """The same axis for another field."""
    return {**channel, "field": field}
