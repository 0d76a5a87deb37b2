"""tinydata count."""

from __future__ import annotations

import time

import click

from tinydata.cli.corpus_options import Columns, CorpusCommand, columns, max_bad
from tinydata.cli.options import PATH, Run, given, needed, record, running
from tinydata.cli.texts.count import exit_code, summary_text, warnings_text
from tinydata.engines.connect import connect


@click.command(cls=CorpusCommand, epilog="Example: tinydata count corpus/ --tokenizer tokenizer.json -o counts")
@click.argument("corpus", type=PATH, nargs=-1)
@click.option("--tokenizer", type=PATH, default="", help="Directory or file of the original, large tokenizer.")
@click.option("-o", "--out", type=PATH, default="", help="Directory for the counts.")
@columns
@click.option(
    "--heldout",
    type=click.FloatRange(0, 0.5),
    default=None,
    help="Share of the documents to hold out for measurements, chosen by a hash of their id. The default is 0.01, and"
    " up to 0.1 for a corpus of less than 40 MB.",
)
@max_bad
@click.option(
    "--json-freq", is_flag=True, help="Also write total_token_freq.json, the file that the paper's scripts read."
)
@running
def count(
    corpus: tuple[str, ...],
    tokenizer: str,
    out: str,
    columns: Columns,
    heldout: float | None,
    max_bad: float,
    json_freq: bool,
    run: Run,
) -> int:
    """Count how often each token id occurs in each domain.

    CORPUS: files, directories or globs: JSON, CSV and .txt (plain or compressed), Parquet, Arrow, MDS, and the
    token files of Megatron, InternEvo, datatrove, dolma, nanoGPT, llm.c, lit-gpt and litdata. Text
    is tokenized with the original tokenizer; token ids are counted as they are. The same command
    again continues an interrupted run.
    """
    from tinydata.formats.corpus import notes, plan
    from tinydata.tokenizers.open import loaded, read_tokenizer
    from tinydata.tokenizers.special_tokens import id_facts
    from tinydata.verbs.count import verb
    from tinydata.verbs.count.estimate import estimate
    from tinydata.verbs.count.plan import Settings, heldout_share

    console = run.console()
    paths = needed(given("corpus", corpus), "CORPUS")
    tokenizer = needed(tokenizer, "--tokenizer")
    wanted = columns.wanted()
    corpus_plan = plan(paths, wanted._replace(**id_facts(loaded(read_tokenizer(tokenizer), tokenizer))))
    settings = Settings(heldout_share(corpus_plan) if heldout is None else heldout, wanted, max_bad)
    if run.dry_run:
        console.result(*estimate(corpus_plan, tokenizer, settings, run.workers))
        return 0
    out = needed(out, "-o")
    began, total = time.time(), sum(s.bytes for s in corpus_plan.splits)
    with connect(run.engine, run.workers) as engine, console.progress("count", total) as progress:
        manifest = verb.count(
            paths, tokenizer, out, engine, settings, force=run.force, partitions=run.partitions, json_freq=json_freq,
            corpus_plan=corpus_plan, progress=progress,
        )  # fmt: skip
        record(out, began, engine=engine.name, workers=engine.slots, bytes=total)
    console.result(manifest, summary_text(manifest, out, time.time() - began))
    for line in warnings_text(manifest) + notes(corpus_plan):
        console.say(line)
    return exit_code(manifest)
