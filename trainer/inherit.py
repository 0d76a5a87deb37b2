"""Initializes a small model from a large one: `python -m trainer.inherit SOURCE TARGET -o init/`.

The modules of trainer/inheritance choose the layers (layers) and the units of each axis (importance, learned_mask),
cut the tensors (selection), correct their scale (rescale), and report what was done (report).

Memory: l1, l2, uniform and random hold one tensor of the source at a time; activation, bi, lstsq and the losses one
layer; taylor and mask the whole source. The paper's inheritance:
arXiv 2402.02791, table 5.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from trainer.data.order import Sequences
from trainer.data.shards import Shards
from trainer.errors import TrainerError, main
from trainer.huggingface import weights as hf
from trainer.huggingface.architecture import config_json
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.inheritance import importance
from trainer.inheritance import learned_mask as masks
from trainer.inheritance.layers import choose_layers
from trainer.inheritance.report import Report, quantiles
from trainer.inheritance.rescale import Rescale, corrected
from trainer.inheritance.selection import Scores, choose, sliced
from trainer.inheritance.source import Source, source_loss
from trainer.inheritance.target import shaped
from trainer.model.head_loss import IGNORE
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig
from trainer.training.checkpoint import write_json
from trainer.training.identity import of_model

Arg = tyro.conf.arg
Method = Literal["l1", "l2", "taylor", "activation", "mask", "uniform", "random"]


@dataclass(frozen=True)
class InheritConfig:
    """Cuts a small model out of a large one, as initial weights for training."""

    source: tyro.conf.Positional[str]
    """Hugging Face directory of the large model.
    Its architecture must be Llama, Mistral, Qwen2, Qwen3 or InternLM2, or it must be an output of trainer.export."""
    target: tyro.conf.Positional[str]
    """Shape of the small model: the name of a preset (see trainer.run), a config.json, or a directory with one."""
    out: Annotated[str, Arg(aliases=["-o"])]
    """Directory to write; it must not exist yet."""
    method: Method = "l2"
    """How to decide which neurons, heads and hidden dimensions to keep; taylor, activation and mask need --data."""
    layers: str = "ends"
    """Which layers to keep.
    The choice `ends` keeps the first and last layers and thins the middle evenly, `uniform` spaces layers evenly.
    The choice `bi` keeps those with the highest block influence (needs --data), or give numbers such as 0,1,5."""
    rescale: Rescale = "std"
    """How to correct sums that have fewer terms after the cut.
    The choice std preserves their variance, lstsq fits the output projections on --data, none changes nothing."""
    data: str = ""
    """Directory of shards encoded with the target's vocabulary, used for calibration and for measuring losses."""
    vocab: str = ""
    """Directory written by `tinydata compact`. Embedding and head are reduced to its vocabulary."""
    tie: Literal["", "embedding", "head", "mean"] = ""
    """Share one matrix between embedding and head. If the source has two, this says which of them it is taken from."""
    untie: bool = False
    """Keep embedding and head as separate matrices. If the source shares one matrix, both start as a copy of it."""

    depth: int = 0
    """Number of layers. 0 means the target's."""
    width: int = 0
    """Width of the residual stream (hidden size). 0 means the target's."""
    expand: float = 0.0
    """Width of the feed-forward network divided by --width. 0 means the target's ratio."""
    heads: int = 0
    """Number of attention heads. 0 means the target's."""
    kv_heads: int = 0
    """Number of key-value heads. 0 means the target's."""
    series: int = 0
    """Number of terms of PanGu-π's series activation. Terms that the source lacks start without effect.
    0 means the target's."""
    shortcut: int = -1
    """Reduction factor r of PanGu-π's augmented shortcut. If the source has none, it starts without effect.
    0 means no shortcut, -1 means the target's."""

    samples: int = 64
    """Number of sequences to calibrate on. As many other sequences are used to measure losses."""
    seq_len: int = 0
    """Number of tokens per calibration sequence. 0 means the source's sequence length, at most 512."""
    mask_steps: int = 300
    """Number of optimizer steps in which --method mask learns the mask."""
    seed: int = 0
    """Seed of random choices, of the mask, and of weights that the source does not have."""
    dtype: Literal["source", "float32", "bfloat16"] = "source"
    """Data type of the written weights; source means the same as in the source."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device for forward passes; auto means a GPU if one is available, otherwise the CPU."""


