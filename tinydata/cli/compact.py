"""tinydata compact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from tinydata.cli.compact_options import GoalOptions, goal_options
from tinydata.cli.options import PATH, Run, needed, record, writing
from tinydata.cli.slice import sliced_model
from tinydata.cli.texts.compact import curve_text, trade_off_text
from tinydata.core.errors import UpToDate

if TYPE_CHECKING:  # they import numpy, which --help does not need
    from tinydata.verbs.compact.plan import Choice, Counts


@click.command(epilog="Example: tinydata compact counts --tokenizer tokenizer.json --vocab 48000 -o vocab")
@click.argument("counts", type=PATH, default="")
@click.option(
    "--tokenizer",
    type=PATH,
    default="",
    help="Directory or file of the original, large tokenizer. The default is the one that COUNTS names.",
)
@click.option("-o", "--out", type=PATH, default="", help="Directory for the vocabulary.")
@goal_options
@click.option(
    "--d-model",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Width of the model, used to compute how many parameters the vocabulary saves.",
)
@click.option(
    "--curve",
    is_flag=True,
    help="Also measure a dozen other sizes. Without --vocab, --coverage or --max-inflation, write nothing.",
)
@click.option("--model", type=PATH, default="", help="Hugging Face model to slice next, as `tinydata slice` does.")
@click.option(
    "--model-out",
    type=PATH,
    default="",
    help="Directory for the sliced model. The default is the vocabulary's, with -model added.",
)
@writing
def compact(
    counts: str,
    tokenizer: str,
    out: str,
    goal: GoalOptions,
    d_model: int,
    curve: bool,
    model: str,
    model_out: str,
    run: Run,
) -> int:
    """Build a compact vocabulary from COUNTS, and show its cost.

    COUNTS: the directory that `tinydata count` wrote.
    """
    from tinydata.verbs.compact import verb
    from tinydata.verbs.compact.card import adaptation_text as learned_text
    from tinydata.verbs.compact.plan import choose, open_counts
    from tinydata.verbs.compact.plan import curve as curve_of

    console, began = run.console(), time.time()
    counts = needed(counts, "COUNTS")
    opened = open_counts(counts)
    tokenizer = tokenizer or opened.manifest["tokenizer"]["path"]
    if model:  # raises its errors before anything is written
        from tinydata.verbs.slice.hf_model import open_model

        open_model(model)
    wanted = goal.goal(curve)
    choice = choose(opened, tokenizer, wanted, d_model=d_model)
    points = curve_of(choice, opened, d_model) if curve else None
    parts = [
        trade_off_text(choice.tradeoff) if goal.sized else "",
        learned_text(choice.adapted.facts) if choice.adapted else "",
        curve_text(points),
    ]
    text = "\n\n".join(filter(None, parts))
    if run.dry_run or not goal.sized:
        facts = {"adapted": choice.adapted.facts} if choice.adapted else {}
        console.result({"trade": choice.tradeoff, "curve": points, **facts}, text)
        return 0
    console.say(text)
    wrote = False
    how: dict[str, Any] = {"d_model": d_model, "force": run.force, "choice": choice, "points": points}
    try:
        manifest = verb.compact(counts, tokenizer, needed(out, "-o"), wanted, **how)
        record(out, began)
        summary = f"wrote {out}: {', '.join(manifest['files'])}"
        wrote = True
    except UpToDate as done:
        if not model:  # the model may still have to be sliced
            raise
        manifest, summary = done.manifest, f"{out} is up to date"
    if model:
        sliced, text = sliced_model(console, model, out, model_out or f"{out.rstrip('/')}-model", force=run.force)
        manifest, summary = {**manifest, "model": sliced}, f"{summary}\n{text}"
    console.result(manifest, summary)
    if wrote and not run.quiet and (line := _as_transformers(out, choice, opened)):
        console.say(line)
    return 0


def _as_transformers(out: str, choice: Choice, counts: Counts) -> str:
    """What transformers, if it is installed, makes of the vocabulary."""
    from tinydata.core.location import Location
    from tinydata.tokenizers.transformers_check import compared_with_transformers

    texts = [text for text in counts.heldout["text"].slice(0, 64).to_pylist() if len(text) < 1 << 16]
    return compared_with_transformers(out, choice.small, texts) if Location.of(out).local else ""
