"""model + vocabulary -> the model with the vocabulary's rows, from file to file; no model is loaded.

Embedding and head are gathered row by row in the new order, byte for byte; the other tensors
pass through in chunks. What `config.json` and `generation_config.json` say in ids follows, and
the compact tokenizer's files replace the model's. A token that `compact --adapt` learned starts
as the mean of the rows that spelled it.

Padding rows are the mean of all rows, so that their logit is, but for rounding, the mean of the
others, and not the greatest. (A row of zeros has logit 0, which is where all others are negative.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata import __version__
from tinydata.configs import Ids, renumber, sizes
from tinydata.errors import UNREADABLE, TinydataError
from tinydata.store import MANIFEST, Location, Output, fingerprint, read_bytes, read_manifest, read_table, to_json
from tinydata.tensors import (
    AVERAGED,
    CHUNK,
    PLAIN,
    Reader,
    Shard,
    Tensor,
    from_float32,
    header_bytes,
    laid_out,
    read_header,
    to_float32,
)
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.base import open_tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIGS = ("config.json", "generation_config.json")

# Modules whose weight and bias have a row per token id; a prefix may stand before each.
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

_WEIGHTS = re.compile(  # of any format
    r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|gguf|onnx|onnx_data|ot|tflite)(\.index\.json)?"
)
_TOKENIZER = re.compile(
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|(vocab|encoder|tekken)\.json|merges\.txt"
    r"|vocab\.(txt|bpe)|(tokenizer|spiece|sentencepiece\.bpe)\.model|.*\.tiktoken"
)


class Model(NamedTuple):
    """A Hugging Face model directory, its headers read."""

    path: str
    files: dict[str, Location]  # at the top level
    folders: list[str]
    shards: list[Shard]
    weights: dict[str, Any] | None  # model.safetensors.index.json, if there are several files
    configs: dict[str, dict[str, Any]]

    @property
    def tensors(self) -> list[Tensor]:
        return [t for s in self.shards for t in s.tensors]


class Vocabulary(NamedTuple):
    """What `tinydata compact` wrote, as arrays."""

    path: str
    manifest: dict[str, Any]
    source: np.ndarray  # int64[new ids]: the old id; -1: learned
    learned: dict[int, np.ndarray]  # new id -> old ids that spell it
    ids: Ids


class Options(NamedTuple):
    rows: tuple[str, ...] = ()  # names of tensors, or patterns, that have a row per token id
    not_rows: tuple[str, ...] = ()  # … that have not
    multiple_of: int = 1  # of the embedding's rows


class Plan(NamedTuple):
    """A sliced model that is decided but not written."""

    model: Model
    vocabulary: Vocabulary
    options: Options
    rows: set[str]  # names of tensors with a row per token id
    after: int  # their rows
    configs: dict[str, dict[str, Any]]
    tokenizer: dict[str, Location]  # the vocabulary's files
    copied: dict[str, Location]  # files that stay as they are
    result: dict[str, Any]


# -- inputs -----------------------------------------------------------------------------------


def open_model(path: str) -> Model:
    """Model directory -> Model; raises TinydataError if there are no safetensors, or broken ones."""
    where = Location.of(path)
    if not where.is_dir():
        raise TinydataError(
            "there is no such directory; it should hold a Hugging Face model",
            where=path,
            fix=f"pass a directory with config.json and {SINGLE}",
            code=UNREADABLE,
        )
    below = [f.path[len(where.path) :].lstrip("/") for f in where.children(recursive=True)]
    files = {name: where / name for name in below if "/" not in name}
    folders = sorted({name.split("/")[0] for name in below if "/" in name})
    configs = {name: _json(files[name]) for name in CONFIGS if name in files}
    if "config.json" not in configs:
        raise TinydataError(
            "the directory has no config.json" + (", but an adapter" if "adapter_config.json" in files else ""),
            where=path,
            fix="pass a whole model in the Hugging Face layout; merge an adapter into its model first",
            code=UNREADABLE,
        )
    if SINGLE in files:
        return Model(path, files, folders, [read_header(files[SINGLE])], None, configs)
    if INDEX not in files:
        raise _no_safetensors(path, files)
    index = _json(files[INDEX])
    names = sorted(set((index.get("weight_map") or {}).values()))
    missing = [n for n in names if n not in files]
    if missing or not names:
        raise TinydataError(
            f"{INDEX} names files that are not here: {', '.join(missing) or 'none at all'}",
            where=path,
            fix="download the model again, whole",
            code=UNREADABLE,
        )
    shards = [read_header(files[n]) for n in names]
    inside = {t.name: s.file.name for s in shards for t in s.tensors}
    wrong = sorted(n for n, file in index["weight_map"].items() if inside.get(n) != file)
    if wrong:
        raise TinydataError(
            f"{INDEX} says that {wrong[0]} is in {index['weight_map'][wrong[0]]}, and it is not",
            where=path,
            fix="download the model again, whole; the files are of different versions",
            code=UNREADABLE,
        )
    return Model(path, files, folders, shards, index, configs)


def _no_safetensors(path: str, files: dict[str, Location]) -> TinydataError:
    pickled = sorted(n for n in files if n.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if not pickled:
        return TinydataError(
            f"no weights here: neither {SINGLE} nor {INDEX}",
            where=path,
            fix="pass a model directory with safetensors files",
            code=UNREADABLE,
        )
    again = path.rstrip("/") + "-safe"
    return TinydataError(
        f"the weights are pickled ({pickled[0]}): reading them would run code that is in the file",
        where=path,
        fix="convert them where you trust them, then slice the result: python -c 'from transformers import"
        f' AutoModelForCausalLM as M; M.from_pretrained("{path}", torch_dtype="auto").save_pretrained("{again}",'
        " safe_serialization=True)'",
        code=UNREADABLE,
    )


def _json(file: Location) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(file))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise TinydataError("no JSON object", where=str(file), fix="repair the file", code=UNREADABLE)
    return value


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
        taught = read_table(where / "learned.parquet")
        parts = zip(taught["new_id"].to_pylist(), taught["old_parts"].to_pylist(), strict=True)
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
            fix="make the vocabulary anew with `tinydata compact --force`",
            code=UNREADABLE,
        )
    return Vocabulary(path, manifest, source, learned, Ids(new, lambda i: _text(path, table, i)))


def _text(path: str, table: pa.Table, old: int) -> str:
    """Of an old id: what its parts say."""
    small = open_tokenizer(path)
    return b"".join(small.pieces[p] for p in table["parts"][old].as_py()).decode("utf-8", "replace")


def check_tokenizer(model: Model, vocabulary: Vocabulary) -> str:
    """Raises TinydataError if the vocabulary was made from another tokenizer than the model's; else a note, or ""."""
    made = vocabulary.manifest["tokenizer"]
    found, why = "", "the model directory has none"
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
        if tokenizer_fingerprint(own) == made["fingerprint"]:
            return ""
        found = found or f"{path} ({own.family}, {own.size:,} ids, fingerprint {tokenizer_fingerprint(own)[:8]})"
    if found:
        raise TinydataError(
            f"the vocabulary is of another tokenizer: {made['path']} ({made['family']}, {made['size']:,} ids,"
            f" fingerprint {made['fingerprint'][:8]})",
            where=found,
            fix="count and compact with this model's own tokenizer, or pass the model that the vocabulary is for",
        )
    return f"the model's own tokenizer was not compared with the vocabulary's: {why}"


