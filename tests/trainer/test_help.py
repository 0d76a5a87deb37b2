"""The help of every program: each option and each summary is a complete sentence."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")
pytest.importorskip("tyro", reason="the trainer needs tyro: pip install 'tinydata[train]'")

import tyro

import trainer

SOURCES = sorted(Path(trainer.__file__).parent.glob("*.py"))
PROGRAMS = [f.stem for f in SOURCES if "tyro.cli(" in f.read_text(encoding="utf-8")] + ["training.config"]


def is_sentence(text: str) -> bool:
    """Starts with a capital letter, ends with a period (a bracket may follow it), has at least three words."""
    return bool(re.match(r"[A-Z]", text) and re.search(r"\.[)\]]?$", text)) and len(text.split()) >= 3


def helps(program: str) -> dict[str, str]:
    """{option: help text} of a program: the string below each field of its Config, "" where there is none."""
    config = importlib.import_module(f"trainer.{program}").Config
    body = ast.parse(inspect.getsource(config)).body[0].body
    out = {f.name: "" for f in dataclasses.fields(config)}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            out[field.target.id] = inspect.cleandoc(below.value.value)
    return out


def test_all_programs_are_checked() -> None:
    programs = {"bench", "curve", "evaluate", "export", "generate", "inherit", "sweep", "training.config"}
    assert set(PROGRAMS) == programs  # training.config: the options of trainer.run


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_has_a_help_sentence(program: str) -> None:
    wrong = {name: text for name, text in helps(program).items() if not is_sentence(text)}
    assert not wrong


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_summary_is_a_sentence(program: str) -> None:
    summary = importlib.import_module(f"trainer.{program}").Config.__doc__ or ""
    assert is_sentence(summary.strip())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_is_shown(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = importlib.import_module(f"trainer.{program}").Config
    with pytest.raises(SystemExit) as end:
        tyro.cli(config, args=["--help"])
    shown = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert end.value.code == 0
    for text in helps(program).values():
        assert " ".join(text.split()[:3]) in shown
