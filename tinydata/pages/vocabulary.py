"""Vocabularies -> sections: the trade-off in a few numbers, as a curve and by domain, dropped tokens, checks."""

from __future__ import annotations

from typing import Any

from tinydata.pages import charts
from tinydata.pages.blocks import ROWS, Figures, Notes, Section, Table, Tiles
from tinydata.pages.inputs import CountsDir, VocabDir
from tinydata.pages.text import change, number, ratio, share

DROPPED = 50
ROUGH = 10_000  # with fewer held-out tokens, a domain's inflation is only a rough estimate


def comparison(vocabs: list[VocabDir]) -> Section:
    """Vocabularies -> section that compares them in one table, in the order given."""
    columns = [("vocabulary", "text"), ("method", "text")]
    heads = ("ids", "inflation", "worst domain", "coverage", "embedding + head", "dead pieces", "same text")
    rows = []
    for v in vocabs:
        t = v.manifest["trade"]
        heldout = t["heldout"]
        trip = heldout["round_trip"] if heldout else {}
        rows.append(
            [
                v.path,
                v.manifest["options"].get("method", "leaf"),
                number(t["ids"]["after"]),
                change(heldout["inflation"]) if heldout else "",
                change(heldout["domains"][0]["inflation"]) if heldout else "",
                share(t["coverage"]),
                number(t["embedding_and_head_parameters"]["after"]),
                number(t["dead_pieces"]["after"]),
                f"{number(trip['same_text'])} of {number(trip['documents'])}" if heldout else "",
            ]
        )
    return Section(
        "comparison", "Vocabularies side by side", [Table([*columns, *((h, "number") for h in heads)], rows)]
    )


def vocabulary_sections(v: VocabDir, counts: CountsDir | None, tag: str) -> list[Section]:
    """Vocabulary, the counts under its original tokenizer if they are on the page, suffix of anchors -> sections."""
    m = v.manifest
    sections = [Section(f"vocabulary{tag}", "Vocabulary", [vocabulary_tiles(m["trade"])], v.path)]
    if m.get("curve"):
        sections.append(Section(f"size{tag}", "Vocabulary size and what it costs", _curve(m), v.path))
    if m["trade"]["heldout"]:
        sections.append(Section(f"trade{tag}", "Trade-off by domain", _trade(m["trade"]["heldout"], counts), v.path))
    if m.get("adapted"):
        sections.append(Section(f"learned{tag}", "Learned tokens", learned(m["adapted"]), v.path))
    if m.get("dropped"):
        sections.append(Section(f"dropped{tag}", "Dropped tokens", _dropped(m), v.path))
    sections.append(Section(f"checks{tag}", "Checks: dead pieces and round trip", _checks(m["trade"]), v.path))
    return sections


def learned(facts: dict[str, Any]) -> list[Any]:
    """`adapted` of the manifest -> blocks: `--adapt` compared with pruning alone, and the first tokens it learned."""
    heldout = facts["heldout"]
    items = [(number(facts["learned"]), "learned", f"of {number(facts['learned'] + facts['pruned_to'])} ids")]
    notes = []
    if heldout:
        worst = heldout["worst_domain"]
        items += [
            (change(heldout["inflation"]), "inflation", "on held-out text"),
            (change(heldout["inflation_pruned_only"]), "pruning alone", "to the same size"),
            (change(worst["against_pruned_only"]), "worst domain", f"{worst['domain']}, against pruning alone"),
        ]
        weights = heldout["guard"]["weights"]
        if weights:
            notes = [
                "The words of these domains were given more weight, so that none of them becomes too much longer: "
                f"{', '.join(sorted(weights))}."
            ]
    table = Table([("learned first", "token")], [[t] for t in facts["top"]])
    return [Tiles(items), *([Notes(notes)] if notes else []), table]


