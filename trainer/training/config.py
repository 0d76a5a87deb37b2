"""What a run is told: one flat set of flags, the preset's and tinydata.toml's values where nothing is said."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro

from trainer.errors import TrainerError
from trainer.model.init import Scheme
from trainer.training.optim import Schedule

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
