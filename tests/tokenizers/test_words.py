"""Words are cut where the regex of a tokenizer cuts."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.conftest import QWEN, TEKKEN
from tests.tokenizers.helpers import TRICKY, any_text, changed, few, native, split_by
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.kernels.cutters import Place, part_at
from tinydata.tokenizers.open import open_tokenizer


def our_words(tok: Tokenizer, text: str) -> list[str]:
    data = np.frombuffer(text.encode() or b"\0", np.uint8)
    out, at, stop = [], 0, len(text.encode())
    while at < stop:
        _, end, _ = part_at(data, Place(0, at, at, False), 0, stop, tok.cutter)
        out.append(bytes(data[at:end]).decode())
        at = end
    return out


@pytest.mark.parametrize("name", ["gpt2", "qwen", "llama3", "digits", "o200k", "tekken", "deepseek"])
def test_words_are_cut_where_the_regex_cuts(byte_bpe: Path, documents: list[str], name: str) -> None:
    """Ids alone do not show it: a merge across the wrong place may not exist."""
    if name == "digits":
        tok = changed(byte_bpe / "gpt2", lambda c: split_by(c, QWEN.replace(r"|\p{N}|", r"|\p{N}+|")))
    elif name == "tekken":
        tok = changed(byte_bpe / "gpt2", lambda c: split_by(c, TEKKEN))
    elif name == "deepseek":
        tok = changed(byte_bpe / "gpt2", in_three_splits)
    else:
        tok = open_tokenizer(str(byte_bpe / name))

    def check(text: str) -> None:
        if not any(t["content"] in text for t in tok.config["added_tokens"]):  # type: ignore[attr-defined]
            theirs = [text[a:b] for _, (a, b) in native(tok).pre_tokenizer.pre_tokenize_str(text)]
            assert our_words(tok, text) == theirs

    for text in [*TRICKY, *(a + b for a, b in pairwise(TRICKY)), *documents]:
        check(text)
    for text in cased(3_000):
        check(text)
    settings(few, max_examples=150)(given(any_text)(check))()


def in_three_splits(config: dict[str, Any]) -> None:
    """DeepSeek-V3's pre-tokenizer, with line ends in the regex as its file has them, and its empty normalizer."""
    regexes = [
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ]
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = [*({**split, "pattern": {"Regex": regex}} for regex in regexes), level]
    config["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    config["normalizer"] = {"type": "Sequence", "normalizers": []}


def cased(number: int) -> list[str]:
    """Random texts of letters of each case and of none, marks, also beyond the first planes, and what ends words."""
    draw = random.Random(3)
    characters = "aAéÉ中ǅʰ\u0301\u0488\U000e0100'sſ1٣ \t\n\r/-.\x00\u00a0ßİ龥龦ぁ・゛\u3099\u3040½\x01\u200b="
    return ["".join(draw.choices(characters, k=draw.randrange(1, 14))) for _ in range(number)]
