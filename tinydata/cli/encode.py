"""tinydata encode."""

from __future__ import annotations

import time

import click

from tinydata.cli.corpus_options import Columns, CorpusCommand, columns, max_bad
from tinydata.cli.options import FORMATS, PATH, Run, given, needed, record, running, typed
from tinydata.cli.texts.count import exit_code, warnings_text
from tinydata.cli.texts.encode import columns_of_counts, summary_text
from tinydata.engines.connect import connect


@click.command(cls=CorpusCommand, epilog="Example: tinydata encode corpus/ --vocab vocab -o shards")
@click.argument("corpus", type=PATH, nargs=-1)
@click.option("--vocab", type=PATH, default="", help="Directory that `tinydata compact` wrote, or any tokenizer.")
@click.option("-o", "--out", type=PATH, default="", help="Directory for the shards.")
@click.option(
    "--to", type=click.Choice(FORMATS), default="megatron", show_default=True, help="File format of the shards."
)
@click.option(
    "--tokenizer",
    type=PATH,
    default="",
    help="Tokenizer that made the token ids of CORPUS, or none. The default is the one that the vocabulary names.",
)
@click.option(
    "--bos", default="", help="Token before each document, or none. The default is what the tokenizer declares."
)
@click.option(
    "--eos",
    default="",
    help="Token after each document, or none. The default is the tokenizer's end of text, and none if CORPUS"
    " holds token ids.",
)
@click.option(
    "--shard-tokens",
    type=click.IntRange(1),
    default=1 << 27,
    show_default=True,
    help="Approximate number of tokens in a shard.",
)
@click.option("--shuffle", is_flag=True, help="Put all documents into a random order, which a hash decides.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of --shuffle.")
@columns
@max_bad
@running
def encode(
    corpus: tuple[str, ...],
    vocab: str,
    out: str,
    to: str,
    tokenizer: str,
    bos: str,
    eos: str,
    shard_tokens: int,
    shuffle: bool,
    seed: int,
    columns: Columns,
    max_bad: float,
    run: Run,
) -> int:
    """Turn a corpus into shards of token ids.

    CORPUS: text, or token ids that the original tokenizer made. Such ids are rewritten through the
    vocabulary's id map, which does not need the text. If --vocab is an ordinary tokenizer, the ids
    stay the same and only the file format changes. The same command again continues an interrupted
    run.
    """
    from tinydata.formats.corpus import notes, plan
    from tinydata.tokenizers.open import loaded, read_tokenizer
    from tinydata.tokenizers.special_tokens import about_end
    from tinydata.verbs.encode import verb
    from tinydata.verbs.encode.estimate import estimate
    from tinydata.verbs.encode.plan import Settings, with_id_facts

    console = run.console()
    paths = needed(given("corpus", corpus), "CORPUS")
    vocab = needed(vocab, "--vocab")
    if typed("seed") and not shuffle:
        raise click.UsageError("--seed goes with --shuffle: pass both, or neither")
    wanted = with_id_facts(columns.wanted(), vocab, tokenizer)
    settings = Settings(wanted, to, shard_tokens, seed if shuffle else -1, bos, eos, max_bad)
    corpus_plan = plan(paths, settings.wanted)
    if run.dry_run:
        console.result(*estimate(corpus_plan, paths, vocab, tokenizer, settings))
        return 0
    out = needed(out, "-o")
    began, total = time.time(), sum(s.bytes for s in corpus_plan.splits)
    with connect(run.engine, run.workers) as engine:
        manifest = verb.encode(
            paths, vocab, out, engine, settings, tokenizer=tokenizer, force=run.force, partitions=run.partitions,
            corpus_plan=corpus_plan, stage=console.progress,
        )  # fmt: skip
        record(out, began, engine=engine.name, workers=engine.slots, bytes=total)
    console.result(manifest, summary_text(manifest, out, time.time() - began))
    ends = columns_of_counts(vocab, settings.wanted.given) if corpus_plan.kind == "text" else []
    ends += about_end(loaded(read_tokenizer(vocab), vocab), manifest["eos"]) if manifest["kind"] == "text" else []
    for line in ends + warnings_text(manifest) + notes(corpus_plan):
        console.say(line)
    return exit_code(manifest)
