"""PanGu-π's two parts on transformers' Llama: the code that travels inside an exported model.

Loaded with AutoModelForCausalLM.from_pretrained(DIRECTORY, trust_remote_code=True). Of the layers, only
what differs from Llama is here; caches, masks, sdpa, eager and generation are transformers' own.
"""

import torch
from torch import nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    ALL_ATTENTION_FUNCTIONS,
    LlamaAttention,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaRMSNorm,
    apply_rotary_pos_emb,
    eager_attention_forward,
)


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
    """Attention, and beside it the augmented shortcut: both see the normed residual."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        for proj in (self.q_proj, self.k_proj, self.v_proj):
            proj.register_parameter("bias", proj.bias if config.qkv_bias else None)
        self.o_proj.register_parameter("bias", self.o_proj.bias if config.out_bias else None)
        self.q_norm = LlamaRMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = LlamaRMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.shortcut = Shortcut(config.hidden_size, config.shortcut) if config.shortcut else None

    def forward(self, hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q = self.q_norm(self.q_proj(hidden_states).view(shape)).transpose(1, 2)
        k = self.k_norm(self.k_proj(hidden_states).view(shape)).transpose(1, 2)
        v = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        cache = kwargs.pop("past_key_value", None) if past_key_values is None else past_key_values  # before 4.56
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        how = self.config._attn_implementation
        attend = eager_attention_forward if how == "eager" else ALL_ATTENTION_FUNCTIONS[how]
        kwargs["dropout"] = self.attention_dropout if self.training else 0.0
        out, weights = attend(self, q, k, v, attention_mask, scaling=self.scaling, **kwargs)
        out = self.o_proj(out.reshape(*hidden_states.shape[:-1], -1))
        if self.shortcut is not None:
            out = out + self.shortcut(hidden_states)
        return out, weights


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
