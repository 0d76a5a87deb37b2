"""What `tinydata resample` prints."""

from __future__ import annotations

from typing import Any

from tinydata.core.text import seconds, table


def plan_text(facts: dict[str, Any]) -> str:
    """What a draw will keep or has kept: by decile of loss, and by domain."""
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
        f"mean loss of all {loss['before']:.4f}, of the kept sequences {loss['expected']:.4f} expected"
        + (f", {loss['kept']:.4f} measured" if made else ""),
        f"effective sample size: {facts['effective_size']:.3f} of all sequences",
    ]
    if not made:
        lines += [f"{facts['expected']:,} sequences will be kept", *(f"note: {note}" for note in facts["notes"])]
    return "\n".join(lines)


def _shares(row: dict[str, Any], by: int) -> dict[str, str]:
    """Expected and kept, as numbers of `by`, as shares."""
    return {k: f"{row[k] / max(by, 1):.2%}" for k in ("expected", "kept") if k in row}


def summary_text(manifest: dict[str, Any], out: str, took: float) -> str:
    """What was kept, for which round."""
    kept = manifest["kept"]
    return (
        f"{plan_text(manifest['selection'])}\n"
        f"kept {kept['sequences']:,} sequences, {kept['tokens']:,} tokens with a loss, for round {manifest['round']}\n"
        f"wrote {out} in {seconds(took)}"
    )
