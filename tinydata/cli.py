"""parse -> open -> connect -> verb -> show; nothing else. Heavy imports live inside commands."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

from tinydata.console import Console, many
from tinydata.errors import INTERRUPTED, QUARANTINED, TinydataError

Command = Callable[..., Any]


def main(args: list[str] | None = None) -> None:
    """The console script: runs a command and leaves with the documented exit code."""
    args = sys.argv[1:] if args is None else args
    try:
        from tinydata.workspace import load

        options = {name: [str(p.name) for p in command.params] for name, command in cli.commands.items()}
        code = cli.main(args, prog_name="tinydata", standalone_mode=False, default_map=load(options), obj=args) or 0
    except TinydataError as e:
        if {"-v", "--verbose"} & set(args):
            import traceback

            traceback.print_exc()
        print(e, file=sys.stderr)
        code = e.code
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except (KeyboardInterrupt, click.Abort):
        again = shlex.join(["tinydata", *args])
        print(f"\ninterrupted; finished parts are kept. To go on: {again}", file=sys.stderr)
        code = INTERRUPTED
    except SystemExit:  # by click, which leaves so after completing a word, and when the reader of a pipe has gone
        code = 0
    sys.exit(code)


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "TINYDATA",
    },
    epilog="Start with: tinydata init CORPUS --tokenizer T, then count and compact. Exit codes: 0 done, 1 fixable"
    " error, 2 usage, 3 input unreadable or empty, 4 engine unreachable, 5 done with input quarantined,"
    " 130 interrupted.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=lambda c, p, v: _version(c, v))
def cli() -> None:
    """Compact tokenizers, and the data that goes with them, for tiny language models."""


def _version(context: click.Context, asked: bool) -> None:
    if asked:
        from tinydata.doctor import versions

        click.echo("\n".join(f"{name} {version}" for name, version in versions().items()))
        context.exit()


def common(command: Command) -> Command:
    """The options every verb has."""
    for option in reversed(
        [
            click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout."),
            click.option("-q", "--quiet", is_flag=True, help="Only the result, and errors."),
            click.option("-v", "--verbose", is_flag=True, help="Traces of errors."),
        ]
    ):
        command = option(command)
    return command


def writing(command: Command) -> Command:
    """The options of a verb that makes a directory."""
    for option in reversed(
        [
            click.option("--dry-run", is_flag=True, help="Say what would be done, with evidence, and stop."),
            click.option("--force", is_flag=True, help="Replace an output that tinydata made before."),
        ]
    ):
        command = option(command)
    return common(command)


def running(command: Command) -> Command:
    """The options of a verb that runs on an engine."""
    for option in reversed(
        [
            click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True),
            click.option("--workers", type=click.IntRange(0), default=0, help="Processes [default: one per core]."),
            click.option("--partitions", type=click.IntRange(0), default=0, help="Tasks [default: by bytes]."),
        ]
    ):
        command = option(command)
    return writing(command)


@contextmanager
def connected(engine: str, workers: int, pandas: bool = False) -> Iterator[Any]:
    """The engine of that name, closed at the end; pandas: on Spark, through mapInPandas."""
    if engine == "spark":
        from tinydata.engines.spark import SparkEngine

        spark = SparkEngine(workers, pandas=pandas)
        try:
            yield spark
        finally:
            spark.close()
    else:
        from tinydata.engines.local import LocalEngine

        yield LocalEngine(workers)


def needed(value: Any, what: str) -> Any:
    """An input that was given on the command line or stands in tinydata.toml; a usage error otherwise."""
    if not value:
        raise click.UsageError(f"{what} is missing: give it, or run `tinydata init` here once")
    return value


def given(name: str, value: tuple[str, ...]) -> list[str]:
    """A many-valued argument, or what tinydata.toml says."""
    return list(value) or list(click.get_current_context().lookup_default(name) or ())


def record(out: str, began: float, **facts: Any) -> None:
    """Leaves the run's time and command beside the manifest, which stays the same whatever they are."""
    from tinydata.store import Location, to_json

    command = shlex.join(["tinydata", *(click.get_current_context().obj or [])])
    (Location.of(out) / ".run.json").write(to_json({"command": command, "seconds": time.time() - began, **facts}))


FORMATS = ("megatron", "parquet", "internevo", "llmc")  # that are written
DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")


