"""What a run is: the settings that must not change when it is resumed, and its first line."""

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
from trainer.training.config import Config
from trainer.training.identity import of_model, of_recipe
from trainer.training.optim import LARGEST_BATCH

# a resumed run that differs in these would not be the same run
FIXED = ("preset", "init", "kept", "seed", "mask_documents", "init_scheme", "unbias")


def recipe(config: Config, model: ModelConfig, sequences: Sequences) -> dict[str, Any]:
    """All that decides the run, as JSON."""
    s = sequences.shards
    data = {"fingerprint": s.fingerprint, "tokens": s.tokens, "documents": s.manifest["totals"].get("documents")}
    data |= {"sequences": sequences.size, "held out": len(sequences.held), "directory": str(s.directory)}
    if sequences.kept is not None:
        data["kept"] = hashlib.sha256(sequences.kept.tobytes()).hexdigest()[:32]
    if sequences.inclusion is not None:
        data["inclusion"] = hashlib.sha256(sequences.inclusion.tobytes()).hexdigest()[:32]
    if number(config.data):
        data |= {"round": number(config.data), "round directory": config.data}
    tokenizer = dict(s.tokenizer)
    if not os.path.isabs(tokenizer.get("path", "")):  # relative to where encode ran: as a rule, beside the shards
        beside = s.directory.parent / tokenizer.get("path", "")
        tokenizer["path"] = str(beside if beside.exists() else tokenizer.get("path", ""))
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
    """Recipes of a checkpoint and of this command -> differences that are allowed, as text.

    Raises TrainerError for those that would make it another run: model, order of the data, tokenizer.
    """
    fatal = []
    for key, a in old["model"].items():
        if new["model"].get(key) != a:
            fatal.append(f"{key}: {a} -> {new['model'].get(key)}")
    if old["tokenizer"]["fingerprint"] != new["tokenizer"]["fingerprint"]:
        fatal.append(f"tokenizer: {described_tokenizer(old['tokenizer'])} -> {described_tokenizer(new['tokenizer'])}")
    for key in ("fingerprint", "sequences", "held out", "kept", "inclusion"):
        if old["data"].get(key) != new["data"].get(key):
            fatal.append(f"data's {key}: {old['data'].get(key)} -> {new['data'].get(key)}")
    before = {**dataclasses.asdict(Config()), **old["train"]}  # options that were not there yet
    changed = [(k, before[k], v) for k, v in new["train"].items() if before[k] != v]
    fatal += [f"--{k.replace('_', '-')}: {a} -> {b}" for k, a, b in changed if k in FIXED]
    if fatal:
        raise TrainerError(
            "this is not the run that the checkpoint is of: " + "; ".join(fatal),
            where=str(where),
            fix="give the same options and data as before, or another -o",
        )
    quiet = ("out", "data", "base", "round", "plan", "resume", "track", "log_every", "keep", *FIXED)
    return [f"--{k.replace('_', '-')}: {a} -> {b}" for k, a, b in changed if k not in quiet]


def described_tokenizer(tokenizer: dict[str, Any]) -> str:
    return f"{tokenizer.get('path')} ({tokenizer['size']:,} ids, {tokenizer['fingerprint']})"


def introduction(config: Config, made: dict[str, Any], step: int) -> str:
    """What is about to happen, before it does."""
    n = sum(parameters(ModelConfig(**made["model"])).values())
    seen, there = config.steps * config.batch_tokens, made["data"]["sequences"] * config.seq_len
    lines = [
        f"{n:,} parameters; {config.steps:,} steps of {config.batch_tokens:,} tokens: {seen:,} of {there:,} "
        f"({seen / there:.2f} epochs), {made['data']['held out']} sequences held out; lr {config.lr:.3g}"
    ]
    if config.batch_tokens > LARGEST_BATCH:
        lines.append(f"warning: a batch of {config.batch_tokens:,} tokens; the paper finds that above 4M quality falls")
    return "\n".join([*lines, *([f"going on from step {step:,}"] if step else [])])
