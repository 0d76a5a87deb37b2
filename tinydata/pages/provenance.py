"""Directories -> where their numbers come from, and warnings about what weakens them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tinydata.core.location import Location, read_bytes
from tinydata.core.output import MANIFEST
from tinydata.core.text import seconds, size
from tinydata.pages.blocks import ROWS, Facts, Notes, Section, Table
from tinydata.pages.inputs import CountsDir, Directory, Inputs, RoundDir, ScoresDir, ShardsDir, VocabDir
from tinydata.pages.text import number, share

FAULTS = ("nan", "id out of range")  # statuses that indicate an error


def provenance(d: Directory) -> Facts:
    """Directory -> how it was produced: version, command line, run time, fingerprints."""
    m = d.manifest
    big = m["tokenizer"]
    items = [
        ("produced by", "text", f"tinydata {m['tinydata']}, {m['verb']}"),
        ("command", "code", str(d.run.get("command") or "not recorded")),
        ("run time", "text", _run_time(d.run)),
        ("tokenizer", "text", f"{big['path']} ({big['family']}, {number(big['size'])} ids)"),
        ("fingerprint", "code", big["fingerprint"]),
    ]
    if isinstance(d, VocabDir):
        items.append(("new fingerprint", "code", m["vocabulary"]["fingerprint"]))
    return Facts(d.path, items)


def files(dirs: list[Directory]) -> Section:
    """Directories -> section with the options, input files and output files of each."""
    rows = [
        [d.path, k, json.dumps(v, ensure_ascii=False)] for d in dirs for k, v in sorted(d.manifest["options"].items())
    ]
    blocks = [Table([("directory", "code"), ("option", "text"), ("value", "code")], rows)]
    for d in dirs:
        blocks += [_inputs(d), _outputs(d)]
    return Section("files", "Options and files", blocks)


def _run_time(run: dict[str, Any]) -> str:
    """{"seconds", "engine", "workers", "bytes"}, any of which may be missing -> one line."""
    if not isinstance(run.get("seconds"), (int, float)):
        return "not recorded"
    text = seconds(run["seconds"])
    if run.get("engine"):
        text += f", {run['engine']} engine"
    if run.get("workers"):
        text += f", {number(run['workers'])} worker" + ("s" if run["workers"] != 1 else "")
    if run.get("bytes"):
        text += f"; {size(run['bytes'])} read, {size(run['bytes'] / max(run['seconds'], 1e-9))}/s"
    return text


def _inputs(d: Directory) -> Table:
    rows = []
    for path, about in sorted(d.manifest["inputs"].items()):
        if isinstance(about, str):  # fingerprint of a directory's manifest
            rows.append([f"{path}/{MANIFEST}", "", about])
        elif "files" in about:  # an output directory of tinydata
            rows += [[f"{path}/{n}", number(f["bytes"]), f["sha256"]] for n, f in sorted(about["files"].items())]
        else:
            rows.append([path, number(about["bytes"]), about["fingerprint"]])
    return Table(
        [("input", "code"), ("bytes", "number"), ("fingerprint", "code")],
        rows[:ROWS],
        folded=f"{number(len(rows))} input files of {d.path}",
        note=f"The first {ROWS}; the complete list is in manifest.json." if len(rows) > ROWS else "",
    )


def _outputs(d: Directory) -> Table:
    files = sorted(d.manifest["files"].items())
    return Table(
        [("output", "code"), ("bytes", "number"), ("sha256", "code")],
        [[n, number(f["bytes"]), f["sha256"]] for n, f in files],
        folded=f"{number(len(files))} output files of {d.path}",
    )


def same_tokenizer(vocab: VocabDir, counts: list[CountsDir]) -> CountsDir | None:
    """Counts on the page under the vocabulary's original tokenizer, preferably those it was computed from; or None."""
    candidates = [
        c for c in counts if c.manifest["tokenizer"]["fingerprint"] == vocab.manifest["tokenizer"]["fingerprint"]
    ]
    return next((c for c in candidates if _computed_from(vocab, c)), candidates[0] if candidates else None)


def _computed_from(vocab: VocabDir, counts: CountsDir) -> bool:
    return any(about.get("files") == counts.manifest["files"] for about in vocab.manifest["inputs"].values())


# -- warnings ---------------------------------------------------------------------------------


