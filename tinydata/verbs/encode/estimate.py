"""Corpus plan -> what `encode` would do: exact input sizes, the rest estimated from a real sample."""

from __future__ import annotations

import time
from typing import Any

from tinydata.core.text import Result, many, seconds, size
from tinydata.formats.corpus import CorpusPlan, not_read, sample_batches
from tinydata.verbs.encode.plan import Settings, job_of, open_target
from tinydata.verbs.encode.worker import Part


def estimate(corpus_plan: CorpusPlan, corpus: list[str], vocab: str, tokenizer: str, settings: Settings) -> Result:
    """Corpus plan -> what `encode` would do: exact input sizes, the rest estimated from a real sample."""
    target = open_target(vocab, corpus, corpus_plan.kind, settings, tokenizer)
    total = sum(s.bytes for s in corpus_plan.splits)
    text = corpus_plan.kind == "text"
    job = job_of(target, text, settings)
    batches, disk = sample_batches(corpus_plan)
    for warm in (True, False):
        part, began = Part(job), time.time()
        for batch in batches[:1] if warm else batches:
            part.add(batch)
    took, scale = time.time() - began, total / disk
    first: list[int] = next((i[:12].tolist() for i in part.ids if len(i)), [])
    facts: dict[str, Any] = {
        "kind": corpus_plan.kind,
        "files": len(corpus_plan.files),
        "splits": len(corpus_plan.splits),
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
    edges = [n for n, i in (("bos", target.edges.bos), ("eos", target.edges.eos)) if i >= 0]
    named = " and ".join(f"{n} {target.tok.pieces[getattr(target.edges, n)].decode()!r}" for n in edges)
    how = "rewritten through the id map" if target.idmap else "copied unchanged"
    what = "text is encoded" if text else f"ids are {how}"
    lines = [
        f"{many(facts['files'], 'file')} of {facts['kind']}, {size(total)} on disk, {many(facts['splits'], 'split')}",
        f"{what}; each document gets {named or 'no token'}",
        f"about {facts['tokens_estimated']:,} tokens as {facts['dtype']}, {size(facts['bytes_written_estimated'])},"
        f" in about {many(facts['shards_estimated'], 'shard')} of {settings.to} (from a sample of {size(disk)})",
        f"about {seconds(took * scale)} on one core",
        f"first ids: {' '.join(map(str, first))}",
        *not_read(corpus_plan),
    ]
    return facts, "\n".join(lines)
