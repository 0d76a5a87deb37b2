"""Greedy decoding with a cache of keys and values, for measuring the speed of a model.

Its cost per token does not grow with the text, unlike that of `trainer.generate`, which runs the training code.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.transformer import Attention, Model, angles


@torch.no_grad()
def decode(model: Model, prompt: Tensor, new: int) -> Tensor:
    """prompt int64 [B, T0] -> int64 [B, T0 + new]; always the most likely token, without stopping at an end token."""
    c, (B, T0) = model.config, prompt.shape
    weight = model.embed_tokens.weight
    shape = (2, c.depth, B, c.kv_heads, T0 + new, c.head_dim)
    cache = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    cos, sin = angles(model.inv_freq, T0 + new)
    ids = torch.cat([prompt, prompt.new_zeros(B, new)], dim=1)
    start = 0
    for stop in range(T0, T0 + new):
        x = model.embed_tokens(ids[:, start:stop])
        for k, layer in enumerate(model.layers):
            x = _layer(layer, x, cos[start:stop], sin[start:stop], cache[:, k], start, stop)
        ids[:, stop] = (model.norm(x[:, -1]) @ model.head().T).argmax(dim=1)
        start = stop
    return ids


def _layer(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, start: int, stop: int) -> Tensor:
    """Layer.forward for tokens [start, stop). cache [2, B, k, T, D]: keys and values, filled up to `start`."""
    attn: Attention = layer.self_attn
    z = layer.input_layernorm(x)
    q, cache[0, :, :, start:stop], cache[1, :, :, start:stop] = attn.project(z, cos, sin)
    keys, values = cache[:, :, :, :stop]
    # a single query attends to everything; several queries are the prompt, which needs the causal mask
    y = F.scaled_dot_product_attention(q, keys, values, is_causal=stop - start > 1, enable_gqa=True)
    y = x + attn.o_proj(y.transpose(1, 2).flatten(2))
    if layer.shortcut is not None:
        y = y + layer.shortcut(z)
    return y + layer.mlp(layer.post_attention_layernorm(y))