@dataclass(frozen=True)
class Calibration:
    """Sequences to fit on and sequences to measure losses on, alternating in the data; int64 [n, T]."""

    fit: Tensor
    fit_targets: Tensor
    held_out: Tensor
    held_out_targets: Tensor


def program() -> None:
    config = tyro.cli(InheritConfig, prog="python -m trainer.inherit")
    print(inherit(config).text())


def inherit(config: InheritConfig) -> Report:
    """Writes the directory, whole or not at all. Raises TrainerError before anything large is read."""
    started, out = time.monotonic(), Path(config.out)
    if out.exists():
        raise TrainerError("the output directory already exists", where=str(out), fix="choose another -o, or delete it")
    source = Source.open(config.source, config.vocab)
    target = target_of(config, source)
    data = calibration(config, source)
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    layers = choose_layers(config.layers, target.depth, source, data.fit if data else None, device)
    scores = scored(config, source, target, layers, data, device)
    selection = choose(scores, layers, source.config, target)
    corrections = corrected(source, selection, data.fit if data else None, config.rescale, device)
    tensors = sliced(source, target, selection, corrections, tie=config.tie, seed=config.seed)
    part = out.parent / f".{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)  # left by a run that was killed
    try:
        written = source.read("norm.weight").dtype if config.dtype == "source" else getattr(torch, config.dtype)
        hf.save(part, target, tensors, written)
        special = special_ids(config, source)
        write_json(part / "config.json", config_json(target, written, special))
        hf.save_code(part, target)
        copy_tokenizer(config.vocab or config.source, part)
        report = Report(
            settings=asdict(config),
            inputs=inputs(config),
            source=asdict(source.config),
            target=asdict(target),
            selection=selection,
            quantiles=quantiles(scores, selection),
            norms=corrections.norms,
            losses=losses(source, part, target, data, config.seed, device) if data else {},
            tied=how_tied(config, source.config, target),
            vocabulary=source.rows.coverage() if source.rows else {},
            seconds=time.monotonic() - started,
        )
        write_json(part / "inherit.json", report.json())
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return report


def target_of(config: InheritConfig, source: Source) -> ModelConfig:
    if config.tie and config.untie:
        raise TrainerError("--tie and --untie cannot be combined", fix="remove one of them")
    shape = {k: getattr(config, k) for k in ("width", "depth", "expand", "heads", "kv_heads")}
    tied = True if config.tie else False if config.untie else None
    target = shaped(
        config.target, source.config, shape=shape, series=config.series, shortcut=config.shortcut, tied=tied
    )
    if target.tied and not source.config.tied and not config.tie:
        raise TrainerError(
            "the target shares one matrix between embedding and head, but the source has two",
            where=config.source,
            fix="choose its rows with --tie embedding, --tie head or --tie mean, or keep two matrices with --untie",
        )
    return target


def calibration(config: InheritConfig, source: Source) -> Calibration | None:
    """Sequences spread evenly over --data; every other one is not used for fitting."""
    asks = [f"--method {config.method}"] * (config.method in importance.FORWARD)
    asks += ["--layers bi"] * (config.layers == "bi") + ["--rescale lstsq"] * (config.rescale == "lstsq")
    if not config.data:
        if asks:
            raise TrainerError(f"{asks[0]} needs data", fix="pass --data SHARDS, written by `tinydata encode`")
        return None
    shards = Shards.open(config.data)
    check_tokenizer(config, source, shards)
    T = config.seq_len or min(source.config.seq_len, 512)
    sequences = Sequences(shards, T, 0)
    n = min(2 * config.samples, sequences.total) // 2 * 2
    batch = sequences.read(
        torch.arange(n).mul(sequences.total).div(n, rounding_mode="floor").numpy(), source.config.vocab
    )
    return Calibration(batch.tokens[::2], batch.targets[::2], batch.tokens[1::2], batch.targets[1::2])


def check_tokenizer(config: InheritConfig, source: Source, shards: Shards) -> None:
    """Raises TrainerError if the data are not encoded with the target's vocabulary."""
    data, where = shards.tokenizer, config.vocab or config.source
    try:
        own = read_tokenizer(where)
    except TrainerError:
        own = None
    name = f"{own.family}, {own.size:,} ids, {own.fingerprint}" if own else f"{source.config.vocab:,} ids"
    if (own and own.fingerprint != data["fingerprint"]) or (not own and shards.vocab > source.config.vocab):
        raise TrainerError(
            f"the data have a different vocabulary: {data['family']}, {data['size']:,} ids, {data['fingerprint']}",
            where=f"{where} ({name})",
            fix="encode the data with the target's tokenizer: the one in --vocab if given, otherwise the source's",
        )


