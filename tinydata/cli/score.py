"""tinydata score."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click

from tinydata.cli.options import PATH, Run, needed, record, running, typed
from tinydata.cli.texts.score import plan_text, summary_text
from tinydata.engines.connect import connect


@click.command(epilog="Example: tinydata score shards --model run -o scores")
@click.argument("shards", type=PATH, default="")
@click.option(
    "--model",
    type=PATH,
    default="",
    help="Directory of a training run, one of its checkpoints, or a Hugging Face model.",
)
@click.option(
    "--losses",
    type=PATH,
    default="",
    help="Instead of --model: a training run with --log-sequence-loss, whose logged losses are used.",
)
@click.option("-o", "--out", type=PATH, default="", help="Directory for the scores.")
@click.option(
    "--seq-len",
    type=click.IntRange(1),
    default=None,
    help="Number of tokens in a sequence. The default is the length that the model was trained with.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Device of the model, such as cpu or cuda:1. With auto, each worker uses one GPU if there are GPUs.",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=None,
    help="Number of sequences in a batch. The default depends on the size of the model.",
)
@click.option(
    "--scorer",
    default="trainer.scorer:load",
    show_default=True,
    help="Python function that loads the model, as MODULE:FUNCTION.",
)
@click.option(
    "--base",
    type=PATH,
    default="",
    help="Directory of the shards that a round selects from, if it has moved since.",
)
@click.option(
    "--round", "number", type=click.IntRange(0), default=None, help="Make scores-N from round-N and run-N, for this N."
)
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
    run: Run,
) -> int:
    """Compute a model's loss on each sequence of SHARDS.

    SHARDS: the directory that `tinydata encode` or `tinydata resample` wrote. One process runs per
    GPU, or per core on a machine without GPUs. The model is not trained. The same command again
    continues an interrupted run.
    """
    from tinydata.verbs.score import verb
    from tinydata.verbs.score.estimate import speed
    from tinydata.verbs.score.plan import Settings, prepare
    from tinydata.verbs.score.scorer import devices

    console = run.console()
    if number:
        names = {"shards": f"round-{number}", "model": f"run-{number}", "out": f"scores-{number}"}
        shards, out = (v if typed(n) else names[n] for n, v in (("shards", shards), ("out", out)))
        model = model if losses or typed("model") else names["model"]
    if losses and typed("losses"):
        model = model if typed("model") else ""  # the one in tinydata.toml is for runs without --losses
    shards = needed(shards, "SHARDS")
    needed(model or losses, "--model")
    if model and losses:
        raise click.UsageError("--model computes losses and --losses reads them: pass only one of them")
    settings = Settings(model, losses, scorer, seq_len or 0, rows or 0, base, device)
    prepared = prepare(shards, settings)
    gpus = devices(scorer) if model and device == "auto" and run.engine == "local" else []
    workers = run.workers or len(gpus)
    if run.dry_run:
        console.result(*plan_text(prepared, speed(prepared, settings), workers, gpus))
        return 0
    out, began = needed(out, "-o"), time.time()
    stage = partial(console.progress, unit="tokens")
    how: dict[str, Any] = {"force": run.force, "partitions": run.partitions, "prepared": prepared, "stage": stage}
    with connect(run.engine, workers, pandas=True) as engine:
        manifest, used = verb.score(shards, out, engine, settings, **how)
        record(out, began, engine=engine.name, workers=engine.slots, tokens=prepared.tokens, processes=used)
    console.result(manifest, summary_text(manifest, out, time.time() - began))
    return 0
