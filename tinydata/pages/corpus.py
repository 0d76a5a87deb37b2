"""Counts -> sections: corpus by domain, coverage, rank and frequency, quarantine."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydata.pages import charts, curves
from tinydata.pages.blocks import ROWS, Figures, Notes, Section, SideBySide, Table, Tiles
from tinydata.pages.inputs import CountsDir
from tinydata.pages.text import number, ratio, share, thousands

SHARES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def corpus_sections(c: CountsDir, sizes: dict[str, tuple[int, float]], tag: str) -> list[Section]:
    """Counts, {vocabulary computed from them: (ids, coverage)}, suffix of anchors -> sections."""
    by_rank = curves.ranked(c.per_id)
    sections = [Section(f"corpus{tag}", "Corpus", [_tiles(c), _domains(c)], c.path)]
    if len(by_rank):
        sections += [
            Section(f"coverage{tag}", "Coverage", _coverage(c, by_rank, sizes), c.path),
            Section(f"rank-frequency{tag}", "Rank and frequency", _rank_frequency(by_rank), c.path),
        ]
    if len(c.quarantine):
        sections.append(Section(f"quarantine{tag}", "Quarantine", _quarantine(c), c.path))
    return sections


def _tiles(c: CountsDir) -> Tiles:
    t = c.manifest["totals"]
    size = c.manifest["tokenizer"]["size"]
    items = [
        (number(t["tokens"]), "tokens", f"{number(t['heldout_tokens'])} of them held out"),
        (number(t["documents"]), "documents", f"{number(t['heldout_documents'])} of them held out"),
        (number(t["bytes"]), "bytes of text", f"in {number(t['domains'])} domains"),
        (ratio(t["bytes"] / max(t["tokens"], 1)), "bytes per token", "all domains together"),
        (number(size - t["distinct_tokens"]), "ids that never occur", f"of {number(size)}"),
    ]
    if t["masked"]:
        items.append(
            (
                number(t["masked"]),
                "masked tokens",
                "excluded from the loss or stored as negative ids; counted like all others",
            )
        )
    return Tiles(items)


def _domains(c: CountsDir) -> Table:
    rows = curves.by_domain(c.domains)
    t = c.manifest["totals"]
    note = ""
    if len(rows) > ROWS:
        note = f"The {ROWS} largest of {number(len(rows))} domains; the complete list is in domains.parquet."
    return Table(
        [("domain", "text"), *((h, "number") for h in _DOMAIN_COLUMNS)],
        [[r["domain"], *_domain_cells(r)] for r in rows[:ROWS]],
        ["all", *_domain_cells({**t, "share": 1.0, "bytes_per_token": t["bytes"] / max(t["tokens"], 1)})],
        note=note,
    )


_DOMAIN_COLUMNS = ("share of tokens", "documents", "tokens", "bytes", "bytes/token", "held-out docs", "held-out tokens")


def _domain_cells(row: dict[str, Any]) -> list[str]:
    whole = [number(row[k]) for k in ("documents", "tokens", "bytes")]
    heldout = [number(row["heldout_documents"]), number(row["heldout_tokens"])]
    return [share(row["share"]), *whole, ratio(row["bytes_per_token"]), *heldout]


def _coverage(c: CountsDir, by_rank: np.ndarray, sizes: dict[str, tuple[int, float]]) -> list[Any]:
    covered = curves.coverage(by_rank)
    columns = [("", "text"), ("ids", "number"), ("share of tokens", "number")]
    top = {m for m in charts.MARKS if m < len(covered)}
    rows = [[f"top {thousands(k)}", number(k), share(curves.coverage_at(covered, k))] for k in sorted(top)]
    rows += [[name, number(k), share(x)] for name, (k, x) in sizes.items()]
    rows += [[f"ids needed for {100 * x:g}%", number(curves.ids_for(covered, x)), share(x)] for x in SHARES]
    rows.append(["all ids that occur", number(len(covered)), "100.00%"])
    note = (
        f"Without the held-out documents: {number(int(by_rank.sum()))} tokens. Coverage is not a measure of quality:"
        " tokens that are not covered are spelled with other ids, and only inflation shows with how many."
    )
    return [SideBySide(Figures([charts.coverage(by_rank, sizes)]), Table(columns, rows, note=note))]


def _rank_frequency(by_rank: np.ndarray) -> list[Any]:
    fit = curves.zipf(by_rank)
    once, rare = int((by_rank == 1).sum()), int((by_rank < 10).sum())
    of = len(by_rank)
    rows = [
        ["ids that occur", number(of), ""],
        ["fewer than 10 times", number(rare), share(rare / of)],
        ["once", number(once), share(once / of)],
    ]
    if fit:
        rows.insert(0, ["fitted slope", f"{fit.slope:.3f}".replace("-", "−"), ""])
    table = Table([("", "text"), ("", "number"), ("share of ids", "number")], rows)
    return [SideBySide(Figures([charts.rank_frequency(by_rank, fit)]), table)]


def _quarantine(c: CountsDir) -> list[Any]:
    rows = [
        [r["path"], number(r["position"]), r["reason"], r["excerpt"] or ""]
        for r in c.quarantine.slice(0, ROWS).to_pylist()
    ]
    quarantined = c.manifest["quarantined"]
    lost = quarantined["documents"] / max(quarantined["documents"] + c.manifest["totals"]["documents"], 1)
    reasons = "; ".join(f"{number(n)} × {reason}" for reason, n in sorted(quarantined["reasons"].items()))
    text = f"{number(quarantined['documents'])} documents ({share(lost)} of all) could not be counted: {reasons}."
    columns = [("path", "code"), ("position", "number"), ("reason", "text"), ("excerpt", "token")]
    note = (
        f"The first {ROWS} of {number(len(c.quarantine))}; the complete list is in quarantine.parquet."
        if len(c.quarantine) > ROWS
        else ""
    )
    return [Notes([text]), Table(columns, rows, note=note)]
