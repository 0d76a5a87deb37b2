"""`import tinydata as td`: the verbs as functions, and the page that shows a session with them."""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tinydata as td
from tinydata import library
from tinydata.cli.main import main
from tinydata.engines.local import LocalEngine

PAGE = Path(__file__).parents[1] / "docs" / "notebook.md"
HEAVY = ("numpy", "pyarrow", "numba", "click", "rich", "tokenizers", "pyspark", "torch")


@pytest.fixture
def corpus(text: list[str], byte_bpe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with corpus.jsonl, 60 documents, and tokenizer.json; it is the working directory."""
    lines = (json.dumps({"doc_id": f"d{i}", "text": t}, ensure_ascii=False) for i, t in enumerate(text[:60]))
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(byte_bpe / "gpt2" / "tokenizer.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, tinydata; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_name_of_the_package_is_documented_and_in_its_table_of_contents() -> None:
    for name in td.__all__:
        assert getattr(td, name).__doc__, name
        assert re.search(rf"\btd\.{name}\b", str(td.__doc__)), name
    with pytest.raises(AttributeError, match="no_such_verb"):
        _ = td.no_such_verb


def test_the_notebook_page_runs(corpus: Path) -> None:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    assert {"counts", "vocab", "shards"} <= {p.name for p in corpus.iterdir()}
    assert names["again"] == names["counts"]
    assert "corpus.jsonl" in str(names["made_of"])
    assert names["fix"]


def test_the_examples_in_the_docstrings_run(corpus: Path) -> None:
    finder, names = doctest.DocTestFinder(recurse=False), {"td": td}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for verb in (library.count, library.compact, library.encode):
        for example in finder.find(verb, verb.__name__, globs=names):
            runner.run(example, clear_globs=False)
            names |= {k: v for k, v in example.globs.items() if not k.startswith("__")}
    assert runner.summarize(verbose=False) == (0, 5)


def test_a_function_and_its_command_write_the_same_bytes(corpus: Path) -> None:
    counts = td.count("corpus.jsonl", "tokenizer.json", "counts", heldout=0.1)
    td.encode("corpus.jsonl", td.compact(counts, "vocab", vocab=1_200), "shards", engine=LocalEngine(1))
    lines = [
        "count corpus.jsonl --tokenizer tokenizer.json -o cli/counts --heldout 0.1",
        "compact counts --vocab 1200 -o cli/vocab",
        "encode corpus.jsonl --vocab vocab -o cli/shards",
    ]
    for line in lines:
        with pytest.raises(SystemExit) as stopped:
            main([*line.split(), "-q"])
        assert stopped.value.code == 0
    for verb in ("counts", "vocab", "shards"):
        ours = {f: (corpus / verb / f).read_bytes() for f in os.listdir(corpus / verb)}
        theirs = {f: (corpus / "cli" / verb / f).read_bytes() for f in os.listdir(corpus / "cli" / verb)}
        assert {**theirs, ".run.json": b""} == {**ours, ".run.json": b""}, verb


def test_a_result_shows_itself_and_is_a_path(corpus: Path) -> None:
    counts = td.count("corpus.jsonl", "tokenizer.json", "counts", heldout=0.1)
    vocabulary = td.compact(counts, "vocab", vocab=1_200)
    assert "documents" in repr(counts) and repr(counts).startswith("Counts at counts")
    assert "inflation of held-out text" in vocabulary._repr_html_()
    assert Path(counts) == Path("counts")
    assert vocabulary.tokenizer.size == 1_200


@pytest.mark.parametrize("goal", [{}, {"vocab": 800, "coverage": 0.9}, {"coverage": 0.9, "adapt": True}])
def test_an_unclear_goal_is_refused(corpus: Path, goal: dict[str, object]) -> None:
    with pytest.raises(td.TinydataError, match="the size of the vocabulary is not determined"):
        td.compact(td.count("corpus.jsonl", "tokenizer.json", "counts"), "vocab", **goal)


@pytest.mark.spark
def test_a_running_spark_session_is_an_engine_and_stays_open(spark: object, corpus: Path) -> None:
    session = spark._session  # type: ignore[attr-defined]
    on_spark = td.count("corpus.jsonl", "tokenizer.json", "on-spark", engine=session)
    here = td.count("corpus.jsonl", "tokenizer.json", "here")
    assert on_spark.counts.equals(here.counts)
    assert session.range(3).count() == 3
