"""tokenizer -> the tokens that begin and end a document, from its files or as specified."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.core.kernels import cached
from tinydata.tokenizers.base import CONTROL, Tokenizer

# Tokens that end a text in open tokenizers. Files of instruct models often name the end of a chat turn instead.
_ENDS = (
    "<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "<|eos|>", "<EOS>", "[EOS]", "<EOS_TOKEN>", "<seed:eos>",
    "<｜end▁of▁sentence｜>", "<|end▁of▁sentence|>", "<|endofsequence|>", "[SEP]",
)  # fmt: skip


class Edges(NamedTuple):
    """Ids before and after a document; -1: none."""

    bos: int = -1
    eos: int = -1


def edges(tok: Tokenizer, bos: str = "", eos: str = "") -> Edges:
    """bos, eos: a token's text, `none`, or "" for the tokenizer's own -> the ids around each document.

    The tokenizer's own are bos if it adds one to a text, and eos if it has one, since documents must be
    separated. Raises TinydataError if the tokenizer has no such token.
    """
    config = _config(tok)
    first = _id(tok, bos, "--bos") if bos else (_named(tok, config.get("bos_token")) if _adds_bos(tok, config) else -1)
    last = _id(tok, eos, "--eos") if eos else end_of_text(tok)
    return Edges(first, last)


def end_of_text(tok: Tokenizer) -> int:
    """Id of the token that ends a text, or -1.

    That is the eos_token of the tokenizer's files, unless it is not known as an end of text and the vocabulary has a
    token that is: Qwen3 names <|im_end|>, the end of a chat turn, and has <|endoftext|>.
    """
    named = _named(tok, _config(tok).get("eos_token"))
    if named >= 0 and tok.pieces[named].decode("utf-8", "replace") in _ENDS:
        return named
    by_text = {p.decode("utf-8", "replace"): i for i, p in enumerate(tok.pieces) if tok.kinds[i] == CONTROL}
    return next((by_text[t] for t in _ENDS if t in by_text), named)


def about_end(tok: Tokenizer, eos: int) -> list[str]:
    """What to tell a user about the token that ends each document: which it is, and if the files name another."""
    if eos < 0:
        return ["note: nothing is added after a document"]
    said = [f"note: each document ends with {_shown(tok, eos)}"]
    named = _named(tok, _config(tok).get("eos_token"))
    if named not in (-1, eos):
        said.append(
            f"warning: the tokenizer's files name {_shown(tok, named)} as the end, most likely of a chat turn;"
            f" --eos '{tok.pieces[named].decode('utf-8', 'replace')}' uses that"
        )
    return said


def _shown(tok: Tokenizer, token: int) -> str:
    return f"{tok.pieces[token].decode('utf-8', 'replace')} (id {token:,})"


def id_facts(tok: Tokenizer) -> dict[str, Any]:
    """What token ids without a declared tokenizer are checked with: number of ids, id of end of text (-1: none)."""
    return {"vocab": tok.size, "eos": end_of_text(tok)}


def _config(tok: Tokenizer) -> dict[str, Any]:
    """bos_token, eos_token, add_bos_token from the Hugging Face files."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if name in tok.files:
            config |= {k: v for k, v in json.loads(tok.files[name]).items() if v is not None}
    return config


def _adds_bos(tok: Tokenizer, config: dict[str, Any]) -> bool:
    """Whether the tokenizer adds a token before a text; it becomes `bos_token` if the files name none."""
    if "add_bos_token" in config:
        return bool(config["add_bos_token"])
    if "tokenizer.json" not in tok.files:
        return False
    processor = json.loads(tok.files["tokenizer.json"]).get("post_processor") or {}
    steps = processor.get("processors", [processor])
    templates = [s["single"] for s in steps if s.get("type") == "TemplateProcessing"]
    begin = [t[0]["SpecialToken"]["id"] for t in templates if t and "SpecialToken" in t[0]]
    if begin:
        config.setdefault("bos_token", begin[0])
    return bool(begin)


def _named(tok: Tokenizer, token: Any) -> int:
    """A token in those files (text, or an object with `content`) -> its id, or -1."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        return -1
    return next((i for i, p in enumerate(tok.pieces) if p == text.encode() and tok.kinds[i] == CONTROL), -1)


def _id(tok: Tokenizer, text: str, option: str) -> int:
    if text == "none":
        return -1
    ids = [i for i, p in enumerate(tok.pieces) if p == text.encode()]
    ids.sort(key=lambda i: tok.kinds[i] != CONTROL)
    if not ids:
        special = [tok.pieces[i].decode("utf-8", "replace") for i in np.flatnonzero(tok.kinds == CONTROL)[:8]]
        raise TinydataError(
            f"{option}: the tokenizer has no token {text!r}",
            fix=f"its special tokens are {', '.join(special) or 'none'}; `none` adds nothing",
        )
    return ids[0]


@cached()
def frame(ids, ends, mask, bos, eos, front, out, flags):
    """Adds bos and eos (-1: none) to each document that does not have them; returns the number of ids.

    ids int[n], mask bool[n] or bool[0] -> out, flags with room for n + 2 docs; ends int64[docs + 1] in place.
    front: the end-of-text token is put before the document instead (llm.c).
    """
    n = 0
    a = ends[0]
    for doc in range(len(ends) - 1):
        b = ends[doc + 1]
        lead = bos if not front else eos
        tail = eos if not front else -1
        if front and b > a and ids[b - 1] == eos:
            b -= 1
        if lead >= 0 and not (b > a and ids[a] == lead):
            out[n] = lead
            flags[n] = False
            n += 1
        for k in range(a, b):
            out[n] = ids[k]
            flags[n] = len(mask) > 0 and mask[k]
            n += 1
        if tail >= 0 and not (b > a and ids[b - 1] == tail):
            out[n] = tail
            flags[n] = False
            n += 1
        a = ends[doc + 1]
        ends[doc] = n
    for doc in range(len(ends) - 1, 0, -1):
        ends[doc] = ends[doc - 1]
    ends[0] = 0
    return n
