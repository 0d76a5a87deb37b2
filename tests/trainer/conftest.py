"""Shards to train on, made by `tinydata encode`, and runs as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import command, environment

from tinydata.encode import Settings, encode
from tinydata.engines.local import LocalEngine


@pytest.fixture(scope="session")
def shards(text: list[str], byte_bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 110,000 tokens of two domains in three shards, documents crossing no shard's edge."""
    root = tmp_path_factory.mktemp("trained on")
    with (root / "corpus.jsonl").open("w") as f:
        for i, t in enumerate(text):
            f.write(json.dumps({"doc_id": str(i), "domain": "code" if "def " in t else "text", "text": t}) + "\n")
    out = root / "shards"
    encode(
        [str(root / "corpus.jsonl")], str(byte_bpe / "gpt2"), str(out), LocalEngine(1), Settings(shard_tokens=25_000)
    )
    return out


@pytest.fixture
def train(shards: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """train(out, flags…, ranks=1): a run of its own process, or of several under torchrun."""

    def run(out: str, *more: str, ranks: int = 1, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        line = [sys.executable]
        if ranks > 1:
            line += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        line += command(shards, tmp_path / out, *more)
        done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
        assert code is None or done.returncode == code, done.stderr[-3000:]
        return done

    return run
