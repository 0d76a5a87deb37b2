"""What each kind of directory says it was made of: one function per kind, each from its manifest alone."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tinydata.artifacts.artifact import Made, of_files, read_json


@dataclass(frozen=True)
class Source:
    """What a directory says of one of those it was made from."""

    role: str
    paths: list[str]  # the same place, as it was given and absolute
    wanted: dict[str, str] = field(
        default_factory=dict
    )  # kind of a fingerprint, as in made.fingerprints -> what it was
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # path or name -> {bytes, fingerprint}
    hint: str = ""  # what is known of it if it is gone


def sources(d: Made) -> list[Source]:
    """What a directory was made from, in the order of importance."""
    return list(_SOURCES.get(d.by, _none)(d))


def _none(d: Made) -> Iterator[Source]:
    yield from ()


def _of_corpus(d: Made) -> Iterator[Source]:
    """Files belong to the argument that they were found by; the only argument has all."""
    told, files = d.facts["options"]["corpus"], d.facts["inputs"]
    for path in told:
        below = path.rstrip("/") + "/"
        own = {n: f for n, f in files.items() if n == path or n.startswith(below) or fnmatch.fnmatch(n, path)}
        yield Source("corpus", [path], files=files if len(told) == 1 else own)


def _of_tokenizer(facts: dict[str, Any], role: str = "tokenizer") -> Iterator[Source]:
    if facts.get("path"):
        hint = f"{facts['family']}, {facts['size']:,} ids" if "family" in facts and "size" in facts else ""
        yield Source(role, [facts["path"]], {"tokenizer": facts["fingerprint"]}, hint=hint)


def _of_count(d: Made) -> Iterator[Source]:
    yield from _of_corpus(d)
    yield from _of_tokenizer(d.facts["tokenizer"])


def _of_inputs(inputs: dict[str, Any], roles: Callable[[str, dict[str, Any]], str]) -> Iterator[Source]:
    """Directories of a manifest's `inputs`: those made by tinydata by their sha256, others by the ends of files."""
    for path, about in inputs.items():
        files = about["files"]
        if all("sha256" in f for f in files.values()):
            yield Source(roles(path, files), [path], {"files": of_files(files)})
        else:
            yield Source(roles(path, files), [path], files=files)


def _of_compact(d: Made) -> Iterator[Source]:
    yield from _of_inputs(d.facts["inputs"], lambda path, files: "counts")
    yield from _of_tokenizer(d.facts["tokenizer"])


def _of_slice(d: Made) -> Iterator[Source]:
    yield from _of_inputs(d.facts["inputs"], lambda path, files: "vocab" if "idmap.parquet" in files else "model")


def _of_encode(d: Made) -> Iterator[Source]:
    yield from _of_tokenizer(d.facts["tokenizer"])
    yield from _of_corpus(d)


def _of_directory(role: str, facts: dict[str, Any], kind: str = "data") -> Source:
    """{path, absolute, fingerprint, tokens} of shards, as scores and rounds have it."""
    paths = [p for p in (facts.get("path"), facts.get("absolute")) if p]
    return Source(role, paths, {kind: facts["fingerprint"][:32]}, hint=f"{facts['tokens']:,} tokens")


def _of_model(role: str, facts: dict[str, Any], path: str = "") -> Source:
    """{path, recipe, step} of a run, {path, weights} of another model, which may tell of steps too."""
    kinds = ("recipe", "step") if facts.get("recipe") else ("weights",)
    wanted = {k: str(facts[k]) for k in kinds if facts.get(k) is not None}
    return Source(role, [path or facts["path"]], wanted, hint=f"step {facts['step']:,}" if facts.get("step") else "")


def _of_score(d: Made) -> Iterator[Source]:
    """A round's fingerprint is that of its numbers, unless it has a copy: then it is shards."""
    m = d.facts
    listed = m["data"]["fingerprint"] != m["base"]["fingerprint"]
    yield _of_directory("data", m["data"], "kept" if listed else "data")
    if listed:
        yield _of_directory("base", m["base"])
    if m["options"].get("losses"):
        yield Source("model", [m["options"]["losses"]])
    elif m["model"].get("path"):
        yield _of_model("model", m["model"])


def _of_resample(d: Made) -> Iterator[Source]:
    m = d.facts
    for path, was in m["inputs"].items():
        yield Source("reference" if path == m["options"].get("reference") else "scores", [path], {"manifest": was})
    yield _of_directory("base", m["base"])


def _of_run(d: Made) -> Iterator[Source]:
    r = d.facts
    data, train = r["data"], r["train"]
    wanted = {"data": data["fingerprint"]}
    if "round" in data and "kept" in data:
        wanted["kept"] = data["kept"]
    paths = [p for p in (train.get("data"), data.get("round directory") or data.get("directory")) if p]
    yield Source("data", paths, wanted, hint=f"{data['tokens']:,} tokens")
    if train.get("init"):
        yield _of_model("init", r.get("init") or {}, train["init"])
    yield from _of_tokenizer(r["tokenizer"])


def _of_export(d: Made) -> Iterator[Source]:
    """The run, which knows the rest; its name is all that an export says of where it was."""
    e = d.facts
    run = {"recipe": e.get("fingerprint"), "step": e.get("step")}
    yield _of_model("run", run, e["train"].get("out") or "run")


def _of_inherit(d: Made) -> Iterator[Source]:
    settings, known = d.facts["settings"], dict(d.facts.get("inputs") or {})
    tokenizer = read_json(d.where / "tinydata.json").get("tokenizer") or {}
    if "fingerprint" in tokenizer:
        known["vocab"] = {"tokenizer": tokenizer["fingerprint"]}
    for role in ("source", "vocab", "data"):
        if settings.get(role):
            yield Source(role, [settings[role]], known.get(role) or {})


_SOURCES: dict[str, Callable[[Made], Iterator[Source]]] = {
    "tinydata count": _of_count,
    "tinydata compact": _of_compact,
    "tinydata encode": _of_encode,
    "tinydata slice": _of_slice,
    "tinydata score": _of_score,
    "tinydata resample": _of_resample,
    "trainer.run": _of_run,
    "checkpoint": _of_run,
    "trainer.export": _of_export,
    "trainer.inherit": _of_inherit,
}
