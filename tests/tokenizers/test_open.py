"""Directories and repositories of tokenizers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Tokenizers

from tests.conftest import train_pieces
from tests.tokenizers.helpers import changed, refused, remade, set_model, unknown
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.tokenizers.base import fingerprint
from tinydata.tokenizers.open import load, open_tokenizer


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no tokenizer was found at this path")
    refused(tmp_path / "tokenizer.json", "no tokenizer was found at this path")
    refused(tmp_path, "the directory contains nothing")
    refused(unknown(tmp_path, ("README.md", b"")), "the directory contains README.md")


def test_wordpiece_that_is_none(tmp_path: Path) -> None:
    refused(unknown(tmp_path / "a", ("vocab.txt", b"the\n##s\n")), "not a vocab.txt of WordPiece, it has no .UNK.")
    refused(unknown(tmp_path / "a", ("vocab.txt", b"\xff\n[UNK]")), "not UTF-8")
    model = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {}, "max_input_chars_per_word": 9}
    config = {"version": "1.0", "added_tokens": [], "pre_tokenizer": None, "model": model}
    refused(unknown(tmp_path / "b", ("tokenizer.json", json.dumps(config).encode())), "no vocab")


def test_other_models_are_refused(tmp_path: Path, text: list[str]) -> None:
    refused(train_pieces(tmp_path / "b", text[:30], size=600, model_type="char"), "type char")
    config = {"model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}}
    refused(unknown(tmp_path / "c", ("tokenizer.json", json.dumps(config).encode())), "model WordLevel")


def test_bpe_with_marked_pieces_is_refused(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a</w>": 0}, "merges": [], "end_of_word_suffix": "</w>"}
    config = {"model": model, "pre_tokenizer": {"type": "Whitespace"}}
    refused(unknown(tmp_path / "a", ("tokenizer.json", json.dumps(config).encode())), "marked with '</w>'")


def test_the_tokenizer_json_beside_a_unigram_model(matching: Path, tmp_path: Path, text: list[str]) -> None:
    """With the same ids, and with tokens added behind them, both are cut down; with others, only it is read."""
    model = (matching / "unigram" / "tokenizer.model").read_bytes()
    bare: Any = open_tokenizer(str(matching / "unigram"))
    every = bare.written()
    config = json.loads(every["tokenizer.json"])
    config["added_tokens"].append({**config["added_tokens"][0], "id": bare.size, "content": "<extra_id_0>"})
    both = load({"spiece.model": model, "tokenizer.json": json.dumps(config).encode()})
    assert both.family == "sentencepiece-unigram" and both.size == bare.size + 1
    keep = np.setdiff1d(np.arange(both.size), np.flatnonzero(both.removable())[500:])
    small = both.subset(keep)
    assert small.size == len(keep)
    native_json = Tokenizers.from_str(small.files["tokenizer.json"].decode())
    assert [native_json.encode(t).ids for t in text] == small.encode(text)
    assert native_json.token_to_id("<extra_id_0>") == small.size - 1
    config["model"]["vocab"].insert(0, ["<s0>", 0.0])
    moved = load({"spiece.model": model, "tokenizer.json": json.dumps({**config, "added_tokens": []}).encode()})
    assert moved.family == "unigram" and list(moved.files) == ["tokenizer.json"]
    assert moved.pieces[1:] == bare.pieces


def test_vocab_txt_says_itself_whether_it_is_of_lower_case(tmp_path: Path) -> None:
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "##s", "t", "##h", "##e", "s"]
    for more, lower in (([], True), (["The"], False)):
        where = unknown(tmp_path / str(lower), ("vocab.txt", "\n".join([*lines, *more]).encode()))
        tok: Any = open_tokenizer(str(where))
        assert tok.config["normalizer"]["lowercase"] is lower
        assert tok.encode(["THE the"])[0] == ([4, 4] if lower else [1, 4])
        (where / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": not lower}), encoding="utf-8")
        assert open_tokenizer(str(where)).config["normalizer"]["lowercase"] is not lower  # type: ignore[attr-defined]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte_bpe: Path) -> Path:
    """huggingface_hub's cache with one repository, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--org--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    (repository / "blobs").mkdir()
    (repository / "blobs" / "1").write_bytes((byte_bpe / "gpt2" / "tokenizer.json").read_bytes())
    (snapshot / "tokenizer.json").symlink_to("../../blobs/1")
    return repository


