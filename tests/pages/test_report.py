"""The page: from real directories of small made-up text, with no network, no script, and the same bytes each time."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tinydata.core.errors import TinydataError
from tinydata.pages import text
from tinydata.pages.page import report

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")

WORDS = "the of water river stone <div> &amp; morning walked quickly house return x += 1; über 山川 日本 night"
DOMAINS = ("plain", "code & <b>co</b>", "中文")
HOSTILE = "<script>alert('1')</script>\n\x00"
VOID = {"meta", "link", "br"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """counts, other counts, and vocabularies of the first: with a curve, by frequency, and adapted with a curve."""
    from tinydata.engines.local import LocalEngine
    from tinydata.verbs.compact.plan import Goal, choose, curve, open_counts
    from tinydata.verbs.compact.verb import compact
    from tinydata.verbs.count.plan import Settings
    from tinydata.verbs.count.verb import count

    root = tmp_path_factory.mktemp("report")
    lines = documents(400)
    tokenizer = train(root / "tokenizer", lines)
    for name, bad in (("counts", 3), ("other", 0)):
        corpus = root / f"{name}.jsonl"
        rows = [json.dumps({"domain": DOMAINS[i % 3], "text": t}) for i, t in enumerate(lines[: 400 - bad])]
        corpus.write_text("\n".join(rows + ['{"text": <script>alert(2)</script>'] * bad), encoding="utf-8")
        count([str(corpus)], tokenizer, str(root / name), LocalEngine(1), Settings(heldout=0.2, max_bad=0.5))
    counts = str(root / "counts")
    opened = open_counts(counts)
    goals = {
        "vocab": Goal(vocab=450),
        "frequent": Goal(vocab=430, method="frequency"),
        "adapted": Goal(vocab=400, adapt=True),
    }
    for name, goal in goals.items():
        choice = choose(opened, tokenizer, goal)
        points = curve(choice, opened, 2048) if name != "frequent" else None
        compact(counts, tokenizer, str(root / name), goal, choice=choice, points=points)
    run = {
        "command": "tinydata count 'a b.jsonl' -o counts",
        "seconds": 12.3,
        "engine": "local",
        "workers": 2,
        "bytes": 10**8,
    }
    (root / "counts" / ".run.json").write_text(json.dumps(run))
    return root


def documents(n: int) -> list[str]:
    """Sentences of common words, with some made-up ones that are rare."""
    draw = random.Random(5)
    rare = ["".join(draw.choices("aeioulmnrst", k=7)) for _ in range(300)]
    return [" ".join(draw.choices(WORDS.split(), k=30) + draw.choices(rare, k=8)) + "\n" for _ in range(n)]


def train(where: Path, lines: list[str]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
    where.mkdir()
    tokenizer.save(str(where / "tokenizer.json"))
    return str(where)


def build(root: Path, *names: str) -> tuple[dict[str, Any], str]:
    out = root / "report.html"
    done = report([str(root / n) for n in names], str(out))
    content = out.read_bytes()
    assert done["bytes"] == len(content) < 1_000_000
    return done, content.decode()


def changed(root: Path, name: str, tmp_path: Path, **manifest: Any) -> Path:
    """A copy of one directory with another manifest."""
    old = json.loads((root / name / "manifest.json").read_text(encoding="utf-8"))
    copy = tmp_path / name
    copy.mkdir()
    for file in (root / name).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "manifest.json").write_text(json.dumps({**old, **manifest}), encoding="utf-8")
    return copy


class Tags(HTMLParser):
    """Fails on a tag that is not closed where it should be; collects ids and addresses."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [v or "" for k, v in attrs if k == "id"]
        self.addresses += [v or "" for k, v in attrs if k in ("href", "src", "xlink:href", "srcset", "action", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# -- what is on the page ----------------------------------------------------------------------

OF_COUNTS = ["corpus", "coverage", "rank-frequency", "quarantine"]
OF_VOCABULARY = ["vocabulary", "size", "trade", "dropped", "checks"]


@pytest.mark.parametrize(
    ("names", "sections"),
    [
        (["counts", "vocab"], [*OF_VOCABULARY, *OF_COUNTS, "files"]),
        (["counts"], [*OF_COUNTS, "files"]),
        (["vocab"], [*OF_VOCABULARY, "files"]),
        (["frequent"], ["vocabulary", "trade", "dropped", "checks", "files"]),
        (
            ["other", "vocab", "frequent"],
            ["comparison", *OF_VOCABULARY, "vocabulary-2", "trade-2", "dropped-2", "checks-2", *OF_COUNTS[:3], "files"],
        ),
    ],
)
def test_sections(made: Path, names: list[str], sections: list[str]) -> None:
    done, page = build(made, *names)
    assert done["sections"] == sections
    tags = Tags(page)
    assert len(tags.ids) == len(set(tags.ids))
    assert set(sections) == set(tags.ids)
    assert {a for a in tags.addresses if a.startswith("#")} == {f"#{s}" for s in sections}


def test_fetches_nothing(made: Path) -> None:
    _, page = build(made, "counts", "vocab")
    tags = Tags(page)
    assert all(a.startswith(("#", "data:")) for a in tags.addresses)
    assert tags.names.isdisjoint({"script", "iframe", "img", "object", "embed"})
    assert "@import" not in page and "url(" not in page
    plain = page.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert not re.findall(r"https?://", plain)


def test_same_bytes(made: Path, tmp_path: Path) -> None:
    done, page = build(made, "counts", "vocab")
    assert build(made, "counts", "vocab") == (done, page)
    dirs = [str(made / n) for n in ("counts", "vocab")]
    code = f"from tinydata.pages.page import report; report({dirs!r}, {str(tmp_path / 'again.html')!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_numbers(made: Path) -> None:
    _, page = build(made, "counts", "vocab")
    shown = re.sub(r"<[^>]+>", " ", page)
    totals = json.loads((made / "counts" / "manifest.json").read_text())["totals"]
    for key in ("tokens", "documents", "bytes", "heldout_tokens"):
        assert f" {totals[key]:,} " in shown
    held = json.loads((made / "vocab" / "manifest.json").read_text())["trade"]["heldout"]
    assert text.change(held["inflation"]) in shown
    places = [
        page.index(f'<td class="text">{r["domain"]} *') for r in held["domains"] if r["domain"] in ("plain", "中文")
    ]
    assert places == sorted(places)
    assert "tinydata count &#39;a b.jsonl&#39; -o counts" in page
    assert "12 s, local engine, 2 workers; 100 MB read, 8.13 MB/s" in shown
    assert "not recorded" in shown  # of the vocabulary


def test_markup_in_data_stays_text(made: Path, tmp_path: Path) -> None:
    dropped = [{"id": 7, "text": HOSTILE, "count": 9, "parts": ["<img src=x>", "\\n"]}]
    _, page = build(made, "counts", str(changed(made, "vocab", tmp_path, dropped=dropped)))
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;<i>↵U+0000</i>" in page
    assert "<script" not in page and "<img" not in page and "\x00" not in page
    assert "&lt;script&gt;alert(2)" in page.replace("<i>␣</i>", " ")  # excerpt of what was quarantined
    assert "code &amp; &lt;b&gt;co&lt;/b&gt;" in page
    Tags(page)


def test_links_hold_data_and_spec(made: Path) -> None:
    _, page = build(made, "counts", "vocab")
    links = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', page))
    assert {n.split(".")[0] for n in links} == {
        *("coverage", "rank-frequency", "size-inflation", "size-parameters", "inflation-by-domain")
    }
    content = {name: base64.b64decode(data).decode() for name, data in links.items()}
    rows = list(csv.DictReader(io.StringIO(content["inflation-by-domain.csv"])))
    held = json.loads((made / "vocab" / "manifest.json").read_text())["trade"]["heldout"]
    assert [(r["domain"], float(r["inflation"])) for r in rows] == [
        (r["domain"], r["inflation"]) for r in held["domains"]
    ]
    assert float(list(csv.DictReader(io.StringIO(content["coverage.csv"])))[-1]["coverage"]) == 1
    for name in links:
        if name.endswith(".vl.json"):
            assert "vega-lite" in json.loads(content[name])["$schema"]


def test_warnings(made: Path, tmp_path: Path) -> None:
    _, page = build(made, "counts", "vocab")
    assert "3 of 400 documents could not be used" in page
    assert "computed from other counts" not in page and "are dead" not in page
    _, page = build(made, "other", "vocab")
    assert "computed from other counts than" in page
    trade = json.loads((made / "vocab" / "manifest.json").read_text())["trade"]
    bare = {**trade, "heldout": None, "dead_pieces": {"before": 0, "after": 9}}
    done, page = build(made, str(changed(made, "vocab", tmp_path, trade=bare)))
    assert "trade" not in done["sections"]
    assert "no held-out text" in page and "9 of its ids (2.00%) are dead" in page


# -- scores and rounds ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scores of 3,000 sequences, some of them junk; round-1 by default, round-paper by the paper's rule."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests import scores as made_up
    from tinydata.core import schema
    from tinydata.engines.local import LocalEngine
    from tinydata.verbs.resample.plan import settings
    from tinydata.verbs.resample.verb import resample

    root = tmp_path_factory.mktemp("drawn")
    rows = made_up.made(3000, domains=DOMAINS)
    rows["prior"][:30] = 12.0
    rows["status"] = np.array(["nan", *["held out"] * 4, *["ok"] * 2995])
    tokens, ok = rows["tokens"], rows["status"] == "ok"
    mine = {d: ok & (rows["domain"] == d) for d in DOMAINS}
    about = {
        "tinydata": "0",
        "inputs": {},
        "files": {},
        "options": {"data": "shards", "model": "run"},
        "model": {"path": "run", "step": 1200},
        "statuses": {"nan": 1, "held out": 4, "ok": 2995},
        "domains": {
            d: {"sequences": int(m.sum()), "tokens": int(tokens[m].sum()), "nll": float(rows["nll"][m].sum())}
            for d, m in mine.items()
        },
        "forgetting": [
            {
                "tenth": k + 1,
                "sequences": 300 * (k > 0),
                "when_trained": 4 - k / 5 if k else None,
                "now": 2.0 if k else None,
            }
            for k in range(10)
        ],
    }
    about["totals"] = {k: sum(d[k] for d in about["domains"].values()) for k in ("tokens", "nll")}
    about["totals"] |= {"sequences": 3000, "ok": 2995, "loss": about["totals"]["nll"] / about["totals"]["tokens"]}
    made_up.write(root / "scores", rows, **about)
    where = str(root / "scores")
    resample(where, str(root / "round-1"), LocalEngine(1), settings())
    resample(where, str(root / "round-paper"), LocalEngine(1), settings("paper", batch_tokens=64 * 100))
    lines = [("hardest kept", 7, DOMAINS[1], 9.5, "", HOSTILE), ("excluded", 8, "plain", 8.25, "prior", "a  b\tc")]
    columns = zip(*lines, strict=True)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.EXAMPLES, strict=True)], schema.EXAMPLES)
    pq.write_table(table, root / "round-1" / "examples.parquet")
    return root


