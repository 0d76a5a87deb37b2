"""The merge tree: what is left of a text when a piece is gone."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tokenizers.helpers import (
    has_prefix,
    merged,
    native,
    native_word,
    remade,
    rewrites,
    segmented,
    set_piece,
    words,
)
from tinydata.tokenizers.base import BYTE, NORMAL, Tokenizer
from tinydata.tokenizers.families.merging import dead_pieces


def parts_by_bytes(tok: Any, i: int, banned: int) -> list[int]:
    ranks = _ranks(tok)
    gone = native(tok).id_to_token(banned) if banned >= 0 else None
    ends = merged(list(native(tok).id_to_token(i)), lambda a, b: None if a + b == gone else ranks.get((a, b)))
    if tok.family == "character-bpe" and gone in ends:
        ends = [f"<0x{b:02X}>" for s in ends for b in s.encode()]
    return [native(tok).token_to_id(s) for s in ends]


@cache
def _ranks(tok: Any) -> dict[tuple[str, str], int]:
    merges = tok.config["model"]["merges"]
    return {tuple(m.split(" ") if isinstance(m, str) else m): r for r, m in enumerate(merges)}


def parts_by_scores(tok: Any, i: int, banned: int) -> list[int]:
    model = native(tok)
    may = {s for s in _substrings(model.id_to_piece(i)) if _mergeable(tok, s) and model.piece_to_id(s) != banned}
    ends = merged(list(model.id_to_piece(i)), lambda a, b: -model.get_score(model[a + b]) if a + b in may else None)
    out: list[int] = []
    for s in ends:
        known = _mergeable(tok, s) and model.piece_to_id(s) != banned
        out += [model.piece_to_id(s)] if known else [model.piece_to_id(f"<0x{b:02X}>") for b in s.encode()]
    return out


def _substrings(s: str) -> set[str]:
    return {s[a:b] for a in range(len(s)) for b in range(a + 1, len(s) + 1)}


def _mergeable(tok: Any, s: str) -> bool:
    i = native(tok).piece_to_id(s)
    return native(tok).id_to_piece(i) == s and tok.kinds[i] == NORMAL and s != "\0"


def test_the_tree_is_what_merging_without_the_piece_leaves(merging: Tokenizer) -> None:
    tok = merging
    tree = tok.tree()
    normal = np.flatnonzero((tok.kinds == NORMAL) & ~tok.gap).tolist()
    if (tok.kinds == BYTE).sum() == 0:  # nothing to spell a removed character with
        normal = [i for i in normal if len(tok.pieces[i].decode()) > 1]
    single = [i for i in normal if len(tok.pieces[i].decode("utf-8", "ignore")) == 1]
    dead = np.flatnonzero(~tree.reachable).tolist()
    rng = random.Random(11)
    reference = parts_by_scores if tok.family == "sentencepiece-bpe" else parts_by_bytes
    for i in {*rng.sample(normal, min(300, len(normal))), *rng.sample(single, min(50, len(single))), *dead[:50]}:
        assert tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist() == reference(tok, i, i), tok.pieces[i]
        assert tree.reachable[i] == (reference(tok, i, -1) == [i]), tok.pieces[i]
    for i in np.flatnonzero(tok.kinds != NORMAL):
        assert tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist() == [i]


def test_reachable_is_what_the_library_makes_of_a_pieces_own_text(merging: Tokenizer) -> None:
    tok = merging
    if tok.family == "sentencepiece-bpe" and (has_prefix(tok) or rewrites(tok)):
        pytest.skip("the library never encodes a text without its prefix")
    normal = [i for i in np.flatnonzero(tok.kinds == NORMAL).tolist() if tok.pieces[i].decode("utf-8", "ignore")]
    normal = [i for i in normal if tok.pieces[i].decode("utf-8", "ignore").encode() == tok.pieces[i]]
    texts = [tok.pieces[i].decode() for i in normal]
    made = tok.encode(texts) if tok.family == "sentencepiece-bpe" else [native_word(tok, t) for t in texts]
    assert tok.tree().reachable[normal].tolist() == [ids == [i] for ids, i in zip(made, normal, strict=True)]


def test_a_piece_without_a_way_to_it_is_dead(spm: Path) -> None:
    tok = remade(spm / "prefix", lambda p: [set_piece(p, "xqzqx", 1, -1.0), set_piece(p, "the the", 1, -1.0)])
    assert dead_pieces(tok).tolist() == [2000, 2001]


def test_pieces_are_spelled_as_the_library_spells_them(merging: Tokenizer, text: list[str]) -> None:
    tok = merging
    some = [w for w in words(text, 30) if len(w) > 1 and not rewrites(tok)]
    if tok.family == "sentencepiece-bpe" and has_prefix(tok):
        some = []  # inside a text there is no prefix, and the library always puts one
    assert [ids.tolist() for ids in tok.spell([w.encode() for w in some])] == [native_word(tok, w) for w in some]
    assert [ids.tolist() for ids in tok.spell([b""])] == [[]]


def test_matched_pieces_fall_back_on_what_matches_without_them(matching_tok: Tokenizer) -> None:
    tok: Any = matching_tok
    tree, texts = tok.tree(), tok.characters()
    may = np.flatnonzero(tok.removable()).tolist()
    for i in random.Random(13).sample(may, min(400, len(may))):
        parts = tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist()
        expected = segmented(tok, texts[i], i)
        assert not expected or parts == expected, texts[i]
        if expected or tok.byte_ids.size:
            assert b"".join(tok.pieces[p] for p in parts) == tok.pieces[i]
        else:  # a character that no text is cut down to
            assert not tree.reachable[i]
        if tok.family != "wordpiece":
            assert tree.reachable[i] == (segmented(tok, texts[i]) == [i])
    for i in np.flatnonzero(tok.kinds != NORMAL):
        assert tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist() == [i]


def test_matched_words_are_spelled_as_the_library_spells_them(matching_tok: Tokenizer, text: list[str]) -> None:
    """Words of letters, which no normalizer touches, with the blank in front that most of these put there."""
    tok = matching_tok
    plain = {w.lower() for t in text for w in t.split() if w.isascii() and w.isalpha()}
    some = sorted(plain)[::3]
    begin = "" if tok.family == "sentencepiece-unigram" and not has_prefix(tok) else " "
    assert [ids.tolist() for ids in tok.spell([(begin + w).encode() for w in some])] == tok.encode(some)
    assert [ids.tolist() for ids in tok.spell([b""])] == [[]]
