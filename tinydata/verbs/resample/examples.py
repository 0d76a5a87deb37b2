"""Hardest sequences, kept and excluded -> EXAMPLES: their text, for a user to inspect."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core import schema
from tinydata.core.errors import TinydataError
from tinydata.formats.dataset import Stream
from tinydata.tokenizers.base import Tokenizer, fingerprint
from tinydata.tokenizers.decoder import decoder
from tinydata.tokenizers.open import load, read_tokenizer

HARDEST = 10  # of each kind
LETTERS = 400

Hardest = dict[str, list[list[Any]]]  # "" for kept, or the reason: [[sequence, domain, loss]], hardest first


class _Example(NamedTuple):
    """A row of EXAMPLES without its text."""

    kind: str
    reason: str  # why it is excluded
    sequence: int
    domain: int
    loss: float

    @property
    def rank(self) -> tuple[float, int]:
        """Sorts by loss, hardest first."""
        return -self.loss, self.sequence


def examples(hardest: list[Hardest], domains: list[str], stream: Stream | None, seq_len: int) -> pa.Table:
    """Hardest sequences of each group -> EXAMPLES: ten kept ones, and ten excluded ones from all guards in turn."""
    best: dict[str, list[_Example]] = {}
    for group in hardest:
        for reason, rows in group.items():
            new = [_Example("excluded" if reason else "hardest kept", reason, *row) for row in rows]
            best[reason] = sorted(best.get(reason, []) + new, key=lambda e: e.rank)[:HARDEST]
    kept = best.pop("", [])
    turns = zip_longest(*(rows for _, rows in sorted(best.items())))
    excluded = [example for turn in turns for example in turn if example][:HARDEST]
    chosen = [*kept, *sorted(excluded, key=lambda e: e.rank)]
    texts = _texts(np.array([e.sequence for e in chosen], np.int64), stream, seq_len)
    lines = [
        (e.kind, e.sequence, domains[e.domain], e.loss, e.reason, text) for e, text in zip(chosen, texts, strict=True)
    ]
    columns = zip(*lines, strict=True) if lines else [()] * len(schema.EXAMPLES)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.EXAMPLES, strict=True)], schema.EXAMPLES)


def _texts(numbers: np.ndarray, stream: Stream | None, seq_len: int) -> list[str]:
    """The beginning of each sequence: its ids if the tokenizer is not available, "" if the shards are not."""
    if stream is None:
        return [""] * len(numbers)
    tok = _tokenizer(stream.tokenizer)
    out = []
    for i in numbers.tolist():
        ids = stream.read(i * seq_len, (i + 1) * seq_len)[: 4 * LETTERS].astype(np.int64)
        if tok is None or not 0 <= ids.min() <= ids.max() < tok.size:
            text = " ".join(map(str, ids.tolist()))
        else:
            text = decoder(tok).texts(ids, np.array([0, len(ids)]), np.array([0]))[0].as_py()
        out.append(text[:LETTERS])
    return out


def _tokenizer(facts: dict[str, Any]) -> Tokenizer | None:
    """The tokenizer of the shards; None if it is no longer at its path or has changed."""
    try:
        tok = load(read_tokenizer(facts["path"]), facts["path"])
    except TinydataError:
        return None
    return tok if fingerprint(tok) == facts["fingerprint"] else None
