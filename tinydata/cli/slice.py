"""tinydata slice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tinydata.cli.console import Console
from tinydata.cli.options import PATH, Run, needed, record, writing
from tinydata.cli.texts.slice import plan_text, summary_text
from tinydata.core.text import Result

if TYPE_CHECKING:
    from tinydata.verbs.slice.vocabulary_rows import Options


@click.command(epilog="Example: tinydata slice model --vocab vocab -o small-model")
@click.argument("model", type=PATH, default="")
@click.option("--vocab", type=PATH, default="", help="Vocabulary of `tinydata compact` for the model's tokenizer.")
@click.option("-o", "--out", type=PATH, default="", help="Directory for the sliced model.")
@click.option(
    "--rows", multiple=True, help="Name of a tensor that has one row per token id. The name may contain * as wildcard."
)
@click.option(
    "--not-rows",
    multiple=True,
    help="Name of a tensor that has as many rows as the vocabulary but not one per token id.",
)
@click.option(
    "--pad-to-multiple-of",
    type=click.IntRange(1),
    default=1,
    help="Round the number of rows up to a multiple of this. Each added row is the mean of the others.",
)
@writing
def slice(
    model: str,
    vocab: str,
    out: str,
    rows: tuple[str, ...],
    not_rows: tuple[str, ...],
    pad_to_multiple_of: int,
    run: Run,
) -> int:
    """Reduce MODEL to the tokens of a compact vocabulary.

    MODEL: a Hugging Face directory with safetensors files. Embedding and head keep the vocabulary's
    rows; config and tokenizer are changed to match. Rows are copied byte for byte without loading
    the model, so a model of any size needs little memory.
    """
    from tinydata.verbs.slice.plan import prepare
    from tinydata.verbs.slice.vocabulary_rows import Options

    console = run.console()
    model, vocab = needed(model, "MODEL"), needed(vocab, "--vocab")
    options = Options(rows, not_rows, pad_to_multiple_of)
    if run.dry_run:
        new = prepare(model, vocab, options)
        console.result(new.result, plan_text(new.result))
        return 0
    console.result(*sliced_model(console, model, vocab, needed(out, "-o"), options, force=run.force))
    return 0


def sliced_model(
    console: Console, model: str, vocab: str, out: str, options: Options | None = None, *, force: bool = False
) -> Result:
    """Slices with a progress bar -> (manifest, what to print)."""
    from tinydata.verbs.slice.plan import prepare
    from tinydata.verbs.slice.verb import write

    began = time.time()
    new = prepare(model, vocab, options)
    with console.progress("slice", new.result["bytes"]["after"]) as progress:
        manifest = write(new, out, force=force, progress=progress)
    record(out, began)
    return manifest, summary_text(manifest, out, time.time() - began)
