"""One optimizer step: this rank's rows -> gradients of the whole batch -> AdamW, unless the guard objects.

SIGTERM, SIGUSR1 (Slurm's warning) and Ctrl-C let the current step finish; a second Ctrl-C stops at once.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer.data.order import Batch
from trainer.training.optim import Guard
from trainer.training.parallel import World, total
from trainer.training.sequence_losses import by_sequence


@dataclass
class StopRequest:
    """Whether this process has received a signal to stop."""

    received: bool = False


_STOP = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Catches the signals; the request says whether one was received."""
    request = StopRequest()

    def handle(number: int, frame: Any) -> None:
        request.received = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    old = {s: signal.signal(s, handle) for s in _STOP}
    try:
        yield request
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


class StepResult(NamedTuple):
    """What one step measured. All but `rows` is the same on every rank."""

    loss: float  # nats per target
    lr: float
    grad_norm: float  # before clipping
    targets: int  # of all ranks
    bits_per_byte: float | None  # None: no target encodes text, or the bytes of the ids are unknown
    skipped: str | None  # why the weights were not changed
    stop: bool  # a rank was asked to stop, so all stop after this step
    rows: Tensor | None  # by_sequence of this rank's rows, unweighted, if requested

    def metrics(self) -> dict[str, Any]:
        """The values for metrics.jsonl."""
        out: dict[str, Any] = {"loss": self.loss, "lr": self.lr, "grad_norm": self.grad_norm, "targets": self.targets}
        optional = {"bits_per_byte": self.bits_per_byte, "skipped": self.skipped}
        return out | {k: v for k, v in optional.items() if v is not None}


class Sums(NamedTuple):
    """This rank's sums over a batch."""

    values: Tensor  # float64 [3]: nll; nll of targets that encode text; bytes of that text
    rows: Tensor | None  # float64 [B, 3]: by_sequence


@dataclass(frozen=True)
class Stepper:
    """Takes the optimizer steps of a run: model, optimizer and everything that is the same in every step."""

    model: Any
    optimizer: torch.optim.Optimizer
    guard: Guard
    world: World
    micro_batch: int  # rows in one forward pass
    clip: float = 0.0  # largest gradient norm; 0: any
    piece_bytes: Tensor | None = None  # int64 [V]: bytes of text of each id
    stop: StopRequest = field(default_factory=StopRequest)

    def step(self, batch: Batch, lr: float, by_row: bool = False) -> StepResult:
        """Loss = sum of nll over all ranks / targets of all ranks, in nats.

        If the batch has weights, loss and bits are of weighted sums; weights have mean one over an epoch.
        """
        (targets,) = total(self.world, (batch.targets >= 0).sum())
        sums = self._backward(batch, max(targets, 1.0), by_row)
        norm: Any = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip or float("inf"))
        nats, text_nats, text_bytes, stop = total(self.world, *sums.values, float(self.stop.received))
        loss, grad_norm = nats / max(targets, 1.0), float(norm.full_tensor())
        skipped = self.guard.reason(loss, grad_norm)
        self._update(None if skipped else lr)
        bits = text_nats / (math.log(2) * text_bytes) if text_bytes else None
        return StepResult(loss, lr, grad_norm, int(targets), bits, skipped, stop > 0, sums.rows)

    def _backward(self, batch: Batch, targets: float, by_row: bool) -> Sums:
        """Adds the gradients of the loss, micro-batch after micro-batch; ranks are summed over in the last one."""
        values = torch.zeros(3, dtype=torch.float64, device=self.world.device)
        rows: list[Tensor] = []
        starts = range(0, len(batch.tokens) - self.micro_batch + 1, self.micro_batch)
        for start in starts:
            self.model.set_requires_gradient_sync(start == starts[-1])
            part = batch.rows(start, start + self.micro_batch).to(self.world.device)
            loss, nll, _ = self.model(*part)
            (loss / targets).backward()
            if by_row:
                rows.append(by_sequence(nll, part.targets))
            values += torch.stack([loss.detach().double(), *self._text(nll, part)])
        return Sums(values, torch.cat(rows) if by_row else None)

    def _text(self, nll: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums over the targets that encode text: nll, bytes."""
        if self.piece_bytes is None:
            return nll.new_zeros((), dtype=torch.float64), nll.new_zeros((), dtype=torch.float64)
        size = self.piece_bytes[batch.targets.clamp(min=0)] * (batch.targets >= 0)
        if batch.weights is not None:
            nll, size = nll * batch.weights.unsqueeze(1), size * batch.weights.unsqueeze(1).double()
        return (nll * (size > 0)).sum(dtype=torch.float64), size.sum().double()

    def _update(self, lr: float | None) -> None:
        """AdamW with this learning rate; None: the gradients are dropped."""
        if lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
