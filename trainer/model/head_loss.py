"""Head and cross-entropy in one: hidden [N, d], weight [V, d], targets [N] -> sum of nll, nll [N].

The logits of a large vocabulary dominate the memory of a tiny model: with 100,000 ids, 16,384 tokens need 6.6 GB in
float32, and three times that with softmax and gradient. Here logits exist for one chunk of tokens at a time, and the
gradients of both inputs are computed in the forward pass, from the same chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORE = -100  # the target of a token without a loss, as everywhere in the field
CHUNK_LOGITS = {"cpu": 1 << 25, "cuda": 1 << 28}  # 128 MB and 1 GB of float32


def chunk_tokens(vocab: int, device: str) -> int:
    """Tokens in one chunk: enough for an efficient product, few enough for small logits; a multiple of 128."""
    return max(128, CHUNK_LOGITS.get(device, 1 << 28) // vocab // 128 * 128)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        exact = torch.promote_types(hidden.dtype, torch.float32)
        nll = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        # each product accumulates in float32; the sum over chunks must do the same
        grad_weight = torch.zeros_like(weight, dtype=exact) if wants_weight else None
        for a in range(0, len(hidden), chunk):
            h, t = hidden[a : a + chunk], targets[a : a + chunk]
            logits = (h @ weight.T).to(exact)
            counts = (t != IGNORE).unsqueeze(1)
            at = t.clamp(min=0).unsqueeze(1)
            log_z = logits.logsumexp(dim=1, keepdim=True)
            nll[a : a + chunk] = ((log_z - logits.gather(1, at)) * counts).squeeze(1)
            if not (wants_hidden or wants_weight):
                continue
            grad = logits.sub_(log_z).exp_()  # softmax, in the logits' own memory
            grad.scatter_add_(1, at, torch.full_like(log_z, -1.0))
            factor = counts if scale is None else counts * scale[a : a + chunk].unsqueeze(1)
            grad = grad.mul_(factor).to(hidden.dtype)
            if grad_hidden is not None:
                torch.matmul(grad, weight, out=grad_hidden[a : a + chunk])
            if grad_weight is not None:
                if weight.dtype == exact:
                    grad_weight.addmm_(grad.T, h)
                else:
                    grad_weight += grad.T @ h
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(nll)
        return (nll if scale is None else nll * scale).sum(), nll

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight = ctx.saved_tensors
        return (
            None if hidden is None else hidden.mul_(scale.to(hidden.dtype)),
            None if weight is None else weight.mul_(scale.to(weight.dtype)),
            None,
            None,
            None,
        )


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int = 0, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """hidden [N, d], weight [V, d], targets int64 [N] -> (sum of nll, nll float32 [N], or as exact as hidden), in nats.

    A target of -100 has nll 0 and no gradient. `scale` float32 [N]: weight of each nll in the sum. Only the sum
    has a gradient, and backward may run once. `chunk`: tokens at a time; 0 means as many as chunk_tokens says.
    """
    return _HeadLoss.apply(hidden, weight, targets, chunk or chunk_tokens(len(weight), hidden.device.type), scale)
