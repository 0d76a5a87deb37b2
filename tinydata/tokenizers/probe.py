"""Texts on which the compiled encoder, counter and decoder are compared with the tokenizer's own library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa

from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.text_counter import TextCounter


@cache
def words_first(tok: Tokenizer) -> tuple[bool, str]:
    """Whether text is counted word by word with this tokenizer; and if not, why."""
    why = why_whole(tok, agrees)
    return not why, why


def why_whole(tok: Tokenizer, agrees: Callable[[Tokenizer, list[str]], bool]) -> str:
    """Why the library must encode all text; empty: by `agrees`, encoding word by word equals it on the probe."""
    if tok.cutter is None:
        return tok.why_not
    return "" if agrees(tok, PROBE) else "its ids on the built-in probe differ from the library's"


# On these both must agree before anything is counted: where regexes, white space, digits, scripts,
# combining marks and long runs can go wrong.
PROBE = [
    "Hello, world! It's 12,345.678 — they'll've DON'T i'M \u017f 'ſ",
    "  two  blanks\t\ttabs \n\n newlines\r\n\r\n   end   ",
    "中文与English混排，全角　空格。日本語のテキスト 한국어 텍스트 ไทย",
    "naïve café e\u0301 \u00bd ² ٣ Ⅷ x\u200by \u00a0nbsp\u3000ideographic",
    "for (int i=0;i<10;++i){ a[i] = b[i] ** 2; } // ----------------------------------------",
    "\U0001f600\U0001f468\u200d\U0001f469 \ufeff \u2581literal▁▁ \x00\x01 \ud7a3",
    "a" * 100 + " " * 70 + "1" * 40 + "!" * 50,
    "",
    " ",
    "\n",
    "\u2581",
]


def agrees(tokenizer: Tokenizer, texts: list[str]) -> bool:
    """Whether counting word by word gives the library's own counts on these texts."""
    if tokenizer.cutter is None or not texts:
        return tokenizer.cutter is not None
    counter = TextCounter(tokenizer, bits=12)
    counter.add(pa.array(texts, pa.string()), np.zeros(len(texts), np.int32))
    reference = np.zeros(tokenizer.size, np.int64)
    for ids in tokenizer.encode(texts):
        reference += np.bincount(np.array(ids, np.int64), minlength=tokenizer.size)
    return bool((counter.finish()[0] == reference).all())