def warnings(inputs: Inputs) -> Notes:
    """Inputs -> one sentence for everything that makes a number on the page less reliable than it looks."""
    out = []
    for c in inputs.counts:
        out += [f"{c.path}: {text}" for text in _about_counts(c)]
    for v in inputs.vocabs:
        out += [f"{v.path}: {text}" for text in _about_vocabulary(v, inputs.counts)]
    for d in inputs.shards:
        out += [f"{d.path}: {text}" for text in _about_shards(d, inputs.vocabs)]
    for s in inputs.scores:
        out += [f"{s.path}: {text}" for text in _about_scores(s)]
    for r in inputs.rounds:
        out += [f"{r.path}: {text}" for text in _about_round(r, inputs.scores)]
    return Notes(out, warn=True)


def _about_scores(s: ScoresDir) -> list[str]:
    m = s.manifest
    lost = {k: n for k, n in m["statuses"].items() if k in FAULTS and n}
    out = []
    if lost:
        failures = ", ".join(f"{number(n)} {k}" for k, n in lost.items())
        out.append(
            f"some of the {number(m['totals']['sequences'])} sequences have no loss because of an error: {failures}."
        )
    if not m["totals"]["tokens"]:
        out.append("no sequence has a loss.")
    return out


def _about_round(r: RoundDir, scores: list[ScoresDir]) -> list[str]:
    out = [f"{note[:1].upper()}{note[1:]}." for note in r.manifest["selection"]["notes"]]
    scores_of_round = r.manifest["scores"]["manifest"]
    if scores and scores_of_round not in {sha256(s.path) for s in scores}:
        out.append("drawn from scores that are not on this page.")
    return out


def _about_shards(d: ShardsDir, vocabs: list[VocabDir]) -> list[str]:
    m, out = d.manifest, _left_out(d.manifest)
    prints = {v.manifest["vocabulary"]["fingerprint"] for v in vocabs}
    if prints and m["tokenizer"]["fingerprint"] not in prints:
        out.append("encoded with a tokenizer that is none of the vocabularies on this page.")
    if m["rewritten"] and not m["sample"]:
        out.append(
            "the original tokenizer was not available, so no rewritten document could be compared with its text."
        )
    return out


def _left_out(m: dict[str, Any]) -> list[str]:
    """Manifest of counts or shards -> sentences about input that is not included."""
    out = []
    bad, good = m["quarantined"]["documents"], m["totals"]["documents"]
    if bad:
        out.append(f"{number(bad)} of {number(bad + good)} documents could not be used; see Quarantine.")
    if m["skipped_files"]:
        some = ", ".join(m["skipped_files"][:3])
        out.append(f"{number(len(m['skipped_files']))} files were skipped because their format is unknown: {some}.")
    return out


def _about_counts(c: CountsDir) -> list[str]:
    m = c.manifest
    out = _left_out(m)
    if not m["totals"]["heldout_tokens"]:
        out.append("no documents were held out, so inflation cannot be measured with these counts.")
    return out


def _about_vocabulary(v: VocabDir, counts: list[CountsDir]) -> list[str]:
    trade, out = v.manifest["trade"], []
    near = same_tokenizer(v, counts)
    if counts and near is None:
        out.append("computed from counts under a different tokenizer than those on this page.")
    elif near is not None and not _computed_from(v, near):
        out.append(f"computed from other counts than {near.path} on this page, so the two may disagree.")
    dead = trade["dead_pieces"]["after"]
    if dead:
        of = dead / max(trade["ids"]["after"], 1)
        out.append(f"{number(dead)} of its ids ({share(of)}) are dead: no text is ever encoded to them.")
    heldout = trade["heldout"]
    if not heldout:
        return [*out, "its inflation was not measured because there was no held-out text."]
    trip = heldout["round_trip"]
    if trip["same_text"] < trip["documents"]:
        differ = trip["documents"] - trip["same_text"]
        out.append(
            f"{number(differ)} of {number(trip['documents'])} held-out documents decode to a"
            " different text than with the original tokenizer."
        )
    return out


def sha256(path: str) -> str:
    """Directory -> SHA-256 of its manifest, with which a round identifies its scores."""
    return hashlib.sha256(read_bytes(Location.of(path) / MANIFEST)).hexdigest()
