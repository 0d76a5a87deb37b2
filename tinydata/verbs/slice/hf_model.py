"""A Hugging Face model directory: its safetensors files, index and configurations, opened without loading weights."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes
from tinydata.verbs.slice.safetensors import SafetensorsFile, Tensor, read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIGS = ("config.json", "generation_config.json")


class Model(NamedTuple):
    """A Hugging Face model directory, its headers read."""

    path: str
    files: dict[str, Location]  # at the top level
    folders: list[str]
    shards: list[SafetensorsFile]
    weights: dict[str, Any] | None  # model.safetensors.index.json, if there are several files
    configs: dict[str, dict[str, Any]]

    @property
    def tensors(self) -> list[Tensor]:
        return [t for s in self.shards for t in s.tensors]


def open_model(path: str) -> Model:
    """Model directory -> Model; raises TinydataError if there are no safetensors, or broken ones."""
    where = Location.of(path)
    if not where.is_dir():
        raise TinydataError(
            "there is no such directory; it should contain a Hugging Face model",
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
            "the directory has no config.json" + (", only an adapter" if "adapter_config.json" in files else ""),
            where=path,
            fix="pass a complete model in the Hugging Face layout; merge an adapter into its model first",
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
            f"{INDEX} names files that are missing: {', '.join(missing) or 'none at all'}",
            where=path,
            fix="download the complete model again",
            code=UNREADABLE,
        )
    shards = [read_header(files[n]) for n in names]
    inside = {t.name: s.file.name for s in shards for t in s.tensors}
    wrong = sorted(n for n, file in index["weight_map"].items() if inside.get(n) != file)
    if wrong:
        raise TinydataError(
            f"{INDEX} says that {wrong[0]} is in {index['weight_map'][wrong[0]]}, but it is not",
            where=path,
            fix="download the complete model again; the files are of different versions",
            code=UNREADABLE,
        )
    return Model(path, files, folders, shards, index, configs)


def _no_safetensors(path: str, files: dict[str, Location]) -> TinydataError:
    pickled = sorted(n for n in files if n.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if not pickled:
        return TinydataError(
            f"the directory has no weights: neither {SINGLE} nor {INDEX}",
            where=path,
            fix="pass a model directory with safetensors files",
            code=UNREADABLE,
        )
    again = path.rstrip("/") + "-safe"
    return TinydataError(
        f"the weights are pickled ({pickled[0]}): reading them would run code from the file",
        where=path,
        fix="if you trust the file, convert it, then slice the result: python -c 'from transformers import"
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
        raise TinydataError(
            "the file does not contain a JSON object", where=str(file), fix="repair the file", code=UNREADABLE
        )
    return value
