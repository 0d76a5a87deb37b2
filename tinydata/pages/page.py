"""Output directories of tinydata -> one HTML file that needs neither network nor scripts.

Charts are Vega-Lite specs, rendered to SVG here (about 0.3 s for the first, then 20 ms each) and embedded
in the page, each with links to its data and its spec. The same directories give the same bytes.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from importlib import resources
from itertools import groupby
from typing import Any

from tinydata.core.errors import TinydataError, missing_extra
from tinydata.core.location import Location
from tinydata.pages import text
from tinydata.pages.blocks import Facts, Notes, Section
from tinydata.pages.charts import PALETTE, Chart, Rows
from tinydata.pages.corpus import corpus_sections
from tinydata.pages.inputs import Inputs, open_all
from tinydata.pages.provenance import files, provenance, same_tokenizer, warnings
from tinydata.pages.round import round_sections, round_title
from tinydata.pages.scores import scores_sections
from tinydata.pages.shards import shards_sections
from tinydata.pages.vocabulary import comparison, vocabulary_sections

GENERATOR = b'<meta name="generator" content="tinydata">'  # in page.html.j2: how a page of ours is recognized


def report(dirs: list[str], out: str) -> dict[str, Any]:
    """Output directories of tinydata -> the page at `out`; returns {report, bytes, sections}.

    Raises TinydataError for a directory that is unfinished or that no page can show, for a missing extra,
    and if `out` cannot be written.
    """
    _require_extra()
    _check_replaceable(Location.of(out))
    inputs = open_all(list(dirs))
    sections = arrange(inputs)
    facts = [provenance(d) for d in inputs.every]
    page = render(_title(inputs), facts, warnings(inputs), sections).encode("utf-8", "replace")
    Location.of(out).write(page)
    return {"report": out, "bytes": len(page), "sections": [s.anchor for s in sections]}


def _check_replaceable(out: Location) -> None:
    """Raises TinydataError if `out` exists and is anything else than a page of ours."""
    if not out.exists():
        return
    if not out.is_dir():
        with out.open() as f:
            if GENERATOR in f.read(1 << 12):
                return
    raise TinydataError(
        "the page would replace a directory" if out.is_dir() else "the page would replace a file that is not a report",
        where=out.path,
        fix="choose another file with -o, such as -o report.html, or remove that one",
    )


def arrange(inputs: Inputs) -> list[Section]:
    """Inputs -> the sections of the page: first the decisions, then the data behind them, then the files."""
    out = [comparison(inputs.vocabs)] if len(inputs.vocabs) > 1 else []
    for n, r in enumerate(inputs.rounds):
        out += round_sections(r, _tag(n))
    for n, s in enumerate(inputs.scores):
        out += scores_sections(s, _tag(n))
    counts_of = {v.path: same_tokenizer(v, inputs.counts) for v in inputs.vocabs}
    for n, v in enumerate(inputs.vocabs):
        out += vocabulary_sections(v, counts_of[v.path], _tag(n))
    for n, d in enumerate(inputs.shards):
        out += shards_sections(d, _tag(n))
    for n, c in enumerate(inputs.counts):
        trades = {v.path: v.manifest["trade"] for v in inputs.vocabs if counts_of[v.path] is c}
        sizes = {path: (t["ids"]["after"], t["coverage"]) for path, t in trades.items()}
        out += corpus_sections(c, sizes, _tag(n))
    return [*out, files(inputs.every)]


def _tag(n: int) -> str:
    """Suffix of the anchors of the n-th directory of a kind."""
    return f"-{n + 1}" if n else ""


def _title(inputs: Inputs) -> str:
    if inputs.rounds:
        return " and ".join(round_title(r.manifest) for r in inputs.rounds)
    if inputs.vocabs:
        sizes = [text.number(v.manifest["trade"]["ids"]["after"]) for v in inputs.vocabs]
        big = {v.manifest["trade"]["ids"]["before"] for v in inputs.vocabs}
        what = "Vocabulary of" if len(inputs.vocabs) == 1 else "Vocabularies of"
        return f"{what} {' and '.join(sizes)} ids" + (f" out of {text.number(big.pop())}" if len(big) == 1 else "")
    if inputs.scores:
        return f"{text.number(sum(s.manifest['totals']['sequences'] for s in inputs.scores))} sequences scored"
    if not inputs.counts:
        return f"{text.number(sum(d.manifest['totals']['tokens'] for d in inputs.shards))} tokens in shards"
    return f"{text.number(sum(c.manifest['totals']['tokens'] for c in inputs.counts))} tokens counted"


def render(title: str, facts: list[Facts], notes: Notes, sections: list[Section]) -> str:
    """Title, provenance, warnings and sections -> HTML."""
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
        provenance=facts,
        warnings=notes,
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
    """Vega-Lite spec -> SVG, rendered without network access."""
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
