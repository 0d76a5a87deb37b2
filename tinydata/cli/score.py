"""tinydata score."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click

from tinydata.cli.console import Console
from tinydata.cli.options import connected, needed, record, running, typed
from tinydata.core.text import Result, many, seconds, table


@click.command(epilog="Example: tinydata score shards --model run -o scores")
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
    from tinydata.verbs.score import estimate
    from tinydata.verbs.score import plan as verb
    from tinydata.verbs.score import verb as score_verb
    from tinydata.verbs.score.scorer import devices

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
        console.result(*score_plan(planned, estimate.speed(planned, settings), workers or len(there), there))
        return 0
    out, began = needed(out, "-o"), time.time()
    stage = partial(console.progress, unit="tokens")
    with connected(engine, workers or len(there), pandas=True) as running_on:
        ways: dict[str, Any] = {"force": force, "partitions": partitions, "planned": planned, "stage": stage}
        manifest, used = score_verb.score(shards, out, running_on, settings, **ways)
        record(out, began, engine=running_on.name, workers=running_on.slots, tokens=planned.tokens, processes=used)
    console.result(manifest, scored(manifest, out, time.time() - began))
    return 0


def score_plan(planned: Any, speed: float, workers: int, devices: list[str]) -> Result:
    """What `score` would do, and how long it takes by a few batches that were scored. planned: of `score.plan`."""
    stream, T = planned.stream, planned.seq_len
    facts = {
        "sequences": planned.tokens // T,
        "seq_len": T,
        "tokens": planned.tokens,
        "units": len(planned.units),
        "tokens_per_second_of_one_worker": speed or None,
        "seconds_estimated_on_one_worker": planned.tokens / speed if speed else None,
        "workers": workers or None,
        "devices": devices,
        "forgetting": bool(planned.log and planned.scorer),
    }
    of = f"round {stream.round}" if stream.listed else many(len(stream.source["shards"]), "shard")
    lines = [
        f"{many(facts['sequences'], 'sequence')} of {T:,} tokens in {of}, {many(facts['units'], 'unit')} of work",
        f"GPUs: {', '.join(devices)}" if devices else "",
    ]
    if speed:
        lines.append(
            f"about {seconds(planned.tokens / speed)} on one worker ({speed:,.0f} tokens/s, from a few batches)"
        )
    else:
        lines.append("losses are those the run logged; nothing is computed")
    return facts, "\n".join(line for line in lines if line)


def scored(manifest: dict[str, Any], out: str, took: float) -> str:
    """Loss by domain, what has none, and what the model has forgotten."""
    t, T = manifest["totals"], manifest["seq_len"]
    rows = [
        {"domain": n or "(none)", **d, "loss": d["nll"] / d["tokens"] if d["tokens"] else None}
        for n, d in manifest["domains"].items()
    ]
    lines = [table(rows, {"domain": "domain", "sequences": "sequences", "tokens": "tokens", "loss": "nats/token"})]
    kinds = ", ".join(f"{n:,} {status}" for status, n in manifest["statuses"].items())
    lines.append(f"{many(t['sequences'], 'sequence')} of {T:,} tokens: {kinds}")
    if t["loss"] is not None:
        held = "" if t["held_out_loss"] is None else f"; held out: {t['held_out_loss']:.4f}"
        lines.append(f"{t['loss']:.4f} nats/token over {t['tokens']:,} targets{held}")
    if manifest.get("forgetting"):
        lines += ["", _forgotten(manifest["forgetting"]), ""]
    rate = t["sequences"] * T / max(took, 1e-9)
    lines.append(f"wrote {out} in {seconds(took)} ({rate:,.0f} tokens/s)")
    return "\n".join(lines)


def _forgotten(tenths: list[dict[str, Any]]) -> str:
    """Loss when trained and now, by tenth of the run; the bar is how much it fell since."""
    fell = [(r["when_trained"] - r["now"]) if r["now"] is not None else 0.0 for r in tenths]
    most = max(*fell, 1e-9)
    rows = [
        {**r, "change": None if r["now"] is None else f"{-f:+.3f}", "bar": "\u2588" * round(30 * max(f, 0.0) / most)}
        for r, f in zip(tenths, fell, strict=True)
    ]
    heads = {
        "tenth": "tenth of the run", "sequences": "sequences", "when_trained": "when trained", "now": "now",
        "change": "change", "bar": "",
    }  # fmt: skip
    return table(rows, heads)
