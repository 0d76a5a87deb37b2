"""The trainer reads tokenizers by itself; it must see what tinydata sees: ids, texts, fingerprints, ends of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinydata.tokenizers.base import CONTROL, fingerprint
from tinydata.tokenizers.open import open_tokenizer
from tinydata.tokenizers.special_tokens import end_of_text
from trainer.errors import TrainerError
from trainer.huggingface.tokenizer import read_tokenizer

TEXTS = ("The ferry leaves at 6:45, don't be late.", "Die Fähre – 渡船六点四十五分开\n\n  x\t= 1", "👍🏽 \u200bé", "")
TRAINED = (
    *("byte_bpe/gpt2", "byte_bpe/qwen", "byte_bpe/llama3", "spm/plain", "spm/prefix", "ranks/made"),
    *(f"matching/{name}" for name in ("unigram", "unigram_bytes", "unigram_json", "wordpiece_json", "char_json")),
)
REAL = (
    "tokenizers/sp_bpe/internlm_103168",
    "tokenizers/sp_bpe/mistral_v1_32000",
    "tokenizers/sp_unigram/t5_base_32000",
    "tokenizers/bytebpe/gpt2_50257",
    "tokenizers/bytebpe/olmo_gpt_neox_v1_5",
    "models/stories260K/hf",
    "models/stories260K/hf/tokenizer.json",
)


def same(path: Path) -> None:
    ours, theirs = read_tokenizer(path), open_tokenizer(str(path))
    assert ours.family == theirs.family and ours.size == theirs.size
    assert ours.fingerprint == fingerprint(theirs)
    assert [ours.encode(t) for t in TEXTS] == theirs.encode(list(TEXTS))
    ids = [i for t in TEXTS for i in ours.encode(t)]
    assert ours.decode(ids) == theirs.decode(ids)
    assert (-1 if ours.eos is None else ours.eos) == end_of_text(theirs)
    lengths = np.where(theirs.kinds == CONTROL, 0, [len(p) for p in theirs.pieces])
    assert ours.piece_bytes == lengths.tolist()


@pytest.mark.parametrize("name", TRAINED)
def test_sees_what_tinydata_sees(name: str, request: pytest.FixtureRequest):
    fixture, _, folder = name.partition("/")
    same(request.getfixturevalue(fixture) / folder)


@pytest.mark.parametrize("name", REAL)
def test_of_real_tokenizers_too(name: str, shared: Path):
    same(shared / name)


@pytest.mark.parametrize(
    "name", ["byte_bpe/qwen", "spm/prefix", "ranks/made", "matching/unigram", "matching/char_json"]
)
def test_a_compact_one(name: str, request: pytest.FixtureRequest, tmp_path: Path):
    fixture, _, folder = name.partition("/")
    big = open_tokenizer(str(request.getfixturevalue(fixture) / folder))
    small = big.subset(np.flatnonzero(~big.removable() | (np.arange(big.size) % 3 > 0)))
    for file, content in small.files.items():
        (tmp_path / file).write_bytes(content)
    same(tmp_path)
    assert read_tokenizer(tmp_path).fingerprint == fingerprint(small) != fingerprint(big)


@pytest.mark.parametrize("name", ["byte_bpe/gpt2", "spm/plain"])
def test_bytes_of_pieces_are_the_bytes_of_the_text(name: str, request: pytest.FixtureRequest):
    fixture, _, folder = name.partition("/")
    tokenizer = read_tokenizer(request.getfixturevalue(fixture) / folder)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert sum(tokenizer.piece_bytes[i] for i in ids) == len(text.encode())
        assert tokenizer.decode(ids) == text


def test_begin_token(spm: Path):
    tokenizer = read_tokenizer(spm / "prefix")
    assert tokenizer.bos == 1 and tokenizer.encode("a", bos=True) == [1, *tokenizer.encode("a")]


def test_tokens_behind_the_model(spm: Path, tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes((spm / "plain" / "tokenizer.model").read_bytes())
    (tmp_path / "added_tokens.json").write_text('{"<|call|>": 2000, "<|end|>": 2002}')
    same(tmp_path)
    ids = [*read_tokenizer(tmp_path).encode("a b"), 2000, 2002]
    assert read_tokenizer(tmp_path).decode(ids) == "a b<|call|><|end|>"


def test_what_is_none(tmp_path: Path):
    with pytest.raises(TrainerError, match="no tokenizer was found"):
        read_tokenizer(tmp_path / "nowhere")
    with pytest.raises(TrainerError, match="the directory contains no files"):
        read_tokenizer(tmp_path)
    for name, content in (("tokenizer.model", b"version https://git-lfs"), ("tokenizer.json", b"{}")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TrainerError, match="not in a supported format"):
            read_tokenizer(tmp_path / name)
