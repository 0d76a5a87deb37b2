"""The training loops that trainer.bench compares with: nanoGPT's, over a plain Llama or over transformers' Llama.

The loop is nanoGPT's: one compiled module, autocast, all logits at once, F.cross_entropy, clipped gradients, fused
AdamW, batches from random positions of one array. The models are Llamas, so they compute the same products as ours.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.model.transformer import ModelConfig
from trainer.training.optim import adamw


class Block(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.sizes = (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim)
        self.head_dim = c.head_dim
        self.attention_norm, self.ffn_norm = nn.RMSNorm(c.width), nn.RMSNorm(c.width)
        self.qkv = nn.Linear(c.width, sum(self.sizes), bias=False)
        self.out = nn.Linear(self.sizes[0], c.width, bias=False)
        self.gate_up = nn.Linear(c.width, 2 * c.ffn, bias=False)
        self.down = nn.Linear(c.ffn, c.width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        parts = self.qkv(self.attention_norm(x)).split(self.sizes, dim=2)
        q, k, v = (p.unflatten(2, (-1, self.head_dim)).transpose(1, 2) for p in parts)
        q, k = rotated(q, turn), rotated(k, turn)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        x = x + self.out(y.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=2)
        return x + self.down(F.silu(gate) * up)


class Plain(nn.Module):
    """tokens, targets [B, T] -> mean loss."""

    turn: Tensor  # [2, seq_len, D / 2]: cosines and sines

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.embedding = nn.Embedding(c.vocab, c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm = nn.RMSNorm(c.width)
        self.head = nn.Linear(c.width, c.vocab, bias=False)
        if c.tied:
            self.head.weight = self.embedding.weight
        frequencies = c.rope_theta ** -(torch.arange(0, c.head_dim, 2) / c.head_dim)
        angle = torch.outer(torch.arange(c.seq_len), frequencies)
        self.register_buffer("turn", torch.stack([angle.cos(), angle.sin()]), persistent=False)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.turn[:, : tokens.shape[1]])
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    cos, sin = turn.to(x.dtype)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Llama(nn.Module):
    """transformers' LlamaForCausalLM, with its own loss."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        try:
            from transformers import LlamaConfig, LlamaForCausalLM
        except ImportError:
            raise TrainerError(
                "transformers is not installed", fix="run `pip install transformers`, or use --beside plain"
            ) from None
        config: Any = LlamaConfig(
            vocab_size=c.vocab,
            hidden_size=c.width,
            num_hidden_layers=c.depth,
            num_attention_heads=c.heads,
            num_key_value_heads=c.kv_heads,
            head_dim=c.head_dim,
            intermediate_size=c.ffn,
            max_position_embeddings=c.seq_len,
            tie_word_embeddings=c.tied,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        self.model = LlamaForCausalLM(config)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.model(tokens, shift_labels=targets, labels=targets).loss


PEERS: dict[str, type[Plain] | type[Llama]] = {"plain": Plain, "transformers": Llama}


def loop(
    name: str, c: ModelConfig, ids: np.ndarray, *, rows: int, parts: int, device: str, bf16: bool, compile: bool
) -> Callable[[], float]:
    """-> a function that takes one step on parts x rows sequences and returns its loss."""
    torch.manual_seed(0)
    with torch.device(device):
        model = PEERS[name](c)
    optimizer = adamw(model, 1e-4, (0.9, 0.95), 0.1)
    forward = torch.compile(model) if compile else model
    low = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
    chance = np.random.default_rng(0)

    def cut() -> tuple[Tensor, Tensor]:
        starts = chance.integers(0, len(ids) - c.seq_len - 1, rows)
        x = torch.from_numpy(np.stack([ids[a : a + c.seq_len + 1] for a in starts]).astype(np.int64))
        x = x.pin_memory().to(device, non_blocking=True) if device == "cuda" else x
        return x[:, :-1].contiguous(), x[:, 1:].contiguous()

    def step() -> float:
        total = 0.0
        for _ in range(parts):
            with low:
                loss = forward(*cut())
            (loss / parts).backward()
            total += loss.item() / parts
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step
