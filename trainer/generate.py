"""Generates text with a run or a Hugging Face directory: `python -m trainer.generate MODEL "Once upon a time"`.

For each new token the whole text goes through the model again. This is fast enough for short texts of small models,
and uses the same code as training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro

from trainer.errors import TrainerError, main
from trainer.model.transformer import Model
from trainer.training.checkpoint import load_model
from trainer.training.origin import origin


@dataclass(frozen=True)
class GenerateConfig:
    """Continues a text with a model and prints the result to standard output as it is generated."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Model to use: a training run (its newest checkpoint), one checkpoint, or a Hugging Face directory."""
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = ""
    """Text to continue. If it is empty, the model starts a new document."""
    tokens: int = 100
    """Maximum number of tokens to generate. The model may end the text earlier."""
    temperature: float = 0.8
    """Sampling temperature. 0 means that the most likely token is always chosen."""
    top_k: int = 0
    """Number of most likely tokens to sample from. 0 means all tokens."""
    seed: int = 0
    """Seed of the random sampling."""
    tokenizer: str = ""
    """Directory or file of the tokenizer. If not given, the model's own is used."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to compute on."""


def program() -> None:
    config = tyro.cli(GenerateConfig, prog="python -m trainer.generate")
    model, facts = load_model(config.model)
    known = origin(config.model, facts, model.config.vocab, config.tokenizer)
    if known.tokenizer is None:
        raise TrainerError("no tokenizer was found for this model", where=config.model, fix="pass --tokenizer DIR")
    begin = [] if known.bos is None else [known.bos]
    ids = begin + known.tokenizer.encode(config.prompt)
    if not ids:
        raise TrainerError(
            "the prompt is empty, and the tokenizer has no beginning-of-text token to start with", fix="pass a prompt"
        )
    new = continuation(
        model.to(config.device),
        ids,
        config.tokens,
        eos=known.eos,
        temperature=config.temperature,
        top_k=config.top_k,
        seed=config.seed,
    )
    for text in streamed(known.tokenizer.decode, ids[len(begin) :], new):
        print(text, end="", flush=True)
    print()


@torch.no_grad()
def continuation(
    model: Model,
    ids: list[int],
    tokens: int,
    *,
    eos: int | None = None,
    temperature: float = 0.8,
    top_k: int = 0,
    seed: int = 0,
) -> Iterator[int]:
    """Yields the ids that continue `ids`, until `eos`, which is not. The model sees at most the last seq_len tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = list(ids)
    for _ in range(tokens):
        seen = torch.tensor([ids[-model.config.seq_len :]], device=model.head().device)
        logits = (model.hidden(seen)[0, -1] @ model.head().T).float().cpu()
        if temperature == 0:
            new = int(logits.argmax())
        else:
            if top_k:
                logits[logits < logits.topk(min(top_k, len(logits))).values[-1]] = -torch.inf
            new = int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))
        if new == eos:
            return
        ids.append(new)
        yield new


def streamed(decode: Callable[[list[int]], str], start: list[int], new: Iterator[int]) -> Iterator[str]:
    """Yields the text piece by piece; a character is yielded once all its bytes are generated."""
    ids, shown = list(start), decode(start)
    yield shown
    for i in new:
        ids.append(i)
        text = decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(shown) :]
            shown = text
    yield decode(ids)[len(shown) :]


if __name__ == "__main__":
    main(program)
