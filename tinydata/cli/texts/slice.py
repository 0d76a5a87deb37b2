"""What `tinydata slice` prints."""

from __future__ import annotations

from typing import Any

from tinydata.core.text import many, seconds, size, table


def plan_text(result: dict[str, Any]) -> str:
    """How the model changes."""
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
    for place, dropped in result["dropped_ids"].items():
        lines.append(f"note: dropped {many(len(dropped), 'id')} of removed tokens from {place}")
    if result["untouched"]:
        lines.append(f"note: unchanged, because they have another vocabulary: {', '.join(result['untouched'])}")
    if result["left_out"]:
        lines.append(f"not copied: {', '.join(result['left_out'])}")
    return "\n".join(lines)


def summary_text(manifest: dict[str, Any], out: str, took: float) -> str:
    """How the model changed, and how fast."""
    rate = manifest["bytes"]["after"] / max(took, 1e-9)
    return f"{plan_text(manifest)}\nwrote {out} in {seconds(took)} ({size(rate)}/s)"
