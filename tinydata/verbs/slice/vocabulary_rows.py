"""Model -> vocabulary size and the names of the tensors with one row per token id."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from tinydata.core.errors import TinydataError
from tinydata.verbs.slice.hf_config import sizes
from tinydata.verbs.slice.hf_model import Model
from tinydata.verbs.slice.safetensors import PLAIN, Tensor

# Modules whose weight and bias have a row per token id; their names may have a prefix.
_MODULES = (
    "embed_tokens",  # Llama, Qwen, Gemma, OPT, BART, T5
    "wte",  # GPT-2, GPT-J, Falcon's ancestors
    "embed_in",  # GPT-NeoX
    "embed_out",
    "shared",  # T5, BART
    "word_embeddings",  # BERT, BLOOM, ChatGLM
    "tok_embeddings",  # InternLM, ModernBERT
    "backbone.embeddings",  # Mamba
    "lm_head",
    "lm_head.decoder",  # RoBERTa
    "cls.predictions",
    "cls.predictions.decoder",
    "vocab_projector",  # DistilBERT
    "output_layer",  # ChatGLM
)
_WHOLE = ("output.weight", "language_model.output.weight", "final_logits_bias")  # InternLM2, BART
_PACKED = re.compile(r"(qweight|qzeros|scales|g_idx|SCB|weight[._].+|(input_)?scale.*|absmax|quant_.*)$")


class Options(NamedTuple):
    """Options of `slice` that affect the result."""

    rows: tuple[str, ...] = ()  # names of tensors, or patterns, that have a row per token id
    not_rows: tuple[str, ...] = ()  # the same for tensors that do not
    multiple_of: int = 1  # of the embedding's rows


def vocabulary_size(model: Model) -> int:
    """Model -> number of rows of embedding and head, from config.json or else from the tensors."""
    declared = sizes(model.configs["config.json"])
    have = sorted({t.rows for t in model.tensors if _known(t.name) and t.name.endswith(".weight")})
    for key in ("padded_vocab_size", "vocab_size"):
        if key in declared and (declared[key] in have or not have):
            return declared[key]
    fitting = [n for n in have if n in declared.values()]
    if "vocab_size" not in declared and len(fitting or have) == 1:
        return (fitting or have)[0]
    raise TinydataError(
        f"the size of the vocabulary is ambiguous: config.json says {_listed(declared)}, and embedding and head have"
        f" {', '.join(f'{n:,}' for n in have) or 'no'} rows",
        where=model.path,
        fix="set vocab_size in config.json to the rows that the embedding has",
    )


def _listed(declared: dict[str, int]) -> str:
    return ", ".join(f"{k} {v:,}" for k, v in declared.items()) or "nothing"


def _known(name: str) -> bool:
    module, _, leaf = name.rpartition(".")
    tail = any(module == m or module.endswith(f".{m}") for m in _MODULES)
    return name in _WHOLE or (tail and leaf in ("weight", "bias"))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, p) for p in patterns)


def with_rows(model: Model, before: int, options: Options) -> set[str]:
    """Names of the tensors with a row per token id: by name and shape, or as the options say.

    Raises TinydataError for a tensor whose name and shape contradict each other, and for quantised ones.
    """
    for pattern in (*options.rows, *options.not_rows):
        if not any(fnmatchcase(t.name, pattern) for t in model.tensors):
            raise TinydataError(
                f"no tensor matches {pattern}", where=model.path, fix=f"use names like {model.tensors[0].name}"
            )
    names: set[str] = set()
    unsure = []
    for t in model.tensors:
        if _matches(t.name, options.not_rows):
            continue
        asked = _matches(t.name, options.rows)
        if asked or _known(t.name):
            _check_rows(t, before, model)
            names.add(t.name)
        elif _packed(t):
            raise _quantised(t, model)
        elif before in t.shape:
            unsure.append(t)
    if unsure:
        first = unsure[0]
        more = f" (and {len(unsure) - 1} more: {', '.join(t.name for t in unsure[1:4])})" if unsure[1:] else ""
        raise TinydataError(
            f"{first.name} {list(first.shape)} has as many rows as the vocabulary, {before:,}, but its name"
            f" is unknown{more}",
            where=model.path,
            fix=f"pass --rows {first.name} if it has a row per token id, --not-rows {first.name} if not (such as a"
            " table of positions); both accept patterns with *",
        )
    if not names:
        raise TinydataError(
            f"no tensor is known to have a row per token id ({before:,} of them)",
            where=model.path,
            fix="name the embedding and the head with --rows",
        )
    return names


def _packed(t: Tensor) -> bool:
    """Whether the tensor belongs to a quantised embedding or head; a single scale for a whole tensor does not count."""
    if t.elements == 1:
        return False
    for module in _MODULES:
        at = f".{t.name}".rfind(f".{module}.")
        if at >= 0 and _PACKED.fullmatch(f".{t.name}"[at + len(module) + 2 :]):
            return True
    return False


def _check_rows(t: Tensor, before: int, model: Model) -> None:
    if t.dtype not in PLAIN:
        raise _quantised(t, model)
    if t.rows != before:
        raise TinydataError(
            f"{t.name} {list(t.shape)} should have {before:,} rows, one per token id",
            where=model.path,
            fix=f"set vocab_size in config.json to what the model really has, or pass --not-rows {t.name}",
        )


def _quantised(t: Tensor, model: Model) -> TinydataError:
    return TinydataError(
        f"embedding or head is quantised: {t.name} is {t.dtype} {list(t.shape)}, whose rows cannot be moved",
        where=model.path,
        fix="slice the model before it is quantised, then quantise the result",
    )
