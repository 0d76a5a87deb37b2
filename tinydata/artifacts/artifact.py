"""A directory -> what made it, in its own words: manifest.json, inherit.json, tinydata.json, recipe.json, state.json.

The trainer's directories are read as JSON, as everybody else's: nothing here needs torch.
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
TAIL = 1 << 18  # bytes of metrics that are looked at for the last validation


class Made(NamedTuple):
    """where; by: tinydata VERB, trainer.MODULE, or "" for a model from elsewhere; facts: the JSON."""

    where: Location
    by: str
    facts: dict[str, Any]


def made(path: str | Location) -> Made | None:
    """Directory -> what its own files say; None where they say nothing, or are another program's of the same name."""
    where = path if isinstance(path, Location) else Location.of(path)
    if not where.is_dir():
        return None
    manifest = read_json(where / MANIFEST)
    if manifest.get("verb") in VERBS:
        return Made(where, f"tinydata {manifest['verb']}", manifest)
    config = read_json(where / "config.json") if _has(where, ".safetensors") else {}
    for name, by, wanted in (
        ("inherit.json", "trainer.inherit", ("settings", "source", "target")),
        ("tinydata.json", "trainer.export", ("model", "train", "data")),
        ("recipe.json", "trainer.run", ("model", "train", "data")),
        ("state.json", "checkpoint", ("model", "train", "data", "step")),
    ):
        facts = read_json(where / name)
        if all(key in facts for key in wanted):
            return Made(where, by, {**facts, "config": config} if config else facts)
    return Made(where, "", {"config": config}) if "model_type" in config else None