@pytest.mark.parametrize(
    "path", ["hf://org/name", "hf://org/name/", "hf://org/name@main", "hf://org/name/tokenizer.json"]
)
def test_a_repository_of_the_hub(hub: Path, byte_bpe: Path, path: str) -> None:
    assert fingerprint(open_tokenizer(path)) == fingerprint(open_tokenizer(str(byte_bpe / "gpt2")))


@pytest.mark.parametrize("path", ["hf://org/other", "hf://org/name@v2", "hf://", "hf://or g/na me"])
def test_a_repository_that_is_not_there(hub: Path, path: str) -> None:
    with pytest.raises(TinydataError, match="cannot get the tokenizer of this Hugging Face repository") as e:
        open_tokenizer(path)
    assert e.value.code == UNREADABLE and e.value.where == path and "\n" not in e.value.what


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BROKEN_JSON = {
    "cut": b'{"version": "1.0", "model": {"ty',
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "a number": b"5",
    "empty": b"",
    "no model": b"{}",
    "a model that is a number": b'{"model": 5}',
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "no vocab": json.dumps({"model": {"type": "BPE", "merges": []}, "pre_tokenizer": LEVEL}).encode(),
    "no merges": json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}}, "pre_tokenizer": LEVEL}).encode(),
    "empty vocab": json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": LEVEL}).encode(),
    "vocab of texts": json.dumps(
        {"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}, "pre_tokenizer": LEVEL}
    ).encode(),
    "nested": b'{"model": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("what", BROKEN_JSON)
def test_broken_json_is_refused(tmp_path: Path, what: str) -> None:
    refused(unknown(tmp_path / "a", ("tokenizer.json", BROKEN_JSON[what])), "this kind of tokenizer is not supported")


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x0a\x05<unk>", b"version https://git-lfs.github.com/"])
def test_broken_models_are_refused(tmp_path: Path, content: bytes) -> None:
    refused(unknown(tmp_path / "a", ("tokenizer.model", content)), "this kind of tokenizer is not supported")


def test_a_model_cut_short_is_refused(tmp_path: Path, spm: Path) -> None:
    whole = (spm / "plain" / "tokenizer.model").read_bytes()
    refused(
        unknown(tmp_path / "a", ("tokenizer.model", whole[: len(whole) // 2])),
        "this kind of tokenizer is not supported",
    )


def test_what_the_library_refuses_is_refused(byte_bpe: Path, spm: Path) -> None:
    no_part = changed(byte_bpe / "gpt2", lambda c: set_model(c, merges=[*c["model"]["merges"], ["qz", "qz"]]))
    twice = remade(spm / "plain", lambda p: p.pieces.add(piece="the", type=1))
    for tok in (no_part, twice):
        with pytest.raises(TinydataError, match="library cannot read it") as e:
            tok.encode(["a"])
        assert e.value.code == UNREADABLE and e.value.fix


def test_vocab_json_wants_its_merges(tmp_path: Path) -> None:
    where = unknown(tmp_path / "a", ("vocab.json", b'{"a": 0, "model": 1}'))
    refused(where, "needs merges.txt")
    with pytest.raises(TinydataError, match=r"needs merges.txt"):
        open_tokenizer(str(where / "vocab.json"))
    (where / "merges.txt").write_bytes(b"#version: 0.2\n\xff \xfe\n")
    refused(where, "merges.txt")


def test_broken_companions_are_refused(tmp_path: Path, byte_bpe: Path) -> None:
    content = (byte_bpe / "gpt2" / "tokenizer.json").read_bytes()
    where = unknown(tmp_path / "a", ("tokenizer.json", content), ("tokenizer_config.json", b'{"model_max'))
    with pytest.raises(TinydataError, match=r"tokenizer_config.json.* not a JSON object") as e:
        open_tokenizer(str(where))
    assert e.value.code == UNREADABLE and e.value.fix
