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


class RenumberedConfig(NamedTuple):
    """A config under the new vocabulary, and what happened to it."""

    config: Json
    ids: dict[str, Any]  # "text_config.eos_token_id" -> new value
    dropped: dict[str, list[int]]  # "suppress_tokens" -> old ids that were removed
    untouched: list[str]  # parts with a vocabulary of their own


def sizes(config: Json, path: str = "") -> dict[str, int]:
    """{"text_config.vocab_size": 32000, …} at any depth."""
    out = {}
    for key, value in config.items():
        if key in _SIZE and isinstance(value, int):
            out[path + key] = value
        elif isinstance(value, dict):
            out.update(sizes(value, f"{path}{key}."))
    return out


def renumber(config: Json, ids: Ids, before: int, after: int, where: str) -> RenumberedConfig:
    """config, vocabulary size before and after -> RenumberedConfig.

    Raises TinydataError, naming id and token, if a special token was removed.
    """
    renumbering = _Renumbering(ids, before, after, where)
    new = renumbering.object(config, "")
    return RenumberedConfig(new, renumbering.ids, renumbering.dropped, renumbering.untouched)


class _Renumbering:
    """Renumbers the values of one config and records what happens to them, by their paths."""

    def __init__(self, ids: Ids, before: int, after: int, where: str):
        self._new, self._text = ids
        self._before, self._after, self._where = before, after, where
        self.ids: dict[str, Any] = {}
        self.dropped: dict[str, list[int]] = {}
        self.untouched: list[str] = []

    def object(self, node: Json, path: str) -> Json:
        """The object at `path` ("" or "text_config.") with new sizes and ids."""
        return {key: self._value(key, value, path + key) for key, value in node.items()}

    def _value(self, key: str, value: Any, at: str) -> Any:
        if key in _SIZE and value == self._before:
            return self._after
        if key in _LISTS and isinstance(value, list):
            return self._sequences(value, at, key)
        if _ID.search(key) or (key in _MAPS and isinstance(value, dict)):
            new = self._special(value, at)
            if value not in (None, []):
                self.ids[at] = new
            return new
        if not isinstance(value, dict):
            return value
        if any(isinstance(value.get(k), int) and value[k] != self._before for k in _SIZE):
            self.untouched.append(at)
            return value
        return self.object(value, f"{at}.")

    def _special(self, value: Any, at: str) -> Any:
        """An id, or ids in lists and objects; None and negative ones mean that the model has no such token."""
        if isinstance(value, list):
            return [self._special(v, at) for v in value]
        if isinstance(value, dict):
            return {k: self._special(v, at) for k, v in value.items()}
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return value
        if value >= len(self._new):
            raise TinydataError(
                f"{at} is {value:,}, but the tokenizer has {len(self._new):,} ids",
                where=self._where,
                fix="correct the id there, or remove it",
            )
        if self._new[value] < 0:
            raise TinydataError(
                f"the vocabulary has no place for {at} {value:,}, the token {self._text(value)!r}: it was removed",
                where=self._where,
                fix="check that the vocabulary was derived from this model's tokenizer, and protect the token with"
                " `tinydata compact --keep-tokens`",
            )
        return int(self._new[value])

    def _sequences(self, value: list[Any], at: str, key: str) -> list[Any]:
        """Tokens, or sequences of tokens; items with a removed token are dropped."""
        items = (self._item(item, at, key) for item in value)
        return [item for item in items if item is not None]

    def _item(self, item: Any, at: str, key: str) -> Any:
        """An item of a list of tokens or sequences; None if it is dropped."""
        pair = isinstance(item, list) and len(item) == 2
        if pair and key == "forced_decoder_ids":
            position, token = item
            new = self._sequence([token], at)
            return None if new is None else [position, *new]
        if pair and key == "sequence_bias":
            tokens, bias = item
            new = self._sequence(tokens, at)
            return None if new is None else [new, bias]
        if isinstance(item, list) and any(isinstance(i, list) for i in item):
            return self._sequences(item, at, key) or None
        if isinstance(item, list):
            return self._sequence(item, at)
        return next(iter(self._sequence([item], at) or []), None)

    def _sequence(self, tokens: list[Any], at: str) -> list[Any] | None:
        """Old ids -> new ids, or None if one of them was removed."""
        old = [t for t in tokens if isinstance(t, int) and t >= 0]
        removed = [t for t in old if t >= len(self._new) or self._new[t] < 0]
        if removed:
            self.dropped.setdefault(at, []).extend(removed)
            return None
        return [int(self._new[t]) if isinstance(t, int) and t >= 0 else t for t in tokens]
