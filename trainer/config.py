"""What a run is told: one flat set of flags, the preset's and tinydata.toml's values where nothing is said."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro

from trainer.checkpoint import about
from trainer.data import Sequences, Shards
from trainer.errors import TrainerError
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.identity import of_model, of_recipe
from trainer.initial import Scheme
from trainer.model import ModelConfig
from trainer.optim import LARGEST_BATCH, Schedule, scaled_lr
from trainer.plan import parameters
from trainer.presets import ffn_width, preset, reshaped
from trainer.rounds import Round, number, opened, read_kept

FILE = "tinydata.toml"  # table [train]: the flags below, with _ for -
Arg = tyro.conf.arg


@dataclass(frozen=True)
class Config:
    """Trains a language model on shards, from random weights or from --init. The same command again goes on."""

    data: str = ""
    """Shards, or a round of them, as `tinydata resample` writes. [tinydata.toml: what `tinydata encode` wrote]"""
    base: str = ""
    """The shards that a round is of. [where they were, or beside the round]"""
    out: Annotated[str, Arg(aliases=["-o"])] = ""
    """The run's directory: recipe, metrics, checkpoints. [run]"""
    round: int = 0
    """N fills what is not said: --data round-N --init run -o run-N; from the second on, --init run-(N-1)."""
    preset: str = "tiny-10m"
    """The model's shape by name."""
    init: str = ""
    """What to start from, shape and weights: a Hugging Face directory, such as trainer.inherit writes, a run, or one of
    its checkpoints."""
    kept: str = ""
    """A Parquet list of the sequences to train on (column `sequence`), of those in --data."""
    plan: bool = False
    """Print parameters, FLOPs, memory and speed, and stop."""

    width: int = 0
    """Of the residual stream. 0: the preset's; so with the next ones."""
    depth: int = 0
    """Layers."""
    expand: float = 0.0
    """Width of the feed-forward network / width, rounded up to a multiple of 256."""
    heads: int = 0
    """Attention heads."""
    kv_heads: int = 0
    """Key-value heads, fewer than heads for grouped queries."""
    vocab: int = 0
    """Ids, for --plan without data; with data, the tokenizer's."""
    tied: bool | None = None
    """Embedding and head are one matrix."""
    qk_norm: bool | None = None
    """RMSNorm of queries and keys."""
    series: int = 0
    """Terms of PanGu-π's series informed activation; 1: plain SiLU."""
    shortcut: int = -1
    """r of PanGu-π's augmented shortcut; 0: none. [-1: the preset's]"""
    init_scheme: Scheme = "constant"
    """Of random weights; the paper recommends constant."""

    steps: int = 0
    """Optimizer steps. 0: one epoch."""
    seq_len: int = 0
    """Tokens per sequence. 0: the preset's."""
    batch_tokens: int = 0
    """Tokens per step over all devices. 0: the preset's."""
    micro_batch: int = 0
    """Sequences per device at once. 0: as many as make 16,384 tokens."""
    lr: float = 0.0
    """Peak learning rate. 0: the preset's, times sqrt(batch / its batch), the paper's rule."""
    schedule: Schedule = "cosine"
    """After warm-up."""
    warmup: int = -1
    """Steps. -1: 3% of all, at most 2,000."""
    decay: float = 0.2
    """Share of the steps in which wsd falls."""
    floor: float = 0.1
    """Last learning rate / peak."""
    weight_decay: float = 0.1
    """Of matrices."""
    beta1: float = 0.9
    """AdamW's."""
    beta2: float = 0.95
    """AdamW's."""
    clip: float = 1.0
    """Largest gradient norm. 0: none."""
    seed: int = 0
    """Of weights and order."""
    mask_documents: bool = False
    """No document looks into another."""
    unbias: bool = False
    """Of a round: each kept sequence's loss counts 1 / its probability of being kept."""

    holdout: int = -1
    """Sequences of --data kept out of training, to validate on. -1: 0.5%, at most 512."""
    validate_every: int = 0
    """Steps. 0: a twentieth of all, or as many as keep it below a tenth of the time; also before the first, after the
    last."""
    log_every: int = 0
    """Steps between lines on the screen; metrics.jsonl has every step. 0: a thirtieth of all."""
    track: tuple[str, ...] = ()
    """tensorboard, wandb, trackio, besides metrics.jsonl."""
    log_sequence_loss: bool = False
    """Every sequence's loss at every step, into losses/*.parquet: `tinydata score --losses` reads it."""

    resume: Literal["auto", "never"] = "auto"
    """auto goes on from the newest checkpoint in -o, if there is one; never refuses a directory that has one."""
    save_every: int = 0
    """Steps between checkpoints. 0: a tenth of all; always after the last."""
    keep: int = 3
    """Newest checkpoints that stay. 0: all."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of products; weights, sums over ranks and AdamW are always fp32. auto: bf16 on a GPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of each layer. auto: on a GPU."""
    replicas: int = 1
    """Groups of devices that hold a whole copy of the weights each (HSDP)."""


# a resumed run that differs in these would not be the same run
FIXED = ("preset", "init", "kept", "seed", "mask_documents", "init_scheme", "unbias")


def parse(args: list[str] | None = None) -> Config:
    """Flags over tinydata.toml over defaults."""
    usual = _defaults()
    told = tyro.cli(Config, prog="python -m trainer.run", args=args, default=replace(usual, data="", init="", out=""))
    return _named_by_round(told, usual)


def _named_by_round(told: Config, usual: Config) -> Config:
    """What was not said of data, init and out: the usual, or of --round N that round, and the run before it."""
    names, run = {k: getattr(usual, k) for k in ("data", "init", "out")}, usual.out or "run"
    names["out"] = run
    if told.round > 0:
        before = run if told.round == 1 else f"{run}-{told.round - 1}"
        names = {"data": f"round-{told.round}", "init": before, "out": f"{run}-{told.round}"}
    return replace(told, **{k: getattr(told, k) or v for k, v in names.items()})


def _defaults() -> Config:
    if not os.path.exists(FILE):
        return Config()
    try:
        with open(FILE, "rb") as f:
            found = tomllib.load(f)
    except tomllib.TOMLDecodeError as e:
        raise TrainerError(f"not valid TOML: {e}", where=FILE, fix="mend the line") from None
    table = found.get("train", {})
    names = {f.name for f in dataclasses.fields(Config)}
    for name in table:
        if name not in names:
            raise TrainerError(
                f"training has no option {name!r}", where=f"{FILE}, table [train]", fix=", ".join(sorted(names))
            )
    table.setdefault("data", found.get("encode", {}).get("out", ""))
    if isinstance(table.get("track"), list):
        table["track"] = tuple(table["track"])
    return Config(**table)


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
            f"the model has the tokenizer {_named(mine)}, the shards were made by {_named(shards.tokenizer)}",
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
        fatal.append(f"tokenizer: {_named(old['tokenizer'])} -> {_named(new['tokenizer'])}")
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


def _named(tokenizer: dict[str, Any]) -> str:
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
