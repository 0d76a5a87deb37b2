"""The compact tokenizer: dense ids, the same text, and what the libraries make of its files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tokenizers.helpers import TRICKY, Small, assert_counted, changed, native
from tinydata.tokenizers.base import ADDED, CONTROL, Tokenizer, fingerprint
from tinydata.tokenizers.families.merging import dead_pieces
from tinydata.tokenizers.open import open_tokenizer


def test_no_piece_is_dead(small: Small) -> None:
    assert dead_pieces(small.tok).tolist() == []


def test_ids_are_dense_and_mean_what_they_meant(tok: Tokenizer, small: Small) -> None:
    order = tok.order(small.keep)
    assert sorted(order.tolist()) == small.keep.tolist()
    assert small.tok.size == len(order) == len(small.tok.pieces)
    assert small.tok.pieces == [tok.pieces[i] for i in order]
    assert small.tok.kinds.tolist() == tok.kinds[order].tolist()
    assert not small.tok.gap.any()
    model = native(small.tok)
    size = model.get_piece_size() if hasattr(model, "get_piece_size") else model.get_vocab_size()
    assert size == small.tok.size


def test_saved_and_opened_it_is_the_same(small: Small) -> None:
    again = open_tokenizer(str(small.path))
    assert fingerprint(again) == fingerprint(small.tok)
    assert again.encode(TRICKY) == small.tok.encode(TRICKY)
    assert fingerprint(open_tokenizer(str(small.path / next(iter(small.tok.files))))) == fingerprint(again)


def test_the_compact_one_is_counted_as_its_library_does(by_words: Tokenizer, small: Small, texts: list[str]) -> None:
    assert small.tok.cutter is not None
    assert_counted(small.tok, texts, bits=7)


def test_text_comes_back_as_from_the_big_one(
    tok: Tokenizer, small: Small, texts: list[str], rows: list[list[int]], decoded_of: Callable[[Tokenizer], list[str]]
) -> None:
    for big, ids, text in zip(decoded_of(tok), small.tok.encode(texts), texts, strict=True):
        assert big == small.tok.decode(ids), text[:200]


@pytest.fixture(scope="session")
def decoded_of(rows_of: Callable[[Tokenizer], list[list[int]]]) -> Callable[[Tokenizer], list[str]]:
    return cache(lambda tok: [tok.decode(row) for row in rows_of(tok)])


def test_special_tokens_keep_their_text(tok: Tokenizer, small: Small) -> None:
    special = [i for i in range(tok.size) if tok.kinds[i] in (CONTROL, ADDED) and not tok.gap[i]]
    at = {int(old): new for new, old in enumerate(tok.order(small.keep))}
    for i in special:
        assert small.tok.pieces[at[i]] == tok.pieces[i]
        if tok.encode([tok.pieces[i].decode()])[0] == [i]:
            assert small.tok.encode([tok.pieces[i].decode()])[0] == [at[i]]


PROCESSORS: dict[str, dict[str, Any]] = {
    "template": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [2501], "tokens": ["<|im_start|>"]}},
    },
    "roberta": {
        "type": "RobertaProcessing",
        "cls": ["<|im_start|>", 2501],
        "sep": ["<|im_end|>", 2502],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    "bert": {"type": "BertProcessing", "cls": ["<|im_start|>", 2501], "sep": ["<|im_end|>", 2502]},
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_post_processors_are_renumbered(byte_bpe: Path, kind: str, deep: bool) -> None:
    """`ids` and pairs of (token, id), inside a sequence of processors too."""
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    node = {"type": "Sequence", "processors": [level, PROCESSORS[kind]]} if deep else PROCESSORS[kind]
    tok = changed(byte_bpe / "gpt2", lambda c: c.update(post_processor=node))
    keep = np.append(np.flatnonzero(~tok.removable()), 300)
    small = tok.subset(keep)
    at = dict(zip(tok.order(keep).tolist(), range(len(keep)), strict=True))
    big_ids = native(tok).encode("a!").ids
    assert big_ids[0] == 2501 and (kind == "template" or big_ids[-1] == 2502)
    assert native(small).encode("a!").ids == [at[i] for i in big_ids]


@pytest.fixture(scope="session")
def auto(small: Small) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(small.path)


def test_transformers_gives_the_same_ids(auto: Any, small: Small, texts: list[str]) -> None:
    assert len(auto) == small.tok.size
    controls = [p.decode() for p, kind in zip(small.tok.pieces, small.tok.kinds, strict=True) if kind == CONTROL]
    if (
        small.tok.family == "sentencepiece-unigram"
    ):  # the library's charsmap takes combining marks after blanks otherwise
        texts = [text for text in texts if " \u0301" not in text]
    if small.tok.family.startswith("sentencepiece"):  # to transformers a control token spelled in the text is one
        texts = [text for text in texts if not any(control in text for control in controls)]
    rows = zip(texts, auto(texts, add_special_tokens=False)["input_ids"], small.tok.encode(texts), strict=True)
    wrong = [row for row in rows if row[1] != row[2]]
    if small.tok.family == "sentencepiece-unigram":
        wrong = [row for row in wrong if not _as_good(small.tok, row[1], row[2])]
    assert not wrong, (len(wrong), [x[:200] for x in min(wrong, key=lambda row: len(row[0]))])


def _as_good(tok: Tokenizer, a: list[int], b: list[int]) -> bool:
    """Whether two segmentations of a text have the same sum of scores, as far as 32 bits go.

    sentencepiece adds up scores of whole texts in these, tokenizers in 64: among equals they choose otherwise.
    """
    scores = np.array([p.score for p in getattr(tok, "proto").pieces], np.float64)  # noqa: B009 - of this family only
    sums = scores[a].sum(), scores[b].sum()
    return tok.decode(a) == tok.decode(b) and abs(sums[0] - sums[1]) < 1e-5 * abs(sums[0])