def columns(command: Command) -> Command:
    """The options that name a corpus's columns."""
    for option in reversed(
        [
            click.option("--text-column", default="", help="Column with text [default: text, content]."),
            click.option("--ids-column", default="", help="Column with token ids [default: input_ids, tokens]."),
            click.option("--domain-column", default="", help="Column with the domain [default: domain, else folder]."),
            click.option("--id-column", default="", help="Column with the document's id [default: doc_id, id]."),
            click.option("--dtype", type=click.Choice(DTYPES), help="Of token ids in files that do not say it."),
        ]
    ):
        command = option(command)
    return command


@cli.command(epilog="Example: tinydata init corpus/ --tokenizer tokenizer.json")
@click.argument("corpus", nargs=-1, required=True)
@click.option("--tokenizer", required=True, help="The big tokenizer: directory or file.")
@columns
@click.option("--force", is_flag=True, help="Replace a tinydata.toml that is here.")
@common
def init(
    corpus: tuple[str, ...], tokenizer: str, force: bool, as_json: bool, quiet: bool, verbose: bool, **named: str
) -> int:
    """Write tinydata.toml, so that the short forms work in this directory.

    CORPUS: files, directories or globs of text or token ids.
    """
    from tinydata import workspace
    from tinydata.count import informed
    from tinydata.formats.base import plan
    from tinydata.store import Location
    from tinydata.tokenizers.base import open_tokenizer

    console = Console(as_json, quiet, verbose)
    where = Location.of(workspace.FILE)
    if where.exists() and not force:
        raise TinydataError("tinydata.toml is here already", where=os.getcwd(), fix="edit it, or pass --force")
    tok = open_tokenizer(tokenizer)
    found = plan(list(corpus), informed(wanted(named), tok))
    where.write(workspace.text(list(corpus), tokenizer, {k: v for k, v in named.items() if v}).encode())
    files, size = len(found.files), sum(s.bytes for s in found.splits)
    console.result(
        {"files": files, "bytes": size, "kind": found.kind, "ids": tok.size},
        f"{many(files, 'file')} of {found.kind}, {size:,} bytes; {tok.family} tokenizer of {tok.size:,} ids\n"
        "wrote tinydata.toml; next: tinydata count",
    )
    return 0


@cli.command(epilog="Example: tinydata count corpus/ --tokenizer tokenizer.json -o counts")
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
    from tinydata import count as verb
    from tinydata import show
    from tinydata.formats.base import plan
    from tinydata.tokenizers.base import read_tokenizer

    console = Console(as_json, quiet, verbose)
    paths = needed(given("corpus", corpus), "CORPUS")
    tokenizer = needed(tokenizer, "--tokenizer")
    settings = verb.Settings(heldout, wanted(named), max_bad)
    found = plan(paths, verb.informed(settings.wanted, verb.loaded(read_tokenizer(tokenizer), tokenizer)))
    if dry_run:
        console.result(*show.count_plan(found, tokenizer, settings, workers))
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
    console.result(manifest, show.counted(manifest, out, time.time() - began))
    for line in show.warnings(manifest) + show.notes(found):
        console.say(line)
    return QUARANTINED if manifest["quarantined"]["documents"] else 0


def wanted(named: dict[str, str]) -> Any:
    """--text-column … -> Wanted."""
    from tinydata.formats.base import Wanted

    text, ids, domain, doc_id = (named[f"{n}_column"] for n in ("text", "ids", "domain", "id"))
    return Wanted(text, ids, domain, doc_id, named["dtype"] or "")


