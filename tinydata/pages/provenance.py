"""Where the numbers come from, and what a reader must know before using them."""

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

FAULTS = ("nan", "id out of range")  # statuses that say that something is wrong


def made(d: Directory) -> Facts:
    """What made the directory: version, command line, time, fingerprints."""
    m = d.manifest
    big = m["tokenizer"]
    items = [
        ("made by", "text", f"tinydata {m['tinydata']}, {m['verb']}"),
        ("command", "code", str(d.run.get("command") or "not recorded")),
        ("run time", "text", _run_time(d.run)),
        ("tokenizer", "text", f"{big['path']} ({big['family']}, {number(big['size'])} ids)"),
        ("fingerprint", "code", big["fingerprint"]),
    ]
    if isinstance(d, VocabDir):
        items.append(("new fingerprint", "code", m["vocabulary"]["fingerprint"]))
    return Facts(d.path, items)


def files(dirs: list[Directory]) -> Section:
    """Options of each run, what it read and what it wrote."""
    rows = [
        [d.path, k, json.dumps(v, ensure_ascii=False)] for d in dirs for k, v in sorted(d.manifest["options"].items())
    ]
    blocks = [Table([("directory", "code"), ("option", "text"), ("value", "code")], rows)]
    for d in dirs:
        blocks += [_inputs(d), _outputs(d)]
    return Section("files", "Options and files", blocks)


def _run_time(run: dict[str, Any]) -> str:
    """{"seconds", "engine", "workers", "bytes"}, any of them missing -> one line."""
    if not isinstance(run.get("seconds"), (int, float)):
        return "not recorded"
    told = seconds(run["seconds"])
    if run.get("engine"):
        told += f", {run['engine']} engine"
    if run.get("workers"):
        told += f", {number(run['workers'])} worker" + ("s" if run["workers"] != 1 else "")
    if run.get("bytes"):
        told += f"; {size(run['bytes'])} read, {size(run['bytes'] / max(run['seconds'], 1e-9))}/s"
    return told


def _inputs(d: Directory) -> Table:
    rows = []
    for path, about in sorted(d.manifest["inputs"].items()):
        if isinstance(about, str):  # of a directory's manifest
            rows.append([f"{path}/{MANIFEST}", "", about])
        elif "files" in about:  # a directory that tinydata made
            rows += [[f"{path}/{n}", number(f["bytes"]), f["sha256"]] for n, f in sorted(about["files"].items())]
        else:
            rows.append([path, number(about["bytes"]), about["fingerprint"]])
    return Table(
        [("input", "code"), ("bytes", "number"), ("fingerprint", "code")],
        rows[:ROWS],
        folded=f"{number(len(rows))} input files of {d.path}",
        note=f"The first {ROWS}; all are in manifest.json." if len(rows) > ROWS else "",
    )


def _outputs(d: Directory) -> Table:
    files = sorted(d.manifest["files"].items())
    return Table(
        [("output", "code"), ("bytes", "number"), ("sha256", "code")],
        [[n, number(f["bytes"]), f["sha256"]] for n, f in files],
        folded=f"{number(len(files))} output files of {d.path}",
    )


def same_tokenizer(vocab: VocabDir, counts: list[CountsDir]) -> CountsDir | None:
    """The counts on the page that are of the vocabulary's big tokenizer; those it was made from, if they are there."""
    alike = [c for c in counts if c.manifest["tokenizer"]["fingerprint"] == vocab.manifest["tokenizer"]["fingerprint"]]
    return next((c for c in alike if _made_from(vocab, c)), alike[0] if alike else None)


def _made_from(vocab: VocabDir, counts: CountsDir) -> bool:
    return any(about.get("files") == counts.manifest["files"] for about in vocab.manifest["inputs"].values())


# -- what must not be overlooked --------------------------------------------------------------


