"""python -m benchmarks.ladder -o DIR: the paper's ladder at a size for two cores, in bits per byte of held-out text.

    big vocabulary, random weights -> + compact tokenizer -> + architecture -> + inheritance -> + second round

Every rung has the same parameters (0.22 M within 2 %; with `--size gpu` 29.4 M within 0.8 %) and trains on as many
tokens of the same text, one epoch of the compact ones. The last step has its controls: from the same first-round
model, half of the data by the guarded preset, by the paper's, half at random, and all of it again. Each step is a
process of its own; what is there already is not done again. The paper: arXiv 2402.02791, the figure of improvements.
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
    "code_daft", "code_vue", "code_narwhals",
)  # fmt: skip
LONGEST = 40_000  # bytes of a document: no domain is one document
SHAPE = ("--width", "--depth", "--heads", "--expand")


class Size(NamedTuple):
    """Shapes of trainer.run, embedding and head tied, that come to the same parameters; and how much they read."""

    preset: str
    source: tuple[float, ...]  # width, depth, heads, ffn / width: the big model, on the big vocabulary
    big: tuple[float, ...]
    compact: tuple[float, ...]
    deep: tuple[float, ...]
    ids: tuple[int, int]  # of the big vocabulary, of the compact one
    files: tuple[str, ...]  # of shared/data/corpora: what the models are about
    learned: int  # bytes of every file, of all languages: what the big tokenizer was made for
    bytes: tuple[int, int, int]  # of each: to train the small models on; the source besides; held out
    seq_len: int
    batch: int  # tokens
    steps: int  # of a round: one epoch of the compact tokens
    source_steps: int
    rate: float  # of the second round: half the first one's


SIZES = {
    "cpu": Size(
        preset="tiny-1m", source=(100, 6, 5, 2.56), big=(32, 3, 2, 8), compact=(56, 2, 2, 4.5714), deep=(40, 4, 2, 6.4),
        ids=(4_160, 1_984), files=FILES, learned=300_000, bytes=(555_000, 1_000_000, 50_000), seq_len=256,
        batch=1_024, steps=1_600, source_steps=1_500, rate=1.5e-3,
    ),
    "gpu": Size(
        preset="tiny-10m", source=(640, 16, 10, 2.6667), big=(384, 6, 6, 2.6667), compact=(576, 5, 9, 2.6667),
        deep=(384, 13, 6, 2.6667), ids=(49_152, 16_384), files=FILES, learned=4_000_000,
        bytes=(2_000_000, 8_000_000, 100_000), seq_len=512, batch=32_768, steps=760, source_steps=2_400, rate=7.5e-4,
    ),
}  # fmt: skip
PRESETS = {
    "guarded": ("--preset", "guarded"),
    "paper": ("--preset", "paper", "--batch-tokens", "{batch}"),
    "random": ("--preset", "paper", "--unit", "sequence", "--temperature", "1e6"),
}


class Ladder(NamedTuple):
    """Where it is made, and how big."""

    out: Path
    size: Size
    device: str


class Rung(NamedTuple):
    name: str
    rounds: float  # passes over the data in all
    train: Callable[[Ladder, int], str]  # seed -> name of the run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--out", required=True, type=Path, help="directory to work in, and to go on in")
    parser.add_argument("--seeds", type=int, default=3, help="of weights, cut, data order and draw [3]")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one core each [2]")
    parser.add_argument("--rungs", type=int, default=len(RUNGS), help="only the first so many")
    parser.add_argument("--size", choices=SIZES, default="cpu", help="cpu: an hour or two on 2 cores [cpu]")
    options = parser.parse_args()
    if not (SHARED / "corpora").exists():
        sys.exit(f"skipped: no {SHARED.parent.name}/data beside the project")
    options.out.mkdir(parents=True, exist_ok=True)
    ladder = Ladder(options.out, SIZES[options.size], "cuda" if options.size == "gpu" else "cpu")
    prepare(ladder)
    rungs = RUNGS[: options.rungs]
    tasks = [(rung, seed) for rung in rungs for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        if options.rungs > RUNGS.index(INHERITED):
            pool.submit(source, ladder)  # takes longest
        found = list(pool.map(lambda task: measure(ladder, *task), tasks))
    bits = {rung.name: found[k * options.seeds : (k + 1) * options.seeds] for k, rung in enumerate(rungs)}
    print(table(bits))
    (options.out / "ladder.json").write_text(json.dumps(bits, indent=1) + "\n")
    (options.out / "ladder.png").write_bytes(picture(bits))


# -- data and source ----------------------------------------------------------------------------


def prepare(at: Ladder) -> None:
    """Text, both tokenizers, and the text in each."""
    if not (at.out / "held.jsonl").exists():
        gather(at)
    trainer = str(Path(__file__).parents[1] / "examples" / "train_tokenizer.py")
    large, small = map(str, at.size.ids)
    make(at.out, "tokenizer.json", trainer, "all.jsonl", "--vocab", large, "-o", "tokenizer.json")
    cli(at, "counts", "count", "source.jsonl", "--tokenizer", "tokenizer.json")
    cli(at, "vocab", "compact", "counts", "--tokenizer", "tokenizer.json", "--vocab", small)
    for name, vocab in (("big", "tokenizer.json"), ("compact", "vocab")):
        for text in ("own", "held"):
            cli(at, f"{name}-{text}", "encode", f"{text}.jsonl", "--vocab", vocab)
    cli(at, "big-source", "encode", "source.jsonl", "--vocab", "tokenizer.json")


def cli(at: Ladder, done: str, *args: str) -> str:
    """A verb of tinydata, unless what it makes is there."""
    make(at.out, done, "-c", "from tinydata.cli.main import main; main()", *args, "-o", done)
    return done


def gather(at: Ladder) -> None:
    """own.jsonl: what the small models are trained on; source.jsonl: that and more; held.jsonl: of neither; all.jsonl:
    of every file, for the tokenizer."""
    texts: dict[str, list[str]] = {"own": [], "source": [], "held": [], "all": []}
    own, more, held = at.size.bytes
    for path in sorted((SHARED / "corpora").iterdir()):
        file, left = path.name.removesuffix(".jsonl.zst"), at.size.learned
        for line in documents(file):
            if left > 0:
                texts["all"].append(json.dumps({"text": json.loads(line)["text"]}, ensure_ascii=False))
                left -= len(line)
    for file in at.size.files:
        room = {"held": held, "own": own, "more": more}
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
        (at.out / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in mixed), encoding="utf-8")


def documents(file: str) -> Iterator[bytes]:
    """Lines of a corpus, the longest left out, in the order of their hashes."""
    with pa.CompressedInputStream(pa.OSFile(str(SHARED / "corpora" / f"{file}.jsonl.zst")), "zstd") as stream:
        lines = io.BytesIO(stream.read()).readlines()
    return iter(sorted((x for x in lines if len(x) <= LONGEST), key=lambda x: hashlib.blake2b(x).digest()))


def source(at: Ladder) -> str:
    """The big model with its vocabulary cut to the compact one -> its directory."""
    train(at, "source", "big-source", at.size.source_steps, *shape(at.size.source))
    make(at.out, "source-hf", "-m", "trainer.export", "source", "-o", "source-hf", "--dtype", "float32",
         "--tokenizer", "tokenizer.json")  # fmt: skip
    return cli(at, "source-compact", "slice", "source-hf", "--vocab", "vocab")


def shape(values: tuple[float, ...]) -> list[str]:
    return [x for flag, value in zip(SHAPE, values, strict=True) for x in (flag, str(value))]


# -- rungs --------------------------------------------------------------------------------------


def train(at: Ladder, name: str, data: str, steps: int, *more: str) -> str:
    s, done = at.size, f"{name}/checkpoints/step-{steps:08d}"
    make(at.out, done, "-m", "trainer.run", "--data", data, "-o", name, "--preset", s.preset, "--steps", str(steps),
         "--seq-len", str(s.seq_len), "--batch-tokens", str(s.batch), "--save-every", str(steps), "--holdout", "0",
         "--device", at.device, *more)  # fmt: skip
    return name


def fresh(name: str, data: str) -> Callable[[Ladder, int], str]:
    """A round from random weights, in the shape of that name."""

    def run(at: Ladder, seed: int) -> str:
        return train(at, f"{name}-{seed}", data, at.size.steps, *shape(getattr(at.size, name)), "--seed", str(seed))

    return run


def inherited(at: Ladder, seed: int) -> str:
    start = f"start-{seed}"
    make(at.out, f"{start}/config.json", "-m", "trainer.inherit", source(at), at.size.preset, *shape(at.size.deep),
         "--seq-len", str(at.size.seq_len), "-o", start, "--data", "compact-own", "--samples", "256",
         "--method", "taylor", "--seed", str(seed), "--device", at.device)  # fmt: skip
    return train(at, f"inherited-{seed}", "compact-own", at.size.steps, "--init", start, "--seed", str(seed))


def again(way: str) -> Callable[[Ladder, int], str]:
    """A second round from the first one's weights, at half its learning rate."""

    def run(at: Ladder, seed: int) -> str:
        first, steps = inherited(at, seed), at.size.steps if way == "all" else at.size.steps // 2
        data = "compact-own" if way == "all" else half(at, way, first, seed)
        more = ("--init", first, "--lr", str(at.size.rate), "--seed", str(seed + 100))
        return train(at, f"{way}-{seed}", data, steps, *more)

    return run


