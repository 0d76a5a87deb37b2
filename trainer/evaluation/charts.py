"""Vega-Lite specifications -> .png, .svg or one offline .html file; the style that all charts here share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError

INK, SOFT, GRID = "#1f2933", "#616e7c", "#e4e7eb"
COLORS = ["#1f5fa8", "#d9662b", "#2f8f5b", "#8e5aa8", "#b8900b", "#c23b57", "#3a9fb0", "#6b7280"]
FONT = "Inter, Helvetica Neue, Helvetica, Arial, DejaVu Sans, sans-serif"
ENDINGS = (".html", ".png", ".svg")

AXIS = {
    "gridColor": GRID,
    "domainColor": SOFT,
    "tickColor": SOFT,
    "labelColor": SOFT,
    "titleColor": INK,
    "titleFontWeight": "normal",
    "titleFontSize": 12,
    "labelFontSize": 11,
    "titlePadding": 8,
}
LOOK = {
    "background": "white",
    "padding": 16,
    "font": FONT,
    "axis": AXIS,
    "view": {"stroke": None},
    "title": {
        "anchor": "start",
        "frame": "group",
        "color": INK,
        "fontSize": 13,
        "fontWeight": 600,
        "subtitleColor": SOFT,
        "subtitleFontSize": 11.5,
        "offset": 10,
    },
    "legend": {"orient": "top", "title": None, "labelColor": INK, "labelFontSize": 12, "symbolOpacity": 1},
    "range": {"category": COLORS},
    "concat": {"spacing": 86},
}


def page(title: str, subtitle: str, panels: list[dict[str, Any]], columns: int = 2) -> dict[str, Any]:
    """Panels under one title, `columns` in each row; colors have the same meaning in all panels."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {"text": title, "subtitle": subtitle, "fontSize": 17, "offset": 18},
        "concat": panels,
        "columns": columns,
        "bounds": "flush",  # aligns the titles of a row
        "usermeta": {"embedOptions": {"actions": False}},
        "resolve": {"scale": {"color": "shared", "x": "independent"}},
        "config": LOOK,
    }


def check(path: str) -> None:
    """Raises TrainerError if the file's extension is not supported; called before anything is computed."""
    if Path(path).suffix not in ENDINGS:
        raise TrainerError(f"{path} does not have a supported extension", fix=f"use one of {', '.join(ENDINGS)}")


def write(spec: dict[str, Any], path: str) -> None:
    """Writes the chart; the extension sets its format. An .html file works without a network connection."""
    try:
        import vl_convert
    except ImportError:
        raise TrainerError(
            "vl-convert-python, which charts need, is not installed", fix="run `pip install 'tinydata[report]'`"
        ) from None
    check(path)
    text = json.dumps(spec)
    kind = Path(path).suffix
    if kind == ".png":
        Path(path).write_bytes(vl_convert.vegalite_to_png(text, scale=2))
        return
    text = vl_convert.vegalite_to_svg(text) if kind == ".svg" else vl_convert.vegalite_to_html(text, bundle=True)
    Path(path).write_text(text, encoding="utf-8")