# -- which tensors have a row per token id -----------------------------------------------------


def vocabulary_size(model: Model) -> int:
    """Rows that embedding and head have: what config.json says, or where it does not, the tensors themselves."""
    said = sizes(model.configs["config.json"])
    have = sorted({t.rows for t in model.tensors if _known(t.name) and t.name.endswith(".weight")})
    for key in ("padded_vocab_size", "vocab_size"):
        if key in said and (said[key] in have or not have):
            return said[key]
    fitting = [n for n in have if n in said.values()]
    if "vocab_size" not in said and len(fitting or have) == 1:
        return (fitting or have)[0]
    raise TinydataError(
        f"the vocabulary's size is not clear: config.json says {_listed(said)}, and embedding and head have"
        f" {', '.join(f'{n:,}' for n in have) or 'no'} rows",
        where=model.path,
        fix="set vocab_size in config.json to the rows that the embedding has",
    )


def _listed(said: dict[str, int]) -> str:
    return ", ".join(f"{k} {v:,}" for k, v in said.items()) or "nothing"


def _known(name: str) -> bool:
    module, _, leaf = name.rpartition(".")
    tail = any(module == m or module.endswith(f".{m}") for m in _MODULES)
    return name in _WHOLE or (tail and leaf in ("weight", "bias"))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, p) for p in patterns)


