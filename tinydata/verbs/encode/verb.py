"""corpus + vocabulary -> shards; ids of the big tokenizer are rewritten without decoding them to text."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tinydata.core import schema
from tinydata.core.documents import total_by_domain
from tinydata.core.errors import TinydataError
from tinydata.core.location import table_bytes
from tinydata.core.output import Output
from tinydata.core.quarantine import Unusable, reasons
from tinydata.engines.base import Engine, Stage, Unit, map, silent
from tinydata.formats.corpus import CorpusPlan, check_bad, plan, weigh
from tinydata.tokenizers.base import CONTROL, Tokenizer
from tinydata.tokenizers.special_tokens import end_of_text
from tinydata.verbs.encode.assemble import PartCleanup, arrange, write_shard
from tinydata.verbs.encode.encoders import SAMPLE
from tinydata.verbs.encode.plan import (
    DEFAULTS,
    Settings,
    Target,
    header,
    job_of,
    open_target,
    units_of_splits,
    with_id_facts,
)
from tinydata.verbs.encode.worker import Job, encode_unit

ENOUGH = 1_000  # a sample with fewer tokens is not conclusive
FOREIGN = 0.1  # share of tokens by which a corpus may differ from what its tokenizer makes of its text


def encode(
    corpus: list[str],
    vocab: str,
    out: str,
    engine: Engine,
    settings: Settings = DEFAULTS,
    *,
    tokenizer: str = "",
    force: bool = False,
    partitions: int = 0,
    corpus_plan: CorpusPlan | None = None,
    stage: Stage = silent,
) -> dict[str, Any]:
    """Corpus + vocabulary -> SHARDS in `out`; returns its manifest. Run again, it continues an interrupted run.

    vocab: output of `tinydata compact`, or any tokenizer. tokenizer: the one that produced the ids, if it is not
    where the vocabulary says; "none" skips the comparison with it. stage: shows progress of (name, total bytes).

    Raises TinydataError if there is nothing to read, too much of it is unusable, the ids are of a different
    tokenizer, or the output already exists.
    """
    corpus_plan = corpus_plan or plan(corpus, with_id_facts(settings.wanted, vocab, tokenizer))
    target = open_target(vocab, corpus, corpus_plan.kind, settings, tokenizer)
    output = Output(out, header(corpus, vocab, target, corpus_plan, settings), force=force)
    output.place.make_dir()
    text = corpus_plan.kind == "text"
    job = job_of(target, text, settings, output.parts.absolute, output.place.absolute)
    label = f"tinydata encode {', '.join(corpus)}"
    options: dict[str, Any] = {"parts": output.parts, "partitions": partitions, "label": label}
    units = units_of_splits(corpus_plan.splits)
    with stage("encode", sum(u.bytes for u in units)) as progress:
        done = map(engine, units, partial(encode_unit, job), kind="part", progress=progress, **options)
    bad = _quarantine(done, corpus_plan)
    good = sum(d["documents"] for d in done)
    check_bad(bad, good, settings.max_bad, corpus_plan)
    _check_origin(done, corpus)
    shards = arrange(done, settings.shard_tokens, settings.seed)
    todo = [Unit(s.number, s, s.tokens * job.dtype.itemsize) for s in shards]
    masked = any(d["masked"] for d in done)
    with stage("shards", sum(u.bytes for u in todo)) as progress:
        options |= {"progress": progress, "finished": PartCleanup(output.parts, shards)}
        written = map(engine, todo, partial(write_shard, job, masked), kind="shard", **options)
    files = {"quarantine.parquet": table_bytes(bad)} if len(bad) else {}
    if settings.to == "megatron":  # lets the trainer compute bits per byte without the tokenizer
        files["pieces.parquet"] = table_bytes(pieces(target.tok))
    result = {
        **summary(done, written, target, job, corpus_plan),
        "quarantined": reasons(bad, weigh(bad, good, corpus_plan)),
    }
    return output.publish(result, files, {n: s for m in written for n, s in m["files"].items()})


def _check_origin(done: list[dict[str, Any]], corpus: list[str]) -> None:
    """Raises TinydataError if the ids of the sample are not what the big tokenizer makes of their text."""
    old, again = (sum(d["sample"][k] for d in done) for k in ("tokens_old", "tokens_old_anew"))
    if old >= ENOUGH and abs(old - again) > FOREIGN * max(old, again):
        raise TinydataError(
            f"the ids do not seem to come from the original tokenizer: it encodes the text of a sample to"
            f" {again:,} tokens,"
            f" but the corpus has {old:,}",
            where=", ".join(corpus),
            fix="pass the vocabulary derived from the tokenizer of these ids, or --tokenizer none to skip this check",
        )


def _quarantine(done: list[dict[str, Any]], corpus_plan: CorpusPlan) -> pa.Table:
    """Sums of all parts -> QUARANTINE."""
    bad = [*corpus_plan.unreadable, *(Unusable(*row) for d in done for row in d["bad"])]
    rows = [b._asdict() for b in bad]
    return pa.Table.from_pylist(rows, schema.QUARANTINE).sort_by([("path", "ascending"), ("position", "ascending")])


def pieces(tok: Tokenizer) -> pa.Table:
    """-> PIECES. The bytes of a text are the sum over its ids if the tokenizer neither normalises nor adds a blank."""
    special = (tok.kinds == CONTROL) | tok.gap
    size = np.where(special, 0, [len(p) for p in tok.pieces])
    return pa.table([np.arange(tok.size), size, special], names=schema.PIECES.names).cast(schema.PIECES)


def summary(
    done: list[dict[str, Any]], written: list[dict[str, Any]], target: Target, job: Job, corpus_plan: CorpusPlan
) -> dict[str, Any]:
    """Sums of parts and shards -> the part of the manifest that describes the result."""
    unit = "bytes" if job.text else "tokens_before"
    domains = {
        name: {"documents": sums["documents"], unit: sums["before"], "tokens": sums["tokens"]}
        for name, sums in sorted(total_by_domain(d["domains"] for d in done).items())
    }
    total = {k: sum(d[k] for d in done) for k in ("documents", "tokens", "masked")}
    sample = {k: sum(d["sample"][k] for d in done) for k in SAMPLE}
    return {
        "totals": {**total, unit: sum(sums[unit] for sums in domains.values())},
        "domains": domains,
        "shards": [{k: m[k] for k in ("name", "documents", "tokens")} for m in written],
        "dtype": job.dtype.name,
        "bos": target.edges.bos,
        "eos": target.edges.eos,
        "end_of_text": end_of_text(target.tok),
        "unknown": target.tok.unk,
        "sample": sample if target.big else None,
        "encoded_whole": sorted({d["differed"] for d in done if d["differed"]}),
        "skipped_files": corpus_plan.skipped,
    }
