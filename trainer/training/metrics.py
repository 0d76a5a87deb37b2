"""metrics.jsonl, always; TensorBoard, wandb or trackio by name; a progress bar on a terminal."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from trainer.errors import TrainerError

FILE = "metrics.jsonl"
TRACKERS = ("tensorboard", "wandb", "trackio")


class Tracker(Protocol):
    def log(self, values: dict[str, float], step: int) -> None: ...


class Metrics:
    """The metrics of one run; exists on rank 0 only. On resuming, lines of steps that will be repeated are removed."""

    def __init__(self, run: Path, trackers: Iterable[str], recipe: dict[str, Any], step: int, steps: int):
        self._trackers = [_tracker(name, run, recipe) for name in trackers]
        _cut(run / FILE, step)
        self._file = (run / FILE).open("a", buffering=1)
        self._bar = _bar(step, steps) if sys.stderr.isatty() else None

    def log(self, step: int, values: dict[str, Any]) -> None:
        self._file.write(json.dumps({"step": step, **_finite(values)}, allow_nan=False) + "\n")
        flat = {k: float(v) for k, v in _flat(values).items()}
        for tracker in self._trackers:
            tracker.log(flat, step)

    def show(self, step: int, text: str, stays: bool = False) -> None:
        """Prints a line to stderr; on a terminal it goes into the progress bar, unless `stays`."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, **({} if stays else {"text": text}))
        if self._bar is None or stays:
            line = f"step {step:>7,}  {text}"
            print(line, file=sys.stderr, flush=True) if self._bar is None else self._bar.console.print(line)

    def close(self) -> None:
        self._file.close()
        if self._bar is not None:
            self._bar.stop()


class Meter:
    """Tokens per second over the last 20 steps, validations and saves left out."""

    def __init__(self, flops_per_token: float, peak: float | None):
        self._flops, self._peak = flops_per_token, peak  # peak: FLOP/s of all devices together
        self._marks: deque[tuple[float, int]] = deque(maxlen=21)

    def start(self, tokens: int) -> None:
        """Ignores the time since the last mark, which was not training."""
        self._marks.clear()
        self.mark(tokens)

    def mark(self, tokens: int, now: float | None = None) -> None:
        """Records the end of a step; tokens: total since the start of the run."""
        self._marks.append((time.perf_counter() if now is None else now, tokens))

    def rates(self) -> dict[str, float]:
        """tokens_per_s, and mfu where the peak is known; {} before there are two marks."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return {}
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        speed = (n1 - n0) / (t1 - t0)
        return {"tokens_per_s": speed} | ({"mfu": speed * self._flops / self._peak} if self._peak else {})


def described(values: dict[str, Any]) -> str:
    """The values of a step or a validation as a line of text."""
    forms = {"loss": "loss {:.4f}", "bits_per_byte": "{:.4f} bits/byte", "grad_norm": "norm {:.2f}", "lr": "lr {:.2e}"}
    forms |= {"tokens_per_s": "{:,.0f} tokens/s", "mfu": "MFU {:.1%}", "skipped": "SKIPPED: {}"}
    return "  ".join(form.format(values[k]) for k, form in forms.items() if values.get(k) is not None)


def memory_bytes(device: torch.device) -> int:
    """Peak memory use so far: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read(run: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last one that was cut short is left out."""
    lines = []
    for line in (Path(run) / FILE).read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [json.dumps(x) + "\n" for x in read(path.parent) if x["step"] <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(kept))
    part.rename(path)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    out: dict[str, float] = {}
    for k, v in values.items():
        if isinstance(v, dict):
            out |= _flat(v, f"{prefix}{k}/")
        elif isinstance(v, int | float) and math.isfinite(v):
            out[f"{prefix}{k}"] = v
    return out


def _bar(step: int, steps: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(16), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
    bar = Progress(*columns, console=Console(stderr=True, highlight=False))
    bar.add_task("train", total=steps, completed=step, text="")
    bar.start()
    return bar


def _tracker(name: str, run: Path, recipe: dict[str, Any]) -> Tracker:
    try:
        if name == "tensorboard":
            return _TensorBoard(run)
        if name in ("wandb", "trackio"):
            module = __import__(name)
            return module.init(project="tinydata", name=run.name, config=recipe)
    except ImportError:
        raise TrainerError(
            f"{name} is not installed", fix=f"run `pip install {name}`, or remove --track {name}"
        ) from None
    raise TrainerError(f"unknown tracker {name!r}", fix=f"use one of {', '.join(TRACKERS)}; {FILE} is always written")


class _TensorBoard:
    def __init__(self, run: Path):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Replaces NaN and infinity by null, since JSON has neither."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
