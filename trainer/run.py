"""The training program, from start to finish: `python -m trainer.run --data SHARDS --preset NAME -o RUN`, or torchrun.

torchrun --nproc-per-node 8 -m trainer.run --data shards --preset pi-1b-pro -o run
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from trainer.data.loader import steps
from trainer.data.order import Sequences
from trainer.errors import REQUEUE, TrainerError, main
from trainer.model import cost as plan
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig
from trainer.training.checkpoint import Checkpoints, begin_moments, latest, read_state, restore, weights_of, write_json
from trainer.training.config import Config, parse
from trainer.training.identity import of_recipe
from trainer.training.metrics import Meter, Metrics, described, memory_bytes
from trainer.training.optim import Guard, adamw, schedule
from trainer.training.parallel import World, agreed, fill, quiet_collector, sharded, world
from trainer.training.recipe import check_resume, introduction, recipe
from trainer.training.resolve import model_config, open_data, resolve, sequences_of
from trainer.training.sequence_losses import SequenceLosses
from trainer.training.signals import stop_signals
from trainer.training.step import take_step
from trainer.training.validation import measured, piece_bytes


def program() -> int:
    config, data = open_data(parse())
    model = model_config(config, data.shards if data else None)
    if config.plan:
        return show_plan(config, model)
    assert data is not None
    with world(config.device, config.replicas) as w:
        sequences = sequences_of(config, data, model.seq_len)
        return Training(resolve(config, model, sequences, w.size), model, sequences, w).run()


class Training:
    """A training run. Its complete state: weights, AdamW's moments, step, sample number, and the guard's window."""

    def __init__(self, config: Config, model_of: ModelConfig, sequences: Sequences, w: World):
        self.config, self.model_of, self.sequences, self.w = config, model_of, sequences, w
        self.out, self.recipe = Path(config.out), recipe(config, model_of, sequences)
        with torch.device("meta"):
            model = Model(model_of)
        self.model = sharded(model, w, bf16=config.precision == "bf16", compile=config.compile == "on")
        self.optimizer = adamw(self.model, config.lr, (config.beta1, config.beta2), config.weight_decay)
        begin_moments(self.optimizer)
        state = self._start()
        self.step, self.sample, self.guard = state["step"], state["sample"], Guard(**state["guard"])
        self.metrics = None
        if w.first:
            print(introduction(config, self.recipe, self.step), file=sys.stderr)
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / "recipe.json", self.recipe)
            self.metrics = Metrics(self.out, config.track, self.recipe, self.step, config.steps)
        self.losses = SequenceLosses(self.out, w, self.step)
        self.checkpoints = Checkpoints(self.out, config.keep, w.first)
        peak = plan.peak_flops(torch.cuda.get_device_name(w.device)) if config.device == "cuda" else None
        self.meter = Meter(plan.flops_per_token(model_of, model_of.seq_len), peak and peak * w.size)

    def _start(self) -> dict[str, Any]:
        """Initializes model and optimizer: from the newest checkpoint, from --init, or at random.

        Returns the step, the sample number and the state of the guard.
        """
        found = agreed(self.w, latest(self.out) if self.w.first else None)
        if found is not None:
            if self.config.resume == "never":
                raise TrainerError(
                    f"the directory already contains a run, with checkpoint {found.name}",
                    where=str(self.out),
                    fix="choose another directory with -o, or continue the run with --resume auto",
                )
            state = read_state(found)
            for line in check_resume(state, self.recipe, found):
                if self.w.first:
                    print(f"note: an option changed since the checkpoint: {line}", file=sys.stderr)
            self.recipe["init"] = state.get(
                "init", {}
            )  # as recorded: the model in --init may have changed or been deleted since
            self.recipe["fingerprint"] = of_recipe(self.recipe)
            restore(found, self.model, self.optimizer)
            return state
        if self.w.first and self.config.init:
            weights = weights_of(self.config.init)
        else:
            weights = random_weights(self.model_of, self.config.seed, self.config.init_scheme)
        fill(self.model, self.w, weights)
        return {"step": 0, "sample": 0, "guard": {}}

    @property
    def tokens(self) -> int:
        return self.sample * self.model_of.seq_len

    def run(self) -> int:
        config, rows, first = self.config, self.config.batch_tokens // self.model_of.seq_len, self.step
        if self.step == 0:
            self.validate()  # before training starts, so that an error in validation shows at once
        sizes = piece_bytes(self.sequences.shards.directory)
        on_device = None if sizes is None else torch.from_numpy(sizes).to(self.w.device)
        batches = steps(
            self.sequences, seed=config.seed, sample=self.sample, batch=rows, rank=self.w.rank, world=self.w.size,
            vocab=self.model_of.vocab, documents=config.mask_documents, pin=config.device == "cuda",
        )  # fmt: skip
        with closing(batches), stop_signals() as stopped, quiet_collector() as collect:
            self.meter.start(self.tokens)
            while self.step < config.steps and not stopped.any:
                numbers, batch = next(batches)
                found: list[torch.Tensor] | None = [] if config.log_sequence_loss else None
                values = take_step(
                    self.model, self.optimizer, batch, self.lr(), config, self.guard, self.w, stopped, on_device, found
                )
                self.step, self.sample = self.step + 1, self.sample + rows
                if found is not None:
                    self.losses.add(self.step, numbers, torch.cat(found))
                self.log(values, numbers.tolist())
                last = self.step == config.steps or stopped.any
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    self.validate()
                if self.step % config.save_every == 0 or last:
                    self.save()
                self.checkpoints.poll()
                collect(self.step)
                if self.step == first + config.validate_every + 2 and config.compile == "on":
                    torch._logging.set_logs(
                        recompiles=True
                    )  # all graphs are compiled by now; report the reason for any other
        return self.finish()

    def lr(self) -> float:
        c = self.config
        factor = schedule(c.schedule, self.step, c.steps, warmup=c.warmup, decay=c.decay, floor=c.floor)
        return c.lr * factor

    def log(self, values: dict[str, Any], numbers: list[int]) -> None:
        self.meter.mark(self.tokens)
        if self.metrics:
            values |= {"tokens": self.tokens, **self.meter.rates(), "memory_bytes": memory_bytes(self.w.device)}
            if "skipped" in values:
                values["sequences"] = numbers
            self.metrics.log(self.step, values)
            if self.step % self.config.log_every == 0 or self.step == self.config.steps or "skipped" in values:
                self.metrics.show(self.step, described(values))
        if self.guard.skipped >= self.guard.PATIENCE:
            self.checkpoints.wait()
            raise TrainerError(
                f"{self.guard.skipped} consecutive steps were skipped; reason for the last one: {values['skipped']}",
                where=f"step {self.step}; {self.out / 'metrics.jsonl'} lists the sequences of the skipped steps",
                fix="resume with a lower --lr, or start a new run without these sequences (--init, --kept)",
            )

    def validate(self) -> None:
        if not len(self.sequences.held_out):
            return
        values = measured(
            self.model, self.sequences, self.sequences.held_out, rows=self.config.micro_batch, device=self.w.device,
            vocab=self.model_of.vocab, documents=self.config.mask_documents,
        )  # fmt: skip
        if self.metrics:
            self.metrics.log(self.step, {"tokens": self.tokens, "validation": values})
            self.metrics.show(self.step, f"held out: {described(values)}", stays=True)
        self.meter.start(self.tokens)

    def save(self) -> None:
        state = {"step": self.step, "sample": self.sample, "tokens": self.tokens, "guard": self.guard.state()}
        state |= {"world": self.w.size, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self.losses.save(self.step)
        self.checkpoints.save(self.step, self.model, self.optimizer, {**self.recipe, **state})
        self.meter.start(self.tokens)

    def finish(self) -> int:
        self.checkpoints.wait()
        whole = self.step >= self.config.steps
        if self.metrics:
            self.metrics.close()
            at = f"step {self.step:,} of {self.config.steps:,}"
            resume = "run the same command again to continue"
            print(f"done at {at}" if whole else f"stopped at {at}; {resume}", file=sys.stderr)
        return 0 if whole else REQUEUE


def show_plan(config: Config, model: ModelConfig) -> int:
    config = resolve(config, model, None, 1)
    name = torch.cuda.get_device_name() if config.device == "cuda" else "this CPU"
    text = plan.table(
        model, seq_len=config.seq_len, micro_tokens=config.micro_batch * config.seq_len, world=1,
        device=config.device, name=name, bf16=config.precision == "bf16",
    )  # fmt: skip
    print(text)
    return 0


if __name__ == "__main__":
    main(program)
