"""model + vocabulary -> plan of the model with only the vocabulary's rows, copied from file to file.

The model is never loaded. Rows of embedding and head are copied in the new order, byte for byte; the other
tensors are copied in chunks. Ids in `config.json` and `generation_config.json` are renumbered, and the compact
tokenizer's files replace the model's. A token that `compact --adapt` learned starts as the mean of the rows that
spelled it.

Padding rows are the mean of all rows, so that their logit is, up to rounding, the mean of the other logits and
never the largest. (A row of zeros has logit 0, which is the largest when all others are negative.)
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_table
from tinydata.core.output import MANIFEST, read_manifest
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.slice.hf_config import Ids, renumber, sizes
from tinydata.verbs.slice.hf_model import INDEX, Model, open_model
from tinydata.verbs.slice.safetensors import AVERAGED, Shard, Tensor, header_bytes, laid_out
from tinydata.verbs.slice.vocabulary_rows import Options, vocabulary_size, with_rows

_WEIGHTS = re.compile(  # of any format
    r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|gguf|onnx|onnx_data|ot|tflite)(\.index\.json)?"
)
_TOKENIZER = re.compile(
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|(vocab|encoder|tekken)\.json|merges\.txt"
    r"|vocab\.(txt|bpe)|(tokenizer|spiece|sentencepiece\.bpe)\.model|.*\.tiktoken"
)


class Vocabulary(NamedTuple):
    """Output of `tinydata compact` as arrays."""

    path: str
    manifest: dict[str, Any]
    source: np.ndarray  # int64[new ids]: the old id; -1: learned
    learned: dict[int, np.ndarray]  # new id -> old ids that spell it
    ids: Ids


class Plan(NamedTuple):
    """A sliced model that has been planned but not written."""

    model: Model
    vocabulary: Vocabulary
    options: Options
    rows: set[str]  # names of tensors with a row per token id
    after: int  # their rows
    configs: dict[str, dict[str, Any]]
    tokenizer: dict[str, Location]  # the vocabulary's files
    copied: dict[str, Location]  # files that stay as they are
    result: dict[str, Any]


def open_vocabulary(path: str) -> Vocabulary:
    """VOCAB directory -> Vocabulary; raises TinydataError for anything else, or an id map that does not fit."""
    manifest = read_manifest(path, "compact")
    where = Location.of(path)
    table = read_table(where / "idmap.parquet")
    new = np.full(len(table), -1, np.int64)
    kept = table.filter(table["kept"])
    alone = pc.all(pc.equal(pc.list_value_length(kept["parts"]), 1)).as_py()
    source = np.full(manifest["vocabulary"]["size"], -1, np.int64)
    learned: dict[int, np.ndarray] = {}
    if (where / "learned.parquet").exists():
        learned_rows = read_table(where / "learned.parquet")
        parts = zip(learned_rows["new_id"].to_pylist(), learned_rows["old_parts"].to_pylist(), strict=True)
        learned = {i: np.array(p, np.int64) for i, p in parts}
    if alone is not False:
        old, ids = kept["old_id"].to_numpy(), pc.list_flatten(kept["parts"]).to_numpy()
        if len(ids) and 0 <= ids.min() <= ids.max() < len(source):
            new[old], source[ids] = ids, old
    unknown = sorted(set(np.flatnonzero(source < 0).tolist()) ^ learned.keys())
    spelled = all(len(p) and 0 <= p.min() <= p.max() < len(table) for p in learned.values())
    if unknown or not spelled or len(kept) + len(learned) != len(source):
        raise TinydataError(
            f"the id map does not fit the vocabulary of {len(source):,} ids",
            where=path,
            fix="create the vocabulary again with `tinydata compact --force`",
            code=UNREADABLE,
        )
    return Vocabulary(path, manifest, source, learned, Ids(new, lambda i: _text(path, table, i)))


def _text(path: str, table: pa.Table, old: int) -> str:
    """Old id -> its text."""
    small = open_tokenizer(path)
    return b"".join(small.pieces[p] for p in table["parts"][old].as_py()).decode("utf-8", "replace")


def check_tokenizer(model: Model, vocabulary: Vocabulary) -> str:
    """-> a note if the tokenizers could not be compared, else ""; raises TinydataError if they differ."""
    original = vocabulary.manifest["tokenizer"]
    other, why = "", "the model directory has no tokenizer"
    # a directory may hold it in several forms, of which the vocabulary was made from one
    for name in ("", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"):
        if name and name not in model.files:
            continue
        path = str(model.files[name]) if name else model.path
        try:
            own = open_tokenizer(path)
        except TinydataError as e:
            why = e.what if any(_TOKENIZER.fullmatch(n) for n in model.files) else why
            continue
        if tokenizer_fingerprint(own) == original["fingerprint"]:
            return ""
        other = other or f"{path} ({own.family}, {own.size:,} ids, fingerprint {tokenizer_fingerprint(own)[:8]})"
    if other:
        raise TinydataError(
            f"the vocabulary was derived from a different tokenizer: {original['path']}"
            f" ({original['family']}, {original['size']:,} ids,"
            f" fingerprint {original['fingerprint'][:8]})",
            where=other,
            fix="count and compact with this model's tokenizer, or pass the model that the vocabulary was made for",
        )
    return f"the model's own tokenizer was not compared with the vocabulary's: {why}"


# -- planning ---------------------------------------------------------------------------------


def plan(model_path: str, vocabulary_path: str, options: Options | None = None) -> Plan:
    """Model + vocabulary -> Plan: checks that they fit and decides what becomes of every file; writes nothing."""
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
    left_out = sorted(n for n in others if _TOKENIZER.fullmatch(n) or _WEIGHTS.fullmatch(n))
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
    return Plan(model, vocabulary, options, rows, after, configs, tokenizer, copied, result)


def _elements(tensors: list[Tensor]) -> int:
    return sum(t.elements for t in tensors)


def tensors_of_shard(shard: Shard, rows: set[str], after: int) -> list[Tensor]:
    """The tensors as they will be, in the order in which they are written; `start` is still that of the original."""
    return [t.resized(after) if t.name in rows else t for t in laid_out(shard.tensors)]


def header_of_shard(shard: Shard, rows: set[str], after: int) -> bytes:
    return header_bytes(tensors_of_shard(shard, rows, after), shard.metadata)


def _check_needed(model: Model, vocabulary: Vocabulary, rows: set[str], before: int, after: int) -> None:
    """Every row that is asked for exists, and where rows are averaged they are numbers that can be."""
    needed = np.concatenate([vocabulary.source, *vocabulary.learned.values()])
    if needed.max() >= before:
        raise TinydataError(
            f"the model has {before:,} rows, but the vocabulary needs that of id {int(needed.max()):,}"
            f" ({len(vocabulary.ids.new):,} ids in the big tokenizer)",
            where=model.path,
            fix="check that the vocabulary was made from this model's tokenizer",
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
    if after not in sizes(config).values():  # it was left to the class's default
        part = next(
            (k for k in ("text_config", "llm_config", "language_config") if isinstance(config.get(k), dict)), ""
        )
        (config[part] if part else config)["vocab_size"] = after
    return configs, {"ids": ids, "dropped_ids": dropped, "untouched": untouched}
