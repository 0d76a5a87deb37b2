"""Results as text: what the verbs print."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from tinydata.adapt import said
from tinydata.console import many, seconds, size, table, visible
from tinydata.count import Settings, count_batches, split_parts, words_first
from tinydata.formats.base import Plan, read
from tinydata.formats.streams import codec
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


def encoded(manifest: dict[str, Any], out: str, took: float) -> str:
    """What `encode` did: tokens before and after, how that compares with encoding anew, shards."""
    t, sample = manifest["totals"], manifest["sample"]
    shards = many(len(manifest["shards"]), "shard")
    lines = [f"{t['tokens']:,} tokens of {manifest['dtype']} in {many(t['documents'], 'document')}, {shards}"]
    if manifest["kind"] == "text":
        lines[0] += f"; {t['bytes'] / max(t['tokens'], 1):.3f} bytes of text per token"
        lines.append(f"wrote {out} in {seconds(took)} ({size(t['bytes'] / max(took, 1e-9))}/s)")
        return "\n".join(lines)
    if manifest["rewritten"]:
        lines[0] += f"; {t['tokens_before']:,} before ({t['tokens'] / max(t['tokens_before'], 1) - 1:+.2%})"
    if sample and sample["documents"]:
        longer = sample["tokens"] / max(sample["tokens_anew"], 1) - 1
        lines.append(
            f"all {sample['documents']} documents of a sample say what they said; {sample['equal']} of them are equal,"
            f" token for token, to encoding the text anew; all together {longer:+.2%} tokens"
        )
    lines.append(f"wrote {out} in {seconds(took)} ({t['tokens_before'] / max(took, 1e-9) / 1e6:.3g} M tokens/s)")
    return "\n".join(lines)


def encode_plan(found: Plan, corpus: list[str], vocab: str, tokenizer: str, settings: Any) -> Result:
    """What `encode` would do: its input as it is, the rest estimated on a real sample."""
    from tinydata.encode import job_of, open_target
    from tinydata.parts import Part

    target = open_target(vocab, corpus, found.kind, settings, tokenizer)
    total = sum(s.bytes for s in found.splits)
    text = found.kind == "text"
    job = job_of(target, text, settings)
    batches, disk = _sample(found)
    for warm in (True, False):
        part, began = Part(job), time.time()
        for batch in batches[:1] if warm else batches:
            part.add(batch)
    took, scale = time.time() - began, total / disk
    first: list[int] = next((i[:12].tolist() for i in part.ids if len(i)), [])
    facts = {
        "kind": found.kind,
        "files": len(found.files),
        "splits": len(found.splits),
        "bytes": total,
        "tokens_estimated": int(part.tokens * scale),
        "shards_estimated": max(1, -(-int(part.tokens * scale) // settings.shard_tokens)),
        "bytes_written_estimated": int(part.tokens * scale * job.dtype.itemsize),
        "seconds_estimated_on_one_core": took * scale,
        "to": settings.to,
        "dtype": job.dtype.name,
        "bos": target.edges.bos,
        "eos": target.edges.eos,
        "rewritten": bool(target.idmap),
        "first_ids": first,
    }
    around = [n for n, i in (("bos", target.edges.bos), ("eos", target.edges.eos)) if i >= 0]
    named = " and ".join(f"{n} {target.tok.pieces[getattr(target.edges, n)].decode()!r}" for n in around)
    how = {(True, False): "encoded", (False, True): "rewritten through the id map", (False, False): "taken as they are"}
    lines = [
        f"{many(facts['files'], 'file')} of {found.kind}, {size(total)} on disk, {many(facts['splits'], 'split')}",
        f"{'text is' if text else 'ids are'} {how[text, bool(target.idmap)]}; each document gets {named or 'no token'}",
        f"about {facts['tokens_estimated']:,} tokens as {facts['dtype']}, {size(facts['bytes_written_estimated'])},"
        f" in about {many(facts['shards_estimated'], 'shard')} of {settings.to} (from {size(disk)} of it)",
        f"about {seconds(took * scale)} on one core",
        f"the first ids: {' '.join(map(str, first))}",
    ]
    return facts, "\n".join(lines)


def score_plan(planned: Any, speed: float, workers: int, devices: list[str]) -> Result:
    """What `score` would do, and how long it takes by a few batches that were scored. planned: of `score.plan`."""
    stream, T = planned.stream, planned.seq_len
    facts = {
        "sequences": planned.tokens // T,
        "seq_len": T,
        "tokens": planned.tokens,
        "units": len(planned.units),
        "tokens_per_second_of_one_worker": speed or None,
        "seconds_estimated_on_one_worker": planned.tokens / speed if speed else None,
        "workers": workers or None,
        "devices": devices,
        "forgetting": bool(planned.log and planned.scorer),
    }
    of = f"round {stream.round}" if stream.listed else many(len(stream.source["shards"]), "shard")
    lines = [
        f"{many(facts['sequences'], 'sequence')} of {T:,} tokens in {of}, {many(facts['units'], 'unit')} of work",
        f"GPUs: {', '.join(devices)}" if devices else "",
    ]
    if speed:
        lines.append(
            f"about {seconds(planned.tokens / speed)} on one worker ({speed:,.0f} tokens/s, from a few batches)"
        )
    else:
        lines.append("losses are those the run logged; nothing is computed")
    return facts, "\n".join(line for line in lines if line)


def scored(manifest: dict[str, Any], out: str, took: float) -> str:
    """Loss by domain, what has none, and what the model has forgotten."""
    t, T = manifest["totals"], manifest["seq_len"]
    rows = [
        {"domain": n or "(none)", **d, "loss": d["nll"] / d["tokens"] if d["tokens"] else None}
        for n, d in manifest["domains"].items()
    ]
    lines = [table(rows, {"domain": "domain", "sequences": "sequences", "tokens": "tokens", "loss": "nats/token"})]
    kinds = ", ".join(f"{n:,} {status}" for status, n in manifest["statuses"].items())
    lines.append(f"{many(t['sequences'], 'sequence')} of {T:,} tokens: {kinds}")
    if t["loss"] is not None:
        held = "" if t["held_out_loss"] is None else f"; held out: {t['held_out_loss']:.4f}"
        lines.append(f"{t['loss']:.4f} nats/token over {t['tokens']:,} targets{held}")
    if manifest.get("forgetting"):
        lines += ["", _forgotten(manifest["forgetting"]), ""]
    rate = t["sequences"] * T / max(took, 1e-9)
    lines.append(f"wrote {out} in {seconds(took)} ({rate:,.0f} tokens/s)")
    return "\n".join(lines)


def _forgotten(tenths: list[dict[str, Any]]) -> str:
    """Loss when trained and now, by tenth of the run; the bar is how much it fell since."""
    fell = [(r["when_trained"] - r["now"]) if r["now"] is not None else 0.0 for r in tenths]
    most = max(*fell, 1e-9)
    rows = [
        {**r, "change": None if r["now"] is None else f"{-f:+.3f}", "bar": "\u2588" * round(30 * max(f, 0.0) / most)}
        for r, f in zip(tenths, fell, strict=True)
    ]
    heads = {
        "tenth": "tenth of the run", "sequences": "sequences", "when_trained": "when trained", "now": "now",
        "change": "change", "bar": "",
    }  # fmt: skip
    return table(rows, heads)


def warnings(manifest: dict[str, Any]) -> list[str]:
    """What a user must hear though it went well."""
    out = []
    bad = manifest["quarantined"]
    if bad["documents"]:
        why = "; ".join(f"{n} x {r}" for r, n in bad["reasons"].items())
        out.append(f"warning: {many(bad['documents'], 'document')} quarantined ({why}); see quarantine.parquet")
    if manifest["options"].get("heldout") and not manifest["totals"]["heldout_documents"]:
        share = manifest["options"]["heldout"]
        out.append(
            f"note: no document fell into the held-out {share:.0%}, so `compact` cannot measure; --heldout takes more"
        )
    if manifest["totals"]["masked"]:
        out.append(
            f"note: {manifest['totals']['masked']:,} masked tokens (no loss, or negative ids) counted as all others"
        )
    if manifest["skipped_files"]:
        some = ", ".join(manifest["skipped_files"][:3])
        out.append(f"note: {len(manifest['skipped_files'])} files of no known format skipped: {some}")
    for path in manifest.get("encoded_whole", []):
        out.append(f"note: words first differed from the library on {path}; it was encoded whole")
    return out


def notes(found: Plan) -> list[str]:
    """What was concluded of the input that its files do not say."""
    said: dict[str, list[str]] = {}
    for s in found.splits:
        if s.columns.note and s.path not in said.setdefault(s.columns.note, []):
            said[s.columns.note].append(s.path)
    return [
        f"note: {note} ({paths[0]}{f' and {len(paths) - 1} more' * (len(paths) > 1)})" for note, paths in said.items()
    ]


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
        *notes(found),
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
        if held.get("unknown_before") or held.get("unknown_after"):
            rows.append({"": "unknown tokens", "before": held["unknown_before"], "after": held["unknown_after"]})
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


def adapted(made: Any) -> str:
    """What `compact --adapt` learned."""
    return said(made.facts) if made else ""


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


def slice_plan(result: dict[str, Any]) -> str:
    """What becomes of a model."""
    r, moved = result["rows"], result["rows"]["tensors"]
    rows = [
        {"": "rows of embedding and head", "before": r["before"], "after": r["after"]},
        {"": "parameters", **result["parameters"]},
        {"": "bytes", **{k: size(v) for k, v in result["bytes"].items()}},
    ]
    extra = [f"{r[k]:,} {what}" for k, what in (("learned", "learned"), ("padding", "padding")) if r[k]]
    lines = [
        table(rows, {"": "", "before": "before", "after": "after"}),
        f"{r['kept']:,} rows kept"
        + "".join(f", {e}" for e in extra)
        + ": "
        + ", ".join(f"{name} ({dtype})" for name, dtype in moved.items()),
    ]
    lines += [f"note: {note}" for note in result["notes"]]
    for place, gone in result["dropped_ids"].items():
        lines.append(f"note: {place} had {many(len(gone), 'id')} of removed tokens; dropped")
    if result["untouched"]:
        lines.append(f"note: left as they are, with a vocabulary of their own: {', '.join(result['untouched'])}")
    if result["left_out"]:
        lines.append(f"not copied: {', '.join(result['left_out'])}")
    return "\n".join(lines)


def sliced(manifest: dict[str, Any], out: str, took: float) -> str:
    rate = manifest["bytes"]["after"] / max(took, 1e-9)
    return f"{slice_plan(manifest)}\nwrote {out} in {seconds(took)} ({size(rate)}/s)"


def resample_plan(facts: dict[str, Any]) -> str:
    """What a draw will keep, or has kept: by decile of loss, and by domain."""
    deciles = [
        {"": f"{d}0-{d + 1}0 % of losses", "sequences": r["sequences"], **_shares(r, 1)}
        for d, r in enumerate(facts["deciles"])
    ]
    domains = [
        {"": n, "sequences": r["sequences"], "can": r["eligible"], **_shares(r, r["sequences"])}
        for n, r in sorted(facts["domains"].items(), key=lambda item: -item[1]["sequences"])[:20]
    ]
    heads = {"": "", "sequences": "sequences", "can": "can be kept", "expected": "expected", "kept": "kept"}
    made = "kept" in facts["deciles"][0]
    heads = {k: v for k, v in heads.items() if made or k != "kept"}
    loss = facts["loss"]
    excluded = ", ".join(f"{n:,} {reason}" for reason, n in facts["excluded"].items()) or "none"
    lines = [
        table(deciles, {k: v for k, v in heads.items() if k != "can"}),
        "",
        table(domains, heads),
        "",
        f"{facts['eligible']:,} of {facts['sequences']:,} sequences can be kept; excluded: {excluded}",
        f"mean loss {loss['before']:.4f}, of what is kept {loss['expected']:.4f} expected"
        + (f", {loss['kept']:.4f} found" if made else ""),
        f"effective size {facts['effective_size']:.3f} of all",
    ]
    if not made:
        lines += [f"{facts['expected']:,} sequences will be kept", *(f"note: {note}" for note in facts["notes"])]
    return "\n".join(lines)


def _shares(row: dict[str, Any], by: int) -> dict[str, str]:
    """Expected and kept, as numbers of `by`, as shares."""
    return {k: f"{row[k] / max(by, 1):.2%}" for k in ("expected", "kept") if k in row}


def resampled(manifest: dict[str, Any], out: str, took: float) -> str:
    kept = manifest["kept"]
    return (
        f"{resample_plan(manifest['selection'])}\n"
        f"kept {kept['sequences']:,} sequences, {kept['tokens']:,} tokens with a loss, for round {manifest['round']}\n"
        f"wrote {out} in {seconds(took)}"
    )
