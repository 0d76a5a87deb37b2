"""tinydata compact."""

from __future__ import annotations

import time
from typing import Any

import click

from tinydata.cli.console import Console
from tinydata.cli.options import needed, record, writing
from tinydata.cli.slice import sliced_model
from tinydata.core.text import many, table
from tinydata.verbs.compact.card import said


@click.command(epilog="Example: tinydata compact counts --tokenizer tokenizer.json --vocab 48000 -o vocab")
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
    from tinydata.verbs.compact import plan as verb
    from tinydata.verbs.compact import verb as compact_verb

    console = Console(as_json, quiet, verbose)
    began = time.time()
    counts = needed(counts, "COUNTS")
    opened = verb.open_counts(counts)
    tokenizer = tokenizer or opened.manifest["tokenizer"]["path"]
    if model:  # what is wrong with it is said before anything is written
        from tinydata.verbs.slice.hf_model import open_model

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
    parts = [trade_off(choice.trade) if asked else "", learned(choice.adapted), curve_table(points)]
    text = "\n\n".join(filter(None, parts))
    if dry_run or not asked:
        facts = {"adapted": choice.adapted.facts} if choice.adapted else {}
        console.result({"trade": choice.trade, "curve": points, **facts}, text)
        return 0
    console.say(text)
    manifest = compact_verb.compact(
        counts, tokenizer, needed(out, "-o"), goal, d_model=d_model, force=force, choice=choice, points=points
    )
    record(out, began)
    said = f"wrote {out}: {', '.join(manifest['files'])}"
    if model:
        sliced, text = sliced_model(console, model, out, model_out or f"{out.rstrip('/')}-model", force=force)
        manifest, said = {**manifest, "model": sliced}, f"{said}\n{text}"
    console.result(manifest, said)
    return 0


def trade_off(trade: dict[str, Any]) -> str:
    """The trade, before anything is written."""
    ids, dead = trade["ids"], trade["dead_pieces"]
    saved = trade["embedding_and_head_parameters"]
    rows = [
        {"": "ids", "before": ids["before"], "after": ids["after"]},
        {"": "dead pieces", "before": dead["before"], "after": dead["after"]},
        {"": f"embedding + head at d_model {trade['d_model']}", "before": saved["before"], "after": saved["after"]},
    ]
    held = trade["heldout"]
    lines = [f"{trade['coverage']:.2%} of the corpus's tokens stay as they are"]
    if held:
        rows += [
            {
                "": f"held-out tokens ({many(held['documents'], 'document')})",
                "before": held["tokens_before"],
                "after": held["tokens_after"],
            },
            {"": "bytes per token", "before": held["bytes_per_token_before"], "after": held["bytes_per_token_after"]},
            {
                "": "single-byte tokens",
                "before": f"{held['byte_tokens_before']:.2%}",
                "after": f"{held['byte_tokens_after']:.2%}",
            },
        ]
        if held.get("unknown_before") or held.get("unknown_after"):
            rows.append({"": "unknown tokens", "before": held["unknown_before"], "after": held["unknown_after"]})
        trip = held["round_trip"]
        worst = ", ".join(f"{r['domain']} {r['inflation']:+.2%}" for r in held["domains"][:5])
        lines = [
            f"inflation on held-out text: {held['inflation']:+.2%}; worst: {worst}",
            f"{trip['same_text']} of {trip['documents']} documents decode to the same text as before",
            *lines,
        ]
    else:
        lines.append("there is no held-out text, so inflation was not measured")
    return "\n".join([table(rows, {"": "", "before": "before", "after": "after"}), *lines])


def learned(made: Any) -> str:
    """What `compact --adapt` learned."""
    return said(made.facts) if made else ""


def curve_table(points: list[dict[str, Any]] | None) -> str:
    """Vocabulary size against inflation and parameters, with a bar for the eye."""
    if not points:
        return ""
    worst = max((p["inflation"] or 0.0) for p in points) or 1.0
    rows = [
        {
            "vocab": p["vocab"],
            "inflation": "" if p["inflation"] is None else f"{p['inflation']:+.2%}",
            "coverage": f"{p['coverage']:.2%}",
            "parameters": p["embedding_and_head_parameters"],
            "bar": "\u2588" * round(40 * max(p["inflation"] or 0.0, 0.0) / worst),
        }
        for p in points
    ]
    heads = {
        "vocab": "vocab",
        "inflation": "inflation",
        "coverage": "coverage",
        "parameters": "embedding + head",
        "bar": "",
    }
    return table(rows, heads)
