"""tiktoken's rank files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tokenizers.helpers import WHISPER, counted, refused, unknown
from tinydata.tokenizers.families import byte_bpe as bytebpe
from tinydata.tokenizers.families.tiktoken import canonical_merges
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.compact.prune import kept, protected, removal_order


def rank_encoding(tok: Any) -> Any:
    """The same tokenizer as tiktoken itself would have it: ranks from the file, the rest from tokenizer.json."""
    tiktoken = pytest.importorskip("tiktoken")
    lines = next(iter(tok.files.values())).split(b"\n")[:-1]
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    special = {t["content"]: t["id"] for t in tok.config["added_tokens"]}
    return tiktoken.Encoding("it", pat_str=tok._regex, mergeable_ranks=ranks, special_tokens=special)


@pytest.mark.parametrize(("name", "part"), [("made", 1), ("made", 3), ("made", 100), ("whisper", 2)])
def test_tiktoken_gives_the_same_ids(
    name: str, part: int, ranks: Path, request: pytest.FixtureRequest, texts: list[str], tmp_path: Path
) -> None:
    """Of the big one and of compact ones, from the file that was written; merging alone has no dead piece."""
    here = ranks / "made" if name == "made" else request.getfixturevalue("shared") / WHISPER
    tok: Any = open_tokenizer(str(here))
    tree = tok.tree()
    train = counted(tok, texts, bits=14)[0]
    order = removal_order(tok, tree, train, protected(tok, tree, train[None]))
    small: Any = tok.subset(np.flatnonzero(kept(tok, order, tok.size // part)))
    assert not small.whole_words
    assert sorted(t["id"] for t in small.config["added_tokens"])[-1] == small.size - 1
    reference = rank_encoding(small)
    assert reference.n_vocab == small.size
    assert [reference.encode(t, allowed_special="all") for t in texts] == small.encode(texts)
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(unknown(tmp_path / "small", *small.files.items()))
    assert auto(texts, add_special_tokens=False)["input_ids"] == small.encode(texts)


def test_canonical_merges_are_those_it_was_trained_with(ranks: Path) -> None:
    tok: Any = open_tokenizer(str(ranks / "made"))
    made = canonical_merges({p: i for i, p in enumerate(tok.pieces[:2500])})
    as_bytes = [[bytes(bytebpe.BYTE_OF[c] for c in half) for half in m] for m in tok.config["model"]["merges"]]
    assert made == as_bytes


def test_rank_files_that_are_refused(ranks: Path, tmp_path: Path) -> None:
    content = (ranks / "made" / "made.tiktoken").read_bytes()
    refused(unknown(tmp_path / "a", ("made.tiktoken", content)), "its name is not a known one")
    refused(unknown(tmp_path / "b", ("gpt2.tiktoken", content)), "2,500 ranks instead of the 50,256 of that name")
    refused(unknown(tmp_path / "c", ("x.tiktoken", b"version https://git-lfs.github.com/spec/v1")), "line 1 is not")
    refused(unknown(tmp_path / "d", ("x.tiktoken", b"IQ== 0\nIg== 1\n")), "some byte has no rank")
    refused(unknown(tmp_path / "e", ("x.tiktoken", content + b"AAAAAA== 7\n")), "twice")
    other = (ranks / "made" / "tokenizer.json").read_bytes().replace(b'"the"', b'"thx"')
    refused(unknown(tmp_path / "f", ("made.tiktoken", content), ("tokenizer.json", other)), "other tokens or ids")
    (tmp_path / "a" / "tokenizer.json").write_bytes((ranks / "made" / "tokenizer.json").read_bytes())
    assert (
        open_tokenizer(str(tmp_path / "a")).size == open_tokenizer(str(tmp_path / "a" / "made.tiktoken")).size == 2503
    )
