"""The compiled merge procedure, beside the library's and its own other way."""

from __future__ import annotations

import random
import string

import numpy as np

from tests.tokenizers.helpers import has_prefix, native_word, rewrites, words
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.kernels.bpe import SHORT, encode, merge_long, merge_short, new_scratch


def compiled_word(tok: Tokenizer, word: str) -> list[int]:
    data = np.frombuffer(word.encode(), np.uint8)
    scratch = new_scratch(2048)
    prefix = tok.bpe.symbols.by_char[0x20] if getattr(tok, "proto", None) and has_prefix(tok) else -1
    n = encode(data, 0, len(data), prefix, tok.bpe, scratch, -1)
    return scratch.sym[:n].tolist()


def test_compiled_merging_is_the_librarys(merging: Tokenizer, text: list[str]) -> None:
    tok = merging
    sample = words(text, 150)
    if rewrites(tok):  # only what its normalizer leaves alone
        sample = ["".join(c for c in w if c in string.ascii_letters + "𐍈ꙮ") or "a" for w in sample]
    wrong = [w for w in sample if compiled_word(tok, w) != native_word(tok, w)]
    assert not wrong, min(wrong, key=len)


def test_both_ways_to_merge_are_the_same(merging: Tokenizer, text: list[str]) -> None:
    tok = merging
    symbols, pairs = tok.bpe
    by_char = symbols.by_char
    rng = random.Random(10)
    for word in words(text, 150):
        first = by_char[[ord(c) for c in word]] if len(by_char) else symbols.by_byte[list(word.encode())]
        first = np.where(first < 0, -1000, first).astype(np.int32)  # a character in no piece
        for banned in (-1, rng.randrange(tok.size)):
            a, b, value = first.copy(), first.copy(), np.empty(len(first), np.int64)
            short = merge_short(a, len(a), value, pairs, banned)
            assert a[:short].tolist() == b[: merge_long(b, len(b), pairs, banned)].tolist()
    assert SHORT < 300  # else the long way was not taken above
