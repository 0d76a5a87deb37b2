"""A training run from its first step or checkpoint to its last: step, log, validate, save."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from trainer.data.loader import Loader
from trainer.data.order import Sequences
from trainer.errors import REQUEUE, TrainerError
from trainer.model import cost
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig
from trainer.training.checkpoint import Checkpoints, begin_moments, latest, read_state, restore, weights_of, write_json
from trainer.training.config import RunConfig
from trainer.training.identity import of_recipe
from trainer.training.metrics import Meter, Metrics, described, memory_bytes
from trainer.training.optim import Guard, adamw, schedule
from trainer.training.parallel import World, agreed, fill, quiet_collector, sharded
from trainer.training.recipe import check_resume, introduction, recipe
from trainer.training.sequence_losses import SequenceLosses
from trainer.training.step import Stepper, StepResult, StopRequest, stop_signals
from trainer.training.validation import measured, piece_bytes


class Training:
    """A training run. Its complete state: weights, AdamW's moments, step, sample number, and the guard's window."""

    def __init__(self, config: RunConfig, shape: ModelConfig, sequences: Sequences, w: World):
        self.config, self.shape, self.sequences, self.w = config, shape, sequences, w
        self.out, self.recipe = Path(config.out), recipe(config, shape, sequences)
        with torch.device("meta"):
            model = Model(shape)
        self.model = sharded(model, w, bf16=config.precision == "bf16", compile=config.compile == "on")
        self.optimizer = adamw(self.model, config.lr, (config.beta1, config.beta2), config.weight_decay)
        begin_moments(self.optimizer)
        state = self._start()
        self.step, self.sample, self.guard = state["step"], state["sample"], Guard(**state["guard"])
        self.first_step = self.step
        self.metrics = None
        if w.first:
            print(introduction(config, self.recipe, self.step), file=sys.stderr)
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / "recipe.json", self.recipe)
            self.metrics = Metrics(self.out, config.track, self.recipe, self.step, config.steps)
        self.losses = SequenceLosses(self.out, w, self.step)
        self.checkpoints = Checkpoints(self.out, config.keep, w.first)
        peak = cost.peak_flops(torch.cuda.get_device_name(w.device)) if config.device == "cuda" else None
        self.meter = Meter(cost.flops_per_token(shape, shape.seq_len), peak and peak * w.size)

    def _start(self) -> dict[str, Any]:
        """Initializes model and optimizer: from the newest checkpoint, from --init, or at random.

        Returns the step, the sample number and the state of the guard.
        """
        checkpoint = agreed(self.w, latest(self.out) if self.w.first else None)
        if checkpoint is not None:
            return self._resume(checkpoint)
        if self.w.first and self.config.init:
            weights = weights_of(self.config.init)
        else:
            weights = random_weights(self.shape, self.config.seed, self.config.init_scheme)
        fill(self.model, self.w, weights)
        return {"step": 0, "sample": 0, "guard": {}}

    def _resume(self, checkpoint: Path) -> dict[str, Any]:
        if self.config.resume == "never":
            raise TrainerError(
                f"the directory already contains a run, with checkpoint {checkpoint.name}",
                where=str(self.out),
                fix="choose another directory with -o, or continue the run with --resume auto",
            )
        state = read_state(checkpoint)
        for line in check_resume(state, self.recipe, checkpoint):
            if self.w.first:
                print(f"note: an option changed since the checkpoint: {line}", file=sys.stderr)
        # as recorded: the model in --init may have changed or been deleted since
        self.recipe["init"] = state.get("init", {})
        self.recipe["fingerprint"] = of_recipe(self.recipe)
        restore(checkpoint, self.model, self.optimizer)
        return state

    @property
    def tokens(self) -> int:
        return self.sample * self.shape.seq_len

    def run(self) -> int:
        """Trains to the last step or a signal; returns the exit code."""
        if self.step == 0:
            self.validate()  # before training starts, so that an error in validation shows at once
        batches, stop = self._loader().batches(self.sample), False
        with closing(batches), stop_signals() as request, quiet_collector() as collect:
            stepper = self._stepper(request)
            self.meter.start(self.tokens)
            while self.step < self.config.steps and not stop:
                numbers, batch = next(batches)
                result = stepper.step(batch, self.lr(), by_row=self.config.log_sequence_loss)
                self.step, self.sample, stop = self.step + 1, self.sample + len(numbers), result.stop
                if result.rows is not None:
                    self.losses.add(self.step, numbers, result.rows)
                self.log(result, numbers.tolist())
                if self._due(self.config.validate_every):
                    self.validate()
                if self._due(self.config.save_every) or stop:
                    self.save()
                self.checkpoints.poll()
                collect(self.step)
                self._report_recompiling()
        return self.finish()

    def _loader(self) -> Loader:
        c = self.config
        return Loader(
            self.sequences, seed=c.seed, rows=c.batch_tokens // self.shape.seq_len, vocab=self.shape.vocab,
            rank=self.w.rank, ranks=self.w.size, documents=c.mask_documents, pin=c.device == "cuda",
        )  # fmt: skip

    def _stepper(self, request: StopRequest) -> Stepper:
        sizes = piece_bytes(self.sequences.shards.directory)
        return Stepper(
            self.model, self.optimizer, self.guard, self.w, micro_batch=self.config.micro_batch, clip=self.config.clip,
            piece_bytes=None if sizes is None else torch.from_numpy(sizes).to(self.w.device), stop=request,
        )  # fmt: skip

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _report_recompiling(self) -> None:
        """Once all graphs are compiled, which is after the first validation: torch reports the reason for any other."""
        if self.step == self.first_step + self.config.validate_every + 2 and self.config.compile == "on":
            torch._logging.set_logs(recompiles=True)

    def lr(self) -> float:
        c = self.config
        factor = schedule(c.schedule, self.step, c.steps, warmup=c.warmup, decay=c.decay, floor=c.floor)
        return c.lr * factor

    def log(self, result: StepResult, numbers: list[int]) -> None:
        self.meter.mark(self.tokens)
        if self.metrics:
            values = result.metrics() | {"tokens": self.tokens, **self.meter.rates()}
            values |= {"memory_bytes": memory_bytes(self.w.device)}
            if result.skipped:
                values["sequences"] = numbers
            self.metrics.log(self.step, values)
            if self._due(self.config.log_every) or result.skipped:
                self.metrics.show(self.step, described(values))
        if self.guard.skipped >= self.guard.PATIENCE:
            self.checkpoints.wait()
            raise TrainerError(
                f"{self.guard.skipped} consecutive steps were skipped; reason for the last one: {result.skipped}",
                where=f"step {self.step}; {self.out / 'metrics.jsonl'} lists the sequences of the skipped steps",
                fix="resume with a lower --lr, or start a new run without these sequences (--init, --kept)",
            )

    def validate(self) -> None:
        if not len(self.sequences.held_out):
            return
        values = measured(
            self.model, self.sequences, self.sequences.held_out, rows=self.config.micro_batch, device=self.w.device,
            vocab=self.shape.vocab, documents=self.config.mask_documents,
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
