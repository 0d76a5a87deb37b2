"""Evaluates a model: bits per byte by domain, multiple-choice accuracy, and diagnostics of its layers.

python -m trainer.evaluate MODEL [--data SHARDS] [--tasks FILE.jsonl ...] [--diagnostics] [--json]

Bits per byte compares models with different tokenizers on the same text. On the shards of the model's own run, the
sequences that it held out are used; on other shards, sequences spread evenly over them. For the standard benchmarks,
export the model and use lm-eval, as described in docs/trainer.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from trainer.data.order import Sequences
from trainer.data.rounds import opened
from trainer.data.shards import Shards
from trainer.errors import TrainerError, main
from trainer.evaluation import diagnostics
from trainer.evaluation.multiple_choice import read_items, solve
from trainer.model.transformer import Model
from trainer.training.checkpoint import load_model
from trainer.training.origin import origin
from trainer.training.validation import LONGEST, PIECES, measured

AT_ONCE = {"cpu": 8_192, "cuda": 65_536}  # tokens in one forward pass


@dataclass(frozen=True)
class EvaluateConfig:
    """Measures bits per byte on shards, accuracy on multiple-choice files, and diagnostics of the layers.
    Without --data and --tasks, it uses the sequences that the model's training run held out.
    """

    model: Annotated[str, tyro.conf.Positional]
    """Model to evaluate: a training run (its newest checkpoint), one checkpoint, or a Hugging Face directory."""
    data: str = ""
    """Directory of the shards to evaluate on.
    If neither this nor --tasks is given, those of the model's run are used."""
    tokens: int = 1_000_000
    """Maximum number of tokens of --data to evaluate. 0 means all of them.
    Only 0 compares models with different tokenizers on the same text."""
    tasks: tuple[str, ...] = ()
    """JSON-lines files of questions. docs/trainer.md lists the supported formats."""
    tokenizer: str = ""
    """Directory or file of the tokenizer for --tasks. If not given, the model's own is used."""
    diagnostics: bool = False
    """Measure attention sinks, diversity and effective dimension of each layer on --data."""
    seq_len: int = 0
    """Number of tokens per sequence. 0 means the model's sequence length, at most 2,048."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto means a GPU if one is available, otherwise the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Data type of the weights; auto means bf16 on a GPU and fp32 on a CPU."""
    json: bool = False
    """Print the result as JSON instead of as tables."""


def program() -> None:
    config = tyro.cli(EvaluateConfig, prog="python -m trainer.evaluate")
    cuda = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    low = cuda if config.precision == "auto" else config.precision == "bf16"
    model, facts = load_model(config.model, torch.bfloat16 if low else torch.float32)
    model.to("cuda" if cuda else "cpu").eval()
    facts = facts.get("run", facts)
    result: dict[str, Any] = {"model": config.model, **{k: facts[k] for k in ("step", "tokens") if k in facts}}
    data = config.data or (facts.get("data", {}).get("directory", "") if not config.tasks or config.diagnostics else "")
    if data:
        result |= on_data(model, facts, data, config)
    elif not config.tasks:
        raise TrainerError(
            "there is nothing to evaluate on: neither --data nor --tasks is given, and the model names no data",
            where=config.model,
            fix="pass --data SHARDS, or --tasks FILE.jsonl",
        )
    if config.tasks:
        result["tasks"] = on_tasks(model, facts, config)
    print(json.dumps(result, indent=1) if config.json else text(result))


