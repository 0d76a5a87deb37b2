"""Directories that tinydata made -> one HTML file that needs no network and no script.

Charts are Vega-Lite specs, drawn to SVG here (about 0.3 s for the first, then 20 ms each) and set
into the page, each with links to its data and its spec. The same directories give the same bytes.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from importlib import resources
from itertools import groupby
from typing import Any

from tinydata.core.errors import missing_extra
from tinydata.core.location import Location
from tinydata.pages import text
from tinydata.pages.blocks import Facts, Notes, Section
from tinydata.pages.charts import PALETTE, Chart, Rows
from tinydata.pages.corpus import corpus_sections
from tinydata.pages.inputs import Inputs, open_all
from tinydata.pages.provenance import concerns, files, made, same_tokenizer
from tinydata.pages.round import round_sections, round_title
from tinydata.pages.scores import scores_sections
from tinydata.pages.shards import shards_sections
from tinydata.pages.vocabulary import comparison, vocabulary_sections


def report(dirs: list[str], out: str) -> dict[str, Any]:
    """Directories that tinydata's verbs made -> the page at `out`; returns {report, bytes, sections}.

    Raises TinydataError: a directory that is unfinished or of another verb, a missing extra,
    a place that cannot be written.
    """
    _require_extra()
    found = open_all(list(dirs))
    sections = arrange(found)
    facts = [made(d) for d in found.every]
    page = render(_title(found), facts, concerns(found), sections).encode("utf-8", "replace")
    Location.of(out).write(page)
    return {"report": out, "bytes": len(page), "sections": [s.anchor for s in sections]}


def arrange(found: Inputs) -> list[Section]:
    """What is in which order: what was decided, what it was decided on, the files."""
    out = [comparison(found.vocabs)] if len(found.vocabs) > 1 else []
    for n, r in enumerate(found.rounds):
        out += round_sections(r, _tag(n))
    for n, s in enumerate(found.scores):
        out += scores_sections(s, _tag(n))
    made_of = {v.path: same_tokenizer(v, found.counts) for v in found.vocabs}
    for n, v in enumerate(found.vocabs):
        out += vocabulary_sections(v, made_of[v.path], _tag(n))
    for n, d in enumerate(found.shards):
        out += shards_sections(d, _tag(n))
    for n, c in enumerate(found.counts):
        trades = {v.path: v.manifest["trade"] for v in found.vocabs if made_of[v.path] is c}
        sizes = {path: (t["ids"]["after"], t["coverage"]) for path, t in trades.items()}
        out += corpus_sections(c, sizes, _tag(n))
    return [*out, files(found.every)]


def _tag(n: int) -> str:
    """Suffix of the anchors of the n-th of a kind."""
    return f"-{n + 1}" if n else ""


def _title(found: Inputs) -> str:
    if found.rounds:
        return " and ".join(round_title(r.manifest) for r in found.rounds)
    if found.vocabs:
        sizes = [text.number(v.manifest["trade"]["ids"]["after"]) for v in found.vocabs]
        big = {v.manifest["trade"]["ids"]["before"] for v in found.vocabs}
        what = "Vocabulary of" if len(found.vocabs) == 1 else "Vocabularies of"
        return f"{what} {' and '.join(sizes)} ids" + (f" out of {text.number(big.pop())}" if len(big) == 1 else "")
    if found.scores:
        return f"{text.number(sum(s.manifest['totals']['sequences'] for s in found.scores))} sequences scored"
    if not found.counts:
        return f"{text.number(sum(d.manifest['totals']['tokens'] for d in found.shards))} tokens in shards"
    return f"{text.number(sum(c.manifest['totals']['tokens'] for c in found.counts))} tokens counted"


def render(title: str, facts: list[Facts], warnings: Notes, sections: list[Section]) -> str:
    import jinja2
    from markupsafe import Markup

    def template(name: str) -> str:
        return resources.files("tinydata.pages").joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        made=facts,
        warnings=warnings,
        sections=sections,
        contents=[(of, list(group)) for of, group in groupby(sections, key=lambda s: s.of)],
        css=Markup(template("page.css")),
        palette=PALETTE,
        svg=lambda chart: Markup(draw(chart)),
        data_link=lambda chart: _link("text/csv", _csv(chart.rows)),
        spec_link=lambda chart: _link("application/json", _json(chart)),
        runs=text.runs,
        passage=text.passage,
    )


def draw(chart: Chart) -> str:
    """Spec -> SVG; nothing is fetched for it."""
    import vl_convert

    return vl_convert.vegalite_to_svg(chart.spec, allowed_base_urls=[])


def _require_extra() -> None:
    try:
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError:
        raise missing_extra("jinja2 and vl-convert-python", "report") from None


def _link(kind: str, content: str) -> str:
    """data: URI"""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content.encode()).decode()}"


def _csv(rows: Rows) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _json(chart: Chart) -> str:
    return json.dumps(chart.spec, ensure_ascii=False, separators=(",", ":"))
