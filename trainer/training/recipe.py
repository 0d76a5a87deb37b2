"""The recipe of a run (recipe.json), the check that a resumed run has the same, and the line printed at the start."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from trainer.data.order import Sequences
from trainer.data.rounds import number
from trainer.errors import TrainerError
from trainer.model.cost import parameters
from trainer.model.transformer import ModelConfig
from trainer.training.config import RunConfig
from trainer.training.identity import of_model, of_recipe
from trainer.training.optim import LARGEST_BATCH

_DATA = {  # keys of the recipe's data that must not change -> what an error message calls them
    "fingerprint": "fingerprint of the shards",
    "sequences": "number of sequences",
    "held out": "number of held out sequences",
    "kept": "hash of the kept sequences",
    "inclusion": "hash of the kept sequences' probabilities",
}
# options that must not change when a run is resumed
FIXED = ("preset", "init", "kept", "seed", "mask_documents", "init_scheme", "unbias")


def recipe(config: RunConfig, model: ModelConfig, sequences: Sequences) -> dict[str, Any]:
    """Everything that determines the run's result, as JSON."""
    s = sequences.shards
    data = {"fingerprint": s.fingerprint, "tokens": s.tokens, "documents": s.manifest["totals"].get("documents")}
    data |= {"sequences": sequences.size, "held out": len(sequences.held_out), "directory": str(s.directory)}
    if sequences.kept is not None:
        data["kept"] = hashlib.sha256(sequences.kept.tobytes()).hexdigest()[:32]
    if sequences.inclusion is not None:
        data["inclusion"] = hashlib.sha256(sequences.inclusion.tobytes()).hexdigest()[:32]
    if number(config.data):
        data |= {"round": number(config.data), "round directory": config.data}
    tokenizer = dict(s.tokenizer)
    if not os.path.isabs(
        tokenizer.get("path", "")
    ):  # relative to where encode ran, which usually is the parent of the shards
        nearby = s.directory.parent / tokenizer.get("path", "")
        tokenizer["path"] = str(nearby if nearby.exists() else tokenizer.get("path", ""))
    out = {
        "model": dataclasses.asdict(model),
        "train": dataclasses.asdict(config),
        "data": data,
        "tokenizer": tokenizer,
        "init": {"path": config.init, **of_model(config.init)} if config.init else {},
        "torch": torch.__version__,
    }
    return {**out, "fingerprint": of_recipe(out)}


def check_resume(old: dict[str, Any], new: dict[str, Any], where: Path) -> list[str]:
    """Compares the recipes of a checkpoint and of this command; returns the allowed differences, as text.

    Raises TrainerError for a difference in model, order of the data, or tokenizer.
    """
    fatal = []
    for key, a in old["model"].items():
        if new["model"].get(key) != a:
            fatal.append(f"{key}: {a} -> {new['model'].get(key)}")
    if old["tokenizer"]["fingerprint"] != new["tokenizer"]["fingerprint"]:
        fatal.append(f"tokenizer: {tokenizer_text(old['tokenizer'])} -> {tokenizer_text(new['tokenizer'])}")
    for key, what in _DATA.items():
        if old["data"].get(key) != new["data"].get(key):
            fatal.append(f"{what}: {old['data'].get(key)} -> {new['data'].get(key)}")
    before = {**dataclasses.asdict(RunConfig()), **old["train"]}  # options that did not exist yet
    changed = [(k, before[k], v) for k, v in new["train"].items() if before[k] != v]
    fatal += [f"--{k.replace('_', '-')}: {a} -> {b}" for k, a, b in changed if k in FIXED]
    if fatal:
        raise TrainerError(
            "the checkpoint in this directory belongs to a different run: " + "; ".join(fatal),
            where=str(where),
            fix="use the same options and data as before, or choose another directory with -o",
        )
    quiet = ("out", "data", "base", "round", "plan", "resume", "track", "log_every", "keep", *FIXED)
    return [f"--{k.replace('_', '-')}: {a} -> {b}" for k, a, b in changed if k not in quiet]


def tokenizer_text(tokenizer: dict[str, Any]) -> str:
    return f"{tokenizer.get('path')} ({tokenizer['size']:,} ids, fingerprint {tokenizer['fingerprint']})"


def introduction(config: RunConfig, facts: dict[str, Any], step: int) -> str:
    """The lines printed before training: size of the model, number of steps and tokens, learning rate."""
    n, held_out = sum(parameters(ModelConfig(**facts["model"])).values()), facts["data"]["held out"]
    seen, available = config.steps * config.batch_tokens, facts["data"]["sequences"] * config.seq_len
    lines = [
        f"{n:,} parameters; {config.steps:,} steps of {config.batch_tokens:,} tokens: {seen:,} of {available:,} tokens "
        f"({seen / available:.2f} epochs), {held_out} held-out sequences; learning rate {config.lr:.3g}"
    ]
    if config.batch_tokens > LARGEST_BATCH:
        lines.append(
            f"warning: a batch of {config.batch_tokens:,} tokens is larger than 4 million; the PanGu-π Pro paper "
            "reports lower quality above that"
        )
    return "\n".join([*lines, *([f"resuming from step {step:,}"] if step else [])])
