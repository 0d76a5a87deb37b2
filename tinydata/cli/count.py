"""tinydata count."""

from __future__ import annotations

import time
from typing import Any

import click

from tinydata.cli.console import Console
from tinydata.cli.options import columns, connected, given, needed, record, running, wanted, warnings
from tinydata.core.errors import QUARANTINED
from tinydata.core.text import many, seconds, size


@click.command(epilog="Example: tinydata count corpus/ --tokenizer tokenizer.json -o counts")
@click.argument("corpus", nargs=-1)
@click.option("--tokenizer", default="", help="The big tokenizer: directory or file.")
@click.option("-o", "--out", default="", help="Directory for the counts.")
@columns
@click.option(
    "--heldout",
    type=click.FloatRange(0, 0.5),
    default=0.01,
    show_default=True,
    help="Share of documents set aside, by hash of their id.",
)
@click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="Share of documents that may be unusable.",
)
@click.option("--json-freq", is_flag=True, help="Also total_token_freq.json, as the paper's scripts use it.")
@running
def count(
    corpus: tuple[str, ...],
    tokenizer: str,
    out: str,
    heldout: float,
    max_bad: float,
    json_freq: bool,
    engine: str,
    workers: int,
    partitions: int,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **named: str,
) -> int:
    """Count how often each token id occurs, per domain.

    CORPUS: files, directories or globs: JSON lines (plain, .gz, .zst), Parquet, .txt, MDS, and the
    token files of Megatron, InternEvo, datatrove, dolma, nanoGPT, llm.c, lit-gpt and litdata. Text
    is tokenized with the big tokenizer; ids are counted as they are. The same command again
    continues a run that was killed.
    """
    from tinydata.formats.corpus import notes, plan
    from tinydata.tokenizers.open import loaded, read_tokenizer
    from tinydata.tokenizers.special_tokens import id_facts
    from tinydata.verbs.count import verb
    from tinydata.verbs.count.estimate import count_plan
    from tinydata.verbs.count.plan import Settings

    console = Console(as_json, quiet, verbose)
    paths = needed(given("corpus", corpus), "CORPUS")
    tokenizer = needed(tokenizer, "--tokenizer")
    settings = Settings(heldout, wanted(named), max_bad)
    found = plan(paths, settings.wanted._replace(**id_facts(loaded(read_tokenizer(tokenizer), tokenizer))))
    if dry_run:
        console.result(*count_plan(found, tokenizer, settings, workers))
        return 0
    out = needed(out, "-o")
    began, total = time.time(), sum(s.bytes for s in found.splits)
    with connected(engine, workers) as running_on, console.progress("count", total) as progress:
        manifest = verb.count(
            paths,
            tokenizer,
            out,
            running_on,
            settings,
            force=force,
            json_freq=json_freq,
            partitions=partitions,
            found=found,
            progress=progress,
        )
        record(out, began, engine=running_on.name, workers=running_on.slots, bytes=total)
    console.result(manifest, counted(manifest, out, time.time() - began))
    for line in warnings(manifest) + notes(found):
        console.say(line)
    return QUARANTINED if manifest["quarantined"]["documents"] else 0


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