def test_scores_and_a_round(drawn: Path) -> None:
    done, page = build(drawn, "scores", "round-1")
    of_round = ["round", "mix", "excluded", "hardest", "refused", "draw"]
    assert done["sections"] == [*of_round, "scores", "forgetting", "features", "files"]
    assert build(drawn, "scores", "round-1") == (done, page)
    Tags(page)
    shown = re.sub(r"<[^>]+>", " ", page)
    manifest = json.loads((drawn / "round-1" / "manifest.json").read_text())
    kept, selection = manifest["kept"], manifest["selection"]
    assert f"Round 1: {kept['sequences']:,} of 2,995 sequences" in shown
    assert kept["sha256"] in page and manifest["scores"]["manifest"] in page
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    cells = [[c.strip() for c in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)] for row in rows]
    assert [c[1:4] for c in cells if len(c) == 5 and c[4].endswith("points")] == [
        [text.number(d["sequences"]), text.share(d["expected"]), text.share(d["kept"])] for d in selection["deciles"]
    ]
    excluded = selection["excluded"]
    assert excluded["prior"] == 25 and excluded["no loss"] == 5
    assert ["prior", "25", "0.83%"] in [[c[0], *c[3:]] for c in cells if len(c) == 5]
    assert ["held out", "4"] in [[c[0], c[2]] for c in cells if len(c) == 4]
    assert [c[-1] for c in cells if c and c[0] in ("0–10%", "10–20%", "90–100%")] == ["", "−1.800", "−0.200"]
    assert "scores: some of the 3,000 sequences have no loss because of an error: 1 nan." in shown
    assert "hardly different from a random selection" not in shown


