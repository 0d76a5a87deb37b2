"""Draws metrics.jsonl of runs as a chart: loss, bits per byte, learning rate and gradient norm over tokens.

python -m trainer.curve RUN ... [-o curve.html]

A run of any length is drawn as a line of at most 150 points, each the mean of consecutive steps, with a band from
their minimum to their maximum. Values measured on held-out sequences are drawn as points.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from trainer.errors import UNREADABLE, TrainerError, main
from trainer.evaluation import charts
from trainer.training.metrics import FILE, read

FEWEST, STRETCHES, STEPS = 60, 150, 8  # points of a line, and steps in each where there are enough
PANELS = {  # name in metrics.jsonl -> title, axis with its unit, number format
    "loss": ("Loss", "nats per token", "~g"),
    "bits_per_byte": ("Bits per byte", "bits per byte of text", "~g"),
    "lr": ("Learning rate", "learning rate", ".1e"),
    "grad_norm": ("Gradient norm", "norm before clipping", "~g"),
}
WIDTH, HEIGHT = 420, 240


@dataclass(frozen=True)
class CurveConfig:
    """Draws the training curves of one or more runs in one chart."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Directories of the runs to draw, as written by trainer.run; a run may still be in progress."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"])] = "curve.html"
    """File to write the chart to; the extension .html, .png or .svg sets its format."""


def program() -> None:
    config = tyro.cli(CurveConfig, prog="python -m trainer.curve")
    if not config.runs:
        raise TrainerError("no run was given", fix="python -m trainer.curve RUN ...")
    charts.check(config.out)
    charts.write(picture(dict(zip(names(config.runs), map(lines, config.runs), strict=True))), config.out)
    print(f"wrote {config.out}")


def lines(run: str) -> list[dict[str, Any]]:
    try:
        found = read(run)
    except OSError as e:
        raise TrainerError(
            f"{FILE} is missing or cannot be read: {e.strerror}",
            where=run,
            fix="pass the directory that was given to trainer.run -o",
            code=UNREADABLE,
        ) from None
    if not found:
        raise TrainerError(f"{FILE} is empty: the run has not finished its first step", where=run, fix="wait for it")
    return found


def names(runs: tuple[str, ...]) -> list[str]:
    """Names for the legend: the directory's name, or its path if two runs have the same name."""
    last = [Path(os.path.abspath(r)).name for r in runs]
    return [n if last.count(n) == 1 else r for n, r in zip(last, runs, strict=True)]


def picture(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """name -> lines of metrics.jsonl; returns a Vega-Lite specification."""
    panels = []
    for key, (title, unit, form) in PANELS.items():
        trained = [p for name, found in runs.items() for p in stretches(name, found, key)]
        held_out = [p for name, found in runs.items() for p in validations(name, found, key)]
        if trained or held_out:
            panels.append(_panel(title, unit, form, trained, held_out, list(runs)))
    title = next(iter(runs)) if len(runs) == 1 else f"{len(runs)} runs"
    how = "line: training, mean over several steps; band: minimum to maximum of these steps; points: held-out sequences"
    return charts.page(title, how, panels)


def stretches(name: str, found: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Steps of one run -> at most 150 points: run, tokens, mean, least, greatest."""
    steps = [x for x in found if isinstance(x.get(key), int | float) and math.isfinite(x[key])]
    if not steps:
        return []
    tokens, values = (np.array([x[k] for x in steps], float) for k in ("tokens", key))
    points = min(STRETCHES, max(FEWEST, len(steps) // STEPS), len(steps))
    parts = np.array_split(np.arange(len(steps)), points)
    return [
        {
            "run": name,
            "tokens": float(tokens[p].mean()),
            "value": float(values[p].mean()),
            "least": float(values[p].min()),
            "greatest": float(values[p].max()),
        }
        for p in parts
    ]


def validations(name: str, found: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """What was measured on held-out sequences: run, tokens, value."""
    held_out = [x for x in found if key in (x.get("validation") or {})]
    return [{"run": name, "tokens": x["tokens"], "value": x["validation"][key]} for x in held_out]


def _panel(
    title: str, unit: str, form: str, trained: list[dict[str, Any]], held_out: list[dict[str, Any]], runs: list[str]
) -> dict[str, Any]:
    ticks = "datum.value == 0 ? '0' : format(datum.value, '~s')"
    x = {"field": "tokens", "type": "quantitative", "title": "tokens", "axis": {"labelExpr": ticks, "tickCount": 6}}
    color = {"field": "run", "type": "nominal", "scale": {"domain": runs}, "sort": None}
    color |= {} if len(runs) > 1 else {"legend": None}
    axis = {"format": form, "tickCount": 6}
    y = {"field": "value", "type": "quantitative", "title": unit, "scale": {"zero": False}, "axis": axis}
    number = {"field": "value", "title": unit, "format": ".4~g"}
    tips = [{"field": "run"}, {"field": "tokens", "format": ",.0f"}, number]
    layers: list[dict[str, Any]] = []
    if any(p["least"] < p["greatest"] for p in trained):
        band = {"y": {**y, "field": "least"}, "y2": {"field": "greatest"}}
        layers.append(_layer(trained, {"type": "area", "opacity": 0.16}, {"x": x, "color": color, **band}))
    every = {"x": x, "y": y, "color": color, "tooltip": tips}
    layers.append(_layer(trained, {"type": "line", "strokeWidth": 1.8}, every))
    if not trained:
        layers.append(_layer(held_out, {"type": "line", "strokeWidth": 1.2, "strokeDash": [3, 3]}, every))
    if held_out:
        point = {"type": "point", "filled": True, "size": 46, "opacity": 1, "stroke": "white", "strokeWidth": 0.8}
        layers.append(_layer(held_out, point, every))
    return {"title": title, "width": WIDTH, "height": HEIGHT, "layer": layers}


def _layer(rows: list[dict[str, Any]], mark: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"values": rows}, "mark": mark, "encoding": encoding}


if __name__ == "__main__":
    main(program)
