"""config.json or generation_config.json, id map -> the same with new sizes and token ids, at any depth.

An id with a special role (`*_token_id`, `image_token_index`, …) must exist in the new vocabulary; an id in
a list of tokens to suppress or force is dropped together with its token, and reported. A part of the
configuration with a vocabulary of its own (such as an audio codec) is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinydata.core.errors import TinydataError

Json = dict[str, Any]

_SIZE = ("vocab_size", "padded_vocab_size")
_ID = re.compile(r"_token_(id|ids|index)$")
_MAPS = ("lang_to_id", "task_to_id")  # Whisper's: token -> id
_LISTS = (
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "force_words_ids",
    "forced_decoder_ids",
    "sequence_bias",
)


class Ids(NamedTuple):
    """From old ids to new ones."""

    new: np.ndarray  # int64[ids of the big tokenizer]; -1: removed
    text: Callable[[int], str]  # of an old id, for messages


class Changed(NamedTuple):
    """A config under the new vocabulary, and what happened to it."""

    config: Json
    ids: dict[str, Any]  # "text_config.eos_token_id" -> new value
    dropped: dict[str, list[int]]  # "suppress_tokens" -> old ids that were removed
    untouched: list[str]  # parts with a vocabulary of their own


def sizes(config: Json, path: str = "") -> dict[str, int]:
    """{"text_config.vocab_size": 32000, …} at any depth."""
    found_sizes = {}
    for key, value in config.items():
        if key in _SIZE and isinstance(value, int):
            found_sizes[path + key] = value
        elif isinstance(value, dict):
            found_sizes.update(sizes(value, f"{path}{key}."))
    return found_sizes


def renumber(config: Json, ids: Ids, before: int, after: int, where: str) -> Changed:
    """config, vocabulary size before and after -> Changed.

    Raises TinydataError, naming id and token, if a special token was removed.
    """
    changed = Changed({}, {}, {}, [])
    new = _object(config, "", ids, before, after, where, changed)
    return changed._replace(config=new)


def _object(node: Json, path: str, ids: Ids, before: int, after: int, where: str, changed: Changed) -> Json:
    out: Json = {}
    for key, value in node.items():
        at = path + key
        if key in _SIZE and value == before:
            out[key] = after
        elif key in _LISTS and isinstance(value, list):
            removed: list[int] = []
            out[key] = _sequences(value, ids, removed, key)
            if removed:
                changed.dropped[at] = removed
        elif _ID.search(key) or (key in _MAPS and isinstance(value, dict)):
            out[key] = _special(value, at, ids, where)
            if value not in (None, []):
                changed.ids[at] = out[key]
        elif isinstance(value, dict):
            if any(isinstance(value.get(k), int) and value[k] != before for k in _SIZE):
                changed.untouched.append(at)
                out[key] = value
            else:
                out[key] = _object(value, f"{at}.", ids, before, after, where, changed)
        else:
            out[key] = value
    return out


def _special(value: Any, at: str, ids: Ids, where: str) -> Any:
    """An id, or ids in lists and objects; None and negative ones mean that there is none."""
    if isinstance(value, list):
        return [_special(v, at, ids, where) for v in value]
    if isinstance(value, dict):
        return {k: _special(v, at, ids, where) for k, v in value.items()}
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return value
    if value >= len(ids.new):
        raise TinydataError(
            f"{at} is {value:,}, but the tokenizer has {len(ids.new):,} ids",
            where=where,
            fix="correct the id there, or remove it",
        )
    if ids.new[value] < 0:
        raise TinydataError(
            f"the vocabulary has no place for {at} {value:,}, the token {ids.text(value)!r}: it was removed",
            where=where,
            fix="check that the vocabulary was derived from this model's tokenizer, and protect the token with"
            " `tinydata compact --keep-tokens`",
        )
    return int(ids.new[value])


def _sequences(value: list[Any], ids: Ids, removed: list[int], key: str) -> list[Any]:
    """Tokens, or sequences of tokens, with old ids -> with new ids; items with a removed token are dropped."""
    out = []
    for item in value:
        paired = key in ("forced_decoder_ids", "sequence_bias") and isinstance(item, list) and len(item) == 2
        if paired and key == "forced_decoder_ids":  # [position, token]
            new = _sequence(item[1:], ids, removed)
            new_item: Any = None if new is None else [item[0], *new]
        elif paired:  # [tokens, bias]
            new = _sequence(item[0], ids, removed)
            new_item = None if new is None else [new, item[1]]
        elif isinstance(item, list) and any(isinstance(i, list) for i in item):
            new_item = _sequences(item, ids, removed, key) or None
        elif isinstance(item, list):
            new_item = _sequence(item, ids, removed)
        else:
            new_item = next(iter(_sequence([item], ids, removed) or []), None)
        if new_item is not None:
            out.append(new_item)
    return out


def _sequence(tokens: list[Any], ids: Ids, removed: list[int]) -> list[Any] | None:
    """Old ids -> new ids, or None if one of them was removed."""
    lost = [t for t in tokens if isinstance(t, int) and t >= 0 and (t >= len(ids.new) or ids.new[t] < 0)]
    removed.extend(lost)
    return None if lost else [int(ids.new[t]) if isinstance(t, int) and t >= 0 else t for t in tokens]
