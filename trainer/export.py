"""Converts a checkpoint to a Hugging Face directory: `python -m trainer.export RUN -o HFDIR`.

A standard architecture is used wherever one can represent the model (`trainer.huggingface.architecture`). A model
whose only addition is the series activation is folded into Llama, exactly: sum_i silu(a_i g + b_i) * u is one SwiGLU of
n times the width, with gate rows a_i W and biases b_i. That costs n times the FFN's weights and time;
--no-fold keeps them, and needs the code that is then copied next to the weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from trainer.errors import TrainerError, main
from trainer.evaluation import model_card as card
from trainer.huggingface import weights as hf
from trainer.huggingface.architecture import CUSTOM, architecture, config_json
from trainer.huggingface.tokenizer import Tokenizer
from trainer.model import cost
from trainer.model.transformer import Model, ModelConfig
from trainer.training.checkpoint import load_model, write_json
from trainer.training.origin import Origin, origin

_CODE = f"modeling_{CUSTOM}.py"


@dataclass(frozen=True)
class ExportConfig:
    """Converts a trained model to a Hugging Face directory."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Model to export: a training run (its newest checkpoint), one checkpoint, or a Hugging Face directory."""
    out: Annotated[str, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Directory to write; it must not exist yet."""
    fold: bool = True
    """Write a model whose only addition is the series activation as plain Llama with a feed-forward network n times as
    wide, where n is its number of terms. With --no-fold, it is written at its own size, with custom code."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Data type of the written weights."""
    tokenizer: str = ""
    """Directory or file of the tokenizer. If not given, the one that the run's shards were made with is used."""


def program() -> None:
    config = tyro.cli(ExportConfig, prog="python -m trainer.export")
    _refuse_existing(Path(config.out))
    model, facts = load_model(config.checkpoint)
    known = origin(config.checkpoint, facts, model.config.vocab, config.tokenizer)
    written = export_model(model, known, Path(config.out), getattr(torch, config.dtype), config.fold)
    print(summary(model.config, written, config))


def export_model(
    model: Model, known: Origin, out: Path, dtype: torch.dtype = torch.bfloat16, fold: bool = True
) -> ModelConfig:
    """Writes the directory, complete or not at all; returns the configuration that was written."""
    _refuse_existing(out)
    part = out.parent / f".{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)  # left by an export that was killed
    part.mkdir(parents=True)
    try:
        config, tensors = folded(model) if fold and can_fold(model.config) else (model.config, _weights(model))
        hf.save(part, config, tensors, dtype)
        special = {"bos_token_id": known.bos, "eos_token_id": known.eos}
        write_json(part / "config.json", config_json(config, dtype, special))
        write_json(part / "generation_config.json", {**special, "pad_token_id": known.pad, "do_sample": True})
        hf.save_code(part, config)
        if known.tokenizer is not None:
            _copy_tokenizer(known.tokenizer, part, config.seq_len)
        facts = card.published(known)
        write_json(part / "tinydata.json", facts)
        (part / "README.md").write_text(card.text(out.name, model.config, config, dtype, facts), encoding="utf-8")
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return config


def can_fold(c: ModelConfig) -> bool:
    """Whether folding gives a standard architecture: not with a shortcut, and not as Qwen3, whose FFN has no biases."""
    return c.series > 1 and architecture(_folded_config(c)) != CUSTOM


def _folded_config(c: ModelConfig) -> ModelConfig:
    return replace(c, series=1, ffn=c.ffn * c.series, mlp_bias=True)


def folded(model: Model) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """Series activation of n terms -> plain SiLU, biases, n times the FFN; products in float64."""
    c = model.config
    return _folded_config(c), ((n, t) for i in range(c.depth + 1) for n, t in _folded_part(model, i))


def _folded_part(model: Model, i: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of layer i, with its FFN folded; for i = depth, the tensors outside the layers."""
    n, here = model.config.series, f"layers.{i}."
    state = model.state_dict()
    if i == model.config.depth:
        yield from ((name, t) for name, t in state.items() if not name.startswith("layers."))
        return
    yield from ((name, t) for name, t in state.items() if name.startswith(here) and ".mlp." not in name)
    mlp = {name.removeprefix(here): t.double() for name, t in state.items() if name.startswith(f"{here}mlp.")}
    a, b = mlp["mlp.series.scale"], mlp["mlp.series.shift"]
    gate, up, down = (mlp[f"mlp.{x}_proj.weight"] for x in ("gate", "up", "down"))
    none = torch.zeros((), dtype=torch.float64)
    gate_bias, up_bias, down_bias = (mlp.get(f"mlp.{x}_proj.bias", none) for x in ("gate", "up", "down"))
    yield f"{here}mlp.gate_proj.weight", a.unsqueeze(1) * gate.repeat(n, 1)
    yield f"{here}mlp.gate_proj.bias", a * gate_bias.expand(len(gate)).repeat(n) + b
    yield f"{here}mlp.up_proj.weight", up.repeat(n, 1)
    yield f"{here}mlp.up_proj.bias", up_bias.expand(len(up)).repeat(n)
    yield f"{here}mlp.down_proj.weight", down.repeat(1, n)
    yield f"{here}mlp.down_proj.bias", down_bias.expand(len(down))


def _weights(model: Model) -> Iterator[tuple[str, Tensor]]:
    yield from model.state_dict().items()


def _copy_tokenizer(tokenizer: Tokenizer, out: Path, seq_len: int) -> None:
    """Copies the tokenizer's files, and writes the tokenizer_config.json that transformers needs if there is none."""
    for file in tokenizer.files:
        shutil.copyfile(file, out / file.name)
    if (out / "tokenizer_config.json").exists():
        return
    main_file = tokenizer.files[0].name
    kind = {".model": "LlamaTokenizer", ".json": "PreTrainedTokenizerFast"}.get(Path(main_file).suffix)
    config: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer" if main_file == "vocab.json" else kind}
    config |= {"model_max_length": seq_len, "clean_up_tokenization_spaces": False}
    for name, i in (("bos", tokenizer.bos), ("eos", tokenizer.eos), ("pad", tokenizer.pad)):
        if i is not None:
            config[f"{name}_token"] = tokenizer.pieces[i].decode()
    if kind == "LlamaTokenizer":  # its defaults are Llama 2's
        blank = tokenizer.pieces[tokenizer.encode("a")[0]].startswith(b" ")
        config |= {"add_bos_token": False, "add_eos_token": False, "add_prefix_space": blank, "legacy": False}
    write_json(out / "tokenizer_config.json", config)


def summary(trained: ModelConfig, written: ModelConfig, config: ExportConfig) -> str:
    count = sum(cost.parameters(written).values())
    lines = [f"{config.out}: {config_json(written, torch.float32)['architectures'][0]}, {count:,} parameters"]
    if written != trained:
        before = sum(cost.parameters(trained).values())
        lines.append(
            f"folded exactly into plain Llama: FFN {trained.ffn:,} -> {written.ffn:,}, {count - before:+,} parameters "
            f"({count / before - 1:+.1%}); --no-fold keeps the size but needs custom code"
        )
    if architecture(written) == CUSTOM:
        lines.append(
            "the model needs custom code: transformers loads it with trust_remote_code=True; llama.cpp and ONNX cannot"
        )
    return "\n".join(lines)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise TrainerError("the output directory already exists", where=str(out), fix="choose another -o, or delete it")


if __name__ == "__main__":
    main(program)
