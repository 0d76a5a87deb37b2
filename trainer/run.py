"""The training program: `python -m trainer.run --data SHARDS --preset NAME -o RUN`, or with torchrun.

torchrun --nproc-per-node 8 -m trainer.run --data shards --preset pi-1b-pro -o run

The steps are in trainer/training/loop.py. Importing torch takes seconds, so options are read first: --help and
mistakes are answered at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.errors import main
from trainer.training.config import RunConfig, parse

if TYPE_CHECKING:
    from trainer.model.transformer import ModelConfig


def program() -> int:
    options = parse()

    from trainer.training.loop import Training
    from trainer.training.parallel import world
    from trainer.training.resolve import model_config, open_data, resolve, sequences_of

    config, data = open_data(options)
    model = model_config(config, data.shards if data else None)
    if config.plan:
        print(plan(config, model))
        return 0
    assert data is not None
    with world(config.device, config.replicas) as w:
        sequences = sequences_of(config, data, model.seq_len)
        return Training(resolve(config, model, sequences, w.size), model, sequences, w).run()


def plan(config: RunConfig, model: ModelConfig) -> str:
    """The estimated cost of the run, as a table."""
    import torch

    from trainer.model import cost
    from trainer.training.resolve import resolve

    config = resolve(config, model, None, 1)
    name = torch.cuda.get_device_name() if config.device == "cuda" else "this CPU"
    return cost.table(
        model, seq_len=config.seq_len, micro_tokens=config.micro_batch * config.seq_len, world=1,
        device=config.device, name=name, bf16=config.precision == "bf16",
    )  # fmt: skip


if __name__ == "__main__":
    main(program)
