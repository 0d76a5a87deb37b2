"""Combines options, presets and the files on disk into the model, the data and the complete settings of a run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trainer.data.order import Sequences
from trainer.data.rounds import Round, opened, read_kept
from trainer.data.shards import Shards
from trainer.errors import TrainerError
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.model.presets import ffn_width, preset, reshaped
from trainer.model.transformer import ModelConfig
from trainer.training.checkpoint import about
from trainer.training.config import RunConfig
from trainer.training.optim import scaled_lr
from trainer.training.recipe import tokenizer_text


def check_tokenizer(init: str, facts: dict[str, Any], shards: Shards) -> None:
    """Raises TrainerError if the tokenizer of --init is known and is not the one that the shards were encoded with."""
    if _is_run(init):
        known = facts["tokenizer"]
    else:
        try:
            found = read_tokenizer(init)
        except TrainerError:
            return  # no tokenizer in the directory of the weights: only the vocabulary size can be checked
        known = {"path": init, "size": found.size, "fingerprint": found.fingerprint}
    if known["fingerprint"] != shards.tokenizer["fingerprint"]:
        raise TrainerError(
            f"the model uses the tokenizer {tokenizer_text(known)},"
            f" but the shards were encoded with {tokenizer_text(shards.tokenizer)}",
            where=str(shards.directory),
            fix=f"run `tinydata encode CORPUS --vocab {init}`, or convert the model with trainer.inherit --vocab",
        )


def _is_run(init: str) -> bool:
    """True for a run or one of its checkpoints, false for a Hugging Face directory."""
    return not (Path(init) / "config.json").exists()


def model_config(config: RunConfig, shards: Shards | None) -> ModelConfig:
    """The shape of the preset or of --init's model, changed by the options; the vocabulary is that of the data."""
    changes: dict[str, Any] = {"width": config.width, "depth": config.depth, "expand": config.expand}
    changes |= {"heads": config.heads, "kv_heads": config.kv_heads}
    switches: dict[str, Any] = {"tied": config.tied, "qk_norm": config.qk_norm}
    switches |= {"series": config.series or None, "shortcut": None if config.shortcut < 0 else config.shortcut}
    given = {k: v for k, v in switches.items() if v is not None}
    if config.init:
        model, facts = about(config.init)
        _check_shape(model, changes, given)
        if shards:
            _check_vocabulary(config.init, model, facts, shards)
        longest = model.seq_len if _is_run(config.init) else min(model.seq_len, 2048)
        return replace(model, seq_len=config.seq_len or longest)
    model = reshaped(preset(config.preset).model, **changes)
    vocab = shards.vocab if shards else config.vocab or model.vocab
    return replace(model, vocab=vocab, seq_len=config.seq_len or model.seq_len, **given)


def _check_shape(model: ModelConfig, changes: dict[str, Any], switches: dict[str, Any]) -> None:
    """Raises TrainerError if an option contradicts the shape of --init's model.

    Options that agree with it are allowed: tinydata.toml may set them for all rounds.
    """
    expand = changes.pop("expand")
    wrong = [k for k, v in (changes | switches).items() if v not in (0, getattr(model, k))]
    wrong += ["expand"] if expand and ffn_width(model.width, expand) != model.ffn else []
    if wrong:
        names = ", ".join(f"--{k.replace('_', '-')}" for k in wrong)
        raise TrainerError(
            f"{names} cannot change the shape of the existing model in --init",
            fix="remove the option, or change the shape with `python -m trainer.inherit`",
        )


def _check_vocabulary(init: str, model: ModelConfig, facts: dict[str, Any], shards: Shards) -> None:
    check_tokenizer(init, facts, shards)
    if shards.vocab > model.vocab:
        raise TrainerError(
            f"the tokenizer of the shards has {shards.vocab:,} ids, but the model in --init has only {model.vocab:,}",
            where=init,
            fix="encode the data with the model's tokenizer, or convert the model with trainer.inherit and its --vocab",
        )


