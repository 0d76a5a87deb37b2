"""The options of trainer.run: from the command line, else from tinydata.toml, else the defaults. Needs no torch."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from trainer.errors import TrainerError

FILE = "tinydata.toml"  # table [train]: the flags below, with _ for -
PATHS = ("data", "base", "init", "kept", "out")  # in the file they are relative to it
Arg = tyro.conf.arg


@dataclass(frozen=True)
class RunConfig:
    """Trains a language model on shards, from random weights or from the model given by --init.
    Running the same command again resumes from the newest checkpoint.
    """

    data: str = ""
    """Directory of the shards to train on, or of a round written by `tinydata resample`.
    If not given, the output of `tinydata encode` named in tinydata.toml is used."""
    base: str = ""
    """Directory of the shards that the round in --data selects from, if they have moved.
    If not given, it is looked for at its original path, then next to the round."""
    out: Annotated[str, Arg(aliases=["-o"])] = ""
    """Directory of the run, for its recipe, metrics and checkpoints. If not given, it is `run`."""
    round: int = 0
    """Number of the round to train. N sets options that are not given: --data round-N, --init run and -o run-N.
    From round 2 on, --init is run-(N-1) instead. 0 means that no round is selected."""
    preset: str = "tiny-10m"
    """Name of the preset that sets the model's shape, its batch size and its learning rate."""
    init: str = ""
    """Model whose shape and weights to start from.
    A Hugging Face directory (such as the output of trainer.inherit), a training run, or one of its checkpoints."""
    kept: str = ""
    """Parquet file that lists which sequences of --data to train on, in a column `sequence`.
    If not given, all sequences are used except those held out for validation."""
    plan: bool = False
    """Print the number of parameters and the estimated FLOPs, memory and speed, then exit without training."""

    width: int = 0
    """Width of the residual stream (hidden size). 0 means the preset's."""
    depth: int = 0
    """Number of layers. 0 means the preset's."""
    expand: float = 0.0
    """Width of the feed-forward network divided by --width. The result is rounded up to a multiple of 256.
    0 means the preset's ratio."""
    heads: int = 0
    """Number of attention heads. 0 means the preset's, or, with --width, as many as keep the preset's head width."""
    kv_heads: int = 0
    """Number of key-value heads; fewer than --heads gives grouped-query attention.
    0 means the preset's number of heads per key-value head."""
    vocab: int = 0
    """Vocabulary size to assume for --plan without --data. With data, the size of its tokenizer is always used.
    0 means the preset's."""
    tied: bool | None = None
    """Whether embedding and output head share one matrix. None means as in the preset."""
    qk_norm: bool | None = None
    """Whether RMSNorm is applied to queries and keys. None means as in the preset."""
    series: int = 0
    """Number of terms of PanGu-π's series informed activation. 1 means plain SiLU, 0 means the preset's."""
    shortcut: int = -1
    """Reduction factor r of PanGu-π's augmented shortcut, whose inner width is the model width divided by r.
    0 means no shortcut, -1 means the preset's."""
    init_scheme: Literal["constant", "depth-scaled", "gpt2"] = "constant"
    """Standard deviation of random weights.
    The choice constant uses one value for all (recommended by the PanGu-π Pro paper).
    The others make output projections smaller: by the layer's number (depth-scaled), by the number of layers (gpt2)."""

    steps: int = 0
    """Number of optimizer steps. 0 means one epoch."""
    seq_len: int = 0
    """Number of tokens per sequence. 0 means the preset's."""
    batch_tokens: int = 0
    """Number of tokens per optimizer step, summed over all devices. 0 means the preset's."""
    micro_batch: int = 0
    """Number of sequences that each device processes at once.
    0 means as many as make up 16,384 tokens, or the device's share of the batch if that is smaller."""
    lr: float = 0.0
    """Peak learning rate. 0 means the preset's, multiplied by sqrt(--batch-tokens / the preset's batch)."""
    schedule: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup: int = -1
    """Number of steps in which the learning rate rises to its peak. -1 means 3% of all steps, at most 2,000."""
    decay: float = 0.2
    """Fraction of all steps, at the end, in which the learning rate falls with --schedule wsd."""
    floor: float = 0.1
    """Final learning rate as a fraction of the peak."""
    weight_decay: float = 0.1
    """Weight decay of AdamW. It applies to matrices only, not to norms or biases."""
    beta1: float = 0.9
    """Decay rate of AdamW's running mean of the gradient (beta1)."""
    beta2: float = 0.95
    """Decay rate of AdamW's running mean of the squared gradient (beta2)."""
    clip: float = 1.0
    """Gradient norm above which gradients are scaled down. 0 means no clipping."""
    seed: int = 0
    """Seed of the random weights and of the order of the data."""
    mask_documents: bool = False
    """Mask attention so that tokens attend only to tokens of the same document."""
    unbias: bool = False
    """Weight the loss of each sequence of a round by 1 / the probability with which it was kept."""

    holdout: int = -1
    """Number of sequences of --data that are excluded from training and used for validation.
    -1 means 0.5% of all, at most 512."""
    validate_every: int = 0
    """Number of steps between validations. There is always one before the first step and one after the last.
    0 means a twentieth of all steps, or more where validation would take over a tenth of the time."""
    log_every: int = 0
    """Number of steps between lines on the screen; metrics.jsonl gets every step. 0 means a thirtieth of all steps."""
    track: tuple[str, ...] = ()
    """Trackers that receive the metrics in addition to metrics.jsonl: tensorboard, wandb, trackio."""
    log_sequence_loss: bool = False
    """Record the loss of every sequence at every step in losses/*.parquet, for `tinydata score --losses`."""

    resume: Literal["auto", "never"] = "auto"
    """Whether to continue from the newest checkpoint in -o if there is one (auto), or to stop with an error (never)."""
    save_every: int = 0
    """Number of steps between checkpoints; the last step is always saved. 0 means a tenth of all steps."""
    keep: int = 3
    """Number of checkpoints to keep, newest first; older ones are deleted. 0 means all."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto means a GPU if one is available, otherwise the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products; weights, reductions over devices and AdamW always use fp32.
    The choice auto means bf16 on a GPU and fp32 on a CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to compile each layer with torch.compile; auto means only on a GPU."""
    replicas: int = 1
    """Number of full copies of the weights (HSDP), each sharded over an equal group of devices. 1 means plain FSDP."""


