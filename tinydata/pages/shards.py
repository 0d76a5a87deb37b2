"""Shards -> section: number of tokens, in all and by domain, compared with the input."""

from __future__ import annotations

from typing import Any

from tinydata.core.text import many, size
from tinydata.pages.blocks import ROWS, Notes, Section, Table, Tiles
from tinydata.pages.inputs import ShardsDir
from tinydata.pages.text import change, number, ratio, share


def shards_sections(d: ShardsDir, tag: str) -> list[Section]:
    """Shards, suffix of anchors -> their one section."""
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
        items.append((share(t["masked"] / max(t["tokens"], 1)), "masked", "tokens excluded from the loss"))
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
    more = (
        f"The first {ROWS} of {number(len(rows))}; the complete list is in manifest.json." if len(rows) > ROWS else ""
    )
    return Table([("domain", "text"), *((h, "number") for h in heads)], rows[:ROWS], note=more)


def _compared(sample: dict[str, Any]) -> Notes:
    longer = sample["tokens"] / max(sample["tokens_anew"], 1) - 1
    return Notes(
        [
            f"A sample of {number(sample['documents'])} documents was checked; all still decode to the same text. "
            f"{share(sample['equal'] / sample['documents'])} of them are identical, token for token, to what encoding "
            f"the text directly gives; in tokens, rewriting differs from direct encoding by {change(longer)}."
        ]
    )


def _files(m: dict[str, Any]) -> Table:
    rows = [[s["name"], number(s["documents"]), number(s["tokens"])] for s in m["shards"]]
    return Table(
        [("shard", "code"), ("documents", "number"), ("tokens", "number")],
        rows[:ROWS],
        folded=many(len(rows), "shard"),
        note=f"The first {ROWS}; the complete list is in manifest.json." if len(rows) > ROWS else "",
    )
