"""Training, from top to bottom: `python -m trainer.run --data SHARDS --preset NAME -o RUN`, or under torchrun.

torchrun --nproc-per-node 8 -m trainer.run --data shards --preset pi-1b-pro -o run
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer import hf, plan
from trainer.checkpoint import Checkpoints, latest, read_state, restore, write_json
from trainer.config import (
    Config,
    check_resume,
    model_config,
    open_data,
    parse,
    recipe,
    sequences_of,
    settled,
    warnings,
)
from trainer.data import Batch, Sequences, steps
from trainer.errors import REQUEUE, TrainerError, main
from trainer.initial import random_weights
from trainer.metrics import Meter, Metrics, memory_bytes
from trainer.model import Model, ModelConfig
from trainer.optim import Guard, adamw, schedule
from trainer.parallel import World, agreed, fill, quiet_collector, sharded, total, world
from trainer.validation import measured


def program() -> int:
    config = parse()
    shards = open_data(config)
    model = model_config(config, shards)
    if config.plan:
        return show_plan(config, model)
    assert shards is not None
    with world(config.device, config.replicas) as w:
        sequences = sequences_of(config, shards, model.seq_len)
        return train(settled(config, model, sequences, w.size), model, sequences, w)


def train(config: Config, model_of: ModelConfig, sequences: Sequences, w: World) -> int:
    run, made = Path(config.out), recipe(config, model_of, sequences)
    with torch.device("meta"):
        model = Model(model_of)
    model = sharded(model, w, bf16=config.precision == "bf16", compile=config.compile == "on")
    optimizer = adamw(model, config.lr, (config.beta1, config.beta2), config.weight_decay)
    state = start(config, model_of, model, optimizer, made, w)
    step, sample, guard = state["step"], state["sample"], Guard(**state["guard"])
    if w.first:
        introduce(config, made, step)
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "recipe.json", made)
    metrics = Metrics(run, list(config.track), made, step, config.steps) if w.first else None
    checkpoints = Checkpoints(run, config.keep, w.first)
    peak = plan.peak_flops(torch.cuda.get_device_name(w.device)) if config.device == "cuda" else None
    meter = Meter(plan.flops_per_token(model_of, model_of.seq_len), peak and peak * w.size)

    def save() -> None:
        checkpoints.save(step, model, optimizer, {**made, **progress(step, sample, model_of, guard, w)})

    def validate() -> None:
        if not len(sequences.held):
            return
        values = measured(
            model, sequences, sequences.held, rows=config.micro_batch, device=w.device, vocab=model_of.vocab,
            documents=config.mask_documents,
        )  # fmt: skip
        if metrics:
            metrics.log(step, {"tokens": sample * model_of.seq_len, "validation": values})
            metrics.show(step, f"held out: {described(values)}")

    if step == 0:
        validate()  # before anything is paid for: a validation that cannot run says so now
    rows = config.batch_tokens // model_of.seq_len
    batches = steps(
        sequences, seed=config.seed, sample=sample, batch=rows, rank=w.rank, world=w.size,
        vocab=model_of.vocab, documents=config.mask_documents, pin=w.device.type == "cuda",
    )  # fmt: skip
    with stop_signals() as stopped, quiet_collector() as collect:
        meter.mark(sample * model_of.seq_len)
        while step < config.steps and not stopped.any:
            numbers, batch = next(batches)
            lr = config.lr * schedule(
                config.schedule, step, config.steps, warmup=config.warmup, decay=config.decay, floor=config.floor
            )
            values = take_step(model, optimizer, batch, lr, config, guard, w, stopped)
            step, sample = step + 1, sample + rows
            meter.mark(sample * model_of.seq_len)
            if metrics:
                values |= {"tokens": sample * model_of.seq_len, **meter.rates(), "memory_bytes": memory_bytes(w.device)}
                if "skipped" in values:
                    values["sequences"] = numbers.tolist()
                metrics.log(step, values)
                if step % config.log_every == 0 or step == config.steps or "skipped" in values:
                    metrics.show(step, described(values))
            if guard.skipped >= guard.PATIENCE:
                raise TrainerError(
                    f"{guard.skipped} steps in a row were skipped; the last: {values['skipped']}",
                    where=f"step {step}, {run / 'metrics.jsonl'} has the sequences",
                    fix="lower --lr, or go on from the last checkpoint without these data",
                )
            if step % config.validate_every == 0 or step == config.steps:
                validate()
            if step % config.save_every == 0 or step == config.steps or stopped.any:
                save()
            checkpoints.poll()
            collect(step)
    batches.close()
    checkpoints.wait()
    if metrics:
        metrics.close()
        print(f"{'stopped' if step < config.steps else 'done'} at step {step:,} of {config.steps:,}", file=sys.stderr)
    return REQUEUE if step < config.steps else 0


def take_step(
    model: Any, optimizer: torch.optim.Optimizer, batch: Batch, lr: float, config: Config, guard: Guard, w: World,
    stopped: Any,
) -> dict[str, Any]:  # fmt: skip
    """One optimizer step on this rank's rows: loss = sum of nll over all ranks / targets of all ranks."""
    (count,) = total(w, (batch.targets >= 0).sum())
    loss: Any = 0.0
    size, parts = config.micro_batch, len(batch.tokens) // config.micro_batch
    for k in range(parts):
        model.set_requires_gradient_sync(k == parts - 1)
        part = [None if x is None else x[k * size : (k + 1) * size].to(w.device, non_blocking=True) for x in batch]
        nll, _, _ = model(*part)
        (nll / max(count, 1.0)).backward()
        loss = loss + nll.detach()
    norm: Any = nn.utils.clip_grad_norm_(model.parameters(), config.clip or float("inf"))
    loss, stop = total(w, loss, float(stopped.any))
    loss, norm = loss / max(count, 1.0), float(norm.full_tensor())
    stopped.any = stop > 0  # one rank was told: all stop after this step
    why = guard.reason(loss, norm)
    if not why:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss, "lr": lr, "grad_norm": norm, "targets": int(count)} | ({"skipped": why} if why else {})