def resolve(config: RunConfig, model: ModelConfig, sequences: Sequences | None, world: int) -> RunConfig:
    """Replaces every 0 and -1 by the value it stands for. Raises TrainerError for contradictory options."""
    base = preset(config.preset)
    T = model.seq_len
    batch = config.batch_tokens or base.batch_tokens
    micro = config.micro_batch or max(1, min(16_384, batch // world) // T)
    rows = batch // T
    if not rows or batch % T or rows % (micro * world):
        near = max(1, round(rows / (micro * world))) * micro * world * T
        raise TrainerError(
            f"a batch of {batch:,} tokens is not a multiple of {world} devices x {micro} sequences x {T:,} tokens",
            fix=f"use --batch-tokens {near}, or another --micro-batch",
        )
    steps = config.steps or (sequences.size // rows if sequences else 0)
    if sequences and not steps:
        raise TrainerError(
            f"the data has only {sequences.size} sequences, fewer than one batch of {rows}",
            fix="use a smaller --batch-tokens, or set --steps",
        )
    held_out = len(sequences.held_out) * T if sequences else 0  # tokens; validating one costs a third of training on it
    cuda = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    return replace(
        config,
        seq_len=T,
        batch_tokens=batch,
        micro_batch=micro,
        steps=steps,
        lr=config.lr or scaled_lr(base.lr, batch, base.batch_tokens),
        warmup=config.warmup if config.warmup >= 0 else min(2000, max(1, round(0.03 * steps))),
        validate_every=config.validate_every or max(1, steps // 20, math.ceil(10 / 3 * held_out / batch)),
        save_every=config.save_every or max(1, steps // 10),
        log_every=config.log_every or max(1, steps // 30),
        device="cuda" if cuda else "cpu",
        precision=config.precision if config.precision != "auto" else ("bf16" if cuda else "fp32"),
        compile=config.compile if config.compile != "auto" else ("on" if cuda else "off"),
    )


class Data(NamedTuple):
    shards: Shards
    round: Round | None = None  # the selection of sequences to train on; None: all


def open_data(config: RunConfig) -> tuple[RunConfig, Data | None]:
    """Opens the data; returns the configuration with the sequence length and the holdout that the data prescribe."""
    if not config.data and config.plan:
        return config, None
    if not config.data:
        fix = "pass --data SHARDS, or run this where `tinydata init` and `tinydata encode` were run"
        raise TrainerError("no training data was given", fix=fix)
    data = Data(*opened(config.data, config.base))
    if data.round:
        if config.seq_len not in (0, data.round.seq_len):
            raise TrainerError(
                f"its sequences have {data.round.seq_len} tokens, so --seq-len {config.seq_len} is not possible",
                where=config.data,
                fix=f"use --seq-len {data.round.seq_len}, or score the shards again with --seq-len {config.seq_len}",
            )
        config = replace(config, seq_len=data.round.seq_len)
    return replace(config, holdout=_holdout(config, data.shards)), data


def _holdout(config: RunConfig, shards: Shards) -> int:
    """If --holdout is not given: that of --init's run on the same shards, whose held-out sequences are still unseen."""
    facts = about(config.init).facts if config.init and config.holdout < 0 else {}
    same = facts.get("data", {}).get("fingerprint") == shards.fingerprint
    return facts["train"]["holdout"] if same and "train" in facts else config.holdout


def sequences_of(config: RunConfig, data: Data, length: int) -> Sequences:
    total = max(0, (data.shards.tokens - 1) // length)
    kept = None
    if data.round and config.kept:
        fix = "remove --kept, or pass the shards instead of the round as --data"
        raise TrainerError("--kept cannot be combined with a round, which has its own list of sequences", fix=fix)
    if config.unbias and not data.round:
        fix = "pass as --data a round written by `tinydata resample` without --materialize"
        what = "--unbias needs the probability with which each sequence was kept, which is not recorded here"
        raise TrainerError(what, where=config.data, fix=fix)
    if data.round:
        kept = data.round.kept(total)
        chances = kept.inclusion
        if config.unbias and (chances is None or not ((chances > 0) & (chances <= 1)).all()):
            fix = "run `tinydata resample` again, or train without --unbias"
            raise TrainerError(
                "the round has probabilities outside (0, 1]", where=f"{config.data}, column inclusion", fix=fix
            )
    elif config.kept:
        kept = read_kept(config.kept, total)
    if kept is None:
        return Sequences(data.shards, length, config.holdout)
    return Sequences(data.shards, length, config.holdout, kept.numbers, kept.inclusion if config.unbias else None)
