"""Special and added tokens that are not needed: which never occur, and which `--drop-tokens` removes.

Big tokenizers reserve ids for later use: Gemma 3 has 6,242 tokens `<unused0>` and so on. Leaf removal keeps all special
and added tokens, as their text cannot be asked of the corpus; the user can say that they are not needed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.core.manifest import Idle
from tinydata.tokenizers.base import ADDED, CONTROL, Tokenizer
from tinydata.tokenizers.special_tokens import end_of_text

_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_MODEL_IDS = ("unk_id", "bos_id", "eos_id", "pad_id")  # of a SentencePiece model


def dropped(big: Tokenizer, lines: tuple[str, ...], occurs: np.ndarray) -> np.ndarray:
    """Lines of --drop-tokens, occurs bool[ids] in the corpus -> bool[ids]: the tokens to remove.

    A line is the text of a token, a pattern in which `*` stands for any characters, or #ID. Raises TinydataError if it
    names no token, one that is chosen by size, one that occurs in the corpus, or one that the files need.
    """
    drop = np.zeros(big.size, np.bool_)
    special = np.flatnonzero(np.isin(big.kinds, (CONTROL, ADDED)) & ~big.gap)
    texts = {int(i): big.pieces[i].decode("utf-8", "replace") for i in special}
    needs = needed(big)
    for line in lines:
        if line[:1] == "#" and line[1:].isdigit():
            ids = [i for i in [int(line[1:])] if i in texts]
        else:
            pattern = re.compile(".*".join(map(re.escape, line.split("*"))), re.DOTALL)
            ids = [i for i, text in texts.items() if text == line or pattern.fullmatch(text)]
        if not ids:
            raise TinydataError(
                f"--drop-tokens: the original tokenizer has no special or added token {line!r}",
                fix="write the text of a token, a pattern such as <unused*>, or #ID; other tokens are removed by size",
            )
        for i in ids:
            if why := "it occurs in the corpus" if occurs[i] else needs.get(i):
                raise TinydataError(
                    f"--drop-tokens: {texts[i]} (id {i:,}) cannot be removed: {why}",
                    where=line,
                    fix="name only tokens that nothing uses",
                )
        drop[ids] = True
    return drop


def idle(big: Tokenizer, occurs: np.ndarray) -> Idle:
    """Tokenizer, occurs bool[ids] in the corpus -> the special and added tokens that neither it nor the files need."""
    may = np.isin(big.kinds, (CONTROL, ADDED)) & ~big.gap & ~occurs
    needs = needed(big)
    texts = [big.pieces[i].decode("utf-8", "replace") for i in np.flatnonzero(may).tolist() if i not in needs]
    return {"tokens": len(texts), "patterns": dict(Counter(re.sub(r"\d+", "*", t) for t in texts).most_common(5))}


def needed(big: Tokenizer) -> dict[int, str]:
    """{id: why} of the special and added tokens that the tokenizer's own files name."""
    why: dict[int, str] = {}
    special = np.flatnonzero(np.isin(big.kinds, (CONTROL, ADDED)) & ~big.gap).tolist()
    by_text = {big.pieces[i].decode("utf-8", "replace"): i for i in special}
    for name in _CONFIGS:
        for role, text in _roles(_json(big.files, name)):
            if text in by_text:
                why.setdefault(by_text[text], f"{name} names it as {role}")
    for template in _templates(big.files):
        why |= {i: "the chat template uses it" for text, i in by_text.items() if text in template and i not in why}
    tokenizer = _json(big.files, "tokenizer.json")
    for part in ("post_processor", "padding"):
        for i in _ids(tokenizer.get(part)):
            why.setdefault(i, f"tokenizer.json names it in its {part}")
    for name in ("config.json", "generation_config.json"):
        for role, i in _model_ids(_json(big.files, name)):
            why.setdefault(i, f"{name} names it as {role}")
    spec = getattr(getattr(big, "proto", None), "trainer_spec", None)
    for field in _MODEL_IDS if spec is not None else ():
        why.setdefault(getattr(spec, field), f"the model names it as its {field}")
    why.setdefault(big.unk, "it is the unknown token")
    why.setdefault(end_of_text(big), "it ends a document")
    return why


def _json(files: dict[str, bytes], name: str) -> dict[str, Any]:
    value = json.loads(files.get(name, b"{}"))
    return value if isinstance(value, dict) else {}


def _roles(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(role, text) of the tokens with a role: eos_token, or an entry of a table of extra_special_tokens."""
    for role, value in config.items():
        if isinstance(value, dict) and "content" not in value and role != "added_tokens_decoder":
            yield from _roles(value)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and role != "chat_template":
            yield role, text


def _model_ids(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(role, id) of eos_token_id, image_token_index and the like, in a model's configuration and its parts."""
    for role, value in config.items():
        if isinstance(value, dict):
            yield from _model_ids(value)
        elif role.endswith(("token_id", "token_index", "token_ids")):
            yield from ((role, i) for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))


def _templates(files: dict[str, bytes]) -> Iterator[str]:
    for name, content in files.items():
        if name.startswith("chat_template"):
            yield content.decode("utf-8", "replace")
    template = _json(files, "tokenizer_config.json").get("chat_template")
    yield from [template] if isinstance(template, str) else [json.dumps(template, ensure_ascii=False)]


def _ids(node: Any) -> Iterator[int]:
    """The ids in a post-processor or the padding of a tokenizer.json."""
    if isinstance(node, list):
        if len(node) == 2 and isinstance(node[0], str) and isinstance(node[1], int):  # Bert's [token, id]
            yield node[1]
        for each in node:
            yield from _ids(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from value if key == "ids" and isinstance(value, list) else _ids(value)
            if key == "pad_id":
                yield value
