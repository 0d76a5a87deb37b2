"""The help of every program: each option and each summary is a complete sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")
pytest.importorskip("tyro", reason="the trainer needs tyro: pip install 'tinydata[train]'")

import tyro

import trainer
from tests.trainer.options import PROGRAMS, config_of, option_helps
from tests.trainer.processes import environment

SOURCES = sorted(Path(trainer.__file__).parent.glob("*.py"))


def is_sentence(text: str) -> bool:
    """Starts with a capital letter, ends with a period (a bracket may follow it), has at least three words."""
    return bool(re.match(r"[A-Z]", text) and re.search(r"\.[)\]]?$", text)) and len(text.split()) >= 3


def test_all_programs_are_checked() -> None:
    with_options = {f"trainer.{f.stem}" for f in SOURCES if "tyro.cli(" in f.read_text(encoding="utf-8")}
    assert with_options <= PROGRAMS.keys()


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_has_a_help_sentence(program: str) -> None:
    wrong = {name: text for name, text in option_helps(config_of(program)).items() if not is_sentence(text)}
    assert not wrong


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_summary_is_a_sentence(program: str) -> None:
    summary = config_of(program).__doc__ or ""
    assert is_sentence(summary.strip())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_is_shown(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(program)
    with pytest.raises(SystemExit) as end:
        tyro.cli(config, args=["--help"])
    shown = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert end.value.code == 0
    for text in option_helps(config_of(program)).values():
        assert " ".join(text.split()[:3]) in shown


def test_the_training_program_reads_its_options_without_torch() -> None:
    """Importing torch takes seconds, which --help and a mistyped option should not cost."""
    code = "import sys, trainer.run; trainer.run.parse([]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
