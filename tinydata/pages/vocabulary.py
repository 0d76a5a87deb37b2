"""Vocabularies -> sections: the trade in few numbers, its curve, by domain, what was dropped, checks."""

from __future__ import annotations

from typing import Any

from tinydata.pages import charts
from tinydata.pages.blocks import ROWS, Figures, Notes, Section, Table, Tiles
from tinydata.pages.inputs import CountsDir, VocabDir
from tinydata.pages.text import change, number, ratio, share

DROPPED = 50
ROUGH = 10_000  # held-out tokens below which a domain's inflation is a rough figure


def comparison(vocabs: list[VocabDir]) -> Section:
    """Several vocabularies side by side, in the order given."""
    columns = [("vocabulary", "text"), ("method", "text")]
    heads = ("ids", "inflation", "worst domain", "coverage", "embedding + head", "dead pieces", "same text")
    rows = []
    for v in vocabs:
        t = v.manifest["trade"]
        held = t["heldout"]
        trip = held["round_trip"] if held else {}
        rows.append(
            [
                v.path,
                v.manifest["options"].get("method", "leaf"),
                number(t["ids"]["after"]),
                change(held["inflation"]) if held else "",
                change(held["domains"][0]["inflation"]) if held else "",
                share(t["coverage"]),
                number(t["embedding_and_head_parameters"]["after"]),
                number(t["dead_pieces"]["after"]),
                f"{number(trip['same_text'])} of {number(trip['documents'])}" if held else "",
            ]
        )
    return Section(
        "comparison", "Vocabularies side by side", [Table([*columns, *((h, "number") for h in heads)], rows)]
    )


def vocabulary_sections(v: VocabDir, counts: CountsDir | None, tag: str) -> list[Section]:
    """Vocabulary, the counts it goes with if they are on the page, suffix of anchors -> sections."""
    m = v.manifest
    found = [Section(f"vocabulary{tag}", "Vocabulary", [vocabulary_tiles(m["trade"])], v.path)]
    if m.get("curve"):
        found.append(Section(f"size{tag}", "Vocabulary size and its price", _curve(m), v.path))
    if m["trade"]["heldout"]:
        found.append(Section(f"trade{tag}", "Trade by domain", _trade(m["trade"]["heldout"], counts), v.path))
    if m.get("adapted"):
        found.append(Section(f"learned{tag}", "Tokens that were learned", learned(m["adapted"]), v.path))
    if m.get("dropped"):
        found.append(Section(f"dropped{tag}", "Tokens that were dropped", _dropped(m), v.path))
    found.append(Section(f"checks{tag}", "Checks: dead pieces and round trip", _checks(m["trade"]), v.path))
    return found


def learned(facts: dict[str, Any]) -> list[Any]:
    """What `--adapt` did: beside pruning alone, and the tokens it learned first."""
    held = facts["heldout"]
    items = [(number(facts["learned"]), "learned", f"of {number(facts['learned'] + facts['pruned_to'])} ids")]
    notes = []
    if held:
        worst = held["worst_domain"]
        items += [
            (change(held["inflation"]), "inflation", "on held-out text"),
            (change(held["inflation_pruned_only"]), "pruning alone", "to the same size"),
            (change(worst["against_pruned_only"]), "worst domain", f"{worst['domain']}, against pruning alone"),
        ]
        weights = held["guard"]["weights"]
        if weights:
            notes = [f"So that none lost too much, words of these domains weigh more: {', '.join(sorted(weights))}."]
    table = Table([("learned first", "token")], [[t] for t in facts["top"]])
    return [Tiles(items), *([Notes(notes)] if notes else []), table]


def vocabulary_tiles(trade: dict[str, Any]) -> Tiles:
    ids, held = trade["ids"], trade["heldout"]
    cost = trade["embedding_and_head_parameters"]
    saved = cost["after"] / max(cost["before"], 1) - 1
    items = [
        (number(ids["after"]), "ids kept", f"of {number(ids['before'])}"),
        (
            number(cost["after"]),
            "embedding + head parameters",
            f"{change(saved)} at d_model {number(trade['d_model'])}, untied",
        ),
        (share(trade["coverage"]), "coverage", "tokens of the corpus that stay as they are"),
    ]
    if held:
        per = f"{ratio(held['bytes_per_token_before'])} → {ratio(held['bytes_per_token_after'])} bytes per token"
        items.insert(1, (change(held["inflation"]), "inflation", per))
        worst = held["domains"][0]
        items.append(
            (
                change(worst["inflation"]),
                "worst domain",
                f"{worst['domain']}, {number(worst['tokens_before'])} held-out tokens",
            )
        )
    dead = trade["dead_pieces"]
    return Tiles([*items, (number(dead["after"]), "dead pieces", f"{number(dead['before'])} before")])


