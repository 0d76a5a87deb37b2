"""A round -> sections: what was kept, by loss and by domain, what guards excluded, examples as text."""

from __future__ import annotations

from typing import Any

from tinydata.pages import distributions as charts
from tinydata.pages.blocks import ROWS, Facts, Figures, Notes, Passage, Passages, Section, SideBySide, Table, Tiles
from tinydata.pages.inputs import RoundDir
from tinydata.pages.text import number, ratio, share

PER_NAT = 2.0**32  # steps of a key in the manifest
GUARDS = {
    "no loss": "held out by the training run, or has no loss",
    "periodic": "repeats a short pattern too long",
    "short": "too few targets",
    "unknown": "too many unknown tokens",
    "prior": "its ids are much rarer, more common or more uniform than usual in its domain",
    "repeats": "has already been trained on often enough",
}


def round_title(m: dict[str, Any]) -> str:
    """Manifest of a round -> title of the page."""
    of = m["selection"]["sequences"]
    return f"Round {m['round']}: {number(m['kept']['sequences'])} of {number(of)} sequences"


def round_sections(r: RoundDir, tag: str) -> list[Section]:
    """A round, suffix of anchors -> sections."""
    m = r.manifest
    sections = [
        Section(f"round{tag}", "What was kept", [_tiles(m), *_losses(m["selection"])], r.path),
        Section(f"mix{tag}", "Domains", _mix(m["selection"]), r.path),
        Section(f"excluded{tag}", "What guards excluded", _excluded(m["selection"]), r.path),
    ]
    rows = r.examples.to_pylist()
    kept = [e for e in rows if e["kind"] == "hardest kept"]
    others = [e for e in rows if e["kind"] != "hardest kept"]
    if kept:
        note = "The kept sequences with the highest loss. Is this text that the model should learn?"
        sections.append(
            Section(f"hardest{tag}", "The hardest sequences that were kept", [Notes([note]), _texts(kept)], r.path)
        )
    if others:
        note = "Sequences that guards excluded, highest loss first. Is any of this text worth keeping?"
        sections.append(
            Section(f"refused{tag}", "Examples of excluded sequences", [Notes([note]), _texts(others)], r.path)
        )
    sections.append(Section(f"draw{tag}", "The draw", _draw(m), r.path))
    return sections


def _tiles(m: dict[str, Any]) -> Tiles:
    kept, s = m["kept"], m["selection"]
    excluded = sum(n for reason, n in s["excluded"].items() if reason != "no loss")
    after = s["loss"].get("kept", s["loss"]["expected"])
    items = [
        (share(kept["sequences"] / max(s["sequences"], 1)), "kept", f"{number(kept['sequences'])} sequences"),
        (number(kept["tokens"]), "tokens kept", f"sequences of {number(m['seq_len'])}"),
        (ratio(after), "nats per token", f"mean of what was kept; {ratio(s['loss']['before'])} before"),
        (share(s["effective_size"]), "effective size", "100% if all sequences are equally likely"),
        (number(excluded), "excluded by guards", share(excluded / max(s["sequences"], 1))),
    ]
    return Tiles(items)


def _losses(s: dict[str, Any]) -> list[Any]:
    figures = [charts.before_after(s["histogram"])] if s.get("histogram") else []
    figures.append(charts.deciles(s["deciles"]))
    rows = [
        [str(n), number(d["sequences"]), share(d["expected"]), share(d["kept"]), points(d["kept"] - d["expected"])]
        for n, d in enumerate(s["deciles"], 1)
    ]
    columns = [
        ("tenth", "number"),
        ("sequences", "number"),
        ("predicted", "number"),
        ("kept", "number"),
        ("", "number"),
    ]
    note = "Easiest first. The prediction uses only the histogram of losses and was computed before the draw."
    return [Figures(figures), Table(columns, rows, folded="the tenths as a table", note=note)]


def points(x: float) -> str:
    """0.0123 -> +1.23 points"""
    shown = f"{100 * x:+.2f}"
    return ("0.00" if shown in ("+0.00", "-0.00") else shown.replace("-", "−")) + " points"


