"""AdamW, learning rates as functions of the step, and the guard that skips steps with outliers."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import torch
from torch import nn

Schedule = Literal["cosine", "wsd", "linear", "constant"]
LARGEST_BATCH = 4_000_000  # tokens; the paper finds that larger ones cost quality


def adamw(model: nn.Module, lr: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    """Weight decay applies to matrices, including the embedding, but not to norms, biases and series activations."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=True)


def scaled_lr(lr0: float, batch_tokens: int, batch0: int) -> float:
    """lr0 * (B / B0) ** 0.5, the paper's rule (arXiv 2402.02791, section on optimization)."""
    return lr0 * math.sqrt(batch_tokens / batch0)


def schedule(kind: Schedule, step: int, steps: int, *, warmup: int, decay: float = 0.2, floor: float = 0.1) -> float:
    """Factor of the learning rate at step 0, 1, ... of `steps`; it depends on the step only, so it has no state.

    Every schedule rises linearly over `warmup` steps. Then cosine and linear fall to `floor`; wsd stays at 1 and falls
    as 1 - sqrt over the last fraction `decay` of the steps; constant stays at 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    begin = warmup if kind != "wsd" else max(warmup, steps - math.ceil(decay * steps))
    if step < begin:
        return 1.0
    x = min(1.0, (step - begin + 1) / max(1, steps - begin))
    shape = {"cosine": (1 + math.cos(math.pi * x)) / 2, "linear": 1 - x, "wsd": 1 - math.sqrt(x)}[kind]
    return floor + (1 - floor) * shape


class Guard:
    """Decides which steps to skip: those whose loss or gradient norm is not finite, or more than 6 standard deviations
    above the mean of the last 128 steps (OLMo-core's rule).

    A finite outlier still enters the window, so that a lasting change of level is accepted after a while.
    """

    SIGMA, WINDOW, LEAST, PATIENCE = 6.0, 128, 32, 20

    def __init__(self, window: list[list[float]] | None = None, skipped: int = 0):
        self._window: deque[list[float]] = deque(window or [], maxlen=self.WINDOW)
        self.skipped = skipped  # consecutive skipped steps

    def state(self) -> dict[str, object]:
        return {"window": list(self._window), "skipped": self.skipped}

    def reason(self, loss: float, norm: float) -> str | None:
        """The reason to skip this step, or None."""
        why = self._reason({"loss": loss, "gradient norm": norm})
        if math.isfinite(loss) and math.isfinite(norm):
            self._window.append([loss, norm])
        self.skipped = self.skipped + 1 if why else 0
        return why

    def _reason(self, values: dict[str, float]) -> str | None:
        for i, (name, value) in enumerate(values.items()):
            if not math.isfinite(value):
                return f"{name} is {value}"
            past = [x[i] for x in self._window]
            if len(past) < self.LEAST:
                continue
            mean = sum(past) / len(past)
            sigma = math.sqrt(sum((x - mean) ** 2 for x in past) / (len(past) - 1))
            if value > mean + self.SIGMA * sigma + 1e-6 * abs(mean):
                limit = f"{self.SIGMA:g} sigma above the mean of the last {len(past)} steps ({mean:.4g})"
                return f"{name} {value:.4g} is more than {limit}"
        return None
