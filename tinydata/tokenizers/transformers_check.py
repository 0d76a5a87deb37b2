"""Whether transformers, where it is installed, reads a directory with a tokenizer to the same ids as this library."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from tinydata.tokenizers.base import CONTROL, Tokenizer
from tinydata.tokenizers.probe import PROBE


def compared_with_transformers(path: str, tok: Tokenizer, texts: list[str]) -> str:
    """Local directory, its tokenizer and a sample of text -> one line for the user; "" without transformers.

    Left out is text in which a control token is spelled out, if sentencepiece does the encoding: to transformers, it is
    that token.
    """
    if importlib.util.find_spec("transformers") is None:
        return ""
    if tok.family.startswith("sentencepiece"):
        control = [
            p.decode("utf-8", "replace") for p, kind in zip(tok.pieces, tok.kinds, strict=True) if kind == CONTROL
        ]
        texts = [text for text in texts if not any(token in text for token in control)]
    texts = [*PROBE, *texts]
    try:
        theirs = _auto(path)(texts, add_special_tokens=False)["input_ids"]
    except Exception as e:  # of a library that reads other files than we wrote, and may be of any version
        return f"warning: transformers cannot read {path}: {(str(e).strip() or repr(e)).splitlines()[0][:200]}"
    wrong = [t for t, a, b in zip(texts, theirs, tok.encode(texts), strict=True) if list(a) != b]
    if not wrong:
        return f"transformers reads {path} to the same ids, tried on {len(texts)} texts"
    return (
        f"warning: transformers gives other ids for {len(wrong)} of {len(texts)} texts, such as"
        f" {min(wrong, key=len)[:60]!r}; the ids of tinydata are those of the tokenizer's own library"
    )


def _auto(path: str) -> Any:
    """AutoTokenizer of a directory, without network, code of the directory, or advice on the screen."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(os.path.abspath(path), local_files_only=True, trust_remote_code=False)
