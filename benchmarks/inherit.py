"""python -m benchmarks.inherit -o DIR: does a small model learn faster from a cut of a big one, and from which cut?

One source is trained on real text, then a model of a quarter of its layers' size from each cut of it and from
random weights: same tokens, same order, same learning rate. Every step is a process of its own; what is there
already is not done again. It prints the held-out loss after 0, 100 and all steps, and draws the curves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.place import SHARED
from benchmarks.process import make

CORPUS, TOKENIZER, VOCAB = "corpora/en_standardebooks.jsonl.zst", "tokenizers/bytebpe/gpt2_50257", 2048
T, BATCH = 128, 1024  # tokens of a sequence, of a step of the source
SMALL_BATCH = 512
SHAPE = ["tiny-1m", "--width", "64", "--heads", "4", "--seq-len", "128"]  # the source: 128 wide, 8 heads, ffn 512

METHODS = ("uniform", "random", "l1", "l2", "activation", "taylor", "mask")
CUTS = {m: ["--method", m, "--rescale", "none"] for m in METHODS}
CUTS |= {f"{m}, std": ["--method", m, "--rescale", "std"] for m in ("l2", "taylor", "mask")}
CUTS |= {"taylor, lstsq": ["--method", "taylor", "--rescale", "lstsq"]}
RANDOM = "random weights"
WRITE_RANDOM = """
import json, sys, torch
from pathlib import Path
from trainer.huggingface import hf
from trainer.initial import random_weights
like, out, seed = sys.argv[1:]
c, out = hf.read_config(like), Path(out)
hf.save(out, c, random_weights(c, int(seed)), torch.float32)
(out / "config.json").write_text(json.dumps(hf.config_json(c, torch.float32)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inherit", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--out", required=True, type=Path, help="directory to work in, and to go on in")
    parser.add_argument("--source-steps", type=int, default=900, help=f"of {BATCH} tokens [900]")
    parser.add_argument("--steps", type=int, default=1000, help=f"of {SMALL_BATCH} tokens [1000]")
    parser.add_argument("--seeds", type=int, default=2, help="of cuts, random weights and data order [2]")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one core each [2]")
    options = parser.parse_args()
    if not (SHARED / CORPUS).exists():
        sys.exit(f"skipped: no {SHARED.parent.name}/data/{CORPUS} beside the project")
    options.out.mkdir(parents=True, exist_ok=True)
    prepare(options.out, options.source_steps)
    tasks = [(name, seed) for seed in range(options.seeds) for name in (*CUTS, RANDOM)]
    with ThreadPoolExecutor(options.jobs) as pool:
        curves = list(pool.map(lambda task: curve(options.out, task[0], task[1], options.steps), tasks))
    found: dict[str, list[dict[int, float]]] = {}
    for (name, _), losses in zip(tasks, curves, strict=True):
        found.setdefault(name, []).append(losses)
    print(table(found, source_loss(options.out), options.steps))
    (options.out / "inherit.png").write_bytes(picture(found))


def prepare(out: Path, steps: int) -> None:
    """Vocabulary, shards, the source trained and exported."""
    corpus, tokenizer = str(SHARED / CORPUS), str(SHARED / TOKENIZER)
    cli = ("-m", "tinydata")
    make(out, "counts", *cli, "count", corpus, "--tokenizer", tokenizer, "-o", "counts")
    make(out, "vocab", *cli, "compact", "counts", "--tokenizer", tokenizer, "--vocab", str(VOCAB), "-o", "vocab")
    make(out, "shards", *cli, "encode", corpus, "--vocab", "vocab", "-o", "shards")
    where = f"source/checkpoints/step-{steps:08d}"
    train(out, "source", where, "--preset", "tiny-1m", "--heads", "8", "--batch-tokens", str(BATCH), "--lr", "3e-3",
          "--steps", str(steps), "--validate-every", str(max(1, steps // 3)))  # fmt: skip
    make(out, "big", "-m", "trainer.export", "source", "-o", "big", "--dtype", "float32", "--tokenizer", "vocab")


def train(out: Path, name: str, done: str, *more: str) -> None:
    make(out, done, "-m", "trainer.run", "--data", "shards", "--seq-len", str(T), "--device", "cpu", "-o", name, *more)


def curve(out: Path, name: str, seed: int, steps: int) -> dict[int, float]:
    """One start, trained -> held-out loss, nats per token, by step."""
    start = f"start-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if name == RANDOM:
        like = "start-uniform-0"
        cut(out, "uniform", 0, like)
        if not (out / start / "config.json").exists():
            shutil.rmtree(out / start, ignore_errors=True)
        make(out, f"{start}/config.json", "-c", WRITE_RANDOM, like, start, str(seed))
    else:
        cut(out, name, seed, start)
    trained = start.replace("start", "run")
    train(out, trained, f"{trained}/checkpoints/step-{steps:08d}", "--init", start, "--batch-tokens", str(SMALL_BATCH),
          "--lr", "2e-3", "--steps", str(steps), "--validate-every", str(max(1, steps // 10)), "--seed", str(seed),
          "--save-every", str(steps))  # fmt: skip
    return validations(out / trained)


def cut(out: Path, name: str, seed: int, start: str) -> None:
    make(out, start, "-m", "trainer.inherit", "big", *SHAPE, "-o", start, "--data", "shards", "--samples", "128",
        "--mask-steps", "300", "--seed", str(seed), "--device", "cpu", *CUTS[name])  # fmt: skip


def validations(directory: Path) -> dict[int, float]:
    lines = [json.loads(x) for x in (directory / "metrics.jsonl").read_text().splitlines()]
    return {x["step"]: x["validation"]["loss"] for x in lines if "validation" in x}


def source_loss(out: Path) -> float:
    return list(validations(out / "source").values())[-1]


def table(found: dict[str, list[dict[int, float]]], source: float, steps: int) -> str:
    """Mean over seeds, and half the distance between the largest and the smallest."""
    at = [0, max(1, steps // 10), steps]
    lines = [f"held-out loss, nats per token; the source: {source:.4f}"]
    lines.append(f"{'start':<16}" + "".join(f"{f'step {n:,}':>18}" for n in at))
    for name, curves in sorted(found.items(), key=lambda item: statistics.mean(c[steps] for c in item[1])):
        lines.append(f"{name:<16}" + "".join(f"{_spread([c[n] for c in curves]):>18}" for n in at))
    return "\n".join(lines)


def _spread(losses: list[float]) -> str:
    mean = f"{statistics.mean(losses):.4f}"
    return f"{mean} ± {(max(losses) - min(losses)) / 2:.4f}" if len(losses) > 1 else mean


def picture(found: dict[str, list[dict[int, float]]]) -> bytes:
    """PNG, mean over seeds: on the left all curves, on the right what each cut gains over the uniform one."""
    import vl_convert

    mean = {
        name: {step: statistics.mean(c[step] for c in curves) for step in curves[0]} for name, curves in found.items()
    }
    values = [
        {"start": name, "step": step, "loss": loss, "gain": loss - mean["uniform"][step]}
        for name, losses in mean.items()
        for step, loss in losses.items()
    ]
    cuts = f"datum.start !== '{RANDOM}' && datum.step > 0"
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values},
        "hconcat": [
            _panel("loss", "held out, nats / token", list(found)),
            {"transform": [{"filter": cuts}], **_panel("gain", "loss - that of the uniform cut", list(found))},
        ],
    }
    return vl_convert.vegalite_to_png(spec, scale=1.25)


def _panel(field: str, title: str, names: list[str]) -> dict[str, Any]:
    x = {"field": "step", "type": "quantitative", "title": f"steps of {SMALL_BATCH} tokens"}
    y = {"field": field, "type": "quantitative", "scale": {"zero": False}, "title": title}
    color = {"field": "start", "type": "nominal", "scale": {"domain": names, "scheme": "category20"}}
    encoding = {"x": x, "y": y, "color": color}
    return {"width": 400, "height": 360, "mark": {"type": "line", "point": True}, "encoding": encoding}


if __name__ == "__main__":
    main()
