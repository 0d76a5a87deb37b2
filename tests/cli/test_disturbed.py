"""Every verb that writes, killed, started twice, without disk space, over an input that is edited meanwhile.

    pytest -m slow tests/cli/test_disturbed.py

Afterwards the same command gives the bytes of a run that nobody disturbed, or refuses, saying why.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinydata as td
from tests.scorers import unigram

pytestmark = pytest.mark.slow

KILLS = 10
DEADLINE = 180  # seconds until a command that should have ended is a failure
VERBS: dict[str, list[str]] = {  # what follows is -o OUT
    "count": ["count", "corpus", "--tokenizer", "big", "--partitions", "8", "--workers", "2"],
    "compact": ["compact", "counts", "--vocab", "900"],
    "adapt": ["compact", "counts", "--vocab", "900", "--adapt"],
    "encode": [
        "encode",
        "corpus",
        "--vocab",
        "vocab",
        "--partitions",
        "8",
        "--workers",
        "2",
        "--shard-tokens",
        "200000",
    ],
    "slice": ["slice", "model", "--vocab", "vocab"],
    "score": ["score", "shards", "--model", "shares", "--scorer", "unigram:load", "--seq-len", "256", "--workers", "2"],
    "resample": ["resample", "scores", "--keep", "0.5"],
    "report": ["report", "counts", "vocab", "shards"],
}


@pytest.fixture(scope="module")
def project(text: list[str], byte_bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the inputs of every verb, some seconds of work each."""
    transformers = pytest.importorskip("transformers")
    home = tmp_path_factory.mktemp("disturbed")
    (home / "corpus").mkdir()
    for k in range(16):
        rows = [{"id": f"{k}-{n}", "text": t, "domain": "ab"[n % 2]} for n, t in enumerate(text)]
        (home / "corpus" / f"{k:02}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    shutil.copytree(byte_bpe / "gpt2", home / "big")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        td.count("corpus", "big", "counts", heldout=0.1)
        td.compact("counts", "vocab", vocab=900)
        td.encode("corpus", "vocab", "shards")
        unigram.made(Path("shares"), np.full(900, 1 / 900), seq_len=256, nap=0.002)
        made = run(home, "score", "scores")
        assert made.returncode == 0, made.stderr
        shape = {"vocab_size": 2_503, "n_embd": 256, "n_layer": 6, "n_head": 4, "n_positions": 64}
        config = transformers.GPT2Config(**shape, bos_token_id=2_500, eos_token_id=2_500)
        transformers.GPT2LMHeadModel(config).save_pretrained("model")
        shutil.copy("big/tokenizer.json", "model")
    return home


def command(home: Path, verb: str, out: str) -> dict[str, Any]:
    """Arguments of subprocess for a verb in a process group of its own, as a shell starts it."""
    code = "import sys; from tinydata.cli.main import main; main(sys.argv[1:])"
    path = os.pathsep.join([str(Path(unigram.__file__).parent), str(Path(td.__file__).parents[1])])
    args = [sys.executable, "-c", code, *VERBS[verb], "-o", out + ".html" * (verb == "report")]
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    return {"args": args, "cwd": home, "env": environment, "start_new_session": True, "text": True}


def run(home: Path, verb: str, out: str, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(home, verb, out), capture_output=True, timeout=DEADLINE, preexec_fn=before)


def content(home: Path, out: str) -> dict[str, bytes]:
    """The files of an output, without the record of the run, which has times."""
    if (page := home / f"{out}.html").exists():
        return {"page": page.read_bytes()}
    files = {str(p.relative_to(home / out)): p.read_bytes() for p in (home / out).rglob("*") if p.is_file()}
    files.pop(".run.json", None)
    return files


@pytest.fixture(scope="module")
def whole(project: Path) -> Callable[[str], tuple[dict[str, bytes], float]]:
    """verb -> (what an undisturbed run writes, the seconds that a run takes when its kernels are compiled)."""
    known: dict[str, tuple[dict[str, bytes], float]] = {}

    def of(verb: str) -> tuple[dict[str, bytes], float]:
        if verb not in known:
            for out in (f"first-{verb}", f"whole-{verb}"):
                began = time.monotonic()
                done = run(project, verb, out)
                assert done.returncode == 0, done.stderr
            known[verb] = content(project, f"whole-{verb}"), time.monotonic() - began
            assert content(project, f"first-{verb}") == known[verb][0]
        return known[verb]

    return of


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_ten_moments(verb: str, project: Path, whole: Any) -> None:
    wanted, seconds = whole(verb)
    draw = random.Random(verb)
    for k in range(KILLS):
        out = f"killed-{verb}-{k}"
        process = subprocess.Popen(**command(project, verb, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds * draw.uniform(0.2, 1.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left = content(project, out) if (project / out).exists() else {}
        assert left in ({}, wanted), f"half an output after {k} kills"
        again = run(project, verb, out)
        assert again.returncode == 0, again.stderr
        assert content(project, out) == wanted
        assert not list(project.glob(f".{out}*"))


@pytest.mark.parametrize("verb", VERBS)
def test_two_at_once(verb: str, project: Path, whole: Any) -> None:
    """One of them does it; the other waits for nothing, says why, and spoils nothing."""
    wanted, _ = whole(verb)
    out = f"twice-{verb}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(**command(project, verb, out), **pipes) for _ in range(2)]
    said = [process.communicate(timeout=DEADLINE)[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, said
    for code, text in zip(codes, said, strict=True):
        assert code == 0 or (code == 1 and "fix:" in text and "Traceback" not in text), text
    assert run(project, verb, out).returncode == 0
    assert content(project, out) == wanted


@pytest.mark.parametrize("verb", VERBS)
def test_no_space(verb: str, project: Path, whole: Any) -> None:
    """No file may grow beyond 10 kB: nothing is published, and with space the same command gives the same."""
    wanted, _ = whole(verb)
    out = f"full-{verb}"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

    done = run(project, verb, out, before=limit)
    assert done.returncode == 1, done.stderr
    assert "error: cannot write" in done.stderr and "fix:" in done.stderr and "Traceback" not in done.stderr
    assert not (project / out).exists() and not (project / f"{out}.html").exists()
    again = run(project, verb, out)
    assert again.returncode == 0, again.stderr
    assert content(project, out) == wanted


@pytest.mark.parametrize("verb", ["count", "encode"])
def test_an_input_is_edited_before_the_resume(verb: str, project: Path, whole: Any, tmp_path: Path) -> None:
    """In place, to the same size: the parts that were made of the old text must not stay."""
    whole(verb)  # compiled
    home = tmp_path / "project"
    shutil.copytree(project, home)
    process = subprocess.Popen(**command(home, verb, "out"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + DEADLINE
    while not list(home.glob(".out.partial/parts/*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (home / "out").exists(), "it was done before it could be killed"
    for file in sorted((home / "corpus").iterdir()):
        file.write_bytes(file.read_bytes().replace(b"def ", b"fed "))
    resumed, fresh = run(home, verb, "out"), run(home, verb, "fresh")
    assert fresh.returncode == 0, fresh.stderr
    if resumed.returncode == 0:
        assert content(home, "out") == content(home, "fresh")
    else:
        assert "an unfinished run with other inputs" in resumed.stderr and "fix:" in resumed.stderr, resumed.stderr
        assert not (home / "out").exists()