def parse(args: list[str] | None = None) -> RunConfig:
    """Options from the command line, else from tinydata.toml, else the defaults."""
    folder = _folder()
    usual = _defaults(folder)
    bare = replace(usual, data="", init="", out="")
    given = tyro.cli(RunConfig, prog="python -m trainer.run", args=args, default=bare)
    return _named_by_round(given, usual, folder)


def _named_by_round(given: RunConfig, usual: RunConfig, folder: str) -> RunConfig:
    """Fills in data, init and out where they are not given: from tinydata.toml, or, with --round N, by its rule."""
    names, run = {k: getattr(usual, k) for k in ("data", "init", "out")}, usual.out or _in(folder, "run")
    names["out"] = run
    if given.round > 0:
        before = run if given.round == 1 else f"{run}-{given.round - 1}"
        names = {"data": _in(folder, f"round-{given.round}"), "init": before, "out": f"{run}-{given.round}"}
    return replace(given, **{k: getattr(given, k) or v for k, v in names.items()})


def _folder() -> str:
    """This directory, or the nearest one above it that has a tinydata.toml, as a path from here."""
    here = Path.cwd()
    return next((os.path.relpath(d) for d in (here, *here.parents) if (d / FILE).is_file()), ".")


def _in(folder: str, path: str) -> str:
    """A path as it stands in a file of `folder` -> as it is reached from here."""
    path = os.path.expanduser(path)
    return path if folder == "." or not path or os.path.isabs(path) else os.path.normpath(os.path.join(folder, path))


def _defaults(folder: str) -> RunConfig:
    file = _in(folder, FILE)
    if not os.path.exists(file):
        return RunConfig()
    try:
        with open(file, "rb") as f:
            content = tomllib.load(f)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise TrainerError(f"the file is not valid TOML: {e}", where=file, fix="correct the line") from None
    table = content.get("train", {})
    names = {f.name for f in dataclasses.fields(RunConfig)}
    for name in table:
        if name not in names:
            raise TrainerError(
                f"{name!r} is not an option of trainer.run",
                where=f"{file}, table [train]",
                fix=f"use one of {', '.join(sorted(names))}",
            )
    table.setdefault("data", content.get("encode", {}).get("out", ""))
    table |= {name: _in(folder, table[name]) for name in PATHS if isinstance(table.get(name), str)}
    if isinstance(table.get("track"), list):
        table["track"] = tuple(table["track"])
    return RunConfig(**table)
