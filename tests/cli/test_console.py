"""What is printed where there is no terminal, or one without Unicode."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from tinydata.core import progress as module
from tinydata.core.progress import progress


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("count", 6_000_000_000) as advance:
        for _ in range(30):  # five minutes, in steps of ten seconds
            now[0] += 10
            advance(100_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "count: 600 MB of 6 GB (10%), 10 MB/s, 9 min left",
        "count: 1.2 GB of 6 GB (20%), 10 MB/s, 8 min left",
        "count: 1.8 GB of 6 GB (30%), 10 MB/s, 7 min left",
        "count: 2.4 GB of 6 GB (40%), 10 MB/s, 6 min left",
        "count: 3 GB of 6 GB (50%), 10 MB/s, 5 min left",
    ]


@pytest.mark.parametrize("total", [0, 10])
def test_odd_totals_do_no_harm(total: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("score", total, "tokens") as advance:
        for n in (0, 50):
            now[0] += 61
            advance(n)
    assert capsys.readouterr().err.splitlines()[-1].startswith("score: 50 tokens")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_text_can_be_printed_in_any_encoding(encoding: str) -> None:
    code = "from tinydata.cli.console import use_plain_signs; use_plain_signs();print('└─ ████▏ a → b 文 \\udcff é')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": encoding, "PATH": ""}, check=True
    )
    text = io.TextIOWrapper(io.BytesIO(done.stdout), encoding).read().strip()
    wanted = {"cp1252": r"`- ####- a -> b \u6587 \udcff é", "ascii": r"`- ####- a -> b \u6587 \udcff \xe9"}
    assert text == wanted.get(encoding, r"└─ ████▏ a → b 文 \udcff é")
