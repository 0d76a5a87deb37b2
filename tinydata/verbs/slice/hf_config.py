"""config.json and generation_config.json under a new vocabulary: sizes and token ids at any depth.

An id that says what a token is for (`*_token_id`, `image_token_index`, …) must have survived; one
in a list of tokens to suppress or force goes with its token, and is reported. A part of the
config that has a vocabulary of its own (an audio codec's, say) is not touched.
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
    dropped: dict[str, list[int]]  # "suppress_tokens" -> old ids that are gone
    untouched: list[str]  # parts with a vocabulary of their own


def sizes(config: Json, path: str = "") -> dict[str, int]:
    """{"text_config.vocab_size": 32000, …} at any depth."""
    found = {}
    for key, value in config.items():
        if key in _SIZE and isinstance(value, int):
            found[path + key] = value
        elif isinstance(value, dict):
            found.update(sizes(value, f"{path}{key}."))
    return found


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
            gone: list[int] = []
            out[key] = _sequences(value, ids, gone, key)
            if gone:
                changed.dropped[at] = gone
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
            f"{at} is {value:,}, and the tokenizer has {len(ids.new):,} ids",
            where=where,
            fix="correct the id there, or remove it",
        )
    if ids.new[value] < 0:
        raise TinydataError(
            f"the vocabulary has no place for {at} {value:,}, the token {ids.text(value)!r}: it was removed",
            where=where,
            fix="check that the vocabulary was made from this model's tokenizer, and protect the token with"
            " `tinydata compact --keep-tokens`",
        )
    return int(ids.new[value])


def _sequences(value: list[Any], ids: Ids, gone: list[int], key: str) -> list[Any]:
    """Tokens, or sequences of tokens, one by one; what has a removed token in it is left out."""
    out = []
    for item in value:
        paired = key in ("forced_decoder_ids", "sequence_bias") and isinstance(item, list) and len(item) == 2
        if paired and key == "forced_decoder_ids":  # [position, token]
            new = _sequence(item[1:], ids, gone)
            made: Any = None if new is None else [item[0], *new]
        elif paired:  # [tokens, bias]
            new = _sequence(item[0], ids, gone)
            made = None if new is None else [new, item[1]]
        elif isinstance(item, list) and any(isinstance(i, list) for i in item):
            made = _sequences(item, ids, gone, key) or None
        elif isinstance(item, list):
            made = _sequence(item, ids, gone)
        else:
            made = next(iter(_sequence([item], ids, gone) or []), None)
        if made is not None:
            out.append(made)
    return out


def _sequence(tokens: list[Any], ids: Ids, gone: list[int]) -> list[Any] | None:
    """Old ids -> new ids, or None if one of them was removed."""
    lost = [t for t in tokens if isinstance(t, int) and t >= 0 and (t >= len(ids.new) or ids.new[t] < 0)]
    gone.extend(lost)
    return None if lost else [int(ids.new[t]) if isinstance(t, int) and t >= 0 else t for t in tokens]
