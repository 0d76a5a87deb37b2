"""Decoding."""

from __future__ import annotations

import random

import numpy as np

from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.decoder import Decoder


def test_decoding_many_is_decoding_each(tok: Tokenizer, rows: list[list[int]]) -> None:
    rng = random.Random(12)
    noise = [[rng.randrange(tok.size) for _ in range(rng.randrange(30))] for _ in range(300)]
    plain = np.flatnonzero(~tok.gap).tolist()
    rows = [*rows, *([i if not tok.gap[i] else plain[0] for i in row] for row in noise)]
    ids = np.array([-i if rng.random() < 0.1 else i for row in rows for i in row], np.int32)
    offsets = np.cumsum([0, *map(len, rows)])
    some = np.array(rng.sample(range(len(rows)), len(rows) // 2))
    assert Decoder(tok).texts(ids, offsets, some).to_pylist() == [tok.decode(rows[i]) for i in some]