def _mix(s: dict[str, Any]) -> list[Any]:
    total = max(sum(d["sequences"] for d in s["domains"].values()), 1)
    kept = max(sum(d["kept"] for d in s["domains"].values()), 1)
    domains = sorted(s["domains"].items(), key=lambda kv: (-kv[1]["sequences"], kv[0]))
    shares = [
        {"domain": name or "–", "before": d["sequences"] / total, "after": d["kept"] / kept} for name, d in domains
    ]
    rows = [
        [
            x["domain"],
            number(d["sequences"]),
            number(d["kept"]),
            share(d["kept"] / max(d["sequences"], 1)),
            share(x["before"]),
            share(x["after"]),
        ]
        for x, (_, d) in zip(shares, domains, strict=True)
    ]
    columns = ("sequences", "kept", "share kept", "of all before", "after")
    more = (
        f"The first {ROWS} of {number(len(rows))}; the complete list is in manifest.json." if len(rows) > ROWS else ""
    )
    table = Table([("domain", "text"), *((c, "number") for c in columns)], rows[:ROWS], note=more)
    return [SideBySide(Figures([charts.mix(shares)]), table)]


def _excluded(s: dict[str, Any]) -> list[Any]:
    if not s["excluded"]:
        return [Notes(["None: every sequence with a loss was eligible."])]
    rows = [
        [name, GUARDS.get(name, ""), _limit(s["limits"].get(name)), number(n), share(n / max(s["sequences"], 1))]
        for name, n in sorted(s["excluded"].items(), key=lambda kv: -kv[1])
    ]
    columns = [("guard", "text"), ("", "text"), ("limit", "number"), ("sequences", "number"), ("share", "number")]
    return [Table(columns, rows, note="A sequence is counted under the first guard that excludes it.")]


def _limit(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _texts(rows: list[dict[str, Any]]) -> Passages:
    return Passages(
        [
            Passage(
                f"sequence {number(e['sequence'])}",
                [e["domain"] or "–", *([f"{e['mean']:.3f} nats per token"] if e["mean"] is not None else [])],
                e["reason"] or "",
                e["text"] or "(no text: the shards were not available)",
            )
            for e in rows
        ]
    )


def _draw(m: dict[str, Any]) -> list[Any]:
    o, kept, s = m["options"], m["kept"], m["selection"]
    clip = o.get("clip") or ()
    items = [
        ("preset", "text", f"{o['preset']}, by {o['unit']}"),
        ("temperature", "text", f"{o['temperature']:g}" + (", of standardised losses" if o.get("zscore") else "")),
        ("clipped at", "text", " and ".join(f"the {q:.0%} quantile" for q in clip) if clip else "nothing"),
        ("seed", "text", str(o["seed"])),
        ("kept", "text", f"{number(kept['sequences'])}; {kept['expected']:,.1f} expected from their probabilities"),
        ("sha256 of the sequence numbers", "code", kept["sha256"]),
        ("scores", "code", f"{m['scores']['path']}, manifest {m['scores']['manifest']}"),
        ("shards", "code", f"{m['base']['path']}, {m['base']['fingerprint']}"),
    ]
    columns = ("eligible", "kept", "clipped below", "clipped above", "predicted threshold", "actual threshold")
    rows = [
        [
            t["domain"] or "all",
            number(t["eligible"]),
            number(t["keep"]),
            *_nats(t["clip"]),
            *_nats([t["expected_threshold"]]),
            _key(t),
        ]
        for t in s["strata"]
    ]
    return [
        Facts("how it was drawn", items),
        Table(
            [("stratum", "text"), *((c, "number") for c in columns)],
            rows[:ROWS],
            note="A sequence is kept if its key, loss/T − ln(−ln u), is above the threshold; u is a hash of the seed"
            " and the sequence number. Values are in nats.",
        ),
    ]


def _nats(values: list[float | None]) -> list[str]:
    return ["" if v is None else ratio(v) for v in values]


def _key(stratum: dict[str, Any]) -> str:
    threshold = stratum.get("threshold")
    return ratio(threshold["key"] / PER_NAT) if threshold else ""