# -- scores -----------------------------------------------------------------------------------


def scored(
    config: InheritConfig, source: Source, target: ModelConfig, layers: list[int], data: Calibration | None, device: str
) -> Scores:
    method = config.method
    if method in ("l1", "l2"):
        return importance.weight_norms(source, layers, int(method[1]))
    if method == "uniform":
        return importance.uniform(source.config, target, len(layers))
    if method == "random":
        return importance.random(source.config, len(layers), config.seed)
    assert data is not None
    if method == "activation":
        return importance.activations(source, layers, data.fit, device)
    if method == "taylor":
        whole = masks.taylor(source.model(list(range(source.config.depth)), device), data.fit, data.fit_targets, device)
        return Scores(whole.hidden, [whole.layers[i] for i in layers])
    return masks.mask_scores(
        source, target, layers, data.fit, data.fit_targets, steps=config.mask_steps, seed=config.seed, device=device
    )


# -- around the weights -----------------------------------------------------------------------


def losses(
    source: Source, written: Path, target: ModelConfig, data: Calibration, seed: int, device: str
) -> dict[str, float]:
    """Nats per token on the held-out sequences: of the source, the cut model, and random weights of the same shape."""
    print("measuring losses", file=sys.stderr)
    with torch.device("meta"):
        random = Model(target)
    random.load_state_dict(dict(random_weights(target, seed)), assign=True)
    random.inv_freq = torch.empty(target.head_dim // 2)
    random.fill_buffers()
    return {
        "source": source_loss(source, data.held_out, data.held_out_targets, device),
        "inherited": model_loss(hf.load(written), data, device),
        "random": model_loss(random, data, device),
    }


@torch.no_grad()
def model_loss(model: Model, data: Calibration, device: str, rows: int = 8) -> float:
    model.to(device)
    total = 0.0
    for x, y in zip(data.held_out.split(rows), data.held_out_targets.split(rows), strict=True):
        loss, _, _ = model(x.to(device), y.to(device))
        total += float(loss)
    return total / int((data.held_out_targets != IGNORE).sum())


def inputs(config: InheritConfig) -> dict[str, dict[str, Any]]:
    """Fingerprints of the source and of the data, for the report."""
    data = {"data": {"data": Shards.open(config.data).fingerprint}} if config.data else {}
    return {"source": of_model(config.source), **data}


def how_tied(config: InheritConfig, source: ModelConfig, target: ModelConfig) -> str:
    if source.tied == target.tied:
        return (
            "embedding and head share one matrix, as in the source"
            if target.tied
            else "embedding and head are separate"
        )
    if target.tied:
        rows = {"embedding": "the source's embedding", "head": "the source's head", "mean": "the mean of both"}
        return f"tied: embedding and head share one matrix, which starts as {rows[config.tie]}"
    return "untied: embedding and head both start as a copy of the source's shared matrix"


def special_ids(config: InheritConfig, source: Source) -> dict[str, int | None]:
    """bos_token_id and eos_token_id of the source, by the target's ids; None if the token was removed."""
    original = json.loads((Path(config.source) / "config.json").read_text())
    out: dict[str, int | None] = {}
    for key in ("bos_token_id", "eos_token_id"):
        old = original.get(key)
        old = old[0] if isinstance(old, list) and old else old
        out[key] = source.rows.new(old) if source.rows and isinstance(old, int) else old
    return out


def copy_tokenizer(directory: str, out: Path) -> None:
    """Copies the tokenizer's files and writes tinydata.json, by which training detects data of another tokenizer."""
    try:
        tokenizer = read_tokenizer(directory)
    except TrainerError:
        print(f"warning: no tokenizer was found in {directory}, so none is copied", file=sys.stderr)
        return
    for file in tokenizer.files:
        shutil.copyfile(file, out / file.name)
    facts = {"family": tokenizer.family, "size": tokenizer.size, "fingerprint": tokenizer.fingerprint}
    write_json(out / "tinydata.json", {"tokenizer": facts})


if __name__ == "__main__":
    main(program)
