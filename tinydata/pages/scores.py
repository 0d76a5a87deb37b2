"""Scores -> sections: losses by domain, statuses of the sequences, forgetting, features that guards use."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydata.pages import distributions as charts
from tinydata.pages.blocks import ROWS, Figures, Notes, Section, SideBySide, Table, Tiles
from tinydata.pages.inputs import ScoresDir
from tinydata.pages.text import number, ratio, share

TAIL = 0.001  # share of the sequences beyond either end of the histogram; its outermost bars include them


def scores_sections(s: ScoresDir, tag: str) -> list[Section]:
    """Scores, suffix of anchors -> sections."""
    sections = [Section(f"scores{tag}", "Scores", [_tiles(s), *_losses(s)], s.path)]
    tenths = [t for t in s.manifest.get("forgetting") or [] if t["now"] is not None]
    if tenths:
        sections.append(
            Section(f"forgetting{tag}", "Forgetting", _forgetting(tenths, s.manifest["forgetting"]), s.path)
        )
    if len(s.sample):
        sections.append(Section(f"features{tag}", "Features that guards use", _features(s), s.path))
    return sections


def _tiles(s: ScoresDir) -> Tiles:
    m = s.manifest
    t = m["totals"]
    items = [
        (number(t["sequences"]), "sequences", f"of {number(m['seq_len'])} tokens, {number(t['ok'])} with a loss"),
        (number(t["tokens"]), "targets with a loss", f"in {number(len(m['domains']))} domains"),
    ]
    if t["tokens"]:
        items.append((ratio(t["loss"]), "nats per token", _by(m)))
    if t.get("held_out_loss") is not None:
        drift = t["held_out_loss"] - (t["loss"] or 0.0)
        items.append((ratio(t["held_out_loss"]), "on held-out sequences", f"{drift:+.3f}".replace("-", "−")))
    if len(s.sample):
        mean = s.sample["mean"].to_numpy()
        items.append((ratio(float(mean.std())), "standard deviation", "of the loss of a sequence"))
    return Tiles(items)


def _by(m: dict[str, Any]) -> str:
    step = m["model"].get("step")
    source = f"by {m['model']['path']}" + (f", step {number(step)}" if step else "")
    return source if not m["options"].get("losses") else f"logged while {m['options']['losses']} was being trained"


def _losses(s: ScoresDir) -> list[Any]:
    if not len(s.sample):
        return [_statuses(s.manifest), _domains(s.manifest)]
    counts, edges = histogram(s)
    total = s.manifest["totals"]["ok"]
    of = f"Drawn from {number(len(s.sample))} of {number(total)} sequences. " if len(s.sample) < total else ""
    of += f"The first and last bars include the outermost {TAIL:.1%} each."
    return [
        SideBySide(Figures([charts.losses_by_domain(counts, edges, of)]), _domains(s.manifest)),
        _statuses(s.manifest),
    ]


def histogram(s: ScoresDir) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """-> {domain: sequences int64[bins]}, most first; edges float64[bins + 1], nats."""
    mean = s.sample["mean"].to_numpy().astype(np.float64)
    low, high = np.quantile(mean, [TAIL, 1 - TAIL])
    edges = np.linspace(low, max(high, low + 1e-3), charts.BINS + 1)
    mean = np.clip(mean, edges[0], edges[-1])
    coded = s.sample["domain"].combine_chunks().dictionary_encode()
    which, names = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    counts = {name: np.histogram(mean[which == k], edges)[0] for k, name in enumerate(names)}
    return dict(sorted(counts.items(), key=lambda kv: (-int(kv[1].sum()), kv[0]))), edges


def _domains(m: dict[str, Any]) -> Table:
    rows = sorted(m["domains"].items(), key=lambda kv: (-kv[1]["tokens"], kv[0]))
    total = max(m["totals"]["tokens"], 1)
    columns = ("sequences", "targets", "share", "nats per token")
    more = (
        f"The first {ROWS} of {number(len(rows))}; the complete list is in manifest.json." if len(rows) > ROWS else ""
    )

    def cells(d: dict[str, Any]) -> list[str]:
        loss = ratio(d["nll"] / d["tokens"]) if d["tokens"] else ""
        return [number(d["sequences"]), number(d["tokens"]), share(d["tokens"] / total), loss]

    whole = {"sequences": m["totals"]["ok"], "tokens": m["totals"]["tokens"], "nll": m["totals"]["nll"]}
    return Table(
        [("domain", "text"), *((c, "number") for c in columns)],
        [[name or "–", *cells(d)] for name, d in rows[:ROWS]],
        ["all", *cells(whole)],
        note=more,
    )


STATUSES = {
    "ok": "has a loss, and can be kept",
    "held out": "part of the model's own validation data: scored, but never kept",
    "nan": "the loss is not a finite number",
    "id out of range": "contains a token id outside the model's vocabulary",
    "no targets": "all targets are masked",
    "not trained": "the training run logged no loss for it",
}


def _statuses(m: dict[str, Any]) -> Table:
    total = max(m["totals"]["sequences"], 1)
    ordered = sorted(m["statuses"].items(), key=lambda kv: -kv[1])
    rows = [[name, STATUSES.get(name, ""), number(n), share(n / total)] for name, n in ordered if n]
    return Table([("status", "text"), ("", "text"), ("sequences", "number"), ("share", "number")], rows)


def _forgetting(known: list[dict[str, Any]], tenths: list[dict[str, Any]]) -> list[Any]:
    rows = [
        [
            f"{10 * (t['tenth'] - 1)}–{10 * t['tenth']}%",
            number(t["sequences"]),
            *(ratio(t[k]) if t[k] is not None else "" for k in ("when_trained", "now")),
            f"{t['now'] - t['when_trained']:+.3f}".replace("-", "−") if t["now"] is not None else "",
        ]
        for t in tenths
    ]
    columns = [("of the run", "text"), *((c, "number") for c in ("sequences", "when trained", "now", "change"))]
    note = (
        "Sequences by the tenth of the run in which they were last trained on: their loss then, before the step that"
        " learned from them, and the frozen model's loss now. If the change increases from the first tenth to the last,"
        " sequences seen early were retained less well."
    )
    return [SideBySide(Figures([charts.forgetting(known)]), Table(columns, rows, note=note))]


def _features(s: ScoresDir) -> list[Any]:
    columns = {n: s.sample[n].to_numpy().astype(np.float64) for n in ("periodic", "unknown", "prior", "prior_sd")}
    tokens = np.maximum(s.sample["tokens"].to_numpy(), 1)
    longest = int(s.manifest["seq_len"])
    text = (
        "Measured on the token ids, without the model: the longest repetition of a pattern of up to 13 tokens, unknown"
        " tokens, and how rare the ids are (−ln of their share of the shards). A sequence with an extreme value in one"
        " of these is rarely natural text."
    )
    figures = [
        charts.feature("periodic", "Longest repeating run", f"tokens, of {longest}", columns["periodic"]),
        charts.feature("unknown", "Unknown tokens", "share of targets", columns["unknown"] / tokens),
        charts.feature("prior", "Rarity of the ids, mean", "nats", columns["prior"]),
        charts.feature("prior-sd", "Rarity of the ids, standard deviation", "nats", columns["prior_sd"]),
    ]
    return [Notes([text]), Figures(figures)]
