"""What `tinydata score` prints."""

from __future__ import annotations

from typing import Any

from tinydata.core.text import Result, many, seconds, table


def plan_text(planned: Any, speed: float, workers: int, devices: list[str]) -> Result:
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


def summary_text(manifest: dict[str, Any], out: str, took: float) -> str:
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