def with_rows(model: Model, before: int, options: Options) -> set[str]:
    """Names of the tensors with a row per token id: by name and shape, or as the options say.

    Raises TinydataError for a tensor whose name and shape say different things, and for quantised ones.
    """
    for pattern in (*options.rows, *options.not_rows):
        if not any(fnmatchcase(t.name, pattern) for t in model.tensors):
            raise TinydataError(
                f"no tensor is called {pattern}", where=model.path, fix=f"names are like {model.tensors[0].name}"
            )
    found: set[str] = set()
    unsure = []
    for t in model.tensors:
        if _matches(t.name, options.not_rows):
            continue
        asked = _matches(t.name, options.rows)
        if asked or _known(t.name):
            _check_rows(t, before, model)
            found.add(t.name)
        elif _packed(t):
            raise _quantised(t, model)
        elif before in t.shape:
            unsure.append(t)
    if unsure:
        first = unsure[0]
        more = f" (and {len(unsure) - 1} more: {', '.join(t.name for t in unsure[1:4])})" if unsure[1:] else ""
        raise TinydataError(
            f"{first.name} {list(first.shape)} has as many rows as the vocabulary, {before:,}, and a name that"
            f" says nothing{more}",
            where=model.path,
            fix=f"pass --rows {first.name} if it has a row per token id, --not-rows {first.name} if not (a table of"
            " positions, say); both take patterns with *",
        )
    if not found:
        raise TinydataError(
            f"no tensor is known to have a row per token id ({before:,} of them)",
            where=model.path,
            fix="name embedding and head with --rows",
        )
    return found


def _packed(t: Tensor) -> bool:
    """A companion of a quantised embedding or head; one scale for the whole tensor is none."""
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


# -- planning ---------------------------------------------------------------------------------


def plan(model_path: str, vocabulary_path: str, options: Options | None = None) -> Plan:
    """Checks that model and vocabulary fit, and decides what becomes of every file; writes nothing."""
    options = options or Options()
    vocabulary, model = open_vocabulary(vocabulary_path), open_model(model_path)
    note = check_tokenizer(model, vocabulary)
    before = vocabulary_size(model)
    rows = with_rows(model, before, options)
    n = len(vocabulary.source)
    after = -(-n // options.multiple_of) * options.multiple_of
    _check_needed(model, vocabulary, rows, before, after)
    configs, said = _configs(model, vocabulary, before, after)
    where = Location.of(vocabulary_path)
    tokenizer = {f: where / f for f in vocabulary.manifest["files"] if f != "README.md" and not f.endswith(".parquet")}
    used = (
        {s.file.name for s in model.shards} | {MANIFEST, *configs, *tokenizer} | ({INDEX} if model.weights else set())
    )
    others = {n: f for n, f in model.files.items() if n not in used}
    gone = sorted(n for n in others if _TOKENIZER.fullmatch(n) or _WEIGHTS.fullmatch(n))
    copied = {n: f for n, f in others.items() if n not in gone}
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
            "after": sum(len(_head(s, rows, after)) + sum(t.bytes for t in _new(s, rows, after)) for s in model.shards),
        },
        **said,
        "copied": sorted(copied),
        "left_out": [*gone, *(f"{d}/" for d in model.folders)],
        "notes": [note] if note else [],
    }
    return Plan(model, vocabulary, options, rows, after, configs, tokenizer, copied, result)


def _elements(tensors: list[Tensor]) -> int:
    return sum(t.elements for t in tensors)


def _new(shard: Shard, rows: set[str], after: int) -> list[Tensor]:
    """The tensors as they will be, in the order in which they are written; `start` is still that of the original."""
    return [t.resized(after) if t.name in rows else t for t in laid_out(shard.tensors)]


def _head(shard: Shard, rows: set[str], after: int) -> bytes:
    return header_bytes(_new(shard, rows, after), shard.metadata)