def start(
    config: Config, model_of: ModelConfig, model: Model, optimizer: torch.optim.Optimizer,
    made: dict[str, Any], w: World,
) -> dict[str, Any]:  # fmt: skip
    """Fills model and optimizer: from the newest checkpoint, from --init, or at random. Returns where the run is."""
    found = agreed(w, latest(Path(config.out)) if w.first else None)
    if found is not None:
        if config.resume == "never":
            raise TrainerError(
                f"there is a run already, at {found.name}",
                where=config.out,
                fix="another -o, or without --resume never",
            )
        state = read_state(found)
        for line in check_resume(state, made, found):
            if w.first:
                print(f"changed since the checkpoint: {line}", file=sys.stderr)
        restore(found, model, optimizer)
        return state
    if w.first and config.init:
        weights = hf.Weights.open(config.init).items()
    else:
        weights = random_weights(model_of, config.seed, config.init_scheme)
    fill(model, w, weights)
    return {"step": 0, "sample": 0, "guard": {}}


def progress(step: int, sample: int, model_of: ModelConfig, guard: Guard, w: World) -> dict[str, Any]:
    at = {"step": step, "sample": sample, "tokens": sample * model_of.seq_len, "guard": guard.state()}
    return at | {"world": w.size, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


class Stopped:
    any = False


@contextmanager
def stop_signals() -> Iterator[Stopped]:
    """SIGTERM, SIGUSR1 (Slurm's warning) and Ctrl-C finish the step and save; a second Ctrl-C stops at once."""
    stopped = Stopped()

    def heard(number: int, frame: Any) -> None:
        stopped.any = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    old = {s: signal.signal(s, heard) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def introduce(config: Config, made: dict[str, Any], step: int) -> None:
    n = sum(plan.parameters(ModelConfig(**made["model"])).values())
    seen, there = config.steps * config.batch_tokens, made["data"]["sequences"] * config.seq_len
    print(
        f"{n:,} parameters; {config.steps:,} steps of {config.batch_tokens:,} tokens: {seen:,} of {there:,} "
        f"({seen / there:.2f} epochs), {made['data']['held out']} sequences held out; lr {config.lr:.3g}",
        *(f"warning: {x}" for x in warnings(config)),
        *([f"going on from step {step:,}"] if step else []),
        sep="\n",
        file=sys.stderr,
    )


def described(values: dict[str, Any]) -> str:
    shown = {"loss": "loss {:.4f}", "bits_per_byte": "{:.4f} bits/byte", "grad_norm": "norm {:.2f}", "lr": "lr {:.2e}"}
    shown |= {"tokens_per_s": "{:,.0f} tokens/s", "mfu": "MFU {:.1%}", "skipped": "SKIPPED: {}"}
    return "  ".join(form.format(values[k]) for k, form in shown.items() if values.get(k) is not None)


def show_plan(config: Config, model: ModelConfig) -> int:
    config = settled(config, model, None, max(1, config.replicas))
    name = torch.cuda.get_device_name() if config.device == "cuda" else "this CPU"
    micro = config.micro_batch * config.seq_len
    bf16 = config.precision == "bf16"
    print(
        plan.table(
            model, seq_len=config.seq_len, micro_tokens=micro, world=1, device=config.device, name=name, bf16=bf16
        )
    )
    return 0


if __name__ == "__main__":
    main(program)