def half(at: Ladder, way: str, first: str, seed: int) -> str:
    """Scores under the first round's model -> the half that this way keeps."""
    scores = cli(at, f"scores-{seed}", "score", "compact-own", "--model", first)
    told = [x.format(batch=at.size.batch) for x in PRESETS[way]]
    return cli(at, f"{way}-round-{seed}", "resample", scores, "--keep", "0.5", "--seed", str(seed), *told)


INHERITED = Rung("+ inheritance", 1, inherited)
RUNGS = (
    Rung("big vocabulary", 1, fresh("big", "big-own")),
    Rung("+ compact tokenizer", 1, fresh("compact", "compact-own")),
    Rung("+ architecture", 1, fresh("deep", "compact-own")),
    INHERITED,
    Rung("+ second round, guarded half", 1.5, again("guarded")),
    Rung("   the paper's half", 1.5, again("paper")),
    Rung("   random half", 1.5, again("random")),
    Rung("   all of it again", 2, again("all")),
)


def measure(at: Ladder, rung: Rung, seed: int) -> dict[str, Any]:
    """-> validation of trainer.evaluate on the held-out text."""
    run = rung.train(at, seed)
    file = at.out / f"{run}.json"
    if not file.exists():
        held = "big-held" if rung is RUNGS[0] else "compact-held"
        code = "import sys; sys.stdout = open(sys.argv.pop(1), 'w')\nfrom trainer.evaluate import program; program()"
        part = file.with_suffix(".part")
        make(at.out, file.name, "-c", code, part.name, run, "--data", held, "--tokens", "0", "--json",
             "--device", at.device)  # fmt: skip
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
