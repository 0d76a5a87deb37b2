"""Damaged files: 300 cases always, 100,000 with `pytest -m slow tests/formats/test_fuzz.py` (half an hour)."""

from __future__ import annotations

import sys

import pytest

from tests.formats import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits of memory and time are those of Linux")


def test_damaged_files_end_in_documents_quarantine_or_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--cases", "300"]) == 0, capfd.readouterr().out


@pytest.mark.slow
def test_a_hundred_thousand_damaged_files(capfd: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--cases", "100000", "--seed", "1"]) == 0, capfd.readouterr().out
