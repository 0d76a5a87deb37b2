"""What is counted is what the tokenizer's own library says."""

from __future__ import annotations

import random
import string
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenizers.helpers import LIBRARY_ONLY, TRICKY, any_text, assert_counted, counted, few, library
from tinydata.tokenizers.base import ADDED, CONTROL, Tokenizer
from tinydata.tokenizers.probe import PROBE, agrees
from tinydata.tokenizers.text_counter import TextCounter

# What is compared below needs words: a tokenizer without a cutter has its library encode all text, and the
# library is what it would be compared with.


def test_text_is_cut_into_words_wherever_it_may(tok: Tokenizer, request: pytest.FixtureRequest) -> None:
    by_library = request.node.callspec.params["tok"] in LIBRARY_ONLY
    assert (tok.cutter is None) == bool(tok.why_not) == by_library
    assert agrees(tok, PROBE) == (not by_library)
    assert_counted(tok, TRICKY)


def test_tricky_text_is_counted_as_the_library_does(by_words: Tokenizer) -> None:
    assert_counted(by_words, [a + b for a, b in pairwise(TRICKY)], bits=8)


def test_real_text_is_counted_as_the_library_does(by_words: Tokenizer, documents: list[str]) -> None:
    assert_counted(by_words, documents, bits=8)


@few
@given(texts=st.lists(any_text, max_size=6))
def test_any_text_is_counted_as_the_library_does(kernels: Tokenizer, texts: list[str]) -> None:
    assert_counted(kernels, texts)


def joined(parts: list[str], number: int, most: int) -> list[str]:
    """Texts of up to `most` parts each."""
    rng = random.Random(5)
    return ["".join(rng.choices(parts, k=rng.randrange(most + 1))) for _ in range(number)]


def test_text_of_pieces_is_counted_as_the_library_does(by_words: Tokenizer) -> None:
    pieces = [p.decode() for p in by_words.pieces if p and p.decode("utf-8", "ignore").encode() == p]
    assert_counted(by_words, joined(pieces, 200, 20))


def test_special_tokens_inside_text_are_counted_as_the_library_does(by_words: Tokenizer) -> None:
    tok = by_words
    whole = [p.decode() for p, kind in zip(tok.pieces, tok.kinds, strict=True) if kind in (CONTROL, ADDED) and p]
    whole = random.Random(6).sample(whole, min(len(whole), 50))
    parts = [*whole, *(w[:-1] for w in whole), *(w[1:] for w in whole), "a", " ", "\n", "word", "中", "  ", "'s", "1"]
    assert_counted(tok, joined(parts, 200, 12))


def long_runs() -> list[str]:
    rng = random.Random(7)
    line = "".join(rng.choices(string.ascii_lowercase, k=100_000))
    return ["a" * 200_000, line, "x" + line[:5_000] + " " * 3_000 + "y", "中" * 5_000, "=" * 4_097 + "\n" * 999]


def test_long_runs_are_counted_as_the_library_does(kernels: Tokenizer) -> None:
    assert_counted(kernels, ["before", *long_runs(), "", "after"])


def test_empty_documents_count_for_nothing(kernels: Tokenizer) -> None:
    tok = kernels
    assert counted(tok, []).sum() == 0
    assert counted(tok, ["", "", ""]).sum() == 0
    texts = ["", "a", "", "b", ""]
    assert (counted(tok, texts, [0, 0, 1, 1, 2]) == library(tok, texts, [0, 0, 1, 1, 2])).all()


@pytest.mark.parametrize("bits", [6, 20])  # tables that overflow, and that never do
def test_groups_are_kept_apart_across_batches(kernels: Tokenizer, text: list[str], bits: int) -> None:
    tok = kernels
    rng = random.Random(8)
    texts = [*TRICKY, *(t[:300] for t in text)]
    groups = [rng.randrange(5) for _ in texts]
    column, where = pa.array(texts, pa.string()), np.array(groups, np.int32)
    counter = TextCounter(tok, bits=bits)
    for a, b in pairwise([0, 1, 1, 40, 200, len(texts)]):  # slices of one buffer, one of them empty
        counter.grow(int(where[:b].max(initial=0)) + 1)
        counter.add(column[a:b], where[a:b])
    assert (counter.finish() == library(tok, texts, groups)).all()
