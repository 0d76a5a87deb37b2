"""What `compact` says of transformers: the same ids, other ids, or a directory that it cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydata.tokenizers import transformers_check
from tinydata.tokenizers.open import open_tokenizer
from tinydata.tokenizers.transformers_check import compared_with_transformers

pytest.importorskip("transformers")
TEXTS = ["Some text.", "  with blanks  ", "<|im_start|>user\n", "<s>control</s>", "中文"]


def written(big: Path, to: Path) -> Path:
    """A vocabulary directory with every piece that is not dead."""
    tok = open_tokenizer(str(big))
    small = tok.subset(np.flatnonzero(tok.tree().reachable | ~tok.removable()))
    to.mkdir()
    for name, content in small.written().items():
        (to / name).write_bytes(content)
    return to


@pytest.mark.parametrize("name", ["plain", "prefix"])
def test_a_bare_model_is_read_to_the_same_ids(spm: Path, tmp_path: Path, name: str) -> None:
    path = written(spm / name, tmp_path / name)
    said = compared_with_transformers(str(path), open_tokenizer(str(path)), TEXTS)
    assert said == f"transformers reads {path} to the same ids, tried on 15 texts"


def test_a_difference_is_said(byte_bpe: Path, tmp_path: Path) -> None:
    path = written(byte_bpe / "qwen", tmp_path / "qwen")
    tok = open_tokenizer(str(path))
    assert "to the same ids, tried on 16 texts" in compared_with_transformers(str(path), tok, TEXTS)
    config = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    config["normalizer"] = {"type": "Lowercase"}
    (path / "tokenizer.json").write_text(json.dumps(config), encoding="utf-8")
    said = compared_with_transformers(str(path), tok, TEXTS)
    assert said.startswith("warning: transformers gives other ids for ")
    assert "of 16 texts, such as 'Some text.'" in said


def silent(path: str) -> Any:
    raise ValueError


def test_what_it_cannot_read_is_said(byte_bpe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(byte_bpe / "gpt2", tmp_path / "gpt2")
    tok = open_tokenizer(str(path))
    monkeypatch.setattr(transformers_check, "_auto", silent)
    assert compared_with_transformers(str(path), tok, TEXTS).endswith(f"cannot read {path}: ValueError()")
    monkeypatch.undo()
    (path / "tokenizer.json").write_text("{}")
    assert compared_with_transformers(str(path), tok, TEXTS).startswith(f"warning: transformers cannot read {path}: ")
