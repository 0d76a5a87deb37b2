"""What `tinydata encode` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinydata.core.text import many, seconds, size


def columns_of_counts(vocab: str, given: Mapping[str, Any]) -> list[str]:
    """A warning if the counts that a vocabulary was chosen from were made with other columns than those `given`."""
    from tinydata.artifacts.artifact import read_json
    from tinydata.core.location import Location
    from tinydata.core.output import MANIFEST

    inputs = read_json(Location.of(vocab) / MANIFEST).get("inputs")
    out = []
    for counts in inputs if isinstance(inputs, dict) else ():
        options = read_json(Location.of(counts) / MANIFEST).get("options") or {}
        before = {k: v for k, v in options.items() if k.endswith("_column") or k == "read_as_text"}
        for name in sorted(before.keys() | {k for k in given if k in before or k.endswith("_column")}):
            was, now = before.get(name) or "", given.get(name) or ""
            if now != was and now not in (was if isinstance(was, list) else ()):
                option = "--" + name.replace("doc_id", "id").replace("_", "-")
                out.append(
                    f"warning: {counts} was counted with {option} {was or 'the default'},"
                    f" here it is {now or 'the default'}"
                )
    return out


def summary_text(manifest: dict[str, Any], out: str, took: float) -> str:
    """What `encode` did: tokens before and after, how that compares with encoding the text, and shards."""
    t, sample = manifest["totals"], manifest["sample"]
    shards = many(len(manifest["shards"]), "shard")
    lines = [f"{t['tokens']:,} tokens of {manifest['dtype']} in {many(t['documents'], 'document')}, {shards}"]
    if manifest["kind"] == "text":
        lines[0] += f"; {t['bytes'] / max(t['tokens'], 1):.3f} bytes of text per token"
        lines.append(f"wrote {out} in {seconds(took)} ({size(t['bytes'] / max(took, 1e-9))}/s)")
        return "\n".join(lines)
    if manifest["rewritten"]:
        lines[0] += f"; {t['tokens_before']:,} before ({t['tokens'] / max(t['tokens_before'], 1) - 1:+.2%})"
    if sample and sample["documents"]:
        longer = sample["tokens"] / max(sample["tokens_anew"], 1) - 1
        lines.append(
            f"all {sample['documents']} documents of a sample decode to the same text as before; {sample['equal']} of"
            f" them have exactly the tokens that encoding their text gives; the sample has {longer:+.2%} tokens"
            " compared with encoding its text"
        )
    lines.append(f"wrote {out} in {seconds(took)} ({t['tokens_before'] / max(took, 1e-9) / 1e6:.3g} M tokens/s)")
    return "\n".join(lines)
