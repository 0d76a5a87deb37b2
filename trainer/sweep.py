"""Compares model shapes of one size: draws depth x width x expansion at random and trains each shape briefly.

python -m trainer.sweep --data SHARDS --params 10M -o SWEEP [--draws 30] [--steps 500]

The paper's experiment (arXiv 2402.02791, section on the architecture: about 30 shapes of 1B parameters, Spearman
0.528 of depth with the score, -0.528 of width, nothing clear for the expansion; deeper is slower), for any size and
data. Running the same command again continues where it stopped: finished shapes are not trained again.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import tyro

from trainer.data.shards import Shards
from trainer.errors import TrainerError, main
from trainer.evaluation import charts
from trainer.evaluation.cached_decode import decode
from trainer.model.cost import parameters
from trainer.model.presets import MULTIPLE, PRESETS, preset, reshaped
from trainer.model.transformer import ModelConfig
from trainer.training.checkpoint import load_model, write_json
from trainer.training.metrics import read

RESULTS, PICTURE = "results.parquet", "sweep.html"
EXPANSION = (1.0, 4.0)  # ffn / width: the paper's range
RATIO = (8.0, 512.0)  # width / depth
BATCH, PROMPT, NEW = 20, 2, 62  # of the speed: the paper's batch and prefix; it generates 510 tokens


@dataclass(frozen=True)
class SweepConfig:
    """Trains many models of one size but different shapes, each briefly, and ranks the shapes.
    It also prints the correlation of depth, width, expansion and speed with the result.
    """

    data: str
    """Directory of the shards to train on."""
    params: str
    """Number of parameters of each model, including embedding and head, such as 10M or 1.2B."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"])]
    """Directory for the results: one training run per shape, results.parquet and the chart."""
    draws: int = 30
    """Number of shapes to train."""
    steps: int = 500
    """Number of optimizer steps for which each shape is trained."""
    tolerance: float = 0.02
    """Largest allowed difference from --params, as a fraction of it."""
    preset: str = ""
    """Preset that sets everything except the shape: head width, tied embedding, sequence length.
    If not given, the largest tiny-* preset with no more parameters than --params is used."""
    batch_tokens: int = 0
    """Number of tokens per optimizer step. 0 means the preset's."""
    lr: float = 0.0
    """Peak learning rate of every run. 0 means the preset's, adapted to the batch size."""
    seed: int = 0
    """Seed of the random choice of shapes and of every training run."""
    device: str = "auto"
    """Device to compute on; auto means a GPU if one is available, otherwise the CPU."""
    picture: str = PICTURE
    """File name of the chart inside -o; the extension .html, .png or .svg sets its format."""


class Shape(NamedTuple):
    depth: int
    width: int
    expand: float  # passed to trainer.run; ffn is width x expand, rounded up to a multiple of 256
    ffn: int
    parameters: int

    @property
    def name(self) -> str:
        return f"{self.width}x{self.depth}-ffn{self.ffn}"


def program() -> None:
    config = tyro.cli(SweepConfig, prog="python -m trainer.sweep")
    charts.check(config.picture)
    wanted, vocab, out = count(config.params), Shards.open(config.data).vocab, Path(config.out)
    base = replace(preset(config.preset or nearest(wanted, vocab)).model, vocab=vocab)
    config = replace(config, preset=config.preset or nearest(wanted, vocab))
    shapes = drawn(base, wanted, config.tolerance, config.draws, config.seed)
    out.mkdir(parents=True, exist_ok=True)
    remember(out / "sweep.json", config, shapes)
    if len(shapes) < config.draws:
        print(f"note: only {len(shapes)} shapes have this size; all of them are trained", file=sys.stderr)
    rows = []
    for k, shape in enumerate(shapes, 1):
        print(f"{k} of {len(shapes)}: {shape.name}, {shape.parameters:,} parameters", file=sys.stderr, flush=True)
        rows.append(result(config, shape, out / shape.name))
    write_table(rows, out / RESULTS)
    charts.write(picture(rows, config), str(out / config.picture))
    print(text(rows))
    print(f"wrote {out / RESULTS} and {out / config.picture}", file=sys.stderr)


def count(given: str) -> int:
    """`10M` -> 10,000,000"""
    units = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}
    number, unit = (given[:-1], units[given[-1].upper()]) if given[-1:].upper() in units else (given, 1.0)
    try:
        return int(float(number.replace("_", "").replace(",", "")) * unit)
    except ValueError:
        raise TrainerError(f"--params {given!r} is not a number", fix="write it as in --params 10M") from None