def _curve(manifest: dict[str, Any]) -> list[Any]:
    points, chosen = manifest["curve"], manifest["trade"]["ids"]["after"]
    figures = [charts.size_against(points, chosen, "embedding_and_head_parameters")]
    if any(p["inflation"] is not None for p in points):
        figures.insert(0, charts.size_against(points, chosen, "inflation"))
    rows = [
        [
            number(p["vocab"]) + (" ←" if p["vocab"] == chosen else ""),
            "" if p["inflation"] is None else change(p["inflation"]),
            share(p["coverage"]),
            number(p["embedding_and_head_parameters"]),
        ]
        for p in points
    ]
    columns = ["vocabulary size", "inflation", "coverage", "embedding + head parameters"]
    width = number(manifest["trade"]["d_model"])
    note = f"Inflation is measured on the held-out text at each size; parameters at d_model {width}, untied."
    return [Figures(figures), Table([(c, "number") for c in columns], rows, note=note)]


def _trade(held: dict[str, Any], counts: CountsDir | None) -> list[Any]:
    shares = _shares(counts) if counts else {}
    heads = [
        "inflation",
        "bytes/token before",
        "after",
        "byte tokens before",
        "after",
        "held-out tokens before",
        "after",
    ]
    columns = [("domain", "text"), *((h, "number") for h in heads)]
    rows = []
    for r in held["domains"][:ROWS]:
        rough = " *" if r["tokens_before"] < ROUGH else ""
        rows.append([r["domain"] + rough, *_trade_cells(r), *([share(shares.get(r["domain"], 0.0))] if shares else [])])
    foot = ["all", *_trade_cells(held), *(["100.00%"] if shares else [])]
    if shares:
        columns.append(("share of corpus", "number"))
    figure = charts.inflation_bars(held["domains"], held["inflation"])
    return [Figures([figure]), Table(columns, rows, foot, note=" ".join(_trade_notes(held["domains"], shares)))]


def _trade_notes(domains: list[dict[str, Any]], shares: dict[str, float]) -> list[str]:
    """What to know of the table: its order, and what is roughly measured or not at all."""
    notes = ["Worst first. Byte tokens: single bytes that are no characters by themselves."]
    if any(r["tokens_before"] < ROUGH for r in domains):
        notes.append(f"* fewer than {number(ROUGH)} held-out tokens: a rough figure.")
    if len(domains) > ROWS:
        notes.append(f"{ROWS} of {number(len(domains))} domains; all are in manifest.json.")
    missing = sorted(shares.keys() - {r["domain"] for r in domains})
    if missing:
        more = f" and {number(len(missing) - 20)} more" if len(missing) > 20 else ""
        notes.append(f"Without held-out text, not measured: {', '.join(missing[:20])}{more}.")
    return notes


def _shares(counts: CountsDir) -> dict[str, float]:
    tokens = counts.domains["tokens"].to_pylist()
    total = max(sum(tokens), 1)
    return {d: n / total for d, n in zip(counts.domains["domain"].to_pylist(), tokens, strict=True)}


def _trade_cells(row: dict[str, Any]) -> list[str]:
    return [
        change(row["inflation"]),
        *(ratio(row[f"bytes_per_token_{when}"]) for when in ("before", "after")),
        *(share(row[f"byte_tokens_{when}"]) for when in ("before", "after")),
        *(number(row[f"tokens_{when}"]) for when in ("before", "after")),
    ]


def _dropped(manifest: dict[str, Any]) -> list[Any]:
    gone = manifest["dropped"][:DROPPED]
    rows = [
        [d["text"], d["parts"], number(d["count"]), number(d["count"] * (len(d["parts"]) - 1)), str(d["id"])]
        for d in gone
    ]
    columns = [
        *(("dropped", "token"), ("spelled now", "tokens"), ("occurrences", "number")),
        *(("tokens added", "number"), ("old id", "number")),
    ]
    text = (
        f"Of the {number(manifest['trade']['ids']['removed'])} ids that went, the {len(gone)} that occurred most."
        " Blanks and line breaks are shown as signs; <E4> is a byte."
    )
    return [Notes([text]), Table(columns, rows)]


def _checks(trade: dict[str, Any]) -> list[Any]:
    dead, held, ids = trade["dead_pieces"], trade["heldout"], trade["ids"]
    rows = [
        ["ids", number(ids["before"]), number(ids["after"])],
        ["dead pieces: ids that no text ever becomes", number(dead["before"]), number(dead["after"])],
    ]
    if held:
        trip = held["round_trip"]
        n = number(trip["documents"])
        rows += [
            [f"documents of {n} that encode and decode to themselves", number(trip["before"]), number(trip["after"])],
            [f"documents of {n} that decode to the same text under both", "", number(trip["same_text"])],
            ["tokens of the held-out text", number(held["tokens_before"]), number(held["tokens_after"])],
        ]
    note = ""
    if held and trade.get("predicted_inflation") is not None:
        told = change(trade["predicted_inflation"])
        note = f"Predicted from the counts: {told} inflation; measured: {change(held['inflation'])}."
    return [Table([("", "text"), ("before", "number"), ("after", "number")], rows, note=note)]
