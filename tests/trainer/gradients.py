"""A program of several ranks: one optimizer step's gradients through the trainer's own path -> a safetensors file.

Rank 0 writes `loss` and every parameter's whole gradient, before clipping can change it.
"""

from __future__ import annotations

import json
import sys

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainer.data.order import Batch
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig
from trainer.training.optim import Guard, adamw
from trainer.training.parallel import fill, sharded, world
from trainer.training.step import Stepper


def program() -> None:
    options = json.loads(sys.argv[1])
    given = load_file(options["batch"])
    config = ModelConfig(**options["model"])
    gradients: dict[str, torch.Tensor] = {}

    with world("cpu", options["replicas"]) as w:
        with torch.device("meta"):
            model = Model(config)
        model = sharded(model, w, bf16=options["bf16"], compile=options["compile"])
        fill(model, w, random_weights(config, 0))
        batch = Batch(given["tokens"][w.rank :: w.size], given["targets"][w.rank :: w.size], None)
        optimizer = adamw(model, 1e-3, (0.9, 0.95), 0.1)
        clip = nn.utils.clip_grad_norm_

        def kept(parameters, largest):
            for name, p in model.named_parameters():
                assert p.grad.dtype == torch.float32
                gradients[name] = p.grad.full_tensor().clone()
            return clip(model.parameters(), largest)

        nn.utils.clip_grad_norm_ = kept
        result = Stepper(model, optimizer, Guard(), w, options["micro"], clip=1.0).step(batch, 1e-3)
        if w.first:
            gradients["loss"] = torch.tensor(result.loss, dtype=torch.float64)
            gradients["norm"] = torch.tensor(result.grad_norm, dtype=torch.float64)
            save_file(gradients, options["out"])
