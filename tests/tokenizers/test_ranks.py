"""tiktoken's rank files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SENTENCES
from tests.tokenizers.helpers import WHISPER, counted, refused, unknown
from tinydata.core.errors import TinydataError
from tinydata.tokenizers.families import byte_bpe as bytebpe
from tinydata.tokenizers.families.tiktoken import ENCODINGS, canonical_merges
from tinydata.tokenizers.open import open_tokenizer
from tinydata.tokenizers.special_tokens import about_end, edges, end_of_text
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
    refused(unknown(tmp_path / "d", ("x.tiktoken", b"IQ== 0\nIg== 1\n")), "the byte 0x00 has no rank")
    refused(unknown(tmp_path / "e", ("x.tiktoken", content + b"AAAAAA== 7\n")), "twice")
    other = (ranks / "made" / "tokenizer.json").read_bytes().replace(b'"the"', b'"thx"')
    refused(unknown(tmp_path / "f", ("made.tiktoken", content), ("tokenizer.json", other)), "other tokens or ids")
    (tmp_path / "a" / "tokenizer.json").write_bytes((ranks / "made" / "tokenizer.json").read_bytes())
    assert (
        open_tokenizer(str(tmp_path / "a")).size == open_tokenizer(str(tmp_path / "a" / "made.tiktoken")).size == 2503
    )


# -- a regex and special tokens that the user gives ------------------------------------------------


@pytest.mark.parametrize("name", ["mine.tiktoken", "tiktoken.model", "tokenizer.model"])
def test_a_regex_and_special_tokens_beside_the_ranks(name: str, ranks: Path, texts: list[str], tmp_path: Path) -> None:
    """As tiktoken itself with these arguments, also of special tokens behind a gap, and of a compact one."""
    tiktoken = pytest.importorskip("tiktoken")
    content = (ranks / "made" / "made.tiktoken").read_bytes()
    given = {"pat_str": bytebpe.CL100K_3, "special_tokens": {"<|endoftext|>": 2_500, "<|far|>": 2_600}}
    here = unknown(tmp_path / "here", (name, content), ("tiktoken.json", json.dumps(given).encode()))
    tok: Any = open_tokenizer(str(here))
    assert (tok.family, tok.size, int(tok.gap.sum()), tok.why_not) == ("tiktoken", 2_601, 99, "")
    pairs = (line.split() for line in content.split(b"\n")[:-1])
    merging = {base64.b64decode(token): int(rank) for token, rank in pairs}
    reference = tiktoken.Encoding("it", mergeable_ranks=merging, **given)
    more = [*texts, "a<|far|>b<|endoftext|>"]
    assert tok.encode(more) == [reference.encode(t, allowed_special="all") for t in more]
    assert open_tokenizer(str(here / name)).encode(more) == tok.encode(more)
    keep = np.flatnonzero(~tok.gap & ~(tok.removable() & (np.arange(tok.size) > 1_500)))
    small = tok.subset(keep)
    again = open_tokenizer(str(unknown(tmp_path / "small", *small.written().items())))
    assert again.encode(more) == small.encode(more)
    assert again.pieces[-2:] == [b"<|endoftext|>", b"<|far|>"]
    assert again.decode(again.encode(more)[-1]) == more[-1]


def test_a_tiktoken_json_without_a_regex_is_refused(ranks: Path, tmp_path: Path) -> None:
    content = (ranks / "made" / "made.tiktoken").read_bytes()
    for k, given in enumerate((b"{}", b'{"pat_str": 3}', b'{"pat_str": "a", "special_tokens": {"x": "1"}}')):
        here = unknown(tmp_path / str(k), ("x.tiktoken", content), ("tiktoken.json", given))
        refused(here, "tiktoken.json does not say how text is cut")


def test_bytes_that_no_text_has_need_no_rank(ranks: Path, tmp_path: Path, texts: list[str]) -> None:
    tok: Any = open_tokenizer(str(ranks / "made"))
    lines = (ranks / "made" / "made.tiktoken").read_bytes().split(b"\n")
    some = [line for line in lines if line[:5] not in (b"wA== ", b"wQ== ", b"/w== ")]  # 0xC0, 0xC1, 0xFF
    assert len(some) == len(lines) - 3
    given = json.dumps({"pat_str": tok._regex}).encode()
    fewer = open_tokenizer(str(unknown(tmp_path / "a", ("x.tiktoken", b"\n".join(some)), ("tiktoken.json", given))))
    texts = [t for t in texts if "<|" not in t]
    assert fewer.encode(texts) == tok.encode(texts)
    assert (counted(fewer, texts)[0][:2_500] == counted(tok, texts)[0][:2_500]).all()


def test_a_rank_may_be_missing(ranks: Path, tmp_path: Path, texts: list[str]) -> None:
    """As in p50k_base, whose rank 50256 is the special token's; what follows is merged all the same."""
    tiktoken = pytest.importorskip("tiktoken")
    tok: Any = open_tokenizer(str(ranks / "made"))
    lines = [line.split() for line in (ranks / "made" / "made.tiktoken").read_bytes().split(b"\n")[:-1]]
    moved = {base64.b64decode(token): int(rank) + (int(rank) >= 700) for token, rank in lines}
    content = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in moved.items())
    given = {"pat_str": tok._regex, "special_tokens": {"<|endoftext|>": 700}}
    files = ("x.tiktoken", content), ("tiktoken.json", json.dumps(given).encode())
    reference = tiktoken.Encoding("it", mergeable_ranks=moved, **given)
    found = open_tokenizer(str(unknown(tmp_path / "a", *files)))
    assert found.encode(texts) == [reference.encode(t, allowed_special="all") for t in texts]
    assert found.tree().reachable.all()


