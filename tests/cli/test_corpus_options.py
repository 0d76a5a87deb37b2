"""Sources of one corpus whose columns have different names: on the command line, in tinydata.toml, in the library."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

import tinydata as td
from tests.cli.conftest import Run, write
from tinydata.cli.corpus_options import Columns, CorpusCommand, columns
from tinydata.core.errors import TinydataError
from tinydata.core.location import Location, read_table
from tinydata.formats.base import Wanted

pytestmark = pytest.mark.usefixtures("sources")


@pytest.fixture
def sources(here: Path) -> None:
    """a: the text is `body`, the domain `lang`; b: the text is `document`; c: the usual names."""
    for name, row in {"a": {"body": "", "lang": "en"}, "b": {"document": ""}, "c": {"text": ""}}.items():
        (here / name).mkdir()
        write(here / name / f"{name}.jsonl", [{**row, next(iter(row)): f"{name} number {n}"} for n in range(40)])


def columns_of(*args: str) -> Columns:
    """What the command line means, as a command receives it."""
    seen: list[Columns] = []

    @click.command(cls=CorpusCommand)
    @click.argument("corpus", nargs=-1)
    @click.option("--tokenizer")
    @columns
    def command(columns: Columns, **others: Any) -> None:
        seen.append(columns)

    command.main(list(args), standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize(
    ("args", "text", "domain"),
    [
        (["a", "--text-column", "body"], "body", ""),
        (["--text-column", "body", "a", "b"], "body", ""),
        (["a", "b", "--text-column", "body"], "body", ""),
        (["a", "--text-column", "body", "b", "--text-column=body"], "body", ""),
        (["a", "--text-column", "body", "b", "--text-column", "document"], ("body", "document"), ""),
        (["a", "--text-column", "body", "b"], ("body", ""), ""),
        (["a", "b", "--text-column", "body", "--domain-column", "x", "c"], ("body", "body", ""), ("x", "x", "")),
        (["--domain-column", "x", "a", "--text-column", "body", "--", "b", "--c"], ("body", "", ""), "x"),
        (["a", "--tokenizer", "t", "b", "--text-column", "body"], "body", ""),
        (["--text-column", "body", "a", "--text-column", "x", "b"], ("x", "body"), ""),
        ([], "", ""),
    ],
)
def test_an_option_is_for_the_sources_since_the_last_one(args: list[str], text: Any, domain: Any) -> None:
    assert columns_of(*args) == Columns(text_column=text, domain_column=domain)


EACH = ["a", "--text-column", "body", "--domain-column", "lang", "b", "--text-column", "document", "c"]


def test_what_init_was_told_the_next_verbs_use(tokenizer: str, run: Run) -> None:
    said = run("init", *EACH, "--tokenizer", tokenizer)
    assert said.code == 0, said.err
    shown = """ a
  jsonl: text in 'body', domains in 'lang'
  the first document begins: 'a number 0'
 b
  jsonl: text in 'document'
  domains by file or folder: b
  the first document begins: 'b number 0'
"""
    assert shown in said.out
    toml = tomllib.loads(Path("tinydata.toml").read_text())
    assert toml["count"]["text_column"] == toml["encode"]["text_column"] == ["body", "document", ""]
    assert run("count").code == 0
    assert read_table(Location.of("counts/domains.parquet")).select(["domain", "documents"]).to_pylist() == [
        {"domain": "b", "documents": 40},
        {"domain": "c", "documents": 40},
        {"domain": "en", "documents": 40},
    ]
    assert run("compact", "--vocab", "600").code == 0
    encoded = run("encode")
    assert encoded.code == 0
    assert "was counted with" not in encoded.err
    manifest = json.loads(Path("shards/manifest.json").read_text())
    assert manifest["totals"]["documents"] == 120
    assert manifest["options"]["domain_column"] == ["lang", "", ""]
    assert "was counted with" not in run("encode", "b", "-o", "of-b").err
    assert "was counted with --text-column" in run("encode", "a", "--text-column", "lang", "-o", "of-a").err


def test_one_source_of_the_file_alone(tokenizer: str, run: Run) -> None:
    assert run("init", *EACH, "--tokenizer", tokenizer).code == 0
    assert run("count", "b").code == 0
    assert json.loads(Path("counts/manifest.json").read_text())["options"]["text_column"] == "document"


def test_a_column_that_one_source_does_not_have_is_an_error(tokenizer: str, run: Run) -> None:
    said = run(
        "count", "a", "--text-column", "body", "b", "--text-column", "nowhere", "--tokenizer", tokenizer, "-o", "o"
    )
    assert said.code == 1
    assert "nowhere" in said.err and "b/b.jsonl" in said.err
    dry = run("count", "a", "--text-column", "body", "b", "--tokenizer", tokenizer, "--dry-run")
    assert "cannot be read: 1 file, such as b/b.jsonl" in dry.out


def test_in_the_library(tokenizer: str) -> None:
    counts = td.count(["a", "b"], tokenizer, "counts", text_column=["body", "document"], domain_column=["lang", ""])
    assert counts.domains["domain"].to_pylist() == ["b", "en"]
    with pytest.raises(TinydataError, match="a value for each of 2 paths; the corpus has 3 paths"):
        td.count(["a", "b", "c"], tokenizer, "more", text_column=["body", "document"])
    with pytest.raises(TinydataError, match="different numbers of paths"):
        td.count(["a", "b"], tokenizer, "more", text_column=["body", "document"], domain_column=["lang", "", ""])


def test_what_a_manifest_records_is_what_was_given() -> None:
    for wanted in (Wanted("body"), Wanted(each=(Wanted("body", domain="lang"), Wanted("text", dtype="uint16")))):
        assert Wanted.from_given(wanted.given) == wanted
