"""One optimizer step: this rank's rows -> gradients of the whole batch -> AdamW, unless the guard objects."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data.order import Batch
from trainer.training.config import Config
from trainer.training.optim import Guard
from trainer.training.parallel import World, total
from trainer.training.sequence_losses import by_sequence
from trainer.training.signals import Stopped


def take_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    lr: float,
    config: Config,
    guard: Guard,
    w: World,
    stopped: Stopped,
    sizes: Tensor | None = None,
    rows: list[Tensor] | None = None,
) -> dict[str, Any]:
    """Loss = sum of nll over all ranks / targets of all ranks, in nats. `sizes` int64 [V]: bytes of each id's text.

    Where the batch has weights, loss and bits are of weighted sums; weights have mean one over an epoch. `rows` gets
    `by_sequence` of this rank's rows, unweighted.

    What it returns is the same on every rank. If one rank has been asked to stop, all stop.
    """
    (count,) = total(w, (batch.targets >= 0).sum())
    sums: Any = torch.zeros(3, dtype=torch.float64, device=w.device)  # nll; nll of targets with text; its bytes
    size, parts = config.micro_batch, len(batch.tokens) // config.micro_batch
    for k in range(parts):
        model.set_requires_gradient_sync(k == parts - 1)
        part = [None if x is None else x[k * size : (k + 1) * size].to(w.device, non_blocking=True) for x in batch]
        loss, nll, _ = model(*part)
        assert part[1] is not None
        (loss / max(count, 1.0)).backward()
        if rows is not None:
            rows.append(by_sequence(nll, part[1]))
        sums += torch.stack([loss.detach().double(), *_text(nll, part[1], sizes, part[3])])
    norm: Any = nn.utils.clip_grad_norm_(model.parameters(), config.clip or float("inf"))
    nats, text_nats, text_bytes, stop = total(w, *sums, float(stopped.any))
    values: dict[str, Any] = {
        "loss": nats / max(count, 1.0),
        "lr": lr,
        "grad_norm": float(norm.full_tensor()),
        "targets": int(count),
    }
    if text_bytes:
        values["bits_per_byte"] = text_nats / (math.log(2) * text_bytes)
    stopped.any = stop > 0
    why = guard.reason(values["loss"], values["grad_norm"])
    if why:
        values["skipped"] = why
    else:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return values


def _text(nll: Tensor, targets: Tensor, sizes: Tensor | None, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums over targets that stand for text: nll, bytes."""
    if sizes is None:
        return nll.new_zeros((), dtype=torch.float64), nll.new_zeros((), dtype=torch.float64)
    size = sizes[targets.clamp(min=0)] * (targets >= 0)
    if weights is not None:
        nll, size = nll * weights.unsqueeze(1), size * weights.unsqueeze(1).double()
    return (nll * (size > 0)).sum(dtype=torch.float64), size.sum().double()