@cli.command(epilog="Example: tinydata compact counts --tokenizer tokenizer.json --vocab 48000 -o vocab")
@click.argument("counts", default="")
@click.option("--tokenizer", default="", help="The big tokenizer [default: where it was when it was counted with].")
@click.option("-o", "--out", default="", help="Directory for the vocabulary.")
@click.option("--vocab", type=click.IntRange(1), default=None, help="How many ids in all.")
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True),
    default=None,
    help="Or: share of the corpus's tokens that stay as they are.",
)
@click.option(
    "--max-inflation",
    type=click.FloatRange(0),
    default=None,
    help="Or: how much longer held-out text may become (0.02 = 2%).",
)
@click.option(
    "--multiple-of", type=click.IntRange(1), default=1, help="Round the number of ids up to a multiple of this."
)
@click.option(
    "--keep-tokens", type=click.Path(), default="", help="File of tokens never to remove, one a line (text, or #ID)."
)
@click.option("--min-per-domain", type=click.IntRange(0), default=0, help="Keep each domain's own most frequent N ids.")
@click.option(
    "--method",
    type=click.Choice(["leaf", "frequency"]),
    default="leaf",
    show_default=True,
    help="frequency: the paper's selection, to compare with.",
)
@click.option(
    "--adapt", is_flag=True, help="Refill ids with merges learned from the corpus, which is read again. With --vocab."
)
@click.option(
    "--d-model", type=click.IntRange(1), default=2048, show_default=True, help="Model width, for the parameters saved."
)
@click.option("--curve", is_flag=True, help="Also measure a dozen other sizes; without a size, only that.")
@click.option("--model", default="", help="Then also slice this Hugging Face model, as `tinydata slice` does.")
@click.option("--model-out", default="", help="Directory for the sliced model [default: the vocabulary's, and -model].")
@writing
def compact(
    counts: str,
    tokenizer: str,
    out: str,
    vocab: int | None,
    coverage: float | None,
    max_inflation: float | None,
    multiple_of: int,
    keep_tokens: str,
    min_per_domain: int,
    method: str,
    adapt: bool,
    d_model: int,
    curve: bool,
    model: str,
    model_out: str,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Build the compact vocabulary from COUNTS, and say what it costs."""
    from tinydata import compact as verb
    from tinydata import show

    console = Console(as_json, quiet, verbose)
    began = time.time()
    counts = needed(counts, "COUNTS")
    opened = verb.open_counts(counts)
    tokenizer = tokenizer or opened.manifest["tokenizer"]["path"]
    if model:  # what is wrong with it is said before anything is written
        from tinydata.slice import open_model

        open_model(model)
    asked = [v is not None for v in (vocab, coverage, max_inflation)].count(True)
    if asked > 1 or not (asked or curve):
        raise click.UsageError(
            "say how far to go with one of --vocab, --coverage, --max-inflation (or look at --curve)"
        )
    if adapt and (not vocab or method != "leaf"):
        raise click.UsageError("--adapt goes with --vocab, and not with --method frequency")
    goal = verb.Goal(
        vocab or (0 if asked else -1),
        coverage or 0.0,
        max_inflation if max_inflation is not None else -1.0,
        multiple_of,
        method,
        min_per_domain,
        verb.read_keep_tokens(keep_tokens),
        adapt,
    )
    choice = verb.choose(opened, tokenizer, goal, d_model=d_model)
    points = verb.curve(choice, opened, d_model) if curve else None
    parts = [show.trade(choice.trade) if asked else "", show.adapted(choice.adapted), show.curve(points)]
    text = "\n\n".join(filter(None, parts))
    if dry_run or not asked:
        learned = {"adapted": choice.adapted.facts} if choice.adapted else {}
        console.result({"trade": choice.trade, "curve": points, **learned}, text)
        return 0
    console.say(text)
    manifest = verb.compact(
        counts, tokenizer, needed(out, "-o"), goal, d_model=d_model, force=force, choice=choice, points=points
    )
    record(out, began)
    said = f"wrote {out}: {', '.join(manifest['files'])}"
    if model:
        sliced, text = sliced_model(console, model, out, model_out or f"{out.rstrip('/')}-model", force=force)
        manifest, said = {**manifest, "model": sliced}, f"{said}\n{text}"
    console.result(manifest, said)
    return 0


def sliced_model(
    console: Console, model: str, vocab: str, out: str, options: Any = None, *, force: bool = False
) -> tuple[dict[str, Any], str]:
    """Slices with a progress bar -> (manifest, what to print)."""
    from tinydata import show
    from tinydata import slice as verb

    began = time.time()
    planned = verb.plan(model, vocab, options)
    with console.progress("slice", planned.result["bytes"]["after"]) as progress:
        manifest = verb.write(planned, out, force=force, progress=progress)
    record(out, began)
    return manifest, show.sliced(manifest, out, time.time() - began)


@cli.command(epilog="Example: tinydata slice model --vocab vocab -o small-model")
@click.argument("model", default="")
@click.option("--vocab", default="", help="The vocabulary that `tinydata compact` made for it.")
@click.option("-o", "--out", default="", help="Directory for the sliced model.")
@click.option("--rows", multiple=True, help="This tensor (or pattern, with *) has a row per token id.")
@click.option("--not-rows", multiple=True, help="This one has not, though it has as many rows as the vocabulary.")
@click.option(
    "--pad-to-multiple-of",
    type=click.IntRange(1),
    default=1,
    help="Round the rows up to a multiple of this; a row that is no token is the mean of the others.",
)
@writing
def slice(
    model: str,
    vocab: str,
    out: str,
    rows: tuple[str, ...],
    not_rows: tuple[str, ...],
    pad_to_multiple_of: int,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Fit MODEL to a vocabulary: embedding and head with its rows, config and tokenizer to match.

    MODEL: a Hugging Face directory with safetensors files. Rows are copied byte for byte and the
    model is never loaded, so one of any size passes through little memory.
    """
    from tinydata import show
    from tinydata import slice as verb

    console = Console(as_json, quiet, verbose)
    model, vocab = needed(model, "MODEL"), needed(vocab, "--vocab")
    options = verb.Options(rows, not_rows, pad_to_multiple_of)
    if dry_run:
        planned = verb.plan(model, vocab, options)
        console.result(planned.result, show.slice_plan(planned.result))
        return 0
    console.result(*sliced_model(console, model, vocab, needed(out, "-o"), options, force=force))
    return 0


@cli.command(epilog="Example: tinydata encode corpus/ --vocab vocab -o shards")
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
    from tinydata import encode as verb
    from tinydata import show
    from tinydata.formats.base import plan

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
        console.result(*show.encode_plan(found, paths, vocab, tokenizer, settings))
        return 0
    out = needed(out, "-o")
    began, total = time.time(), sum(s.bytes for s in found.splits)
    with connected(engine, workers) as running_on:
        manifest = verb.encode(
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
    console.result(manifest, show.encoded(manifest, out, time.time() - began))
    for line in show.warnings(manifest):
        console.say(line)
    return QUARANTINED if manifest["quarantined"]["documents"] else 0


@cli.command(epilog="Example: tinydata score shards --model run -o scores")
@click.argument("shards", default="")
@click.option("--model", default="", help="A run, a checkpoint of one, or a Hugging Face directory.")
@click.option("--losses", default="", help="Or: a run, whose --log-sequence-loss is taken; nothing is computed.")
@click.option("-o", "--out", default="", help="Directory for the scores.")
@click.option("--seq-len", type=click.IntRange(1), default=None, help="Tokens of a sequence [default: the model's].")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:1; auto: a GPU per worker if there are.")
@click.option("--rows", type=click.IntRange(1), default=None, help="Sequences at once [default: by the model's size].")
@click.option(
    "--scorer", default="trainer.scorer:load", show_default=True, help="What loads the model: MODULE:FUNCTION."
)
@click.option("--base", default="", help="The shards of a round, if they have moved.")
@click.option("--round", "number", type=click.IntRange(0), default=None, help="Of round-N by run-N make scores-N.")
@running
def score(
    shards: str,
    model: str,
    losses: str,
    out: str,
    seq_len: int | None,
    device: str,
    rows: int | None,
    scorer: str,
    base: str,
    number: int | None,
    engine: str,
    workers: int,
    partitions: int,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Compute the loss of every sequence of SHARDS under a frozen model.

    SHARDS: what `tinydata encode` or `tinydata resample` wrote. One process per GPU, or per core where there is none.
    The same command again continues a run that was killed.
    """
    from tinydata import score as verb
    from tinydata import show
    from tinydata.scoring import devices

    console = Console(as_json, quiet, verbose)
    if number:
        names = {"shards": f"round-{number}", "model": f"run-{number}", "out": f"scores-{number}"}
        shards, out = (v if typed(n) else names[n] for n, v in (("shards", shards), ("out", out)))
        model = model if losses or typed("model") else names["model"]
    if losses and typed("losses"):
        model = model if typed("model") else ""  # what tinydata.toml says is meant for the other case
    shards = needed(shards, "SHARDS")
    needed(model or losses, "--model")
    if model and losses:
        raise click.UsageError("--model computes losses and --losses reads them: give one")
    settings = verb.Settings(model, losses, scorer, seq_len or 0, rows or 0, base, device)
    planned = verb.plan(shards, settings)
    there = devices(scorer) if model and device == "auto" and engine == "local" else []
    if dry_run:
        console.result(*show.score_plan(planned, verb.speed(planned, settings), workers or len(there), there))
        return 0
    out, began = needed(out, "-o"), time.time()
    stage = partial(console.progress, unit="tokens")
    with connected(engine, workers or len(there), pandas=True) as running_on:
        ways: dict[str, Any] = {"force": force, "partitions": partitions, "planned": planned, "stage": stage}
        manifest, used = verb.score(shards, out, running_on, settings, **ways)
        record(out, began, engine=running_on.name, workers=running_on.slots, tokens=planned.tokens, processes=used)
    console.result(manifest, show.scored(manifest, out, time.time() - began))
    return 0


@cli.command(epilog="Example: tinydata resample scores --keep 0.5 -o round-1")
@click.argument("scores", default="")
@click.option("-o", "--out", default="", help="Directory for the round.")
@click.option(
    "--keep",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Share of the sequences that have a loss.",
)
@click.option("--tokens", type=click.IntRange(1), default=None, help="Or: as many sequences as make so many tokens.")
@click.option(
    "--preset",
    type=click.Choice(["guarded", "paper"]),
    default="guarded",
    show_default=True,
    help="paper: by batch, and nothing else; guarded: by sequence, clipped at 0.01,0.99, within domains, all guards.",
)
@click.option("--unit", type=click.Choice(["sequence", "document", "batch"]), default=None, help="What is drawn.")
@click.option(
    "--batch-tokens", type=click.IntRange(1), default=1 << 21, show_default=True, help="Of a batch, for --unit batch."
)
@click.option("--temperature", type=click.FloatRange(0, min_open=True), default=None, help="Weights are exp(loss / T).")
@click.option("--clip-quantile", default=None, help="Losses are clipped at these quantiles, LO,HI; or none.")
@click.option("--zscore", is_flag=True, help="Losses in robust standard deviations of their stratum.")
@click.option(
    "--floor", type=click.FloatRange(0, 1, max_open=True), default=None, help="Share of a uniform draw mixed in."
)
@click.option("--stratify", type=click.Choice(["domain", "none"]), default=None, help="Keep the mix of domains.")
@click.option("--reference-scores", default="", help="Losses are those beyond a reference model's SCORES.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="GUARD[=N]",
    help="Never keep: periodic (tokens), short (share of a sequence that bears loss), unknown (share),"
    " prior (robust standard deviations from the domain's median); or none.",
)
@click.option("--max-repeats", type=click.IntRange(0), default=0, help="Never keep what was trained on so often.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--data", default="", help="The shards that were scored, if they have moved.")
@click.option("--round", "number", type=click.IntRange(0), default=None, help="From scores-N make round-(N + 1).")
@click.option("--materialize", is_flag=True, help="Also copy what is kept to shards.")
@click.option("--to", type=click.Choice(FORMATS), default=None, help="Format of these shards [default: megatron].")
@click.option(
    "--order",
    type=click.Choice(["concatenated", "shuffled"]),
    default=None,
    help="Of these shards [default: concatenated]; shuffled by --seed.",
)
@click.option(
    "--shard-tokens", type=click.IntRange(1), default=None, help="Tokens in one of these shards [default: 2^27]."
)
@running
def resample(
    scores: str,
    out: str,
    keep: float,
    tokens: int | None,
    preset: str,
    unit: str | None,
    batch_tokens: int,
    temperature: float | None,
    clip_quantile: str | None,
    zscore: bool,
    floor: float | None,
    stratify: str | None,
    reference_scores: str,
    exclude: tuple[str, ...],
    max_repeats: int,
    seed: int,
    data: str,
    number: int | None,
    materialize: bool,
    to: str | None,
    order: str | None,
    shard_tokens: int | None,
    engine: str,
    workers: int,
    partitions: int,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Draw the next round from SCORES: the harder a sequence, the more likely it is kept.

    Exactly as many as asked for, without replacement, whatever engine and partitions. What is kept is a list; the
    trainer reads it beside the shards. The same command again continues a run that was killed.
    """
    from tinydata import resample as verb
    from tinydata import show
    from tinydata.materialize import Target

    console = Console(as_json, quiet, verbose)
    if number is not None:
        scores = scores if typed("scores") else f"scores-{number}" if number else "scores"
        out = out if typed("out") else f"round-{number + 1}"
    scores = needed(scores, "SCORES")
    settings = verb.settings(
        preset,
        exclude,
        keep=keep,
        tokens=tokens,
        unit=unit,
        batch_tokens=batch_tokens,
        temperature=temperature,
        clip=verb.quantiles(clip_quantile) if clip_quantile is not None else None,
        zscore=zscore or None,
        floor=floor,
        stratify=stratify,
        max_repeats=max_repeats,
        seed=seed,
    )
    if typed("batch_tokens") and settings.unit != "batch":
        raise click.UsageError("--batch-tokens goes with --unit batch, or --preset paper")
    if tokens and typed("keep"):
        raise click.UsageError("--keep and --tokens say the same thing: give one")
    copied: dict[str, Any] = {
        k: v for k, v in (("to", to), ("order", order), ("shard_tokens", shard_tokens)) if v is not None
    }
    if copied and not materialize:
        raise click.UsageError("--to, --order and --shard-tokens go with --materialize")
    target = Target(**copied) if materialize else None
    ways: dict[str, Any] = {"reference": reference_scores, "partitions": partitions, "stage": console.progress}
    with connected(engine, workers) as running_on, running_on.together():
        if dry_run:
            plan = verb.foresee(scores, running_on, settings, **ways)
            console.result(plan, show.resample_plan(plan))
            return 0
        began, out = time.time(), needed(out, "-o")
        manifest = verb.resample(scores, out, running_on, settings, data=data, target=target, force=force, **ways)
        record(out, began, engine=running_on.name, workers=running_on.slots)
    console.result(manifest, show.resampled(manifest, out, time.time() - began))
    for line in manifest["selection"]["notes"]:
        console.say(f"note: {line}")
    return 0


def typed(option: str) -> bool:
    """Whether it was given on the command line, and is not what tinydata.toml says."""
    source = click.get_current_context().get_parameter_source(option)
    return source == click.core.ParameterSource.COMMANDLINE


@cli.command(epilog="Example: tinydata report counts vocab -o report.html")
@click.argument("dirs", nargs=-1)
@click.option("-o", "--out", default="report.html", show_default=True, help="The page.")
@common
def report(dirs: tuple[str, ...], out: str, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Make one offline HTML page of what is in DIRS: counts, vocabularies, shards, scores, rounds."""
    from tinydata.report.page import report as make

    console = Console(as_json, quiet, verbose)
    from tinydata.store import Location

    planned = given("dirs", dirs)
    told = click.get_current_context().get_parameter_source("dirs") == click.core.ParameterSource.COMMANDLINE
    here = [d for d in planned if told or Location.of(d).exists()]  # of those in tinydata.toml, what is made by now
    made = make(needed(here or planned, "DIRS"), out)
    console.result(made, f"wrote {made['report']} ({made['bytes']:,} bytes)")
    return 0


@cli.command(epilog="Example: tinydata ls --lineage round-1")
@click.argument("paths", nargs=-1)
@click.option("--lineage", is_flag=True, help="Say what each was made of, and that of what, and what changed since.")
@common
def ls(paths: tuple[str, ...], lineage: bool, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Say what PATHS hold: corpora, counts, vocabularies, shards, scores, rounds, runs, models."""
    console = Console(as_json, quiet, verbose)
    if lineage:
        from tinydata import lineage as chain

        console.result(*chain.lineage(needed(list(paths), "PATHS")))
        return 0
    from tinydata.listing import listing

    console.result(*listing(list(paths) or ["."]))
    return 0


@cli.command(epilog="Example: tinydata doctor --engine spark")
@click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True)
@click.option("--tokenizer", default="", help="Also try this tokenizer.")
@common
def doctor(engine: str, tokenizer: str, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Check this installation, and with --engine spark the executors too; every fault comes with its fix."""
    from tinydata import doctor as checks

    console = Console(as_json, quiet, verbose)
    results = checks.run(engine, tokenizer)
    console.result(results, checks.text(results))
    return 0 if all(r["ok"] is not False for r in results) else 1


@cli.command(epilog='Example: eval "$(tinydata completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "tinydata", "_TINYDATA_COMPLETE").source())
    return 0


if __name__ == "__main__":
    main()
