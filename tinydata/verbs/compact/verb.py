"""counts + big tokenizer -> vocabulary directory: the compact tokenizer, the id map, and the measured trade-off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tinydata import __version__
from tinydata.core import schema
from tinydata.core.location import table_bytes
from tinydata.core.output import Output
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.open import describe
from tinydata.verbs.compact.adapt import learned_table
from tinydata.verbs.compact.card import card
from tinydata.verbs.compact.plan import Choice, Counts, Goal, choose, open_counts


def compact(
    counts_path: str,
    tokenizer: str,
    out: str,
    goal: Goal,
    *,
    d_model: int = 2048,
    force: bool = False,
    choice: Choice | None = None,
    points: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """COUNTS + tokenizer -> VOCAB in `out` (tokenizer files, idmap.parquet, README.md); returns its manifest."""
    counts = open_counts(counts_path)
    choice = choice or choose(counts, tokenizer, goal, d_model=d_model)
    output = Output(out, header(counts_path, counts, tokenizer, choice.big, goal, d_model), force=force)
    files = dict(choice.small.written())
    files["idmap.parquet"] = table_bytes(idmap(choice))
    if choice.adapted:
        files["learned.parquet"] = table_bytes(learned_table(choice.big, choice.adapted))
    result = {
        "vocabulary": describe(".", choice.small),
        "trade": choice.tradeoff,
        "dropped": dropped(choice, counts),
        **({"adapted": choice.adapted.facts} if choice.adapted else {}),
        **({"curve": points} if points else {}),
    }
    files["README.md"] = card(output.header, result).encode()
    return output.publish(result, files)


def header(
    counts_path: str, counts: Counts, tokenizer: str, big: Tokenizer, goal: Goal, d_model: int
) -> dict[str, Any]:
    """The part of the manifest that is known before the vocabulary is written."""
    return {
        "tinydata": __version__,
        "verb": "compact",
        "inputs": {counts_path: {"files": counts.manifest["files"]}},
        "options": {**_options(goal), "d_model": d_model},
        "tokenizer": describe(tokenizer, big),
    }


def _options(goal: Goal) -> dict[str, Any]:
    """Goal -> its options that differ from the defaults, and the method."""
    return {k: v for k, v in goal._asdict().items() if v != Goal._field_defaults[k] or k == "method"}


def idmap(choice: Choice) -> pa.Table:
    """Choice -> IDMAP: a removed id maps to the ids that the compact tokenizer gives for its text."""
    big, small, keep = choice.big, choice.small, choice.keep
    origin = choice.adapted.origin if choice.adapted else big.order(np.flatnonzero(keep))
    new_of = np.full(big.size, -1, np.int32)
    new_of[origin[origin >= 0]] = np.flatnonzero(origin >= 0)
    parts = small.spell([b"" if keep[i] else big.pieces[i] for i in range(big.size)])
    lists = [[int(new_of[i])] if keep[i] else parts[i].tolist() for i in range(big.size)]
    return pa.table([np.arange(big.size, dtype=np.int32), keep, lists], schema=schema.IDMAP)


def dropped(choice: Choice, counts: Counts, top: int = 200) -> list[dict[str, Any]]:
    """The `top` removed tokens whose removal adds most tokens, with the pieces that spell them now."""
    train = counts.train.sum(0)
    removed = np.flatnonzero(~choice.keep)
    spelled = choice.small.spell([choice.big.pieces[i] for i in removed])
    added = train[removed] * (np.array([len(p) for p in spelled], np.int64) - 1)
    order = np.argsort(-added, kind="stable")[:top]
    best, parts = removed[order], [spelled[k] for k in order]
    return [
        {
            "id": int(i),
            "text": _shown(choice.big.pieces[i]),
            "count": int(train[i]),
            "parts": [_shown(choice.small.pieces[p]) for p in ps],
        }
        for i, ps in zip(best, parts, strict=True)
        if train[i] > 0
    ]


def _shown(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "".join(f"<{b:02X}>" for b in piece)
