"""tinydata slice."""

from __future__ import annotations

import time
from typing import Any

import click

from tinydata.cli.console import Console
from tinydata.cli.options import needed, record, writing
from tinydata.core.text import many, seconds, size, table


def sliced_model(
    console: Console, model: str, vocab: str, out: str, options: Any = None, *, force: bool = False
) -> tuple[dict[str, Any], str]:
    """Slices with a progress bar -> (manifest, what to print)."""
    from tinydata.verbs.slice import plan as verb
    from tinydata.verbs.slice import write

    began = time.time()
    planned = verb.plan(model, vocab, options)
    with console.progress("slice", planned.result["bytes"]["after"]) as progress:
        manifest = write.write(planned, out, force=force, progress=progress)
    record(out, began)
    return manifest, sliced(manifest, out, time.time() - began)


@click.command(epilog="Example: tinydata slice model --vocab vocab -o small-model")
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
    from tinydata.verbs.slice import plan as verb
    from tinydata.verbs.slice import vocabulary_rows

    console = Console(as_json, quiet, verbose)
    model, vocab = needed(model, "MODEL"), needed(vocab, "--vocab")
    options = vocabulary_rows.Options(rows, not_rows, pad_to_multiple_of)
    if dry_run:
        planned = verb.plan(model, vocab, options)
        console.result(planned.result, slice_plan(planned.result))
        return 0
    console.result(*sliced_model(console, model, vocab, needed(out, "-o"), options, force=force))
    return 0


def slice_plan(result: dict[str, Any]) -> str:
    """What becomes of a model."""
    r, moved = result["rows"], result["rows"]["tensors"]
    rows = [
        {"": "rows of embedding and head", "before": r["before"], "after": r["after"]},
        {"": "parameters", **result["parameters"]},
        {"": "bytes", **{k: size(v) for k, v in result["bytes"].items()}},
    ]
    extra = [f"{r[k]:,} {what}" for k, what in (("learned", "learned"), ("padding", "padding")) if r[k]]
    lines = [
        table(rows, {"": "", "before": "before", "after": "after"}),
        f"{r['kept']:,} rows kept"
        + "".join(f", {e}" for e in extra)
        + ": "
        + ", ".join(f"{name} ({dtype})" for name, dtype in moved.items()),
    ]
    lines += [f"note: {note}" for note in result["notes"]]
    for place, gone in result["dropped_ids"].items():
        lines.append(f"note: {place} had {many(len(gone), 'id')} of removed tokens; dropped")
    if result["untouched"]:
        lines.append(f"note: left as they are, with a vocabulary of their own: {', '.join(result['untouched'])}")
    if result["left_out"]:
        lines.append(f"not copied: {', '.join(result['left_out'])}")
    return "\n".join(lines)


def sliced(manifest: dict[str, Any], out: str, took: float) -> str:
    rate = manifest["bytes"]["after"] / max(took, 1e-9)
    return f"{slice_plan(manifest)}\nwrote {out} in {seconds(took)} ({size(rate)}/s)"
