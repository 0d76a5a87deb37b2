"""tinydata.toml serves the directories below it, its paths are its own, and misspelt names are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinydata.cli.main import cli
from tinydata.cli.project import load
from tinydata.core.errors import TinydataError

OPTIONS = {name: command.params for name, command in cli.commands.items()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "below" / "deep").mkdir(parents=True)
    (tmp_path / "tinydata.toml").write_text(
        '[count]\ncorpus = ["data", "/abs", "s3://bucket/x", "~/mine"]\ntokenizer = "tok.json"\nheldout = 0.02\n'
        '[train]\nanything = 1\n[score]\nscorer = "mod:load"\n'
    )
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_in_its_own_directory_paths_stay_as_written(project: Path) -> None:
    assert load(OPTIONS)["count"] == {
        "corpus": ["data", "/abs", "s3://bucket/x", "/home/somebody/mine"], "tokenizer": "tok.json", "heldout": 0.02,
    }  # fmt: skip


def test_below_it_paths_lead_to_the_same_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "below" / "deep")
    tables = load(OPTIONS)
    assert tables["count"]["corpus"] == ["../../data", "/abs", "s3://bucket/x", "/home/somebody/mine"]
    assert tables["count"]["tokenizer"] == "../../tok.json"
    assert tables["score"]["scorer"] == "mod:load", "a module is not a path"


def test_the_nearest_file_wins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "below")
    Path("tinydata.toml").write_text("[count]\nheldout = 0.3\n")
    assert load(OPTIONS) == {"count": {"heldout": 0.3}}


@pytest.mark.parametrize(("text", "what", "fix"), [
    ("[cuont]\n", "there is no verb 'cuont'", "write 'count'"),
    ("[xyz]\n", "there is no verb 'xyz'", "use one of"),
    ("[count]\ntokeniser = 'x'\n", "has no option 'tokeniser'", "write 'tokenizer'"),
    ("[compact]\nvocb = 3\n", "has no option 'vocb'", "write 'vocab'"),
])  # fmt: skip
def test_a_misspelt_name_is_refused_with_the_right_one(project: Path, text: str, what: str, fix: str) -> None:
    Path("tinydata.toml").write_text(text)
    with pytest.raises(TinydataError, match=what) as e:
        load(OPTIONS)
    assert fix in e.value.fix
    assert "tinydata.toml" in e.value.where
