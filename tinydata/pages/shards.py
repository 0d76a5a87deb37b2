"""Shards -> section: how many tokens there are, and how many there were before."""

from __future__ import annotations

from typing import Any

from tinydata.core.text import many, size
from tinydata.pages.blocks import ROWS, Notes, Section, Table, Tiles
from tinydata.pages.inputs import ShardsDir
from tinydata.pages.text import change, number, ratio, share


def shards_sections(d: ShardsDir, tag: str) -> list[Section]:
    """Shards, suffix of anchors -> sections."""
    m = d.manifest
    blocks: list[Any] = [_tiles(m), _domains(m)]
    if m["sample"] and m["sample"]["documents"]:
        blocks.append(_compared(m["sample"]))
    return [Section(f"shards{tag}", "Shards", [*blocks, _files(m)], d.path)]


def _tiles(m: dict[str, Any]) -> Tiles:
    t = m["totals"]
    on_disk = sum(f["bytes"] for f in m["files"].values())
    items = [
        (number(t["tokens"]), "tokens", f"{m['dtype']}, {m['tokenizer']['size']:,} ids"),
        (
            number(t["documents"]),
            "documents",
            f"in {many(len(m['shards']), 'shard')} of {m['options']['to']}, {size(on_disk)}",
        ),
    ]
    if "bytes" in t:
        items.append((ratio(t["bytes"] / max(t["tokens"], 1)), "bytes per token", f"of {size(t['bytes'])} of text"))
    elif m["rewritten"]:
        longer = t["tokens"] / max(t["tokens_before"], 1) - 1
        items.append((change(longer), "tokens", f"rewritten from {number(t['tokens_before'])}"))
    if t["masked"]:
        items.append((share(t["masked"] / max(t["tokens"], 1)), "masked", "tokens that bear no loss"))
    return Tiles(items)


def _domains(m: dict[str, Any]) -> Table:
    text = "bytes" in m["totals"]
    rows = []
    for name, d in sorted(m["domains"].items(), key=lambda kv: -kv[1]["tokens"]):
        before = d["bytes"] if text else d["tokens_before"]
        per = ratio(before / max(d["tokens"], 1)) if text else change(d["tokens"] / max(before, 1) - 1)
        rows.append([name, number(d["documents"]), number(before), number(d["tokens"]), per])
    heads = (
        "documents",
        "bytes of text" if text else "tokens before",
        "tokens",
        "bytes per token" if text else "change",
    )
    more = f"The first {ROWS} of {number(len(rows))}; all are in manifest.json." if len(rows) > ROWS else ""
    return Table([("domain", "text"), *((h, "number") for h in heads)], rows[:ROWS], note=more)


def _compared(sample: dict[str, Any]) -> Notes:
    longer = sample["tokens"] / max(sample["tokens_anew"], 1) - 1
    return Notes(
        [
            f"All {number(sample['documents'])} documents of a sample decode to the text they were. "
            f"{share(sample['equal'] / sample['documents'])} of them are, token for token, what encoding that text "
            f"anew gives; in tokens, rewriting against encoding anew is {change(longer)}."
        ]
    )


def _files(m: dict[str, Any]) -> Table:
    rows = [[s["name"], number(s["documents"]), number(s["tokens"])] for s in m["shards"]]
    return Table(
        [("shard", "code"), ("documents", "number"), ("tokens", "number")],
        rows[:ROWS],
        folded=many(len(rows), "shard"),
        note=f"The first {ROWS}; all are in manifest.json." if len(rows) > ROWS else "",
    )
