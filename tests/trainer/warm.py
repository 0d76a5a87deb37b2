"""Imported by the process that tests fork from: what torch loads in its first step is loaded once, not in each test."""

import torch._dynamo
import torch.distributed.checkpoint.state_dict

import trainer.evaluate
import trainer.export
import trainer.inherit
import trainer.training.loop
import trainer.training.resolve  # noqa: F401
from trainer.model.transformer import Model, ModelConfig
from trainer.training.optim import adamw

torch.set_num_threads(1)
config = ModelConfig(vocab=64, width=16, depth=1, heads=2, kv_heads=2, head_dim=8, ffn=16, seq_len=8)
with torch.device("meta"):
    Model(config)
model = Model(config)
optimizer = adamw(model, 1e-3, (0.9, 0.95), 0.1)
tokens = torch.zeros(1, 8, dtype=torch.int64)
model(tokens, tokens)[0].backward()
optimizer.step()
