"""Corpus plan -> what `count` would do: exact splits and bytes, the rest estimated from a real sample."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from tinydata.core.text import Result, many, seconds, size, visible
from tinydata.formats.corpus import CorpusPlan, not_read, notes, sample_batches
from tinydata.tokenizers.open import load, read_tokenizer
from tinydata.tokenizers.probe import words_first
from tinydata.verbs.count.merge import split_parts
from tinydata.verbs.count.plan import Settings
from tinydata.verbs.count.worker import count_batches


def estimate(corpus_plan: CorpusPlan, tokenizer: str, settings: Settings, workers: int) -> Result:
    """Corpus plan -> what `count` would do: exact splits and bytes, the rest estimated from a real sample."""
    files = read_tokenizer(tokenizer)
    tok = load(files, tokenizer)
    total = sum(s.bytes for s in corpus_plan.splits)
    sample, disk = sample_batches(corpus_plan)
    _count_sample(sample[:1], files, settings)  # compiles
    began = time.time()
    rows = _count_sample(sample, files, settings)
    took = time.time() - began
    domains = rows["domains"].to_pydict()
    text = max(sum(domains["bytes"]), 1)
    scale = total / disk
    exact, why = words_first(tok) if corpus_plan.kind == "text" else (True, "")
    facts = {
        "kind": corpus_plan.kind,
        "files": len(corpus_plan.files),
        "splits": len(corpus_plan.splits),
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
        f"{many(facts['files'], 'file')} of {facts['kind']}, {size(total)} on disk, {many(facts['splits'], 'split')}",
        f"about {facts['tokens_estimated']:,} tokens, {facts['tokens_per_byte']:.3f} per byte of text"
        f" (from a sample of {size(disk)})",
        f"about {seconds(took * scale)} on one core",
        "text is split into words and each distinct word is encoded once"
        if exact and corpus_plan.kind == "text"
        else "",
        f"documents are encoded whole, about 10 times slower: {why}" if why else "",
        f"most frequent in the sample: {top}",
        *not_read(corpus_plan),
        *notes(corpus_plan),
    ]
    return facts, "\n".join(line for line in lines if line)


def _count_sample(sample: list[Any], files: dict[str, bytes], settings: Settings) -> dict[str, Any]:
    return split_parts(pa.Table.from_batches(list(count_batches(iter(sample), files=files, settings=settings))))


def _most_frequent(counts: Any, tok: Any) -> str:
    total = np.zeros(tok.size, np.int64)
    np.add.at(total, counts["token_id"].to_numpy(), counts["count"].to_numpy())
    best = np.argsort(-total, kind="stable")[:10]
    return " ".join(visible(tok.pieces[i].decode("utf-8", "replace")) for i in best)
