"""corpus -> counts: how often each token id occurs, per domain, and in the held-out documents.

splits -> batches of TEXT or TOKENS -> one sparse partial result per task -> merged in a tree ->
counts.parquet, domains.parquet, heldout.parquet, quarantine.parquet. Exact int64 throughout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core import schema
from tinydata.core.location import table_bytes
from tinydata.core.output import Output
from tinydata.core.quarantine import quarantined, reasons
from tinydata.engines.base import Engine, reduce
from tinydata.formats.corpus import CorpusPlan, check_bad, plan, weigh
from tinydata.tokenizers.open import loaded, read_tokenizer
from tinydata.tokenizers.special_tokens import id_facts
from tinydata.verbs.count.heldout import text_share
from tinydata.verbs.count.merge import merge, paths_that_failed, split_parts
from tinydata.verbs.count.plan import DEFAULTS, Settings, header
from tinydata.verbs.count.worker import MAX_DOMAINS, count_batches, many_domains


def count(
    corpus: list[str],
    tokenizer: str,
    out: str,
    engine: Engine,
    settings: Settings = DEFAULTS,
    *,
    force: bool = False,
    json_freq: bool = False,
    partitions: int = 0,
    corpus_plan: CorpusPlan | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Corpus + tokenizer -> COUNTS in `out`; returns its manifest. The same command again continues an interrupted one.

    Raises TinydataError if there is nothing to read, too much of it is unusable, or the output already exists.
    """
    files = read_tokenizer(tokenizer)
    tok = loaded(files, tokenizer)
    corpus_plan = corpus_plan or plan(corpus, settings.wanted._replace(**id_facts(tok)))
    output = Output(out, header(corpus, tokenizer, tok, corpus_plan, settings), force=force)
    partials = reduce(
        engine,
        corpus_plan.splits,
        partial(count_batches, files=files, settings=settings, text_share=text_share(corpus_plan.splits)),
        merge=merge,
        parts=output.parts,
        progress=progress,
        partitions=partitions,
        label=f"tinydata count {', '.join(corpus)}",
    )
    partials = pa.concat_tables([partials, quarantined(corpus_plan.unreadable)])
    tables = split_parts(partials)
    encoded_whole = paths_that_failed(partials)
    _check_tables(tables, settings, corpus_plan)
    result = {**summary(tables, corpus_plan), "encoded_whole": encoded_whole}
    contents = {f"{name}.parquet": table_bytes(t) for name, t in tables.items() if name != "quarantine" or len(t)}
    if json_freq:
        contents["total_token_freq.json"] = paper_json(tables["counts"])
    return output.publish(result, contents)


def _check_tables(tables: dict[str, pa.Table], settings: Settings, corpus_plan: CorpusPlan) -> None:
    """Raises TinydataError if there are too many domains or too many unusable documents, or nothing was read."""
    good = pc.sum(tables["domains"]["documents"]).as_py() or 0
    if len(tables["domains"]) > MAX_DOMAINS:  # of all tasks together
        raise many_domains(", ".join(f.path for f in corpus_plan.files[:3]))
    check_bad(tables["quarantine"], good, settings.max_bad, corpus_plan)


def summary(tables: dict[str, pa.Table], corpus_plan: CorpusPlan) -> dict[str, Any]:
    """Tables of COUNTS -> the part of the manifest that describes the result."""
    domains = tables["domains"]
    total = {c: pc.sum(domains[c]).as_py() for c in schema.DOMAINS.names[1:]}
    return {
        "totals": {
            **total,
            "domains": len(domains),
            "distinct_tokens": pc.count_distinct(tables["counts"]["token_id"]).as_py(),
        },
        "quarantined": reasons(tables["quarantine"], weigh(tables["quarantine"], total["documents"] or 0, corpus_plan)),
        "skipped_files": corpus_plan.skipped,
    }


def paper_json(counts: pa.Table) -> bytes:
    """COUNTS -> `total_token_freq.json` in the format of the paper's scripts: {"token id": count}."""
    total = counts.group_by("token_id").aggregate([("count", "sum")]).sort_by("token_id")
    return json.dumps(
        dict(zip(map(str, total["token_id"].to_pylist()), total["count_sum"].to_pylist(), strict=True))
    ).encode()
