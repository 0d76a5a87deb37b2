"""tinydata resample."""

from __future__ import annotations

import time
from typing import Any

import click

from tinydata.cli.console import Console
from tinydata.cli.options import FORMATS, connected, needed, record, running, typed
from tinydata.core.text import seconds, table


@click.command(epilog="Example: tinydata resample scores --keep 0.5 -o round-1")
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
    from tinydata.verbs.resample import plan as verb
    from tinydata.verbs.resample import verb as resample_verb
    from tinydata.verbs.resample.copy_shards import Target

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
            plan = resample_verb.foresee(scores, running_on, settings, **ways)
            console.result(plan, resample_plan(plan))
            return 0
        began, out = time.time(), needed(out, "-o")
        manifest = resample_verb.resample(
            scores, out, running_on, settings, data=data, target=target, force=force, **ways
        )
        record(out, began, engine=running_on.name, workers=running_on.slots)
    console.result(manifest, resampled(manifest, out, time.time() - began))
    for line in manifest["selection"]["notes"]:
        console.say(f"note: {line}")
    return 0


def resample_plan(facts: dict[str, Any]) -> str:
    """What a draw will keep, or has kept: by decile of loss, and by domain."""
    deciles = [
        {"": f"{d}0-{d + 1}0 % of losses", "sequences": r["sequences"], **_shares(r, 1)}
        for d, r in enumerate(facts["deciles"])
    ]
    domains = [
        {"": n, "sequences": r["sequences"], "can": r["eligible"], **_shares(r, r["sequences"])}
        for n, r in sorted(facts["domains"].items(), key=lambda item: -item[1]["sequences"])[:20]
    ]
    heads = {"": "", "sequences": "sequences", "can": "can be kept", "expected": "expected", "kept": "kept"}
    made = "kept" in facts["deciles"][0]
    heads = {k: v for k, v in heads.items() if made or k != "kept"}
    loss = facts["loss"]
    excluded = ", ".join(f"{n:,} {reason}" for reason, n in facts["excluded"].items()) or "none"
    lines = [
        table(deciles, {k: v for k, v in heads.items() if k != "can"}),
        "",
        table(domains, heads),
        "",
        f"{facts['eligible']:,} of {facts['sequences']:,} sequences can be kept; excluded: {excluded}",
        f"mean loss {loss['before']:.4f}, of what is kept {loss['expected']:.4f} expected"
        + (f", {loss['kept']:.4f} found" if made else ""),
        f"effective size {facts['effective_size']:.3f} of all",
    ]
    if not made:
        lines += [f"{facts['expected']:,} sequences will be kept", *(f"note: {note}" for note in facts["notes"])]
    return "\n".join(lines)


def _shares(row: dict[str, Any], by: int) -> dict[str, str]:
    """Expected and kept, as numbers of `by`, as shares."""
    return {k: f"{row[k] / max(by, 1):.2%}" for k in ("expected", "kept") if k in row}


def resampled(manifest: dict[str, Any], out: str, took: float) -> str:
    kept = manifest["kept"]
    return (
        f"{resample_plan(manifest['selection'])}\n"
        f"kept {kept['sequences']:,} sequences, {kept['tokens']:,} tokens with a loss, for round {manifest['round']}\n"
        f"wrote {out} in {seconds(took)}"
    )
