"""Settings of a SentencePiece model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tokenizers.helpers import TRICKY, assert_counted, remade, set_piece, unknown
from tinydata.tokenizers.base import fingerprint
from tinydata.tokenizers.open import load, open_tokenizer
from tinydata.verbs.compact.prune import kept, protected, removal_order

PIECES_WHOLE: dict[str, tuple[Callable[[Any], None], str]] = {
    "extra spaces removed": (lambda p: setattr(p.normalizer_spec, "remove_extra_whitespaces", True), "rewrites"),
    "spaces not escaped": (lambda p: setattr(p.normalizer_spec, "escape_whitespaces", False), "spaces"),
    "spaces as suffix": (lambda p: setattr(p.trainer_spec, "treat_whitespace_as_suffix", True), "spaces"),
    "unused pieces": (lambda p: setattr(p.pieces[900], "type", 5), "UNUSED"),
    "a space in a symbol": (lambda p: set_piece(p, "▁▁x", 4), "contains a space"),
    "no space": (lambda p: p.pieces.remove(next(x for x in p.pieces if x.piece == "▁")), "no piece for the space"),
}


@pytest.mark.parametrize("what", PIECES_WHOLE)
def test_exotic_models_are_counted_whole(spm: Path, text: list[str], what: str) -> None:
    change, reason = PIECES_WHOLE[what]
    tok = remade(spm / "prefix", change)
    assert tok.cutter is None and reason in tok.why_not
    assert_counted(tok, ["a  x▁▁x", "[LABEL]", *text[::20]])


def _tie_all(proto: Any) -> None:
    for piece in proto.pieces:
        piece.score = -1.0 if piece.type == 1 else 0.0


PIECES_WORDS: dict[str, Callable[[Any], None]] = {
    "a NUL piece": lambda p: set_piece(p, "\0", 1, -5.0),
    "symbols that overlap": lambda p: [set_piece(p, s, 4) for s in ("ab", "abc", "bcd", "the", "中", "\n", "\t\t")],
    "a symbol of one letter": lambda p: set_piece(p, "e", 4),
    "all scores equal": _tie_all,
    "characters only inside pieces": lambda p: [set_piece(p, s, 1, -1.0) for s in ("𐍈a", "a𐍈", "𐍈𐍈", "𐍈𐍈𐍈a", "e𐍈𐍈")],
    "a control token that is a word": lambda p: set_piece(p, "the", 3),
}


@pytest.mark.parametrize("name", ["plain", "prefix"])
@pytest.mark.parametrize("what", PIECES_WORDS)
def test_models_that_still_allow_words(spm: Path, text: list[str], what: str, name: str) -> None:
    tok = remade(spm / name, PIECES_WORDS[what])
    assert tok.why_not == "" and tok.cutter is not None
    near = [
        "abcd abd \0 a\0b\0\0 the\n\n\t\t\t中中",
        "𐍈a𐍈𐍈𐍈𐍈a e𐍈𐍈𐍈 𐍈",
        "abc",
        "中",
        "the",
        "e",
        "𐍈",
        "\0",
        "[LABEL]",
        "、、、",
    ]
    assert_counted(tok, [*near, *TRICKY, *text[::5]])


def test_tokens_added_behind_a_model(spm: Path, tmp_path: Path, text: list[str]) -> None:
    """Hugging Face numbers them from the model's size on, sometimes with gaps; sentencepiece does not know them."""
    added = {"<extra>": 2000, "<é>": 2003}
    model = (spm / "plain" / "tokenizer.model").read_bytes()
    tok = load({"tokenizer.model": model, "added_tokens.json": json.dumps(added).encode()})
    assert tok.size == 2004 and np.flatnonzero(tok.gap).tolist() == [2001, 2002]
    assert_counted(tok, ["a <extra> b", *text[::9]])
    assert tok.decode([*tok.encode(["ab"])[0], 2000, 2003]) == "ab<extra><é>"
    train = np.ones((1, tok.size), np.int64)
    tree = tok.tree()
    order = removal_order(tok, tree, train[0], protected(tok, tree, train))
    assert {2001, 2002} == set(order.removed[:2].tolist())
    small = tok.subset(np.flatnonzero(kept(tok, order, 1000)))
    unknown(tmp_path / "small", *small.files.items())
    again = open_tokenizer(str(tmp_path / "small"))
    assert again.size == 1000 and not again.gap.any() and fingerprint(again) == fingerprint(small)
    assert [again.decode([i]) for i in (998, 999)] == ["<extra>", "<é>"]