def test_llama_3_as_it_was_published(tmp_path: Path) -> None:
    """Its tokenizer.model is a rank file, recognised by the number of ranks and some of them; others are refused."""
    pieces = [bytes([b]) for b in range(256)] + [b"%06d" % k for k in range(128_000 - 256)]
    other = b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces))
    refused(
        unknown(tmp_path / "other", ("tokenizer.model", other)), "as many ranks as the file of that name, but others"
    )
    for piece, rank in ENCODINGS["tokenizer.model"].sample.items():
        pieces[rank] = piece
    lines = b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces))
    tok = open_tokenizer(str(unknown(tmp_path / "a", ("tokenizer.model", lines))))
    assert (tok.family, tok.size) == ("tiktoken", 128_256)
    assert tok.encode(["<|begin_of_text|><|end_of_text|><|eot_id|>"]) == [[128_000, 128_001, 128_009]]
    assert tok.pieces[edges(tok).eos] == b"<|end_of_text|>"


# -- tekken.json and the token that ends a document -------------------------------------------------


def test_tekken_gives_the_ids_of_tiktoken(shared: Path, text: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    path = shared / "tokenizers" / "modern" / "tekken"
    tok = open_tokenizer(str(path))
    file = json.loads((path / "tekken.json").read_bytes())
    first, size = file["config"]["default_num_special_tokens"], file["config"]["default_vocab_size"]
    ranks = {base64.b64decode(t["token_bytes"]): t["rank"] for t in file["vocab"][: size - first]}
    library = tiktoken.Encoding("tekken", pat_str=file["config"]["pattern"], mergeable_ranks=ranks, special_tokens={})
    assert tok.size == size
    sample = [t for t in [*text[:60], *SENTENCES] if "<" not in t and "[" not in t]
    assert len(sample) > 20
    assert tok.encode(sample) == [[first + i for i in library.encode_ordinary(t)] for t in sample]
    names = ["<unk>", "<s>", "</s>", "<SPECIAL_20>", "<SPECIAL_999>"]
    assert [tok.pieces[i].decode() for i in (0, 1, 2, 20, 999)] == names
    assert about_end(tok, end_of_text(tok)) == ["note: each document ends with </s> (id 2)"]
    for i in (0, 20, 999, *range(size - 1_000, size)):  # the library once took the last ids for the special tokens
        assert tok.decode([i]) == tok.pieces[i].decode("utf-8", "replace")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"config": {"default_num_special_tokens": 3}}', b"[" * 99_999]
)
def test_a_damaged_tekken_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tekken.json").write_bytes(content)
    with pytest.raises(TinydataError, match=r"tekken\.json is damaged"):
        open_tokenizer(str(tmp_path))


@pytest.mark.parametrize(("name", "end", "turn"), [
    ("qwen3", "<|endoftext|>", "<|im_end|>"),
    pytest.param("gptoss", "<|endoftext|>", "<|return|>", marks=pytest.mark.slow),
    ("deepseek_v3", "<｜end▁of▁sentence｜>", ""),
])  # fmt: skip
def test_documents_end_with_the_end_of_text_not_of_a_turn(shared: Path, name: str, end: str, turn: str) -> None:
    tok = open_tokenizer(str(shared / "tokenizers" / "modern" / name))
    assert tok.pieces[edges(tok).eos].decode() == end
    said = about_end(tok, edges(tok).eos)
    assert end in said[0]
    assert [turn in s for s in said[1:]] == ([True] if turn else [])
    if turn:
        assert tok.pieces[edges(tok, eos=turn).eos].decode() == turn