def vocabulary_tiles(trade: dict[str, Any]) -> Tiles:
    """`trade` of the manifest -> its main numbers."""
    ids, heldout = trade["ids"], trade["heldout"]
    cost = trade["embedding_and_head_parameters"]
    saved = cost["after"] / max(cost["before"], 1) - 1
    items = [
        (number(ids["after"]), "ids kept", f"of {number(ids['before'])}"),
        (
            number(cost["after"]),
            "embedding + head parameters",
            f"{change(saved)} at d_model {number(trade['d_model'])}, untied",
        ),
        (share(trade["coverage"]), "coverage", "share of the corpus's tokens that are kept"),
    ]
    if heldout:
        per = f"{ratio(heldout['bytes_per_token_before'])} → {ratio(heldout['bytes_per_token_after'])} bytes per token"
        items.insert(1, (change(heldout["inflation"]), "inflation", per))
        worst = heldout["domains"][0]
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
    adapted = manifest["trade"]["heldout"]["inflation"] if "adapted" in manifest else None
    if any(p["inflation"] is not None for p in points):
        figures.insert(0, charts.size_against(points, chosen, "inflation", adapted))
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
    if adapted is not None:
        same = next(p for p in points if p["vocab"] == chosen)["embedding_and_head_parameters"]
        trade = manifest["trade"]
        rows.append([f"{number(chosen)} with learned tokens", change(adapted), share(trade["coverage"]), number(same)])
    width = number(manifest["trade"]["d_model"])
    note = f"Inflation is measured on the held-out text at each size; parameters at d_model {width}, untied."
    return [Figures(figures), Table([(c, "number") for c in columns], rows, note=note)]


def _trade(heldout: dict[str, Any], counts: CountsDir | None) -> list[Any]:
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
    for r in heldout["domains"][:ROWS]:
        rough = " *" if r["tokens_before"] < ROUGH else ""
        rows.append([r["domain"] + rough, *_trade_cells(r), *([share(shares.get(r["domain"], 0.0))] if shares else [])])
    foot = ["all", *_trade_cells(heldout), *(["100.00%"] if shares else [])]
    if shares:
        columns.append(("share of corpus", "number"))
    figure = charts.inflation_bars(heldout["domains"], heldout["inflation"])
    return [Figures([figure]), Table(columns, rows, foot, note=" ".join(_trade_notes(heldout["domains"], shares)))]


def _trade_notes(domains: list[dict[str, Any]], shares: dict[str, float]) -> list[str]:
    """What the reader of the table must know: its order, and which figures are rough or missing."""
    notes = ["Worst first. Byte tokens are single bytes that are not a character by themselves."]
    if any(r["tokens_before"] < ROUGH for r in domains):
        notes.append(f"* fewer than {number(ROUGH)} held-out tokens: a rough estimate.")
    if len(domains) > ROWS:
        notes.append(f"{ROWS} of {number(len(domains))} domains; the complete list is in manifest.json.")
    missing = sorted(shares.keys() - {r["domain"] for r in domains})
    if missing:
        more = f" and {number(len(missing) - 20)} more" if len(missing) > 20 else ""
        notes.append(f"Not measured, for lack of held-out text: {', '.join(missing[:20])}{more}.")
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
    removed = manifest["dropped"][:DROPPED]
    rows = [
        [d["text"], d["parts"], number(d["count"]), number(d["count"] * (len(d["parts"]) - 1)), str(d["id"])]
        for d in removed
    ]
    columns = [
        *(("dropped", "token"), ("now spelled as", "tokens"), ("occurrences", "number")),
        *(("tokens added", "number"), ("old id", "number")),
    ]
    text = (
        f"Of the {number(manifest['trade']['ids']['removed'])} removed ids, the {len(removed)} most frequent ones."
        " White space is shown as symbols; <E4> stands for a byte."
    )
    return [Notes([text]), Table(columns, rows)]


def _checks(trade: dict[str, Any]) -> list[Any]:
    dead, heldout, ids = trade["dead_pieces"], trade["heldout"], trade["ids"]
    rows = [
        ["ids", number(ids["before"]), number(ids["after"])],
        ["dead pieces: ids that no text is ever encoded to", number(dead["before"]), number(dead["after"])],
    ]
    if heldout:
        trip = heldout["round_trip"]
        n = number(trip["documents"])
        rows += [
            [
                f"documents of {n} that survive encoding and decoding unchanged",
                number(trip["before"]),
                number(trip["after"]),
            ],
            [f"documents of {n} that decode to the same text with both tokenizers", "", number(trip["same_text"])],
            ["tokens in the held-out text", number(heldout["tokens_before"]), number(heldout["tokens_after"])],
        ]
    note = ""
    if heldout and trade.get("predicted_inflation") is not None:
        predicted = change(trade["predicted_inflation"])
        note = f"Predicted from the counts: {predicted} inflation; measured: {change(heldout['inflation'])}."
    return [Table([("", "text"), ("before", "number"), ("after", "number")], rows, note=note)]