def read_json(where: Location) -> dict[str, Any]:
    """{} where there is none, or it is not an object."""
    try:
        found = json.loads(read_bytes(where))
    except (TinydataError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has(where: Location, end: str) -> bool:
    return any(f.name.endswith(end) for f in where.children())


# -- what it holds, in a line -----------------------------------------------------------------


class Held(NamedTuple):
    holds: str
    ids: int | None  # of its vocabulary
    detail: str


def held(d: Made) -> Held:
    return _HELD[d.by](d.facts, d.where)


def bytes_of(d: Made) -> int:
    """On disk: of what the manifest lists, else of all files."""
    if "files" in d.facts:
        return sum(f["bytes"] for f in d.facts["files"].values())
    return sum(f.size for f in d.where.children(recursive=True, hidden=True))


def _counts(m: dict[str, Any], where: Location) -> Held:
    t = m["totals"]
    detail = f"{t['tokens']:,} tokens, {many(t['documents'], 'document')}, {many(t['domains'], 'domain')}"
    return Held("counts", m["tokenizer"]["size"], detail)


def _vocabulary(m: dict[str, Any], where: Location) -> Held:
    ids, held_out = m["trade"]["ids"], m["trade"]["heldout"]
    more = f", inflation {held_out['inflation']:+.2%}" if held_out else ""
    return Held("vocabulary", ids["after"], f"{ids['after']:,} of {ids['before']:,} ids{more}")


def _shards(m: dict[str, Any], where: Location) -> Held:
    t = m["totals"]
    detail = f"{t['tokens']:,} tokens, {many(t['documents'], 'document')}, {many(len(m['shards']), 'shard')}"
    return Held("shards", m["tokenizer"]["size"], detail)


def _sliced(m: dict[str, Any], where: Location) -> Held:
    p, r = m["parameters"], m["rows"]
    detail = f"{p['after']:,} of {p['before']:,} parameters, {r['after']:,} of {r['before']:,} rows"
    return Held("model", r["after"], detail)


def _scores(m: dict[str, Any], where: Location) -> Held:
    t = m["totals"]
    detail = f"{many(t['sequences'], 'sequence')} of {m['seq_len']:,}"
    detail += f", {t['loss']:.3f} nats per token" if t.get("tokens") else ", none with a loss"
    others = {s: n for s, n in m["statuses"].items() if s != "ok" and n}
    if others:
        detail += "; " + ", ".join(f"{n:,} {s}" for s, n in sorted(others.items()))
    return Held("scores", m["tokenizer"]["size"], detail)


def _round(m: dict[str, Any], where: Location) -> Held:
    kept, how = m["kept"], m["options"]
    detail = f"{many(kept['sequences'], 'sequence')} of {m['seq_len']:,} kept, {how['preset']} by {how['unit']}"
    detail += f", seed {how['seed']}" + (f"; copied to {many(len(m['shards']), 'shard')}" if "shards" in m else "")
    return Held(f"round {m['round']}", m["tokenizer"]["size"], detail)


def _run(r: dict[str, Any], where: Location) -> Held:
    train, step = r["train"], latest_step(where)
    detail = f"{_shape(r['model'])}; step {step:,} of {train['steps']:,}, {step * train['batch_tokens']:,} tokens"
    detail += f", of sequences in {train['kept']}" if train.get("kept") else ""
    loss = _validation(where)
    return Held("run", r["model"]["vocab"], detail + (f"; held out {loss:.3f} nats per token" if loss else ""))


def _checkpoint(s: dict[str, Any], where: Location) -> Held:
    detail = f"{_shape(s['model'])}; step {s['step']:,} of {s['train']['steps']:,}, {s['tokens']:,} tokens"
    return Held("checkpoint", s["model"]["vocab"], detail)


def _exported(e: dict[str, Any], where: Location) -> Held:
    detail = f"{_shape(e['model'])}; step {e.get('step', 0):,}, {e.get('tokens', 0):,} tokens"
    loss = ((e.get("metrics") or {}).get("held out") or {}).get("loss")
    return Held("model", e["model"]["vocab"], detail + (f"; held out {loss:.3f} nats per token" if loss else ""))


def _inherited(i: dict[str, Any], where: Location) -> Held:
    s, t, how = i["source"], i["target"], i["settings"]
    detail = f"{_shape(t)}, cut by {how['method']} out of {s['depth']} layers x {s['width']:,}"
    return Held("model", t["vocab"], detail)


def _foreign(m: dict[str, Any], where: Location) -> Held:
    c = m["config"]
    depth, width = c.get("num_hidden_layers"), c.get("hidden_size")
    shape = f", {depth} layers x {width:,}" if isinstance(depth, int) and isinstance(width, int) else ""
    return Held("model", c.get("vocab_size"), f"{c['model_type']}{shape}, not made here")


_HELD: dict[str, Callable[[dict[str, Any], Location], Held]] = {
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
    """Of a run's newest checkpoint; 0 if it has none."""
    try:
        name = read_bytes(run / LATEST).decode()
    except TinydataError:
        return 0
    return int(name.rpartition("-")[2]) if name.rpartition("-")[2].strip().isdigit() else 0


def _validation(run: Location) -> float | None:
    """Loss of the last validation in metrics.jsonl."""
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


# -- what it is, in a hash --------------------------------------------------------------------


def fingerprints(d: Made) -> dict[str, str]:
    """By what others know it: the kind of a fingerprint -> the fingerprint, as it is now. The first one is its own.

    data: of shards' tokens; tokenizer: of ids and pieces; files: of all a manifest lists; manifest: of that file;
    kept: of a round's numbers; recipe: of what decides a run; step: its newest; weights: of safetensors files' ends.
    """
    m, out = d.facts, {}
    if d.by.startswith("tinydata "):
        if "shards" in m:
            out["data"] = of_shards(m)
        if "kept" in m:
            out = {"kept": m["kept"]["sha256"][:32], "data": m["base"]["fingerprint"], **out}
        if "vocabulary" in m and d.by == "tinydata compact":
            out["tokenizer"] = m["vocabulary"]["fingerprint"]
        out["files"] = of_files(m["files"])
        out["manifest"] = hashlib.sha256(read_bytes(d.where / MANIFEST)).hexdigest()
    elif d.by in ("trainer.run", "checkpoint"):
        out = {"recipe": m["fingerprint"]} if "fingerprint" in m else {}
        out["step"] = str(m["step"] if d.by == "checkpoint" else latest_step(d.where))
    if _has(d.where, ".safetensors"):
        out = {"weights": of_weights(d.where), **out}
    return out


def of_shards(manifest: dict[str, Any]) -> str:
    """Of the tokens, as trainer.data.shards.Shards.fingerprint has it: of the sha256 of their files."""
    names = [f"{s['name']}.{end}" for s in manifest["shards"] for end in ("bin", "loss")]
    found = [manifest["files"][n]["sha256"] for n in names if n in manifest["files"]]
    return hashlib.sha256("".join(found).encode()).hexdigest()[:32] if found else of_files(manifest["files"])


def of_files(files: dict[str, Any]) -> str:
    """{name: {sha256, …}} -> of all of them."""
    lines = "".join(f"{name} {about['sha256']}\n" for name, about in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def of_weights(where: Location) -> str:
    """Of names, sizes and ends of the safetensors files, as trainer.training.identity has it."""
    files = [f for f in where.children() if f.name.endswith(".safetensors")]
    lines = "".join(f"{f.name} {fingerprint(f)['fingerprint']}\n" for f in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def damage(d: Made) -> str:
    """A file that is not as long as the manifest says, or not there; "" if all are."""
    for name, about in d.facts.get("files", {}).items():
        file = d.where / name
        there = file.size if file.exists() else None
        if there != about["bytes"]:
            found = "is gone" if there is None else f"has {size(there)}"
            return f"{name} {found}, {size(about['bytes'])} in its manifest"
    return ""
