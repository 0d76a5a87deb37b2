"""A Llama-like decoder with PanGu-π's two additions as options; module names are Hugging Face's.

B batch, T tokens, d width, h heads, k key-value heads, D head_dim, F ffn, V vocabulary.

Source of the two additions: PanGu-π (arXiv 2312.17276): the series informed activation, eq. 7, and the
augmented shortcut, eq. 4-5. Choices that the paper leaves open: a_i, b_i are per channel and act on
SwiGLU's gate; the shortcut has the same input as attention, the normed residual; with their initial
values neither has any effect, so a model with them computes the same as one without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.model.head_loss import head_loss


@dataclass(frozen=True)
class ModelConfig:
    vocab: int  # ids
    width: int  # of the residual stream (hidden size)
    depth: int  # layers
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int  # inner width of the feed-forward network
    seq_len: int = 2048  # tokens of the longest sequence in training
    tied: bool = False  # embedding and head share one matrix
    qk_norm: bool = False  # RMSNorm of each head's query and key, as in Qwen3
    qkv_bias: bool = False  # as in Qwen2
    out_bias: bool = False  # bias of attention's output projection, as in InternLM
    mlp_bias: bool = False  # needed by a folded series activation
    series: int = 1  # terms of the series informed activation; 1: the plain SiLU
    shortcut: int = 0  # r of the augmented shortcut d -> d/r -> d; 0: none
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] | None = None  # {"rope_type": "llama3" | "linear", ...}, as in config.json
    norm_eps: float = 1e-5

    def __post_init__(self):
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise ValueError(f"{self.heads} heads of {self.head_dim} do not fit {self.kv_heads} key-value heads")


class Norm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.heads, c.kv_heads, c.head_dim
        self.q_proj = nn.Linear(c.width, c.heads * c.head_dim, bias=c.qkv_bias)
        self.k_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=c.qkv_bias)
        self.v_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=c.qkv_bias)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.width, bias=c.out_bias)
        self.q_norm = Norm(c.head_dim, c.norm_eps) if c.qk_norm else None
        self.k_norm = Norm(c.head_dim, c.norm_eps) if c.qk_norm else None

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, d] -> queries [B, h, T, D], keys and values [B, k, T, D]; queries and keys are rotated."""
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.heads, self.head_dim)
        k = self.k_proj(x).view(B, T, self.kv_heads, self.head_dim)
        v = self.v_proj(x).view(B, T, self.kv_heads, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: bool [B, 1, T, T], true where a query attends to a key; None: to all earlier tokens."""
        q, k, v = self.project(x, cos, sin)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=self.heads != self.kv_heads
        )
        return self.o_proj(y.transpose(1, 2).flatten(2))


class Series(nn.Module):
    """sum_i silu(a_i x + b_i), per channel. It starts as silu(x): a = (1, 0, ...), b = 0.

    silu(0) is 0 but its slope is not, so the terms that start at 0 receive gradients.
    """

    def __init__(self, terms: int, width: int):
        super().__init__()
        self.terms = terms
        self.scale = nn.Parameter(
            torch.empty(terms * width)
        )  # one dimension: no weight decay, and it is sharded evenly
        self.shift = nn.Parameter(torch.empty(terms * width))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.scale.view(self.terms, -1), self.shift.view(self.terms, -1)
        return sum((F.silu(a[i] * x + b[i]) for i in range(1, self.terms)), F.silu(a[0] * x + b[0]))


class FeedForward(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(c.width, c.ffn, bias=c.mlp_bias)
        self.up_proj = nn.Linear(c.width, c.ffn, bias=c.mlp_bias)
        self.down_proj = nn.Linear(c.ffn, c.width, bias=c.mlp_bias)
        self.series = Series(c.series, c.ffn) if c.series > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        gate = F.silu(gate) if self.series is None else self.series(gate)
        return self.down_proj(gate * self.up_proj(x))


class Shortcut(nn.Module):
    """Augmented shortcut d -> d/r -> GELU -> d; its second matrix starts at zero, so it starts without effect."""

    def __init__(self, width: int, r: int):
        super().__init__()
        self.down = nn.Linear(width, max(1, width // r), bias=False)
        self.up = nn.Linear(max(1, width // r), width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(x)))


class Layer(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.input_layernorm = Norm(c.width, c.norm_eps)
        self.self_attn = Attention(c)
        self.shortcut = Shortcut(c.width, c.shortcut) if c.shortcut else None
        self.post_attention_layernorm = Norm(c.width, c.norm_eps)
        self.mlp = FeedForward(c)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None) -> Tensor:
        z = self.input_layernorm(x)
        y = x + self.self_attn(z, cos, sin, mask)
        if self.shortcut is not None:
            y = y + self.shortcut(z)
        return y + self.mlp(self.post_attention_layernorm(y))


class Model(nn.Module):
    """forward returns the loss, not logits, so that the head is used inside it, where FSDP has gathered its weights."""

    inv_freq: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = Norm(config.width, config.norm_eps)
        # a tied model has no second parameter, so nothing can untie the two
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocab, bias=False)
        self.register_buffer("inv_freq", torch.empty(config.head_dim // 2), persistent=False)
        if self.inv_freq.device.type != "meta":
            self.fill_buffers()

    def fill_buffers(self) -> None:
        """Computes the buffers, which are not stored; needed after to_empty()."""
        self.inv_freq.copy_(inverse_frequencies(self.config))

    def head(self) -> Tensor:
        """[V, d]"""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def hidden(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """tokens [B, T] -> the head's input [B, T, d]. `documents` [B, T]: no token attends to another document."""
        x = self.embed_tokens(tokens)
        cos, sin = angles(self.inv_freq, tokens.shape[1])
        mask = None if documents is None else document_mask(documents)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        documents: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """tokens, targets int64 [B, T] -> (sum of nll, nll float32 [B, T], number of targets that count), in nats.

        A target of -100 does not count. `weights` float32 [B]: weight of each row's nll in the sum. Without targets,
        it returns logits [B, T, V].
        """
        x = self.hidden(tokens, documents)
        if targets is None:
            return x @ self.head().T
        scale = None if weights is None else weights.unsqueeze(1).expand_as(targets).flatten()
        total, nll = head_loss(x.flatten(0, 1), self.head(), targets.flatten(), scale=scale)
        return total, nll.view_as(targets), (targets >= 0).sum()


def angles(inv_freq: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """float32 [D/2] -> cos, sin float32 [T, 1, D], in the half-split layout of Hugging Face."""
    a = torch.outer(torch.arange(length, device=inv_freq.device, dtype=torch.float32), inv_freq.float())
    a = torch.cat([a, a], dim=1).unsqueeze(1)
    return a.cos(), a.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, T, heads, D] rotated by its position; computed in float32 or better."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def document_mask(documents: Tensor) -> Tensor:
    """[B, T] -> bool [B, 1, T, T]: a token attends to itself and to earlier tokens of its own document."""
    T = documents.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=documents.device).tril()
    return ((documents.unsqueeze(1) == documents.unsqueeze(2)) & causal).unsqueeze(1)


def inverse_frequencies(c: ModelConfig) -> Tensor:
    """float32 [D/2]: theta^(-2i/D), scaled by the configuration's rule (Llama 3's, or linear)."""
    f = 1.0 / c.rope_theta ** (torch.arange(0, c.head_dim, 2, dtype=torch.int64).float() / c.head_dim)
    s = c.rope_scaling
    if not s:
        return f
    if s["rope_type"] == "linear":
        return f / s["factor"]
    waves = 2 * math.pi / f
    low, high = s["low_freq_factor"], s["high_freq_factor"]
    smooth = (s["original_max_position_embeddings"] / waves - low) / (high - low)
    between = (1 - smooth) * f / s["factor"] + smooth * f
    long = s["original_max_position_embeddings"] / low
    short = s["original_max_position_embeddings"] / high
    return torch.where(waves > long, f / s["factor"], torch.where(waves < short, f, between))
