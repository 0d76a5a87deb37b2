"""Results as text: what the verbs print."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import numpy as np
import pyarrow as pa

from tinydata.console import many, seconds, size, table, visible
from tinydata.count import Settings, count_batches, split_parts, words_first
from tinydata.errors import TinydataError
from tinydata.formats.base import Plan, plan, read
from tinydata.formats.streams import codec
from tinydata.store import MANIFEST, Location, read_bytes
from tinydata.tokenizers.base import load, read_tokenizer

SAMPLE_BYTES = 64 << 20
_DISK_PER_BYTE = {"gzip": 0.3, "zstd": 0.28}  # of text; only where no whole file fits into the sample

Result = tuple[Any, str]  # as JSON, as text


def counted(manifest: dict[str, Any], out: str, took: float) -> str:
    t = manifest["totals"]
    rate = t["bytes"] / max(took, 1e-9)
    return (
        f"{t['tokens']:,} tokens in {many(t['documents'], 'document')}, {size(t['bytes'])} of text,"
        f" {many(t['domains'], 'domain')};"
        f" {t['distinct_tokens']:,} of {manifest['tokenizer']['size']:,} ids occur\n"
        f"{t['heldout_tokens']:,} tokens in {many(t['heldout_documents'], 'document')} are held out\n"
        f"wrote {out} in {seconds(took)} ({size(rate)}/s)"
    )


def warnings(manifest: dict[str, Any]) -> list[str]:
    """What a user must hear though it went well."""
    out = []
    bad = manifest["quarantined"]
    if bad["documents"]:
        why = "; ".join(f"{n} x {r}" for r, n in bad["reasons"].items())
        out.append(f"warning: {many(bad['documents'], 'document')} quarantined ({why}); see quarantine.parquet")
    if not manifest["totals"]["heldout_documents"] and manifest["options"]["heldout"]:
        share = manifest["options"]["heldout"]
        out.append(
            f"note: no document fell into the held-out {share:.0%}, so `compact` cannot measure; --heldout takes more"
        )
    if manifest["totals"]["masked"]:
        out.append(
            f"note: {manifest['totals']['masked']:,} negative ids (masked labels) counted as their absolute value"
        )
    if manifest["skipped_files"]:
        some = ", ".join(manifest["skipped_files"][:3])
        out.append(f"note: {len(manifest['skipped_files'])} files of no known format skipped: {some}")
    for path in manifest.get("encoded_whole", []):
        out.append(f"note: words-first counting differed from the library on {path}; it was encoded whole")
    return out


def count_plan(found: Plan, tokenizer: str, settings: Settings, workers: int) -> Result:
    """What `count` would do: splits and bytes as they are, the rest estimated on a real sample."""
    files = read_tokenizer(tokenizer)
    tok = load(files, tokenizer)
    total = sum(s.bytes for s in found.splits)
    sample, disk = _sample(found)
    _count_sample(sample[:1], files, settings)  # compiles
    began = time.time()
    rows = _count_sample(sample, files, settings)
    took = time.time() - began
    domains = rows["domains"].to_pydict()
    text = max(sum(domains["bytes"]), 1)
    scale = total / disk
    exact, why = words_first(tok) if found.kind == "text" else (True, "")
    facts = {
        "kind": found.kind,
        "files": len(found.files),
        "splits": len(found.splits),
        "bytes": total,
        "domains_in_sample": len(domains["domain"]),
        "tokens_estimated": int(sum(domains["tokens"]) * scale),
        "tokens_per_byte": sum(domains["tokens"]) / text,
        "seconds_estimated_on_one_core": took * scale,
        "words_first": exact,
        "why_not": why,
    }
    top = _most_frequent(rows["counts"], tok)
    lines = [
        f"{many(facts['files'], 'file')} of {found.kind}, {size(total)} on disk, {many(facts['splits'], 'split')}",
        f"about {facts['tokens_estimated']:,} tokens, {facts['tokens_per_byte']:.3f} per byte of text"
        f" (from {size(disk)} of it)",
        f"about {seconds(took * scale)} on one core",
        "text is counted words first" if exact and found.kind == "text" else "",
        f"text is encoded whole, about 10 times slower: {why}" if why else "",
        f"most frequent in the sample: {top}",
    ]
    return facts, "\n".join(line for line in lines if line)


def _sample(found: Plan) -> tuple[list[Any], float]:
    """Batches of a few splits from all over the corpus -> (batches, bytes on disk they stand for).

    Splits are read whole, so that the ratio is right for compressed files too; the last one may
    be cut, and then counts for what a split of its size gave so far.
    """
    step = max(1, len(found.splits) // 16)
    sample: list[Any] = []
    memory, disk = 0, 0.0
    for split in found.splits[::step]:
        before = memory
        for batch in read(split, lambda p, r, e: None):
            sample.append(batch)
            memory += batch.nbytes
            if memory >= SAMPLE_BYTES:
                rate = disk / before if before else _DISK_PER_BYTE.get(codec(split.path), 1.0)
                return sample, min(disk + rate * (memory - before), disk + split.bytes)
        disk += split.bytes
    return sample, max(disk, 1.0)


def _count_sample(sample: list[Any], files: dict[str, bytes], settings: Settings) -> dict[str, Any]:
    return split_parts(pa.Table.from_batches(list(count_batches(iter(sample), files=files, settings=settings))))


def _most_frequent(counts: Any, tok: Any) -> str:
    total = np.zeros(tok.size, np.int64)
    np.add.at(total, counts["token_id"].to_numpy(), counts["count"].to_numpy())
    best = np.argsort(-total, kind="stable")[:10]
    return " ".join(visible(tok.pieces[i].decode("utf-8", "replace")) for i in best)


def trade(trade: dict[str, Any]) -> str:
    """The trade, before anything is written."""
    ids, dead = trade["ids"], trade["dead_pieces"]
    saved = trade["embedding_and_head_parameters"]
    rows = [
        {"": "ids", "before": ids["before"], "after": ids["after"]},
        {"": "dead pieces", "before": dead["before"], "after": dead["after"]},
        {"": f"embedding + head at d_model {trade['d_model']}", "before": saved["before"], "after": saved["after"]},
    ]
    held = trade["heldout"]
    lines = [f"{trade['coverage']:.2%} of the corpus's tokens stay as they are"]
    if held:
        rows += [
            {
                "": f"held-out tokens ({many(held['documents'], 'document')})",
                "before": held["tokens_before"],
                "after": held["tokens_after"],
            },
            {"": "bytes per token", "before": held["bytes_per_token_before"], "after": held["bytes_per_token_after"]},
            {
                "": "single-byte tokens",
                "before": f"{held['byte_tokens_before']:.2%}",
                "after": f"{held['byte_tokens_after']:.2%}",
            },
        ]
        trip = held["round_trip"]
        worst = ", ".join(f"{r['domain']} {r['inflation']:+.2%}" for r in held["domains"][:5])
        lines = [
            f"inflation on held-out text: {held['inflation']:+.2%}; worst: {worst}",
            f"{trip['same_text']} of {trip['documents']} documents decode to the same text as before",
            *lines,
        ]
    else:
        lines.append("there is no held-out text, so inflation was not measured")
    return "\n".join([table(rows, {"": "", "before": "before", "after": "after"}), *lines])


def curve(points: list[dict[str, Any]] | None) -> str:
    """Vocabulary size against inflation and parameters, with a bar for the eye."""
    if not points:
        return ""
    worst = max((p["inflation"] or 0.0) for p in points) or 1.0
    rows = [
        {
            "vocab": p["vocab"],
            "inflation": "" if p["inflation"] is None else f"{p['inflation']:+.2%}",
            "coverage": f"{p['coverage']:.2%}",
            "parameters": p["embedding_and_head_parameters"],
            "bar": "\u2588" * round(40 * max(p["inflation"] or 0.0, 0.0) / worst),
        }
        for p in points
    ]
    heads = {
        "vocab": "vocab",
        "inflation": "inflation",
        "coverage": "coverage",
        "parameters": "embedding + head",
        "bar": "",
    }
    return table(rows, heads)


def listing(paths: list[str]) -> Result:
    """What each path holds: a directory tinydata made, an unfinished one, or a corpus."""
    facts = []
    for path in paths:
        for one in _outputs(path) or [path]:
            manifest = _manifest(one)
            facts.append(_made(one, manifest) if manifest else _unfinished(one) or _corpus(one))
    return facts, table(facts, {"path": "path", "holds": "holds", "size": "size", "detail": ""})


def _outputs(path: str) -> list[str]:
    """Directories inside that tinydata made or began to make."""
    where = Location.of(path)
    if not where.is_dir() or not where.local or _manifest(path):
        return []
    found = []
    for entry in os.scandir(where.absolute):
        name = entry.name[1:-8] if entry.name.startswith(".") and entry.name.endswith(".partial") else entry.name
        if entry.is_dir() and (name != entry.name or _manifest(entry.path)):
            found.append(os.path.normpath(os.path.join(path, name)))
    return sorted(set(found))


def _manifest(path: str) -> dict[str, Any] | None:
    """Of a directory that tinydata made; other programs have files of that name too."""
    try:
        found = json.loads(read_bytes(Location.of(path) / MANIFEST))
    except (TinydataError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("verb") in ("count", "compact") else None


def _unfinished(path: str) -> dict[str, Any] | None:
    where = Location.of(path)
    parts = where.parent / f".{where.name}.partial" / "parts"
    if not parts.exists():
        return None
    done = sum(f.name.endswith(".json") for f in parts.children())
    detail = f"{many(done, 'part')} done; the command that began it goes on"
    return {"path": path, "holds": "unfinished", "size": "", "detail": detail}


def _made(path: str, manifest: dict[str, Any]) -> dict[str, Any]:
    on_disk = size(sum(f["bytes"] for f in manifest["files"].values()))
    if manifest["verb"] == "count":
        t = manifest["totals"]
        detail = f"{t['tokens']:,} tokens, {many(t['documents'], 'document')}, {many(t['domains'], 'domain')}"
        return {
            "path": path,
            "holds": "counts",
            "size": on_disk,
            "ids": manifest["tokenizer"]["size"],
            "detail": detail,
        }
    ids, held = manifest["trade"]["ids"], manifest["trade"]["heldout"]
    detail = f"{ids['after']:,} of {ids['before']:,} ids" + (f", inflation {held['inflation']:+.2%}" if held else "")
    return {"path": path, "holds": "vocabulary", "size": on_disk, "ids": ids["after"], "detail": detail}


def _corpus(path: str) -> dict[str, Any]:
    try:
        found = plan([path])
    except TinydataError as e:
        return {"path": path, "holds": "nothing to read", "size": "", "detail": e.what}
    forms = sorted({s.format for s in found.splits})
    detail = f"{many(len(found.files), 'file')}, {', '.join(forms)}"
    return {"path": path, "holds": found.kind, "size": size(sum(s.bytes for s in found.splits)), "detail": detail}
