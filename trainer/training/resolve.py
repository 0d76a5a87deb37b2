"""Settings, presets and what is on disk -> the model, the data and the order of a run."""

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
from trainer.training.config import Config
from trainer.training.optim import scaled_lr
from trainer.training.recipe import described_tokenizer


def check_tokenizer(init: str, facts: dict[str, Any], shards: Shards) -> None:
    """Where --init has a tokenizer, or is known to have been trained with one, it must be the shards'."""
    if _is_run(init):
        mine = facts["tokenizer"]
    else:
        try:
            there = read_tokenizer(init)
        except TrainerError:
            return  # weights alone; the number of ids is all that can be compared
        mine = {"path": init, "size": there.size, "fingerprint": there.fingerprint}
    if mine["fingerprint"] != shards.tokenizer["fingerprint"]:
        raise TrainerError(
            f"the model has the tokenizer {described_tokenizer(mine)},"
            f" the shards were made by {described_tokenizer(shards.tokenizer)}",
            where=str(shards.directory),
            fix=f"tinydata encode CORPUS --vocab {init}, or inherit with --vocab",
        )


def _is_run(init: str) -> bool:
    """Or a checkpoint, and no Hugging Face directory."""
    return not (Path(init) / "config.json").exists()


def model_config(config: Config, shards: Shards | None) -> ModelConfig:
    """The preset, or --init's model, with what the flags change; the vocabulary is the data's."""
    changes: dict[str, Any] = {"width": config.width, "depth": config.depth, "expand": config.expand}
    changes |= {"heads": config.heads, "kv_heads": config.kv_heads}
    switches: dict[str, Any] = {"tied": config.tied, "qk_norm": config.qk_norm}
    switches |= {"series": config.series or None, "shortcut": None if config.shortcut < 0 else config.shortcut}
    told = {k: v for k, v in switches.items() if v is not None}
    if config.init:
        model, facts = about(config.init)
        _check_shape(model, changes, told)
        if shards:
            _check_vocabulary(config.init, model, facts, shards)
        longest = model.seq_len if _is_run(config.init) else min(model.seq_len, 2048)
        return replace(model, seq_len=config.seq_len or longest)
    model = reshaped(preset(config.preset).model, **changes)
    vocab = shards.vocab if shards else config.vocab or model.vocab
    return replace(model, vocab=vocab, seq_len=config.seq_len or model.seq_len, **told)


def _check_shape(model: ModelConfig, changes: dict[str, Any], switches: dict[str, Any]) -> None:
    """What is said of the shape must be so: tinydata.toml may say it of the first round, and of all."""
    expand = changes.pop("expand")
    wrong = [k for k, v in (changes | switches).items() if v not in (0, getattr(model, k))]
    wrong += ["expand"] if expand and ffn_width(model.width, expand) != model.ffn else []
    if wrong:
        names = ", ".join(f"--{k.replace('_', '-')}" for k in wrong)
        raise TrainerError(
            f"{names} cannot change a model that is there", fix="shape it with `python -m trainer.inherit`"
        )


def _check_vocabulary(init: str, model: ModelConfig, facts: dict[str, Any], shards: Shards) -> None:
    check_tokenizer(init, facts, shards)
    if shards.vocab > model.vocab:
        raise TrainerError(
            f"the data's tokenizer has {shards.vocab:,} ids, the model of --init {model.vocab:,}",
            where=init,
            fix="the data was encoded with another tokenizer; inherit with --vocab, or encode anew",
        )


def settled(config: Config, model: ModelConfig, sequences: Sequences | None, world: int) -> Config:
    """Every 0 and -1 replaced by what it stands for. Raises TrainerError for what does not fit."""
    base = preset(config.preset)
    T = model.seq_len
    batch = config.batch_tokens or base.batch_tokens
    micro = config.micro_batch or max(1, min(16_384, batch // world) // T)
    rows = batch // T
    if not rows or batch % T or rows % (micro * world):
        near = max(1, round(rows / (micro * world))) * micro * world * T
        raise TrainerError(
            f"a batch of {batch:,} tokens is no multiple of {world} devices x {micro} sequences x {T:,} tokens",
            fix=f"--batch-tokens {near}, or another --micro-batch",
        )
    steps = config.steps or (sequences.size // rows if sequences else 0)
    if sequences and not steps:
        raise TrainerError(
            f"{sequences.size} sequences are less than one batch of {rows}", fix="a smaller --batch-tokens, or --steps"
        )
    held = len(sequences.held) * T if sequences else 0  # tokens; one costs a third of one that is trained on
    cuda = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    return replace(
        config,
        seq_len=T,
        batch_tokens=batch,
        micro_batch=micro,
        steps=steps,
        lr=config.lr or scaled_lr(base.lr, batch, base.batch_tokens),
        warmup=config.warmup if config.warmup >= 0 else min(2000, max(1, round(0.03 * steps))),
        validate_every=config.validate_every or max(1, steps // 20, math.ceil(10 / 3 * held / batch)),
        save_every=config.save_every or max(1, steps // 10),
        log_every=config.log_every or max(1, steps // 30),
        device="cuda" if cuda else "cpu",
        precision=config.precision if config.precision != "auto" else ("bf16" if cuda else "fp32"),
        compile=config.compile if config.compile != "auto" else ("on" if cuda else "off"),
    )


class Data(NamedTuple):
    shards: Shards
    round: Round | None = None  # what is trained on of them


def open_data(config: Config) -> tuple[Config, Data | None]:
    """-> the data, and the configuration with what a round decides: sequences are those that were scored."""
    if not config.data and config.plan:
        return config, None
    if not config.data:
        raise TrainerError("no data", fix="--data SHARDS, or run where `tinydata init` and `tinydata encode` were run")
    data = Data(*opened(config.data, config.base))
    if data.round:
        if config.seq_len not in (0, data.round.seq_len):
            raise TrainerError(
                f"a round of sequences of {data.round.seq_len:,} tokens cannot be read in others of {config.seq_len:,}",
                where=config.data,
                fix=f"--seq-len {data.round.seq_len}, or score again with --seq-len {config.seq_len}",
            )
        config = replace(config, seq_len=data.round.seq_len)
    return replace(config, holdout=_holdout(config, data.shards)), data


def _holdout(config: Config, shards: Shards) -> int:
    """What is not said stays as it was: what --init's run held out of the same shards has not been seen."""
    facts = about(config.init)[1] if config.init and config.holdout < 0 else {}
    same = facts.get("data", {}).get("fingerprint") == shards.fingerprint
    return facts["train"]["holdout"] if same and "train" in facts else config.holdout


def sequences_of(config: Config, data: Data, length: int) -> Sequences:
    total = max(0, (data.shards.tokens - 1) // length)
    kept, inclusion = None, None
    if data.round and config.kept:
        raise TrainerError("a round has its own list of kept sequences", fix="--kept, or a round as --data, not both")
    if config.unbias and not data.round:
        fix = "--data ROUND, made by `tinydata resample` without --materialize"
        raise TrainerError("nothing tells with which probability each sequence was kept", where=config.data, fix=fix)
    if data.round:
        kept, inclusion = data.round.kept(total)
        if config.unbias and not ((inclusion > 0) & (inclusion <= 1)).all():
            fix = "resample again, or train without --unbias"
            raise TrainerError("probabilities outside (0, 1]", where=f"{config.data}, column inclusion", fix=fix)
    elif config.kept:
        kept, _ = read_kept(config.kept, total)
    return Sequences(data.shards, length, config.holdout, kept, inclusion if config.unbias else None)