def concerns(found: Inputs) -> Notes:
    """One sentence for everything that makes a number on the page weaker than it looks."""
    out = []
    for c in found.counts:
        out += [f"{c.path}: {text}" for text in _about_counts(c)]
    for v in found.vocabs:
        out += [f"{v.path}: {text}" for text in _about_vocabulary(v, found.counts)]
    for d in found.shards:
        out += [f"{d.path}: {text}" for text in _about_shards(d, found.vocabs)]
    for s in found.scores:
        out += [f"{s.path}: {text}" for text in _about_scores(s)]
    for r in found.rounds:
        out += [f"{r.path}: {text}" for text in _about_round(r, found.scores)]
    return Notes(out, warn=True)


def _about_scores(s: ScoresDir) -> list[str]:
    m = s.manifest
    lost = {k: n for k, n in m["statuses"].items() if k in FAULTS and n}
    out = []
    if lost:
        told = ", ".join(f"{number(n)} {k}" for k, n in lost.items())
        out.append(f"of {number(m['totals']['sequences'])} sequences some have no loss: {told}.")
    if not m["totals"]["tokens"]:
        out.append("no sequence has a loss.")
    return out


def _about_round(r: RoundDir, scores: list[ScoresDir]) -> list[str]:
    out = [f"{note[:1].upper()}{note[1:]}." for note in r.manifest["selection"]["notes"]]
    made_from = r.manifest["scores"]["manifest"]
    if scores and made_from not in {sha256(s.path) for s in scores}:
        out.append("made from other scores than those on this page.")
    return out


def _about_shards(d: ShardsDir, vocabs: list[VocabDir]) -> list[str]:
    m, out = d.manifest, _left_out(d.manifest)
    prints = {v.manifest["vocabulary"]["fingerprint"] for v in vocabs}
    if prints and m["tokenizer"]["fingerprint"] not in prints:
        out.append("made with another tokenizer than the vocabularies on this page.")
    if m["rewritten"] and not m["sample"]:
        out.append("the big tokenizer was not found, so no rewritten document was compared with its text.")
    return out


def _left_out(m: dict[str, Any]) -> list[str]:
    """Of counts or shards: what of the input is not in them."""
    out = []
    bad, good = m["quarantined"]["documents"], m["totals"]["documents"]
    if bad:
        out.append(f"{number(bad)} of {number(bad + good)} documents could not be used; see Quarantine.")
    if m["skipped_files"]:
        some = ", ".join(m["skipped_files"][:3])
        out.append(f"{number(len(m['skipped_files']))} files of no known format were skipped: {some}.")
    return out


def _about_counts(c: CountsDir) -> list[str]:
    m = c.manifest
    out = _left_out(m)
    if not m["totals"]["heldout_tokens"]:
        out.append("no document is held out, so that no inflation can be measured on these counts.")
    return out


def _about_vocabulary(v: VocabDir, counts: list[CountsDir]) -> list[str]:
    trade, out = v.manifest["trade"], []
    near = same_tokenizer(v, counts)
    if counts and near is None:
        out.append("made from counts of another tokenizer than those on this page.")
    elif near is not None and not _made_from(v, near):
        out.append(f"made from other counts than {near.path} on this page: the two need not agree.")
    dead = trade["dead_pieces"]["after"]
    if dead:
        of = dead / max(trade["ids"]["after"], 1)
        out.append(f"{number(dead)} of its ids ({share(of)}) are dead: no text ever becomes them.")
    held = trade["heldout"]
    if not held:
        return [*out, "there was no held-out text: its inflation was not measured."]
    trip = held["round_trip"]
    if trip["same_text"] < trip["documents"]:
        differ = trip["documents"] - trip["same_text"]
        out.append(
            f"{number(differ)} of {number(trip['documents'])} documents decode to another text"
            " than with the big tokenizer."
        )
    return out


def sha256(path: str) -> str:
    """Of a directory's manifest, by which a round knows its scores."""
    return hashlib.sha256(read_bytes(Location.of(path) / MANIFEST)).hexdigest()
