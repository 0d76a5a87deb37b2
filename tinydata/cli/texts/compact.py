"""What `tinydata compact` prints: the trade-off, and the curve of sizes."""

from __future__ import annotations

import shlex
from typing import Any

from tinydata.core.text import many, table

FEW = 30  # held-out documents on which a measurement says little


def trade_off_text(trade: dict[str, Any]) -> str:
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
            ("" if trip["same_text"] == trip["documents"] else "warning: only ")
            + f"{trip['same_text']} of {trip['documents']} documents decode to the same text as before",
            *lines,
        ]
        if held["documents"] < FEW:
            lines.append(
                f"note: {many(held['documents'], 'document')} are held out: on other text inflation may well be a point"
                " higher or lower; `tinydata count --heldout 0.2` measures it on more"
            )
    else:
        lines.append("there is no held-out text, so inflation was not measured")
    if (reserved := trade["idle"]["tokens"]) > ids["after"] // 100:
        pattern, number = next(iter(trade["idle"]["patterns"].items()))
        lines.append(
            f"note: {reserved:,} special and added tokens, {reserved / ids['after']:.1%} of the ids, never occur in the"
            f" corpus; --drop-tokens {shlex.quote(pattern)} removes {number:,} of them"
        )
    return "\n".join([table(rows, {"": "", "before": "before", "after": "after"}), *lines])


def curve_text(points: list[dict[str, Any]] | None) -> str:
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
