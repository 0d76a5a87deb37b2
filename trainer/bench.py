"""Tokens per second, MFU and peak memory of whole training steps, loader and optimizer included, for a table of shapes.

python -m trainer.bench --shapes pi-1b-pro tiny-30m --beside plain transformers
python -m trainer.bench --head        the head alone: in chunks, compared with all logits at once

The step is the same code as in trainer.run. Each row is measured in its own process, so that its peak memory is not
affected by the others. MFU compares the FLOPs of the shape, by one stated convention, with the peak in the GPU's data
sheet. For a CPU no peak is known, so the speed of a plain matrix product on the same machine is printed as well.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from trainer.data.loader import Loader
from trainer.data.order import Sequences
from trainer.data.shards import Shards
from trainer.errors import TrainerError, main
from trainer.evaluation.baselines import PEERS, loop
from trainer.model import cost
from trainer.model.head_loss import head_loss
from trainer.model.init import STD, random_weights
from trainer.model.presets import preset
from trainer.model.transformer import Model, ModelConfig
from trainer.training.config import RunConfig
from trainer.training.metrics import memory_bytes
from trainer.training.optim import Guard, adamw
from trainer.training.parallel import fill, quiet_collector, sharded, world
from trainer.training.resolve import resolve
from trainer.training.step import Stepper

OURS = "trainer"
HEADS = ("by chunks", "all at once")


@dataclass(frozen=True)
class BenchConfig:
    """Measures the speed and memory of training steps on this machine, for several model shapes and training loops."""

    shapes: tuple[str, ...] = ()
    """Names of the presets to measure.
    If not given: pi-1b-pro, tiny-125m and tiny-30m on a GPU; tiny-10m and tiny-1m on a CPU."""
    beside: tuple[str, ...] = ("plain",)
    """Other training loops to compare with: plain (nanoGPT's loop over a plain Llama),
    transformers (the same loop over LlamaForCausalLM), or none."""
    seq_len: int = 0
    """Number of tokens per sequence. 0 means the preset's."""
    micro_batch: int = 0
    """Number of sequences processed at once. 0 means as many as make up 16,384 tokens on a GPU, 2,048 on a CPU."""
    accumulate: int = 1
    """Number of micro-batches per optimizer step."""
    steps: int = 0
    """Number of measured steps; a fifth as many warm-up steps come first. 0 means 50 on a GPU and 5 on a CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to compile each layer with torch.compile; auto means only on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products; auto means bf16 on a GPU and fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto means a GPU if one is available, otherwise the CPU."""
    head: bool = False
    """Measure only the output head and its loss."""
    head_tokens: int = 16_384
    """Number of tokens for --head. Computing all logits at once needs three times 4 x tokens x vocabulary bytes."""
    head_vocab: int = 100_000
    """Vocabulary size for --head."""
    head_width: int = 2048
    """Width of the hidden states for --head."""
    json: bool = False
    """Print the result as JSON instead of as a table."""


class Setting(NamedTuple):
    """One row: a model under a loop."""

    shape: str
    loop: str  # OURS or a peer
    model: ModelConfig
    rows: int  # sequences at once
    parts: int  # of them in a step
    steps: int
    device: str
    bf16: bool
    compile: bool


def program() -> None:
    config = tyro.cli(BenchConfig, prog="python -m trainer.bench")
    cuda = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    if config.head:
        heads = [measured(head, kind, config, "cuda" if cuda else "cpu") for kind in HEADS]
        print(json.dumps(heads, indent=1) if config.json else head_table(heads, config))
        return
    device = "cuda" if cuda else "cpu"
    found = settings(config, device)
    machine = measured(describe, device, found[0].bf16)
    rows = []
    for setting in found:
        print(f"{setting.shape}, {setting.loop} ...", file=sys.stderr, flush=True)
        rows.append(row(setting, machine, measured(train if setting.loop == OURS else beside, setting)))
    result = {"machine": machine, "convention": cost.CONVENTION, "rows": rows}
    print(json.dumps(result, indent=1) if config.json else table(result))


def settings(config: BenchConfig, device: str) -> list[Setting]:
    """The rows to measure: every shape, and also without π's parts where other loops, which lack them, are compared."""
    cuda = device == "cuda"
    others = [x for x in config.beside if x != "none"]
    for name in others:
        if name not in PEERS:
            raise TrainerError(
                f"unknown training loop {name!r}", fix=f"use --beside {' '.join(PEERS)}, or --beside none"
            )
    out = []
    for name in config.shapes or (("pi-1b-pro", "tiny-125m", "tiny-30m") if cuda else ("tiny-10m", "tiny-1m")):
        model = preset(name).model
        model = replace(model, seq_len=config.seq_len or model.seq_len)
        plain = replace(model, series=1, shortcut=0)
        rows = config.micro_batch or max(1, (16_384 if cuda else 2_048) // model.seq_len)
        how: dict[str, Any] = {
            "rows": rows,
            "parts": config.accumulate,
            "steps": config.steps or (50 if cuda else 5),
            "device": device,
            "bf16": cuda if config.precision == "auto" else config.precision == "bf16",
            "compile": cuda if config.compile == "auto" else config.compile == "on",
        }
        out.append(Setting(name, OURS, model, **how))
        if others and plain != model:
            out.append(Setting(f"{name} without π", OURS, plain, **how))
        out += [Setting(f"{name} without π" if plain != model else name, x, plain, **how) for x in others]
    return out


def measured(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """function(*args) in its own process; {"error": ...} if it ran out of memory."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            return alone.submit(function, *args).result()
    except BrokenProcessPool:
        return {"error": "the process was killed, probably because it ran out of memory"}
    except torch.OutOfMemoryError as e:
        return {"error": str(e).splitlines()[0]}


# -- what runs in the process ------------------------------------------------------------------


def describe(device: str, bf16: bool) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    facts = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {**facts, "peak": cost.peak_flops(name), "matrix_product": matrix_product(device, bf16)}


def matrix_product(device: str, bf16: bool) -> float:
    """FLOP/s of a square matrix product, the best of five runs: a practical upper bound for this machine."""
    n = 8192 if device == "cuda" else 1024
    kind = torch.bfloat16 if bf16 else torch.float32
    torch.set_float32_matmul_precision("high")
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    times = 20 if device == "cuda" else 4
    best = float("inf")
    for _ in range(5 + 1):  # the first also warms up
        start = now(device)
        for _ in range(times):
            a @ b
        best = min(best, now(device) - start)
    return 2 * n**3 * times / best


def now(device: str) -> float:
    """The time in seconds, after the device has finished all pending work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(step: Callable[[], Any], s: Setting) -> dict[str, Any]:
    """-> seconds of each step, bytes at the peak."""
    for _ in range(max(1, s.steps // 5)):
        step()
    marks = [now(s.device)]
    for _ in range(s.steps):
        step()
        marks.append(now(s.device))
    return {"seconds": np.diff(marks).tolist(), "memory": memory_bytes(torch.device(s.device))}


def train(s: Setting) -> dict[str, Any]:
    """Steps of trainer.run, on random ids: as fast as text."""
    config = resolve(
        RunConfig(
            micro_batch=s.rows,
            batch_tokens=s.parts * s.rows * s.model.seq_len,
            steps=1,
            device="cuda" if s.device == "cuda" else "cpu",
        ),
        s.model,
        None,
        1,
    )
    sequences = Sequences(random_shards(s), s.model.seq_len, 0)
    with world(s.device) as w, quiet_collector():
        with torch.device("meta"):
            model = Model(s.model)
        model = sharded(model, w, bf16=s.bf16, compile=s.compile)
        fill(model, w, random_weights(s.model, 0))
        optimizer = adamw(model, 1e-4, (0.9, 0.95), 0.1)
        stepper = Stepper(model, optimizer, Guard(), w, config.micro_batch, config.clip)
        loader = Loader(sequences, seed=0, rows=s.parts * s.rows, vocab=s.model.vocab, pin=s.device == "cuda")
        with closing(loader.batches(0)) as batches:
            return timed(lambda: stepper.step(next(batches).batch, 1e-4), s)


def beside(s: Setting) -> dict[str, Any]:
    if s.device == "cuda":
        torch.set_float32_matmul_precision("high")
    step = loop(
        s.loop, s.model, random_ids(s), rows=s.rows, parts=s.parts, device=s.device, bf16=s.bf16, compile=s.compile
    )
    return timed(step, s)


def random_ids(s: Setting) -> np.ndarray:
    size = (s.steps * 2 + 2) * s.parts * s.rows * s.model.seq_len + 1
    dtype = np.uint16 if s.model.vocab < 1 << 16 else np.int32
    return np.random.default_rng(0).integers(0, s.model.vocab, size).astype(dtype)


def random_shards(s: Setting) -> Shards:
    ids = random_ids(s)
    return Shards(Path("random"), {"dtype": ids.dtype.name, "shards": []}, [ids], [None], np.array([0, len(ids)]))


def head(kind: str, config: BenchConfig, device: str) -> dict[str, Any]:
    """Forward and backward of head and loss, float32."""
    torch.manual_seed(0)
    weight = torch.randn(config.head_vocab, config.head_width, device=device)
    # of a model's size: wilder logits give softmax values too small for normal floats, which a CPU is slow with
    weight.mul_(STD).requires_grad_()
    hidden = torch.randn(config.head_tokens, config.head_width, device=device, requires_grad=True)
    targets = torch.randint(0, config.head_vocab, (config.head_tokens,), device=device)
    seconds = []
    for _ in range((config.steps or 2) + 1):
        hidden.grad = weight.grad = None
        start = now(device)
        if kind == HEADS[0]:
            loss, _ = head_loss(hidden, weight, targets)
        else:
            loss = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
        loss.backward()
        seconds.append(now(device) - start)
    del seconds[0]
    assert weight.grad is not None and hidden.grad is not None
    return {"head": kind, "seconds": seconds, "memory": memory_bytes(torch.device(device)), "loss": loss.item()}


# -- the table ---------------------------------------------------------------------------------


def row(s: Setting, machine: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The row of the result: mean speed over all steps, median and slowest step."""
    out: dict[str, Any] = {"shape": s.shape, "loop": s.loop, "compiled": s.compile, "bf16": s.bf16}
    if "error" in found:
        return out | found
    tokens = s.parts * s.rows * s.model.seq_len
    flops = cost.flops_per_token(s.model, s.model.seq_len)
    speed = tokens * len(found["seconds"]) / sum(found["seconds"])
    return out | {
        "parameters": sum(cost.parameters(s.model).values()),
        "seq_len": s.model.seq_len,
        "tokens_per_step": tokens,
        "flops_per_token": flops,
        "tokens_per_s": speed,
        "mfu": speed * flops / machine["peak"] if machine["peak"] else None,
        "of_matrix_product": speed * flops / machine["matrix_product"],
        "median_s": statistics.median(found["seconds"]),
        "slowest_s": max(found["seconds"]),
        "memory_bytes": found["memory"],
    }


def table(result: dict[str, Any]) -> str:
    m, rows = result["machine"], result["rows"]
    peak = f"{m['peak'] / 1e12:,.0f} TFLOP/s by its data sheet" if m["peak"] else "peak unknown, so MFU is n/a"
    wide = max(len(r["shape"]) for r in rows) + 2
    lines = [
        f"{m['device']}, {m['threads']} threads, torch {m['torch']}: {peak}; "
        f"a matrix product reaches {m['matrix_product'] / 1e12:,.3g} TFLOP/s",
        "",
        f"{'shape':<{wide}}{'loop':<13}{'parameters':>14}{'T':>7}{'GFLOP/token':>12}{'tokens/s':>11}{'MFU':>7}"
        f"{'of matmul':>11}{'s/step':>9}{'peak GB':>9}",
    ]
    for r in rows:
        if "error" in r:
            lines.append(f"{r['shape']:<{wide}}{r['loop']:<13}{r['error']}")
            continue
        mfu = f"{r['mfu']:.1%}" if r["mfu"] else "n/a"
        lines.append(
            f"{r['shape']:<{wide}}{r['loop']:<13}{r['parameters']:>14,}{r['seq_len']:>7,}"
            f"{r['flops_per_token'] / 1e9:>12.3f}{r['tokens_per_s']:>11,.0f}{mfu:>7}{r['of_matrix_product']:>11.1%}"
            f"{r['median_s']:>9.3f}{r['memory_bytes'] / 1e9:>9.2f}"
        )
    how = ("bf16" if rows[0]["bf16"] else "fp32") + (", compiled" if rows[0]["compiled"] else "")
    memory = "of the GPU" if m["peak"] or m["device"] != "CPU" else "of the process"
    lines += [
        "",
        f"{how}; whole steps with data loading and optimizer; peak memory {memory}. MFU by {result['convention']}",
    ]
    return "\n".join(lines)


def head_table(rows: list[dict[str, Any]], config: BenchConfig) -> str:
    lines = [
        f"{config.head_tokens:,} tokens x {config.head_vocab:,} ids x {config.head_width:,}, float32, with gradients",
        "",
        f"{'head':<14}{'tokens/s':>10}{'s':>9}{'peak GB':>9}",
    ]
    for kind, r in zip(HEADS, rows, strict=True):
        if "error" in r:
            lines.append(f"{kind:<14}{r['error']}")
            continue
        took = statistics.median(r["seconds"])
        lines.append(f"{kind:<14}{config.head_tokens / took:>10,.0f}{took:>9.2f}{r['memory'] / 1e9:>9.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(program)
