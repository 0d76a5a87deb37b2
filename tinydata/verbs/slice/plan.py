"""model + vocabulary -> what the model with only the vocabulary's rows will consist of.

The model is never loaded. Rows of embedding and head are copied from file to file in the new order, byte for byte; the
other tensors are copied in chunks. Ids in `config.json` and `generation_config.json` are renumbered, and the compact
tokenizer's files replace the model's. A token that `compact --adapt` learned starts as the mean of the rows of the
tokens that spelled it.

Padding rows are the mean of all rows, so that their logit is, up to rounding, the mean of the other logits and
never the largest. (A row of zeros has logit 0, which is the largest when all others are negative.)
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.core.location import Location
from tinydata.core.output import MANIFEST
from tinydata.verbs.slice.hf_config import renumber, sizes
from tinydata.verbs.slice.hf_model import INDEX, Model, open_model
from tinydata.verbs.slice.safetensors import AVERAGED, SafetensorsFile, Tensor, header_bytes, laid_out
from tinydata.verbs.slice.vocabulary import TOKENIZER_FILE, Vocabulary, check_tokenizer, open_vocabulary
from tinydata.verbs.slice.vocabulary_rows import Options, vocabulary_size, with_rows

_WEIGHT_FILE = re.compile(  # of any format
    r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|gguf|onnx|onnx_data|ot|tflite)(\.index\.json)?"
)


class ModelSlice(NamedTuple):
    """What a sliced model will consist of."""

    model: Model
    vocabulary: Vocabulary
    options: Options
    rows: set[str]  # names of tensors with a row per token id
    after: int  # their rows
    configs: dict[str, dict[str, Any]]
    tokenizer: dict[str, Location]  # the vocabulary's files
    copied: dict[str, Location]  # files that stay as they are
    result: dict[str, Any]


def prepare(model_path: str, vocabulary_path: str, options: Options | None = None) -> ModelSlice:
    """Model + vocabulary -> ModelSlice: decides what happens to every file; writes nothing.

    Raises TinydataError if the two do not belong together, or the model is of an unsupported kind.
    """
    options = options or Options()
    vocabulary, model = open_vocabulary(vocabulary_path), open_model(model_path)
    note = check_tokenizer(model, vocabulary)
    before = vocabulary_size(model)
    rows = with_rows(model, before, options)
    n = len(vocabulary.source)
    after = -(-n // options.multiple_of) * options.multiple_of
    _check_needed(model, vocabulary, rows, before, after)
    configs, renumbered = _configs(model, vocabulary, before, after)
    where = Location.of(vocabulary_path)
    tokenizer = {f: where / f for f in vocabulary.manifest["files"] if f != "README.md" and not f.endswith(".parquet")}
    used = (
        {s.file.name for s in model.shards} | {MANIFEST, *configs, *tokenizer} | ({INDEX} if model.weights else set())
    )
    others = {n: f for n, f in model.files.items() if n not in used}
    left_out = sorted(n for n in others if TOKENIZER_FILE.fullmatch(n) or _WEIGHT_FILE.fullmatch(n))
    copied = {n: f for n, f in others.items() if n not in left_out}
    tensors = [t.resized(after) if t.name in rows else t for t in model.tensors]
    result = {
        "vocabulary": vocabulary.manifest["vocabulary"],
        "rows": {
            "before": before,
            "after": after,
            "kept": n - len(vocabulary.learned),
            "learned": len(vocabulary.learned),
            "padding": after - n,
            "tensors": {t.name: t.dtype for t in model.tensors if t.name in rows},
        },
        "parameters": {"before": _elements(model.tensors), "after": _elements(tensors)},
        "bytes": {
            "before": sum(s.file.size for s in model.shards),
            "after": sum(
                len(header_of_shard(s, rows, after)) + sum(t.bytes for t in tensors_of_shard(s, rows, after))
                for s in model.shards
            ),
        },
        **renumbered,
        "copied": sorted(copied),
        "left_out": [*left_out, *(f"{d}/" for d in model.folders)],
        "notes": [note] if note else [],
    }
    return ModelSlice(model, vocabulary, options, rows, after, configs, tokenizer, copied, result)


def _elements(tensors: list[Tensor]) -> int:
    return sum(t.elements for t in tensors)


def tensors_of_shard(shard: SafetensorsFile, rows: set[str], after: int) -> list[Tensor]:
    """The new tensors in the order in which they are written; `start` is still that of the original."""
    return [t.resized(after) if t.name in rows else t for t in laid_out(shard.tensors)]


def header_of_shard(shard: SafetensorsFile, rows: set[str], after: int) -> bytes:
    return header_bytes(tensors_of_shard(shard, rows, after), shard.metadata)


def _check_needed(model: Model, vocabulary: Vocabulary, rows: set[str], before: int, after: int) -> None:
    """Raises TinydataError if the model lacks a row that is needed, or has rows of a type that cannot be averaged."""
    needed = np.concatenate([vocabulary.source, *vocabulary.learned.values()])
    if needed.max() >= before:
        raise TinydataError(
            f"the model has {before:,} rows, but the vocabulary needs that of id {int(needed.max()):,}"
            f" ({len(vocabulary.ids.new):,} ids in the big tokenizer)",
            where=model.path,
            fix="check that the vocabulary was derived from this model's tokenizer",
        )
    average = "learned tokens" if vocabulary.learned else "padding rows" if after > len(vocabulary.source) else ""
    for t in model.tensors:
        if average and t.name in rows and t.dtype not in AVERAGED:
            raise TinydataError(
                f"{average} start as the mean of other rows, and {t.name} is {t.dtype}; only {', '.join(AVERAGED)} are"
                " averaged",
                where=model.path,
                fix="slice the model before it is converted",
            )


def _configs(
    model: Model, vocabulary: Vocabulary, before: int, after: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """-> (configurations with new ids, what was changed in them)."""
    configs: dict[str, dict[str, Any]] = {}
    ids: dict[str, Any] = {}
    dropped: dict[str, list[int]] = {}
    untouched: list[str] = []
    for name, config in model.configs.items():
        if "vocab_size_per_layer_input" in json.dumps(config):
            raise TinydataError(
                "models with one embedding per layer (vocab_size_per_layer_input) are not supported",
                where=str(model.files[name]),
                fix="slice a model with one embedding",
            )
        changed = renumber(config, vocabulary.ids, before, after, str(model.files[name]))
        configs[name] = changed.config
        ids |= {f"{name}: {k}": v for k, v in changed.ids.items()}
        dropped |= {f"{name}: {k}": v for k, v in changed.dropped.items()}
        untouched += [f"{name}: {k}" for k in changed.untouched]
    config = configs["config.json"]
    if after not in sizes(config).values():  # the size was not in the file, only in the default of the model's class
        part = next(
            (k for k in ("text_config", "llm_config", "language_config") if isinstance(config.get(k), dict)), ""
        )
        (config[part] if part else config)["vocab_size"] = after
    return configs, {"ids": ids, "dropped_ids": dropped, "untouched": untouched}
