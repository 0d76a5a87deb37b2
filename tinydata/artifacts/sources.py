"""Artifact -> the inputs it was produced from, as its own metadata records them: one function per kind."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tinydata.artifacts.artifact import Artifact, of_files, read_json


@dataclass(frozen=True)
class Source:
    """One input of an artifact, as the artifact recorded it."""

    role: str
    paths: list[str]  # the same place: as given on the command line, and absolute
    # kind of fingerprint, as in `artifact.fingerprints` -> its value when the artifact was produced
    wanted: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # path or name -> {bytes, fingerprint}
    hint: str = ""  # what to show if the input no longer exists


def sources(artifact: Artifact) -> list[Source]:
    """Artifact -> its inputs, the most important first."""
    return list(_SOURCES.get(artifact.by, _none)(artifact))


def _none(artifact: Artifact) -> Iterator[Source]:
    yield from ()


def _of_corpus(artifact: Artifact) -> Iterator[Source]:
    """One source per corpus argument, with the files it matched; a single argument has all files."""
    arguments, files = artifact.facts["options"]["corpus"], artifact.facts["inputs"]
    for path in arguments:
        below = path.rstrip("/") + "/"
        own = {n: f for n, f in files.items() if n == path or n.startswith(below) or fnmatch.fnmatch(n, path)}
        yield Source("corpus", [path], files=files if len(arguments) == 1 else own)


def _of_tokenizer(facts: dict[str, Any], role: str = "tokenizer") -> Iterator[Source]:
    if facts.get("path"):
        hint = f"{facts['family']}, {facts['size']:,} ids" if "family" in facts and "size" in facts else ""
        yield Source(role, [facts["path"]], {"tokenizer": facts["fingerprint"]}, hint=hint)


def _of_count(artifact: Artifact) -> Iterator[Source]:
    yield from _of_corpus(artifact)
    yield from _of_tokenizer(artifact.facts["tokenizer"])


def _of_inputs(inputs: dict[str, Any], roles: Callable[[str, dict[str, Any]], str]) -> Iterator[Source]:
    """Directories in a manifest's `inputs`, identified by sha256 if tinydata wrote them, else by size and samples."""
    for path, about in inputs.items():
        files = about["files"]
        if all("sha256" in f for f in files.values()):
            yield Source(roles(path, files), [path], {"files": of_files(files)})
        else:
            yield Source(roles(path, files), [path], files=files)


def _of_compact(artifact: Artifact) -> Iterator[Source]:
    yield from _of_inputs(artifact.facts["inputs"], lambda path, files: "counts")
    yield from _of_tokenizer(artifact.facts["tokenizer"])


def _of_slice(artifact: Artifact) -> Iterator[Source]:
    yield from _of_inputs(
        artifact.facts["inputs"], lambda path, files: "vocab" if "idmap.parquet" in files else "model"
    )


def _of_encode(artifact: Artifact) -> Iterator[Source]:
    yield from _of_tokenizer(artifact.facts["tokenizer"])
    yield from _of_corpus(artifact)


def _of_directory(role: str, facts: dict[str, Any], kind: str = "data") -> Source:
    """{path, absolute, fingerprint, tokens}, as scores and rounds record their shards -> Source."""
    paths = [p for p in (facts.get("path"), facts.get("absolute")) if p]
    return Source(role, paths, {kind: facts["fingerprint"][:32]}, hint=f"{facts['tokens']:,} tokens")


def _of_model(role: str, facts: dict[str, Any], path: str = "") -> Source:
    """{path, recipe, step} of a run, or {path, weights, step if known} of any other model -> Source."""
    kinds = ("recipe", "step") if facts.get("recipe") else ("weights",)
    wanted = {k: str(facts[k]) for k in kinds if facts.get(k) is not None}
    return Source(role, [path or facts["path"]], wanted, hint=f"step {facts['step']:,}" if facts.get("step") else "")


def _of_score(artifact: Artifact) -> Iterator[Source]:
    """A round is identified by the sequence numbers it keeps, or by its tokens if it has its own copy of the shards."""
    m = artifact.facts
    listed = m["data"]["fingerprint"] != m["base"]["fingerprint"]
    yield _of_directory("data", m["data"], "kept" if listed else "data")
    if listed:
        yield _of_directory("base", m["base"])
    if m["options"].get("losses"):
        yield Source("model", [m["options"]["losses"]])
    elif m["model"].get("path"):
        yield _of_model("model", m["model"])


def _of_resample(artifact: Artifact) -> Iterator[Source]:
    m = artifact.facts
    for path, was in m["inputs"].items():
        yield Source("reference" if path == m["options"].get("reference") else "scores", [path], {"manifest": was})
    yield _of_directory("base", m["base"])


def _of_run(artifact: Artifact) -> Iterator[Source]:
    r = artifact.facts
    data, train = r["data"], r["train"]
    wanted = {"data": data["fingerprint"]}
    if "round" in data and "kept" in data:
        wanted["kept"] = data["kept"]
    paths = [p for p in (train.get("data"), data.get("round directory") or data.get("directory")) if p]
    yield Source("data", paths, wanted, hint=f"{data['tokens']:,} tokens")
    if train.get("init"):
        yield _of_model("init", r.get("init") or {}, train["init"])
    yield from _of_tokenizer(r["tokenizer"])


def _of_export(artifact: Artifact) -> Iterator[Source]:
    """The run only: an export records the name of its run and nothing further back."""
    e = artifact.facts
    run = {"recipe": e.get("fingerprint"), "step": e.get("step")}
    yield _of_model("run", run, e["train"].get("out") or "run")


def _of_inherit(artifact: Artifact) -> Iterator[Source]:
    settings, known = artifact.facts["settings"], dict(artifact.facts.get("inputs") or {})
    tokenizer = read_json(artifact.where / "tinydata.json").get("tokenizer") or {}
    if "fingerprint" in tokenizer:
        known["vocab"] = {"tokenizer": tokenizer["fingerprint"]}
    for role in ("source", "vocab", "data"):
        if settings.get(role):
            yield Source(role, [settings[role]], known.get(role) or {})


_SOURCES: dict[str, Callable[[Artifact], Iterator[Source]]] = {
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
