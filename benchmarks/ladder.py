"""python -m benchmarks.ladder -o DIR: the paper's ladder at a size for two cores, in bits per byte of held-out text.

    big vocabulary, random weights -> + compact tokenizer -> + architecture -> + inheritance -> + second round

Every rung has the same parameters (2.1 M, within 1.4 %) and trains on the same number of tokens of the same text,
one epoch. The last step has its controls: from the same first-round model, half of the data by the guarded preset,
by the paper's, half at random, and all of it again. Each step is a process of its own; what is there already is not
done again. The paper: arXiv 2402.02791, the figure of improvements.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from benchmarks.place import SHARED
from benchmarks.process import make

FILES = (
    "en_c4_cc_web", "en_redpajama_stackexchange", "en_rust_rfcs", "en_standardebooks", "en_wikitext2_valid",
    "code_daft", "code_vue", "mul_leetcode_docs",
)  # fmt: skip
LONGEST = 40_000  # bytes of a document: no domain is one document
OWN, MORE, HELD = (
    232_000,
    1_000_000,
    50_000,
)  # bytes of each file: for the small models; for the source besides; held out
BIG, COMPACT = 16_384, 4_096  # ids
T, BATCH, STEPS = 256, 2_048, 288  # tokens of a sequence, of a step; steps of a round
SOURCE_STEPS, SOURCE_BATCH = 732, 2_048
TINY = ("--preset", "tiny-1m", "--device", "cpu", "--holdout", "0", "--seq-len", str(T))
SHAPES = {  # of trainer.run; tied embedding, heads of 32
    "source": ("--width", "160", "--depth", "6", "--heads", "5", "--expand", "3.2"),
    "big": ("--width", "96", "--depth", "5", "--heads", "3", "--expand", "2.6667"),
    "compact": ("--width", "192", "--depth", "3", "--heads", "6", "--expand", "2.6667"),
    "deep": ("--width", "128", "--depth", "6", "--heads", "4", "--expand", "4"),
}
PRESETS = {
    "guarded": ("--preset", "guarded"),
    "paper": ("--preset", "paper", "--batch-tokens", str(BATCH)),
    "random": ("--preset", "paper", "--unit", "sequence", "--temperature", "1e6"),
}


class Rung(NamedTuple):
    name: str
    rounds: float  # passes over the data in all
    train: Callable[[Path, int], str]  # directory, seed -> name of the run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--out", required=True, type=Path, help="directory to work in, and to go on in")
    parser.add_argument("--seeds", type=int, default=3, help="of weights, cut, data order and draw [3]")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one core each [2]")
    parser.add_argument("--rungs", type=int, default=len(RUNGS), help="only the first so many")
    options = parser.parse_args()
    if not (SHARED / "corpora").exists():
        sys.exit(f"skipped: no {SHARED.parent.name}/data beside the project")
    options.out.mkdir(parents=True, exist_ok=True)
    prepare(options.out)
    rungs = RUNGS[: options.rungs]
    tasks = [(rung, seed) for rung in rungs for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda task: measure(options.out, *task), tasks))
    bits = {rung.name: found[k * options.seeds : (k + 1) * options.seeds] for k, rung in enumerate(rungs)}
    print(table(bits))
    (options.out / "ladder.json").write_text(json.dumps(bits, indent=1) + "\n")
    (options.out / "ladder.png").write_bytes(picture(bits))


# -- data and source ----------------------------------------------------------------------------


def prepare(out: Path) -> None:
    """Text, both tokenizers, shards, the source model trained and cut to the compact vocabulary."""
    if not (out / "held.jsonl").exists():
        gather(out)
    trainer = str(Path(__file__).parents[1] / "examples" / "train_tokenizer.py")
    make(out, "tokenizer.json", trainer, "source.jsonl", "--vocab", str(BIG), "-o", "tokenizer.json")
    make(out, "counts", *CLI, "count", "source.jsonl", "--tokenizer", "tokenizer.json", "-o", "counts")
    make(out, "vocab", *CLI, "compact", "counts", "--tokenizer", "tokenizer.json", "--vocab", str(COMPACT),
         "-o", "vocab")  # fmt: skip
    for name, vocab in (("big", "tokenizer.json"), ("compact", "vocab")):
        for text in ("own", "held"):
            make(out, f"{name}-{text}", *CLI, "encode", f"{text}.jsonl", "--vocab", vocab, "-o", f"{name}-{text}")
    make(out, "big-source", *CLI, "encode", "source.jsonl", "--vocab", "tokenizer.json", "-o", "big-source")


def gather(out: Path) -> None:
    """own.jsonl: what the small models are trained on; source.jsonl: that and more; held.jsonl: of neither."""
    texts: dict[str, list[str]] = {"own": [], "source": [], "held": []}
    for file in FILES:
        room = {"held": HELD, "own": OWN, "more": MORE}
        for line in documents(file):
            text = json.loads(line)["text"]
            row = json.dumps({"text": text, "domain": file}, ensure_ascii=False)
            part = next((p for p, left in room.items() if left > 0), "")
            if not part:
                break
            room[part] -= len(text.encode())
            texts["held" if part == "held" else "source"].append(row)
            if part == "own":
                texts["own"].append(row)
    for name, rows in texts.items():
        mixed = sorted(rows, key=lambda row: hashlib.blake2b(row.encode()).digest())
        (out / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in mixed), encoding="utf-8")


def documents(file: str) -> Iterator[bytes]:
    """Lines of a corpus, the longest left out, in the order of their hashes."""
    with pa.CompressedInputStream(pa.OSFile(str(SHARED / "corpora" / f"{file}.jsonl.zst")), "zstd") as stream:
        lines = io.BytesIO(stream.read()).readlines()
    return iter(sorted((x for x in lines if len(x) <= LONGEST), key=lambda x: hashlib.blake2b(x).digest()))


CLI = ("-c", "from tinydata.cli import main; main()")


def source(out: Path) -> str:
    """The big model with its vocabulary cut to the compact one: -> its directory."""
    train(out, "source", "big-source", SOURCE_STEPS, *SHAPES["source"], batch=SOURCE_BATCH)
    make(out, "source-hf", "-m", "trainer.export", "source", "-o", "source-hf", "--dtype", "float32",
         "--tokenizer", "tokenizer.json")  # fmt: skip
    make(out, "source-compact", *CLI, "slice", "source-hf", "--vocab", "vocab", "-o", "source-compact")
    return "source-compact"


# -- rungs --------------------------------------------------------------------------------------


def train(out: Path, name: str, data: str, steps: int, *more: str, batch: int = BATCH) -> str:
    done = f"{name}/checkpoints/step-{steps:08d}"
    make(out, done, "-m", "trainer.run", "--data", data, "-o", name, "--steps", str(steps), "--batch-tokens",
         str(batch), "--save-every", str(steps), *TINY, *more)  # fmt: skip
    return name


def big(out: Path, seed: int) -> str:
    return train(out, f"big-{seed}", "big-own", STEPS, *SHAPES["big"], "--seed", str(seed))


def compact(out: Path, seed: int) -> str:
    return train(out, f"compact-{seed}", "compact-own", STEPS, *SHAPES["compact"], "--seed", str(seed))


def deep(out: Path, seed: int) -> str:
    return train(out, f"deep-{seed}", "compact-own", STEPS, *SHAPES["deep"], "--seed", str(seed))


def inherited(out: Path, seed: int) -> str:
    start = f"start-{seed}"
    make(out, f"{start}/config.json", "-m", "trainer.inherit", source(out), "tiny-1m", *SHAPES["deep"], "-o", start,
         "--seq-len", str(T), "--data", "compact-own", "--samples", "256", "--method", "taylor", "--seed", str(seed),
         "--device", "cpu")  # fmt: skip
    return train(out, f"inherited-{seed}", "compact-own", STEPS, "--init", start, "--seed", str(seed))


def again(way: str) -> Callable[[Path, int], str]:
    """A second round from the first one's weights, at half its learning rate."""

    def run(out: Path, seed: int) -> str:
        first, rate = inherited(out, seed), ("--lr", "2.1e-3", "--seed", str(seed + 100))
        if way == "all":
            return train(out, f"all-{seed}", "compact-own", STEPS, "--init", first, *rate)
        scores, chosen = f"scores-{seed}", f"{way}-round-{seed}"
        make(out, scores, *CLI, "score", "compact-own", "--model", first, "-o", scores)
        make(out, chosen, *CLI, "resample", scores, "--keep", "0.5", "--seed", str(seed), "-o", chosen, *PRESETS[way])
        return train(out, f"{way}-{seed}", chosen, STEPS // 2, "--init", first, *rate)

    return run


RUNGS = (
    Rung("big vocabulary", 1, big),
    Rung("+ compact tokenizer", 1, compact),
    Rung("+ architecture", 1, deep),
    Rung("+ inheritance", 1, inherited),
    Rung("+ second round, guarded half", 1.5, again("guarded")),
    Rung("   the paper's half", 1.5, again("paper")),
    Rung("   random half", 1.5, again("random")),
    Rung("   all of it again", 2, again("all")),
)


def measure(out: Path, rung: Rung, seed: int) -> dict[str, Any]:
    """-> validation of trainer.evaluate on the held-out text."""
    run = rung.train(out, seed)
    file = out / f"{run}.json"
    if not file.exists():
        held = "big-held" if rung.name == RUNGS[0].name else "compact-held"
        code = (
            "import sys, contextlib; out = open(sys.argv.pop(1), 'w'); sys.stdout = out\n"
            "from trainer.evaluate import program; program()"
        )
        part = file.with_suffix(".part")
        make(out, file.name, "-c", code, part.name, run, "--data", held, "--tokens", "0", "--json", "--device", "cpu")
        part.rename(file)
    return json.loads(file.read_text())["validation"]


# -- what it shows ------------------------------------------------------------------------------


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Bits per byte: mean over seeds, half the distance between largest and smallest, the step from the rung above."""
    lines = [f"{'rung':<32}{'passes':>8}{'bits/byte':>20}{'step':>10}"]
    means: dict[str, float] = {}
    for rung in RUNGS[: len(found)]:
        bits = [v["bits_per_byte"] for v in found[rung.name]]
        means[rung.name] = statistics.mean(bits)
        above = means.get(_above(rung.name), means[rung.name])
        spread = (max(bits) - min(bits)) / 2
        lines.append(
            f"{rung.name:<32}{rung.rounds:>8}{f'{means[rung.name]:.4f} ± {spread:.4f}':>20}"
            f"{means[rung.name] - above:>+10.4f}"
        )
    return "\n".join(lines)


def _above(name: str) -> str:
    """The rung that this one stands on: all second rounds stand on inheritance."""
    names = [r.name for r in RUNGS]
    return names[max(0, min(names.index(name) - 1, 3))]


def picture(found: dict[str, list[dict[str, Any]]]) -> bytes:
    """PNG: a dot per seed, a bar at the mean."""
    import vl_convert

    values = [{"rung": n, "bits": v["bits_per_byte"]} for n, every in found.items() for v in every]
    y = {"field": "rung", "type": "nominal", "sort": list(found), "title": None, "axis": {"labelLimit": 260}}
    x = {"field": "bits", "type": "quantitative", "scale": {"zero": False}, "title": "bits per byte, held-out text"}
    mean = {"mark": {"type": "tick", "thickness": 2, "size": 20}, "encoding": {"x": {**x, "aggregate": "mean"}, "y": y}}
    dots = {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.7}, "encoding": {"x": x, "y": y}}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values},
        "width": 520,
        "height": {"step": 30},
        "layer": [mean, dots],
    }
    return vl_convert.vegalite_to_png(spec, scale=1.25)


if __name__ == "__main__":
    main()
