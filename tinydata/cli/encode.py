"""tinydata encode."""

from __future__ import annotations

import time
from typing import Any

import click

from tinydata.cli.console import Console
from tinydata.cli.options import FORMATS, columns, connected, given, needed, record, running, wanted
from tinydata.core.errors import QUARANTINED
from tinydata.core.text import many, seconds, size


@click.command(epilog="Example: tinydata encode corpus/ --vocab vocab -o shards")
@click.argument("corpus", nargs=-1)
@click.option("--vocab", default="", help="What `tinydata compact` wrote, or any tokenizer.")
@click.option("-o", "--out", default="", help="Directory for the shards.")
@click.option(
    "--to",
    type=click.Choice(FORMATS),
    default="megatron",
    show_default=True,
    help="Format of the shards.",
)
@click.option("--tokenizer", default="", help="For ids: the tokenizer that made them, or none [default: where it was].")
@click.option("--bos", default="", help="Token in front of each document, or none [default: what the tokenizer says].")
@click.option("--eos", default="", help="Token behind each document, or none [default: its end of text; ids: none].")
@click.option(
    "--shard-tokens", type=click.IntRange(1), default=1 << 27, show_default=True, help="Tokens in a shard, about."
)
@click.option("--shuffle", is_flag=True, help="Put all documents into an order drawn by hash.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of --shuffle.")
@columns
@click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="Share of documents that may be unusable.",
)
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
    max_bad: float,
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
    """Turn a corpus into shards of token ids.

    CORPUS: text, or ids made by the big tokenizer: these are rewritten, without the text, through
    the vocabulary's id map. With a plain tokenizer as --vocab ids stay what they are, and only the
    format changes. The same command again continues a run that was killed.
    """
    from tinydata.cli import options as show
    from tinydata.formats.corpus import plan
    from tinydata.verbs.encode import estimate
    from tinydata.verbs.encode import plan as verb
    from tinydata.verbs.encode import verb as encode_verb

    console = Console(as_json, quiet, verbose)
    paths = needed(given("corpus", corpus), "CORPUS")
    vocab = needed(vocab, "--vocab")
    source = click.get_current_context().get_parameter_source("seed")
    if source == click.core.ParameterSource.COMMANDLINE and not shuffle:
        raise click.UsageError("--seed goes with --shuffle")
    named_columns = verb.informed(wanted(named), vocab, tokenizer)
    settings = verb.Settings(named_columns, to, shard_tokens, seed if shuffle else -1, bos, eos, max_bad)
    found = plan(paths, settings.wanted)
    if dry_run:
        console.result(*estimate.encode_plan(found, paths, vocab, tokenizer, settings))
        return 0
    out = needed(out, "-o")
    began, total = time.time(), sum(s.bytes for s in found.splits)
    with connected(engine, workers) as running_on:
        manifest = encode_verb.encode(
            paths,
            vocab,
            out,
            running_on,
            settings,
            tokenizer=tokenizer,
            force=force,
            partitions=partitions,
            found=found,
            stage=console.progress,
        )
        record(out, began, engine=running_on.name, workers=running_on.slots, bytes=total)
    console.result(manifest, encoded(manifest, out, time.time() - began))
    for line in show.warnings(manifest):
        console.say(line)
    return QUARANTINED if manifest["quarantined"]["documents"] else 0


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
