"""PanGu-π's two parts on transformers' Llama: the code that travels inside an exported model.

Loaded with AutoModelForCausalLM.from_pretrained(DIRECTORY, trust_remote_code=True). Only what differs from Llama is
here, around Llama's own attention and not instead of it: what its layers hand to their attention (caches, masks, …)
goes through as it is, so that no release of transformers which gives one of them another name can lose it here.
"""

import torch
from torch import nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaForCausalLM, LlamaMLP, LlamaRMSNorm


class TinydataConfig(LlamaConfig):
    model_type = "tinydata"
    qk_norm = False  # RMSNorm of each head's query and key
    qkv_bias = False
    out_bias = False
    series = 1  # terms of the series informed activation; 1: SiLU
    shortcut = 0  # r of the augmented shortcut d -> d/r -> d; 0: none

    def validate_architecture(self):
        """Heads need not divide the width: head_dim is always given."""


class TinydataAttention(LlamaAttention):
    """Attention, and parallel to it the augmented shortcut: both see the normed residual."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        for proj in (self.q_proj, self.k_proj, self.v_proj):
            proj.register_parameter("bias", proj.bias if config.qkv_bias else None)
        self.o_proj.register_parameter("bias", self.o_proj.bias if config.out_bias else None)
        self.q_norm = LlamaRMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = LlamaRMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.shortcut = Shortcut(config.hidden_size, config.shortcut) if config.shortcut else None

    def forward(self, hidden_states, *args, **kwargs):
        attention = self if self.q_norm is None else NormedHeads(self)
        out, *rest = LlamaAttention.forward(attention, hidden_states, *args, **kwargs)
        if self.shortcut is not None:
            out = out + self.shortcut(hidden_states)
        return out, *rest


class NormedHeads:
    """What Llama's forward takes for its attention, where each head's query and key are to be normed.

    Norming inside q_proj would be simpler, and lost without a word where a quantizer or LoRA replaces that module.
    """

    def __init__(self, attention):
        self.attention = attention

    def __getattr__(self, name):
        return getattr(self.attention, name)

    def q_proj(self, x):
        return self.normed(self.attention.q_norm, self.attention.q_proj(x))

    def k_proj(self, x):
        return self.normed(self.attention.k_norm, self.attention.k_proj(x))

    def normed(self, norm, x):
        return norm(x.unflatten(-1, (-1, self.attention.head_dim))).flatten(-2)


class Shortcut(nn.Module):
    """d -> d/r -> GELU -> d"""

    def __init__(self, width, r):
        super().__init__()
        self.down = nn.Linear(width, max(1, width // r), bias=False)
        self.up = nn.Linear(max(1, width // r), width, bias=False)

    def forward(self, x):
        return self.up(nn.functional.gelu(self.down(x)))


class Series(nn.Module):
    """sum_i silu(a_i x + b_i), per channel"""

    def __init__(self, terms, width):
        super().__init__()
        self.terms = terms
        self.scale = nn.Parameter(torch.cat([torch.ones(width), torch.zeros((terms - 1) * width)]))
        self.shift = nn.Parameter(torch.zeros(terms * width))

    def forward(self, x):
        a, b = self.scale.view(self.terms, -1), self.shift.view(self.terms, -1)
        y = nn.functional.silu(a[0] * x + b[0])
        for i in range(1, self.terms):
            y = y + nn.functional.silu(a[i] * x + b[i])
        return y


class TinydataMLP(LlamaMLP):
    def __init__(self, config):
        super().__init__(config)
        self.series = Series(config.series, config.intermediate_size)

    def forward(self, x):
        return self.down_proj(self.series(self.gate_proj(x)) * self.up_proj(x))


class TinydataForCausalLM(LlamaForCausalLM):
    config_class = TinydataConfig

    def __init__(self, config):
        super().__init__(config)
        for i, layer in enumerate(self.model.layers):
            layer.self_attn = TinydataAttention(config, i)
            if config.series > 1:
                layer.mlp = TinydataMLP(config)
        self.post_init()
