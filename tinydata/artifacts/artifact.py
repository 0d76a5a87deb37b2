"""Directory -> Artifact: the metadata file it carries (manifest, inherit, tinydata, recipe or state .json), parsed.

The trainer's directories are read as plain JSON too, so nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tinydata.core.errors import TinydataError
from tinydata.core.location import Location, fingerprint, read_bytes
from tinydata.core.output import MANIFEST
from tinydata.core.text import many, size

VERBS = ("count", "compact", "encode", "slice", "score", "resample")
LATEST, METRICS = "latest", "metrics.jsonl"
TAIL = 1 << 18  # bytes at the end of metrics.jsonl that are searched for the last validation


class Artifact(NamedTuple):
    """A directory, the program that wrote it and its metadata.

    `by` is "tinydata VERB", "trainer.MODULE", "checkpoint", or "" for any other model; `facts` is the parsed JSON.
    """

    where: Location
    by: str
    facts: dict[str, Any]


def open_artifact(path: str | Location) -> Artifact | None:
    """Directory -> Artifact, read from its metadata file.

    Returns None if there is no such file, or if another program wrote one of the same name.
    """
    where = path if isinstance(path, Location) else Location.of(path)
    if not where.is_dir():
        return None
    manifest = read_json(where / MANIFEST)
    if manifest.get("verb") in VERBS:
        return Artifact(where, f"tinydata {manifest['verb']}", manifest)
    config = read_json(where / "config.json") if _has(where, ".safetensors") else {}
    for name, by, wanted in (
        ("inherit.json", "trainer.inherit", ("settings", "source", "target")),
        ("tinydata.json", "trainer.export", ("model", "train", "data")),
        ("recipe.json", "trainer.run", ("model", "train", "data")),
        ("state.json", "checkpoint", ("model", "train", "data", "step")),
    ):
        facts = read_json(where / name)
        if all(key in facts for key in wanted):
            return Artifact(where, by, {**facts, "config": config} if config else facts)
    return Artifact(where, "", {"config": config}) if "model_type" in config else None


def read_json(where: Location) -> dict[str, Any]:
    """JSON file -> its object; {} if the file is missing, invalid, or not an object."""
    try:
        value = json.loads(read_bytes(where))
    except (TinydataError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _has(where: Location, end: str) -> bool:
    return any(f.name.endswith(end) for f in where.children())


# -- what it contains, in one line ------------------------------------------------------------


class Contents(NamedTuple):
    """What a directory contains, as `tinydata ls` shows it."""

    holds: str  # kind of artifact: "counts", "shards", "model", ...
    ids: int | None  # vocabulary size
    detail: str


def describe(artifact: Artifact) -> Contents:
    """Artifact -> its kind, vocabulary size and a one-line summary."""
    return _CONTENTS[artifact.by](artifact.facts, artifact.where)


def bytes_of(artifact: Artifact) -> int:
    """Size on disk: of the files that the manifest lists or, without a manifest, of all files."""
    if "files" in artifact.facts:
        return sum(f["bytes"] for f in artifact.facts["files"].values())
    return sum(f.size for f in artifact.where.children(recursive=True, hidden=True))


def _counts(m: dict[str, Any], where: Location) -> Contents:
    t = m["totals"]
    detail = f"{t['tokens']:,} tokens, {many(t['documents'], 'document')}, {many(t['domains'], 'domain')}"
    return Contents("counts", m["tokenizer"]["size"], detail)


def _vocabulary(m: dict[str, Any], where: Location) -> Contents:
    ids, held_out = m["trade"]["ids"], m["trade"]["heldout"]
    more = f", inflation {held_out['inflation']:+.2%}" if held_out else ""
    return Contents("vocabulary", ids["after"], f"{ids['after']:,} of {ids['before']:,} ids{more}")


def _shards(m: dict[str, Any], where: Location) -> Contents:
    t = m["totals"]
    detail = f"{t['tokens']:,} tokens, {many(t['documents'], 'document')}, {many(len(m['shards']), 'shard')}"
    return Contents("shards", m["tokenizer"]["size"], detail)


def _sliced(m: dict[str, Any], where: Location) -> Contents:
    p, r = m["parameters"], m["rows"]
    detail = f"{p['after']:,} of {p['before']:,} parameters, {r['after']:,} of {r['before']:,} rows"
    return Contents("model", r["after"], detail)


def _scores(m: dict[str, Any], where: Location) -> Contents:
    t = m["totals"]
    detail = f"{many(t['sequences'], 'sequence')} of {m['seq_len']:,}"
    detail += f", {t['loss']:.3f} nats per token" if t.get("tokens") else ", none with a loss"
    others = {s: n for s, n in m["statuses"].items() if s != "ok" and n}
    if others:
        detail += "; " + ", ".join(f"{n:,} {s}" for s, n in sorted(others.items()))
    return Contents("scores", m["tokenizer"]["size"], detail)


def _round(m: dict[str, Any], where: Location) -> Contents:
    kept, how = m["kept"], m["options"]
    detail = f"{many(kept['sequences'], 'sequence')} of {m['seq_len']:,} kept, {how['preset']} by {how['unit']}"
    detail += f", seed {how['seed']}" + (f"; copied to {many(len(m['shards']), 'shard')}" if "shards" in m else "")
    return Contents(f"round {m['round']}", m["tokenizer"]["size"], detail)


def _run(r: dict[str, Any], where: Location) -> Contents:
    train, step = r["train"], latest_step(where)
    detail = f"{_shape(r['model'])}; step {step:,} of {train['steps']:,}, {step * train['batch_tokens']:,} tokens"
    detail += f", of sequences in {train['kept']}" if train.get("kept") else ""
    loss = _validation(where)
    return Contents("run", r["model"]["vocab"], detail + (f"; held-out loss {loss:.3f} nats per token" if loss else ""))


def _checkpoint(s: dict[str, Any], where: Location) -> Contents:
    detail = f"{_shape(s['model'])}; step {s['step']:,} of {s['train']['steps']:,}, {s['tokens']:,} tokens"
    return Contents("checkpoint", s["model"]["vocab"], detail)


def _exported(e: dict[str, Any], where: Location) -> Contents:
    detail = f"{_shape(e['model'])}; step {e.get('step', 0):,}, {e.get('tokens', 0):,} tokens"
    loss = ((e.get("metrics") or {}).get("held out") or {}).get("loss")
    return Contents(
        "model", e["model"]["vocab"], detail + (f"; held-out loss {loss:.3f} nats per token" if loss else "")
    )


def _inherited(i: dict[str, Any], where: Location) -> Contents:
    s, t, how = i["source"], i["target"], i["settings"]
    detail = f"{_shape(t)}, cut by {how['method']} out of {s['depth']} layers x {s['width']:,}"
    return Contents("model", t["vocab"], detail)


def _foreign(m: dict[str, Any], where: Location) -> Contents:
    c = m["config"]
    depth, width = c.get("num_hidden_layers"), c.get("hidden_size")
    shape = f", {depth} layers x {width:,}" if isinstance(depth, int) and isinstance(width, int) else ""
    return Contents("model", c.get("vocab_size"), f"{c['model_type']}{shape}, not produced by tinydata")


_CONTENTS: dict[str, Callable[[dict[str, Any], Location], Contents]] = {
    "tinydata count": _counts,
    "tinydata compact": _vocabulary,
    "tinydata encode": _shards,
    "tinydata slice": _sliced,
    "tinydata score": _scores,
    "tinydata resample": _round,
    "trainer.run": _run,
    "checkpoint": _checkpoint,
    "trainer.export": _exported,
    "trainer.inherit": _inherited,
    "": _foreign,
}


def _shape(m: dict[str, Any]) -> str:
    return f"{m['depth']} layers x {m['width']:,}"


def latest_step(run: Location) -> int:
    """Run directory -> step of its newest checkpoint; 0 if it has none."""
    try:
        name = read_bytes(run / LATEST).decode()
    except TinydataError:
        return 0
    return int(name.rpartition("-")[2]) if name.rpartition("-")[2].strip().isdigit() else 0


def _validation(run: Location) -> float | None:
    """Run directory -> loss, in nats per token, of the last validation in metrics.jsonl; None if there is none."""
    try:
        with (run / METRICS).open() as f:
            f.seek(max(0, f.size() - TAIL))
            lines = f.read().split(b"\n")
    except TinydataError:
        return None
    for line in reversed(lines):
        if b'"validation"' in line:
            try:
                return json.loads(line)["validation"]["loss"]
            except (ValueError, KeyError, TypeError):
                return None
    return None


# -- fingerprints -----------------------------------------------------------------------------


def fingerprints(artifact: Artifact) -> dict[str, str]:
    """Artifact -> {kind: current fingerprint}: everything by which other artifacts may refer to it, its own first.

    data: the tokens of shards; tokenizer: ids and pieces; files: all files listed in the manifest; manifest: that file;
    kept: the sequence numbers of a round; recipe: the configuration of a run; step: its newest checkpoint;
    weights: size, beginning and end of each safetensors file.
    """
    m, out = artifact.facts, {}
    if artifact.by.startswith("tinydata "):
        if "shards" in m:
            out["data"] = of_shards(m)
        if "kept" in m:
            out = {"kept": m["kept"]["sha256"][:32], "data": m["base"]["fingerprint"], **out}
        if "vocabulary" in m and artifact.by == "tinydata compact":
            out["tokenizer"] = m["vocabulary"]["fingerprint"]
        out["files"] = of_files(m["files"])
        out["manifest"] = hashlib.sha256(read_bytes(artifact.where / MANIFEST)).hexdigest()
    elif artifact.by in ("trainer.run", "checkpoint"):
        out = {"recipe": m["fingerprint"]} if "fingerprint" in m else {}
        out["step"] = str(m["step"] if artifact.by == "checkpoint" else latest_step(artifact.where))
    if _has(artifact.where, ".safetensors"):
        out = {"weights": of_weights(artifact.where), **out}
    return out


def of_shards(manifest: dict[str, Any]) -> str:
    """Manifest -> fingerprint of the tokens: a hash over the sha256 of the token files.

    Must agree with `trainer.data.shards.Shards.fingerprint`.
    """
    names = [f"{s['name']}.{end}" for s in manifest["shards"] for end in ("bin", "loss")]
    hashes = [manifest["files"][n]["sha256"] for n in names if n in manifest["files"]]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:32] if hashes else of_files(manifest["files"])


def of_files(files: dict[str, Any]) -> str:
    """{name: {sha256, …}} -> one fingerprint of all these files."""
    lines = "".join(f"{name} {about['sha256']}\n" for name, about in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def of_weights(where: Location) -> str:
    """Model directory -> fingerprint of its safetensors files: their names, sizes, beginnings and ends.

    Must agree with `trainer.training.identity`.
    """
    files = [f for f in where.children() if f.name.endswith(".safetensors")]
    lines = "".join(f"{f.name} {fingerprint(f)['fingerprint']}\n" for f in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def damage(artifact: Artifact) -> str:
    """Artifact -> a sentence about the first file whose size is not that in the manifest, or ""."""
    for name, about in artifact.facts.get("files", {}).items():
        file = artifact.where / name
        actual = file.size if file.exists() else None
        if actual != about["bytes"]:
            state = "is missing" if actual is None else f"has {size(actual)}"
            return f"{name} {state}; the manifest says {size(about['bytes'])}"
    return ""