def on_data(model: Model, facts: dict[str, Any], data: str, config: EvaluateConfig) -> dict[str, Any]:
    """-> {data: what was read; validation: loss and bits per byte; diagnostics: rows, if requested}"""
    shards, _ = opened(data)  # for a round, its base shards: the held-out sequences are defined on them
    _same_tokenizer(shards, facts, model, config.model)
    length = config.seq_len or min(model.config.seq_len, LONGEST)
    sequences, numbers, what = chosen(shards, facts, length, config.tokens)
    device = model.embed_tokens.weight.device
    rows = max(1, AT_ONCE[device.type] // length)
    out: dict[str, Any] = {"data": {"directory": data, "sequences": what, "of_tokens": length}}
    masked = bool(facts.get("train", {}).get("mask_documents"))
    with bar("tokens", len(numbers) * length) as done:
        out["validation"] = measured(
            model, sequences, numbers, rows=rows, device=device, vocab=model.config.vocab, documents=masked, done=done
        )
    if "bits_per_byte" not in out["validation"]:
        print(
            f"note: no bits per byte, because {data}/{PIECES} is missing; encode the corpus again to create it",
            file=sys.stderr,
        )
    if config.diagnostics:
        spread = np.unique(np.linspace(0, len(numbers) - 1, diagnostics.SAMPLES).astype(int))
        tokens = sequences.read(numbers[spread], model.config.vocab).tokens[:, : diagnostics.LENGTH]
        found = diagnostics.diagnosed(model, tokens.to(device))
        shape = {"sequences": len(tokens), "tokens": tokens.shape[1], "width": model.config.width}
        out["diagnostics"] = {**shape, "sink_rate": diagnostics.sink_rate(found), "layers": found}
    return out


def _same_tokenizer(shards: Shards, facts: dict[str, Any], model: Model, name: str) -> None:
    trained = facts.get("tokenizer") or {}
    if trained.get("fingerprint", shards.tokenizer["fingerprint"]) != shards.tokenizer["fingerprint"]:
        raise TrainerError(
            f"the model was trained with a different tokenizer: {trained.get('family')}, "
            f"{trained.get('size', 0):,} ids, fingerprint {trained['fingerprint']}",
            where=f"{shards.directory}: {shards.tokenizer['family']}, {shards.vocab:,} ids, "
            f"fingerprint {shards.tokenizer['fingerprint']}",
            fix="encode the text with the model's tokenizer",
        )
    if shards.vocab > model.config.vocab:
        raise TrainerError(
            f"the tokenizer of the shards has {shards.vocab:,} ids, but the model has only {model.config.vocab:,}",
            where=f"{shards.directory}; {name}",
            fix="encode the text with the model's tokenizer",
        )


def chosen(shards: Shards, facts: dict[str, Any], length: int, tokens: int) -> tuple[Sequences, np.ndarray, str]:
    """-> sequences, the numbers of those to evaluate, and a description of them."""
    train, own = facts.get("train", {}), facts.get("data", {}).get("fingerprint") == shards.fingerprint
    if own and train.get("seq_len") == length:
        sequences = Sequences(shards, length, train["holdout"])
        if len(sequences.held_out):
            return sequences, sequences.held_out, f"{len(sequences.held_out):,} that were held out during training"
    sequences = Sequences(shards, length, 0)
    many = min(sequences.total, max(1, tokens // length)) if tokens else sequences.total
    numbers = np.arange(many) * sequences.total // many
    what = f"{many:,} of {sequences.total:,}" if many < sequences.total else f"all {many:,}"
    return sequences, numbers, what + (", some of which the model may have been trained on" if own else "")


def on_tasks(model: Model, facts: dict[str, Any], config: EvaluateConfig) -> dict[str, dict[str, float]]:
    """-> {file name without extension: accuracy}"""
    items = {Path(path).stem: read_items(path) for path in config.tasks}
    if len(items) < len(config.tasks):
        raise TrainerError("two task files have the same name", where=" ".join(config.tasks), fix="rename one of them")
    known = origin(config.model, facts, model.config.vocab, config.tokenizer)
    if known.tokenizer is None:
        raise TrainerError("no tokenizer was found for this model", where=config.model, fix="pass --tokenizer DIR")
    length = config.seq_len or min(model.config.seq_len, LONGEST)
    at_once = AT_ONCE[model.embed_tokens.weight.device.type]
    with bar("answers", sum(len(i.pairs) for task in items.values() for i in task)) as done:
        return {
            name: solve(model, known.tokenizer, known.bos, task, length=length, tokens=at_once, done=done)
            for name, task in items.items()
        }


@contextmanager
def bar(unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with unit and rate; nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    count = TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit)
    speed = TextColumn("{task.speed:,.0f}/s") if total else TextColumn("")
    columns = (BarColumn(), count, speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=False) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda n: progress.advance(task, n)


# -- as text ----------------------------------------------------------------------------------


def text(result: dict[str, Any]) -> str:
    at = f", step {result['step']:,}" if "step" in result else ""
    parts = [f"{result['model']}{at}"]
    if "validation" in result:
        d = result["data"]
        parts.append(f"{d['directory']}: sequences of {d['of_tokens']:,} tokens, {d['sequences']}")
        parts.append(_domains(result["validation"]))
    if "tasks" in result:
        parts.append(_tasks(result["tasks"]))
    if "diagnostics" in result:
        d = result["diagnostics"]
        parts.append(diagnostics.table(d["layers"], d["sequences"], d["tokens"], d["width"]))
    return "\n\n".join(parts)


def _domains(values: dict[str, Any]) -> str:
    rows = {**values.get("domains", {}), "all": values}
    wide = max(len("domain"), *map(len, rows)) + 2
    lines = [f"{'domain':<{wide}}{'bits/byte':>10}{'nats/token':>12}{'tokens':>14}{'bytes':>14}"]
    for name, v in rows.items():
        bits = f"{v['bits_per_byte']:>10.4f}" if "bits_per_byte" in v else f"{'n/a':>10}"
        lines.append(f"{name:<{wide}}{bits}{v['loss']:>12.4f}{v['targets']:>14,}{v.get('bytes', 0):>14,}")
    return "\n".join(lines)


def _tasks(tasks: dict[str, dict[str, float]]) -> str:
    wide = max(len("task"), *map(len, tasks)) + 2
    lines = [f"{'task':<{wide}}{'items':>7}{'chance':>9}{'accuracy':>18}{'by bytes':>18}{'cut':>7}"]
    for name, t in tasks.items():
        cells = [f"{t[k]:.1%} ± {t[f'{k}_stderr']:.1%}" for k in ("accuracy", "accuracy_by_bytes")]
        lines.append(
            f"{name:<{wide}}{t['items']:>7,}{t['chance']:>9.1%}{cells[0]:>18}{cells[1]:>18}{t['cut'] or '':>7}"
        )
    lines.append(
        "±: one standard error; by bytes: answers compared by likelihood per byte; cut: number of shortened contexts"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main(program)