def test_sequences_as_text(drawn: Path) -> None:
    _, page = build(drawn, "round-1")
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;<i>↵\n</i><i>U+0000</i>" in page
    assert "a<i>␣␣</i>b<i>⇥</i>c" in page
    assert "<script" not in page and "<mark>prior</mark>" in page


def test_a_round_that_is_hardly_more_than_chance_says_so(drawn: Path, tmp_path: Path) -> None:
    _, page = build(drawn, "round-paper", "scores")
    assert "round-paper: This is hardly different from a random selection" in re.sub(r"<[^>]+>", " ", page)
    assert "drawn from scores" not in page
    _, page = build(drawn, "round-1", str(changed(drawn, "scores", tmp_path, round=3)))
    assert "drawn from scores that are not on this page." in page


# -- what cannot be reported on ---------------------------------------------------------------


def test_not_made_by_tinydata(made: Path, tmp_path: Path) -> None:
    with pytest.raises(TinydataError, match="no such directory"):
        report([str(tmp_path / "nowhere")], str(tmp_path / "r.html"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TinydataError, match="not finished, or tinydata did not create it"):
        report([str(made / "counts"), str(tmp_path / "empty")], str(tmp_path / "r.html"))
    with pytest.raises(TinydataError, match="cannot show the output of `tinydata slice`"):
        report([str(changed(made, "vocab", tmp_path, verb="slice"))], str(tmp_path / "r.html"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    with pytest.raises(TinydataError, match="a report cannot show a training run") as e:
        report([str(tmp_path / "run")], str(tmp_path / "r.html"))
    assert "python -m trainer.curve" in e.value.fix
    (tmp_path / "vocab" / "manifest.json").write_text('{"verb": ')
    with pytest.raises(TinydataError, match="cannot be read as JSON"):
        report([str(tmp_path / "vocab")], str(tmp_path / "r.html"))
    with pytest.raises(TinydataError, match="nothing to report on"):
        report([], str(tmp_path / "r.html"))
    assert not (tmp_path / "r.html").exists()


def test_damaged_run_record_is_as_good_as_none(made: Path, tmp_path: Path) -> None:
    copy = changed(made, "counts", tmp_path)
    for content in ('{"seconds":', "[]", '{"seconds": null, "workers": 1}'):
        (copy / ".run.json").write_text(content)
        assert "not recorded" in build(made, str(copy))[1]


def test_only_a_page_of_ours_is_replaced(made: Path, tmp_path: Path) -> None:
    corpus, page = tmp_path / "precious.jsonl", tmp_path / "report.html"
    corpus.write_text('{"text": "paid for"}\n')
    for place, what in ((corpus, "a file that is not a report"), (tmp_path, "a directory")):
        with pytest.raises(TinydataError, match=f"the page would replace {what}"):
            report([str(made / "counts")], str(place))
    assert corpus.read_text() == '{"text": "paid for"}\n'
    for _ in range(2):
        report([str(made / "counts")], str(page))
    page.write_text("<!doctype html><title>of another program</title>")
    with pytest.raises(TinydataError, match="not a report"):
        report([str(made / "counts")], str(page))


@pytest.mark.parametrize("package", ["jinja2", "vl_convert"])
def test_missing_extra(made: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TinydataError, match=re.escape("tinydata[report]")):
        build(made, "counts")


def test_import_is_light() -> None:
    code = "import sys, tinydata.pages.page; print([m for m in ('jinja2', 'vl_convert', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# -- numbers and tokens as text ---------------------------------------------------------------


def test_text() -> None:
    assert [text.number(n) for n in (0, 1234567, -1234)] == ["0", "1,234,567", "−1,234"]
    assert [text.share(x) for x in (0, 1e-6, 0.5, 0.99999, 1)] == ["0.00%", "< 0.01%", "50.00%", "> 99.99%", "100.00%"]
    assert [text.change(x) for x in (0.011, -0.5, 1e-7, -1e-7)] == ["+1.10%", "−50.00%", "0.00%", "0.00%"]
    assert text.thousands(48_000) == "48k"


def test_running_text_reads_as_text() -> None:
    assert text.passage("if x:\n    y  \n\nz\u200b") == [
        ("if x:", False),
        ("↵\n␣␣␣␣", True),
        ("y", False),
        ("␣␣↵\n↵\n", True),
        ("z", False),
        ("U+200B", True),
    ]


def test_hidden_characters_are_told_from_spelled_ones() -> None:
    assert text.runs(" a\\n\n\t\u200b") == [("␣", True), ("a\\n", False), ("↵⇥U+200B", True)]
    assert text.runs("") == []


def test_shards_before_and_after(made: Path, tmp_path: Path) -> None:
    """Tokens in all and by domain, what rewriting did to them, and how that compares with encoding anew."""
    from tinydata.engines.local import LocalEngine
    from tinydata.verbs.encode.plan import Settings
    from tinydata.verbs.encode.verb import encode

    settings, engine = Settings(max_bad=0.5), LocalEngine(1)
    big, vocab = str(made / "tokenizer"), str(made / "vocab")
    encode([str(made / "counts.jsonl")], big, str(tmp_path / "big"), engine, settings)
    after = encode([str(tmp_path / "big")], vocab, str(tmp_path / "new"), engine, settings)
    made_page = report([str(tmp_path / "big"), str(tmp_path / "new"), vocab], str(tmp_path / "page.html"))
    assert {"shards", "shards-2"} <= set(made_page["sections"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    t, sample = after["totals"], after["sample"]
    assert text.number(t["tokens_before"]) in page
    assert text.change(t["tokens"] / t["tokens_before"] - 1) in page
    assert f"A sample of {text.number(sample['documents'])} documents was checked" in page
    assert text.share(sample["equal"] / sample["documents"]) in page
    for domain in after["domains"].values():
        assert text.number(domain["tokens"]) in page
    assert (
        "encoded with a tokenizer that is none of the vocabularies on this page." in page
    )  # of the big tokenizer's shards


def test_the_adapted_vocabulary_is_a_point_of_its_own(made: Path) -> None:
    _, page = build(made, "counts", "adapted")
    manifest = json.loads((made / "adapted" / "manifest.json").read_text())
    inflation = manifest["trade"]["heldout"]["inflation"]
    links = dict(re.findall(r'download="(size-[^"]+\.vl\.json)" href="data:[^,]+,([^"]+)"', page))
    spec = base64.b64decode(next(v for k, v in links.items() if "inflation" in k)).decode()
    assert f'"inflation":{inflation!r}' in spec and ' adapted"' in spec
    assert "400 with learned tokens" in page and "learned from the corpus (diamond)" in page
