"""Curves: what of metrics.jsonl is drawn, and that the pictures are whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install tinydata[train]")
pytest.importorskip("tyro", reason="the trainer's programs need tyro: pip install tinydata[train]")

from trainer.curve import STRETCHES, lines, names, picture, stretches, validations
from trainer.errors import TrainerError
from trainer.evaluation import charts


def made(steps: int) -> list[dict[str, Any]]:
    """A run that is validated every 100 steps."""
    out: list[dict[str, Any]] = [{"step": 0, "tokens": 0, "validation": {"loss": 9.0, "bits_per_byte": 3.0}}]
    for k in range(1, steps + 1):
        out.append({"step": k, "tokens": 64 * k, "loss": 8 / k**0.2, "lr": 1e-3, "grad_norm": 1.0 + k % 3})
        if k % 100 == 0:
            out.append({"step": k, "tokens": 64 * k, "validation": {"loss": 8 / k**0.2, "bits_per_byte": 2.5}})
    return out


def written(where: Path, steps: int) -> str:
    where.mkdir(parents=True)
    (where / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in made(steps)))
    return str(where)


def test_stretches_are_means_with_their_extremes() -> None:
    found = stretches("a", made(3_000), "grad_norm")
    assert len(found) == STRETCHES
    assert all((p["least"], p["greatest"]) == (1.0, 3.0) for p in found)
    assert found[1]["value"] == pytest.approx(sum(1.0 + k % 3 for k in range(21, 41)) / 20)
    assert found[0]["tokens"] == pytest.approx(64 * sum(range(1, 21)) / 20)
    assert sum(p["value"] for p in found) / len(found) == pytest.approx(2.0, abs=1e-9)


def test_a_short_run_is_drawn_step_by_step() -> None:
    found = stretches("a", made(40), "loss")
    assert [p["tokens"] for p in found] == [64.0 * k for k in range(1, 41)]
    assert [p["value"] for p in found] == pytest.approx([8 / k**0.2 for k in range(1, 41)])


def test_steps_without_a_finite_value_are_left_out() -> None:
    found = [*made(3), {"step": 4, "tokens": 256, "loss": math.nan}, {"step": 5, "tokens": 320, "loss": None}]
    assert len(stretches("a", found, "loss")) == 3
    assert stretches("a", found, "bits_per_byte") == []


def test_held_out_points() -> None:
    found = validations("a", made(250), "loss")
    assert [p["tokens"] for p in found] == [0, 6_400, 12_800]
    assert [p["value"] for p in found] == [9.0, 8 / 100**0.2, 8 / 200**0.2]


def test_runs_are_told_apart() -> None:
    assert names(("runs/a", "runs/b/")) == ["a", "b"]
    assert names(("x/run", "y/run", "z")) == ["x/run", "y/run", "z"]


def test_a_legend_only_where_there_are_several() -> None:
    def colors(spec: dict[str, Any]) -> list[Any]:
        return [layer["encoding"]["color"].get("legend", "legend") for p in spec["concat"] for layer in p["layer"]]

    assert set(colors(picture({"a": made(200)}))) == {None}
    assert set(colors(picture({"a": made(200), "b": made(100)}))) == {"legend"}
    titles = [p["title"] for p in picture({"a": made(200)})["concat"]]
    assert titles == ["Loss", "Bits per byte", "Learning rate", "Gradient norm"]


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="pictures need vl-convert: pip install tinydata[report]")
    runs = [written(tmp_path / "one", 120), written(tmp_path / "two", 240)]
    spec = picture(dict(zip(names(tuple(runs)), map(lines, runs), strict=True)))
    for ending in charts.ENDINGS:
        charts.write(spec, str(tmp_path / f"curve{ending}"))
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    drawing = (tmp_path / "curve.svg").read_text()
    for word in ("Gradient norm", "nats per token", "bits per byte of text", "one", "two"):
        assert word in drawing
    page = (tmp_path / "curve.html").read_text()
    assert " src=" not in page.split("<body")[-1].split("<script")[0]
    assert '<script src="http' not in page and "<link" not in page


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"metrics\.jsonl is missing"):
        lines(str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(TrainerError, match="not finished its first step"):
        lines(str(tmp_path))
    with pytest.raises(TrainerError, match="supported extension"):
        charts.check("curve.pdf")
