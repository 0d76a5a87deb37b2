"""tinydata resample."""

from __future__ import annotations

import time
from typing import Any

import click

from tinydata.cli.copying_options import Copying, copying
from tinydata.cli.options import PATH, Run, needed, record, running, typed
from tinydata.cli.selection_options import Selection, selection
from tinydata.cli.texts.resample import plan_text, summary_text
from tinydata.engines.connect import connect


@click.command(epilog="Example: tinydata resample scores --keep 0.5 -o round-1")
@click.argument("scores", type=PATH, default="")
@click.option("-o", "--out", type=PATH, default="", help="Directory for the round.")
@selection
@click.option(
    "--reference-scores",
    type=PATH,
    default="",
    help="Scores of a reference model, which are subtracted from the losses in SCORES.",
)
@click.option("--data", type=PATH, default="", help="Directory of the scored shards, if it has moved since.")
@click.option(
    "--round", "number", type=click.IntRange(0), default=None, help="Make round-(N + 1) from scores-N, for this N."
)
@copying
@running
def resample(
    scores: str,
    out: str,
    selection: Selection,
    reference_scores: str,
    data: str,
    number: int | None,
    copying: Copying,
    run: Run,
) -> int:
    """Draw the data of the next round, preferring high losses.

    SCORES: the directory that `tinydata score` wrote. The draw is without replacement and keeps
    exactly the requested amount; engine and partitions do not change it. The result is a list of
    sequences, which the trainer reads together with the shards. The same command again continues an
    interrupted run.
    """
    from tinydata.verbs.resample import verb
    from tinydata.verbs.resample.estimate import estimate

    console = run.console()
    if number is not None:
        scores = scores if typed("scores") else f"scores-{number}" if number else "scores"
        out = out if typed("out") else f"round-{number + 1}"
    scores = needed(scores, "SCORES")
    settings, target = selection.settings(), copying.target()
    how: dict[str, Any] = {
        "reference": reference_scores, "partitions": run.partitions, "stage": console.progress
    }  # fmt: skip
    with connect(run.engine, run.workers) as engine, engine.together():
        if run.dry_run:
            plan = estimate(scores, engine, settings, **how)
            console.result(plan, plan_text(plan))
            return 0
        began, out = time.time(), needed(out, "-o")
        manifest = verb.resample(scores, out, engine, settings, data=data, target=target, force=run.force, **how)
        record(out, began, engine=engine.name, workers=engine.slots)
    console.result(manifest, summary_text(manifest, out, time.time() - began))
    for line in manifest["selection"]["notes"]:
        console.say(f"note: {line}")
    return 0