def nearest(wanted: int, vocab: int) -> str:
    """The largest tiny-* preset with at most `wanted` parameters with this vocabulary, else the smallest."""
    sizes = {
        name: sum(parameters(replace(p.model, vocab=vocab)).values())
        for name, p in PRESETS.items()
        if name.startswith("tiny-")
    }
    fit = [name for name in sizes if sizes[name] <= wanted * 1.1]
    return max(fit, key=lambda n: sizes[n]) if fit else min(sizes, key=lambda n: sizes[n])


# -- shapes ------------------------------------------------------------------------------------


def drawn(base: ModelConfig, wanted: int, tolerance: float, draws: int, seed: int) -> list[Shape]:
    """At most `draws` different shapes with parameters within the tolerance, chosen at random among all of them.

    Small models have few: a width is a multiple of the head width, an ffn a multiple of 256. Raises TrainerError for
    fewer than three, which is the minimum for a correlation.
    """
    found = []
    for width in range(2 * base.head_dim, wanted // base.vocab + base.head_dim, base.head_dim):
        for ffn in range(MULTIPLE, int(EXPANSION[1] * width) + 1, MULTIPLE):
            fixed, per_layer = size(base, width, ffn)
            depth = max(1, round((wanted - fixed) / per_layer))
            total = fixed + depth * per_layer
            expand = ffn / width
            if abs(total - wanted) <= tolerance * wanted and _in(expand, EXPANSION) and _in(width / depth, RATIO):
                found.append(Shape(depth, width, expand, ffn, total))
    if len(found) < 3:
        raise TrainerError(
            f"{len(found)} shapes have {wanted:,} parameters ± {tolerance:.1%} with {base.vocab:,} ids, fewer than 3",
            fix="use more --params, a larger --tolerance, or a --preset with narrower heads",
        )
    return sorted(random.Random(seed).sample(found, min(draws, len(found))))


def _in(x: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= x <= bounds[1]


def size(base: ModelConfig, width: int, ffn: int) -> tuple[int, int]:
    """-> parameters outside the layers, parameters of a layer. By formula: building each candidate takes minutes."""
    c = reshaped(base, width=width)
    attention = 2 * width * c.head_dim * (c.heads + c.kv_heads) + (2 * c.head_dim if c.qk_norm else 0)
    series = 2 * c.series * ffn if c.series > 1 else 0
    shortcut = 2 * width * max(1, width // c.shortcut) if c.shortcut else 0
    layer = attention + 3 * width * ffn + series + shortcut + 2 * width
    return (1 if c.tied else 2) * c.vocab * width + width, layer


def remember(path: Path, config: SweepConfig, shapes: list[Shape]) -> None:
    """Writes sweep.json; raises TrainerError if the directory contains a sweep with other settings."""
    settings = {k: v for k, v in vars(config).items() if k not in ("out", "picture", "device", "draws")}
    record = {"sweep": settings, "shapes": [list(s) for s in shapes]}
    if path.exists():
        old = json.loads(path.read_text())
        pairs = {k: (old["sweep"].get(k), v) for k, v in settings.items()}
        changed = [f"--{k.replace('_', '-')}: {a} -> {b}" for k, (a, b) in pairs.items() if a != b]
        if changed:
            raise TrainerError(
                f"the directory contains a sweep with other settings: {'; '.join(changed)}",
                where=str(path.parent),
                fix="use the same settings, or choose another directory with -o",
            )
    write_json(path, record)


# -- one shape ---------------------------------------------------------------------------------


def result(config: SweepConfig, shape: Shape, run: Path) -> dict[str, Any]:
    """Trains the shape and measures its speed, unless that is already done; returns its row of the table."""
    done = run / "result.json"
    if done.exists():
        return json.loads(done.read_text())
    train(config, shape, run)
    last = [x["validation"] for x in read(run) if "validation" in x][-1]
    row = {**shape._asdict(), "expansion": shape.ffn / shape.width, "loss": last["loss"]}
    row |= {"bits_per_byte": last.get("bits_per_byte"), "tokens_per_s": speed(run, config.device), "run": run.name}
    write_json(done, row)
    return row


def train(config: SweepConfig, shape: Shape, run: Path) -> None:
    flags = {
        "--data": config.data, "--out": run, "--preset": config.preset, "--depth": shape.depth, "--width": shape.width,
        "--expand": shape.expand, "--steps": config.steps, "--seed": config.seed, "--device": config.device,
        "--batch-tokens": config.batch_tokens, "--lr": config.lr, "--keep": 1,
    }  # fmt: skip
    command = [sys.executable, "-m", "trainer.run", *(str(x) for pair in flags.items() for x in pair)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise TrainerError(
            f"the training of this shape failed: {done.stderr.strip()[-600:]}",
            where=str(run),
            fix="correct the cause, then run the same command again; it continues with this shape",
            code=done.returncode,
        )


def speed(run: Path, device: str) -> float:
    """Tokens per second of greedy decoding of BATCH texts at once; a first, shorter pass warms up."""
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    model = load_model(run, torch.bfloat16 if cuda else torch.float32).model
    model.to("cuda" if cuda else "cpu")
    prompt = torch.zeros(BATCH, PROMPT, dtype=torch.int64, device=model.embed_tokens.weight.device)
    decode(model, prompt, NEW // 4)
    start = time.perf_counter()
    decode(model, prompt, NEW).cpu()  # waits for it
    return BATCH * NEW / (time.perf_counter() - start)


# -- correlations ------------------------------------------------------------------------------


def spearman(x: list[float], y: list[float]) -> float:
    """Correlation of the ranks; equal values share the mean rank. nan if x or y does not vary."""
    a, b = (torch.tensor([_rank(v, values) for v in values], dtype=torch.float64) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (a.norm() * b.norm()))


def _rank(v: float, values: list[float]) -> float:
    return sum(u < v for u in values) + (sum(u == v for u in values) + 1) / 2


def score(rows: list[dict[str, Any]]) -> str:
    """The measure that shapes are ranked by: bits per byte if all have it, else the loss."""
    return "bits_per_byte" if all(r["bits_per_byte"] is not None for r in rows) else "loss"


def correlations(rows: list[dict[str, Any]]) -> dict[str, float]:
    """dimension -> Spearman's rho with the result; negative: more of it, better."""
    results = [r[score(rows)] for r in rows]
    return {d: spearman([r[d] for r in rows], results) for d in ("depth", "width", "expansion", "tokens_per_s")}


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def text(rows: list[dict[str, Any]]) -> str:
    by = score(rows)
    names = ("depth", "width", "ffn", "expansion", "parameters", by.replace("_", " "), "tokens/s")
    lines = ["".join(f"{n:>{w}}" for n, w in zip(names, (6, 7, 7, 11, 14, 15, 11), strict=True))]
    for r in sorted(rows, key=lambda r: r[by]):
        lines.append(
            f"{r['depth']:>6}{r['width']:>7}{r['ffn']:>7}{r['expansion']:>11.2f}{r['parameters']:>14,}{r[by]:>15.4f}"
            f"{r['tokens_per_s']:>11,.0f}"
        )
    rho = correlations(rows)
    lines += [
        "",
        f"Spearman correlation with {by.replace('_', ' ')} over {len(rows)} shapes; negative: larger is better",
    ]
    return "\n".join(lines + [f"  {d.replace('_', ' '):<14}{v:>+7.3f}" for d, v in rho.items()])


def picture(rows: list[dict[str, Any]], config: SweepConfig) -> dict[str, Any]:
    by, rho = score(rows), correlations(rows)
    unit = {"bits_per_byte": "bits per byte", "loss": "loss, nats per token"}[by]
    titles = {
        "depth": "layers",
        "width": "width",
        "expansion": "ffn / width",
        "tokens_per_s": "tokens per second, decoding",
    }
    y = {"field": by, "type": "quantitative", "title": unit, "scale": {"zero": False, "padding": 10}}
    tips = [{"field": k} for k in ("depth", "width", "ffn", by, "tokens_per_s")]
    panels = []
    for d, title in titles.items():
        x = {"field": d, "type": "quantitative", "title": title, "scale": {"zero": False, "padding": 14}}
        x["axis"] = {"tickCount": 6, "labelFlush": False} | ({"tickMinStep": 1, "format": "d"} if d == "depth" else {})
        color = {"field": "depth", "type": "quantitative", "title": "layers", "scale": {"scheme": "viridis"}}
        mark = {"type": "point", "filled": True, "size": 70, "opacity": 0.9}
        name = {"depth": "Depth", "width": "Width", "expansion": "Expansion", "tokens_per_s": "Speed"}[d]
        panel: dict[str, Any] = {
            "title": {"text": name, "subtitle": f"Spearman {rho[d]:+.3f}"},
            "width": 380,
            "height": 240,
        }
        panel |= {"data": {"values": rows}, "mark": mark, "encoding": {"x": x, "y": y, "color": color, "tooltip": tips}}
        panels.append(panel)
    what = f"{len(rows)} shapes, {config.steps:,} steps each; lower is better"
    return charts.page(f"Shapes of {config.params} parameters", what, panels)


if __name__ == "__main__":
    main(program)