def _check_needed(model: Model, vocabulary: Vocabulary, rows: set[str], before: int, after: int) -> None:
    """Every row that is asked for exists, and where rows are averaged they are numbers that can be."""
    needed = np.concatenate([vocabulary.source, *vocabulary.learned.values()])
    if needed.max() >= before:
        raise TinydataError(
            f"the model has {before:,} rows, and the vocabulary needs that of id {int(needed.max()):,}"
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
    """Configs under new ids, and what is said of them."""
    configs: dict[str, dict[str, Any]] = {}
    ids: dict[str, Any] = {}
    dropped: dict[str, list[int]] = {}
    untouched: list[str] = []
    for name, config in model.configs.items():
        if "vocab_size_per_layer_input" in json.dumps(config):
            raise TinydataError(
                "models with an embedding per layer (vocab_size_per_layer_input) are not handled",
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


# -- writing ----------------------------------------------------------------------------------


def write(
    plan: Plan, out: str, *, force: bool = False, progress: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Writes the model directory; returns its manifest. `progress` is told of bytes of weights."""
    model = plan.model
    output = Output(out, header(plan), force=force)
    streamed: dict[str, dict[str, Any]] = {}
    try:
        output.place.make_dir()
        for shard in model.shards:
            with (output.place / shard.file.name).stream() as sink, Reader(shard.file) as reader:
                sink.write(_head(shard, plan.rows, plan.after))
                for t in laid_out(shard.tensors):
                    for content in _data(reader, t, plan):
                        sink.write(content)
                        progress(len(content))
            streamed[shard.file.name] = sink.sum
        for name, file in {**plan.copied, **plan.tokenizer}.items():
            with (output.place / name).stream() as sink, Reader(file) as reader:
                for content in reader.chunks(0, file.size):
                    sink.write(content)
            streamed[name] = sink.sum
        files = {name: _dump(config) for name, config in plan.configs.items()}
        if model.weights is not None:
            files[INDEX] = to_json(_index(plan))
        return output.publish(plan.result, files, streamed)
    except BaseException:
        output.abandon()
        raise


def header(plan: Plan) -> dict[str, Any]:
    """What the manifest begins with."""
    read = {s.file.name: s.file for s in plan.model.shards} | {n: plan.model.files[n] for n in plan.configs}
    return {
        "tinydata": __version__,
        "verb": "slice",
        "inputs": {
            plan.model.path: {"files": {n: fingerprint(f) for n, f in sorted(read.items())}},
            plan.vocabulary.path: {"files": plan.vocabulary.manifest["files"]},
        },
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in plan.options._asdict().items()},
        "tokenizer": plan.vocabulary.manifest["tokenizer"],
    }


def _dump(config: dict[str, Any]) -> bytes:
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def _index(plan: Plan) -> dict[str, Any]:
    """model.safetensors.index.json with the new sizes."""
    index = dict(plan.model.weights or {})
    tensors = [t for s in plan.model.shards for t in _new(s, plan.rows, plan.after)]
    metadata = dict(index.get("metadata") or {})
    metadata["total_size"] = sum(t.bytes for t in tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = plan.result["parameters"]["after"]
    return {**index, "metadata": metadata}


def _data(reader: Reader, t: Tensor, plan: Plan) -> Iterator[Any]:
    """A tensor as it is written, in pieces of about CHUNK bytes."""
    if t.name not in plan.rows:
        yield from reader.chunks(t.start, t.bytes)
        return
    vocabulary = plan.vocabulary
    n = len(vocabulary.source)
    step = max(CHUNK * t.rows // t.bytes, 1)
    total: Any = 0
    for first in range(0, n, step):
        ids = vocabulary.source[first : first + step]
        rows = reader.rows(t, np.maximum(ids, 0))
        new = np.flatnonzero(ids < 0)
        if len(new):
            rows[new] = _means(reader, t, [vocabulary.learned[int(first + k)] for k in new], step)
        if plan.after > n:
            total = total + to_float32(rows, t.dtype).sum(0, dtype=np.float64)
        yield rows.data.cast("B")
    for first in range(n, plan.after, step):
        mean = from_float32((total / n).astype(np.float32)[None], t.dtype)
        yield np.repeat(mean, min(step, plan.after - first), 0).data.cast("B")


def _means(reader: Reader, t: Tensor, parts: list[np.ndarray], step: int) -> np.ndarray:
    """The mean of the rows of each list of old ids, in float32, `step` rows at a time: uint8[lists, bytes of a row]."""
    out = np.empty((len(parts), t.bytes // t.rows), np.uint8)
    ends = np.cumsum([len(p) for p in parts])
    first = 0
    while first < len(parts):
        before = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, before + step, side="right")), first + 1)
        rows = to_float32(reader.rows(t, np.concatenate(parts[first:last])), t.dtype)
        lengths = np.array([len(p) for p in parts[first:last]])
        begin = np.cumsum(lengths) - lengths
        total = rows[begin]
        for k in range(1, int(lengths.max())):  # one after the other: numpy's own sums depend on the shape
            longer = lengths > k
            total[longer] += rows[begin[longer] + k]
        out[first:last] = from_float32(total / lengths[:, None].astype(np.float32), t.dtype)
        first = last
    return out


def slice_model(
    model: str,
    vocabulary: str,
    out: str,
    options: Options | None = None,
    *,
    force: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Model directory + VOCAB -> the sliced model in `out`; returns the manifest."""
    return write(plan(model, vocabulary, options), out, force=force, progress=progress)
