"""ids of documents -> their texts: the tokens' bytes laid end to end, where the library would say the same.

For the held-out slice of a tokenized corpus: one document in a hundred, and still the libraries,
by way of Python lists, took three times as long for it (3 M ids/s) as counting took for all.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinydata.tokenizers.base import BYTE, NORMAL, Tokenizer
from tinydata.tokenizers.bpe import compiled
from tinydata.tokenizers.count import PROBE
from tinydata.tokenizers.tree import join

_PAD = 8  # pieces are moved eight bytes at a time


class Decoder:
    """Some 500 M ids/s. A document whose bytes are not plainly its text goes to the library."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        spoken, self._cut = _asked(tokenizer)
        data, self._offsets = join(spoken)
        self._data = np.concatenate([data, np.zeros(_PAD, np.uint8)])
        self._plain = True
        probe = tokenizer.encode(PROBE)
        ids = np.array([i for document in probe for i in document], np.int32)
        ends = np.cumsum([0, *map(len, probe)])
        found = self.texts(ids, ends, np.arange(len(probe))).to_pylist()
        self._plain = found == [tokenizer.decode(document) for document in probe]

    def texts(self, ids: np.ndarray, offsets: np.ndarray, documents: np.ndarray) -> pa.StringArray:
        """ids int[n], offsets int[docs + 1], which documents int[m] -> string[m]; a negative id is its absolute value."""
        ends = np.zeros(len(documents) + 1, np.int32)
        doubt = np.zeros(len(documents), np.bool_)
        size = _size(ids, offsets, documents, self._offsets, self._cut, ends, doubt)
        out = np.empty(size + _PAD, np.uint8)
        _lay(ids, offsets, documents, self._offsets, self._cut, self._data, ends, out)
        laid = pa.StringArray.from_buffers(len(documents), pa.py_buffer(ends), pa.py_buffer(out[:size]))
        if self._plain and not doubt.any():
            try:
                laid.validate(full=True)
                return laid
            except pa.ArrowInvalid:
                pass
        return pa.array([self._one(t, ids, offsets, d) for t, d in zip(laid, documents, strict=True)], pa.string())

    def _one(self, laid: pa.StringScalar, ids: np.ndarray, offsets: np.ndarray, document: int) -> str:
        """The library's word."""
        return self.tokenizer.decode(np.abs(ids[offsets[document] : offsets[document + 1]]).tolist())


def _asked(tokenizer: Tokenizer) -> tuple[list[bytes], np.ndarray]:
    """What each id adds to a text, and uint8[size]: bytes it loses at the beginning of one.

    Of normal pieces this is known; of the others the library is asked. Only SentencePiece takes
    something off: the blank of its dummy prefix.
    """
    spoken = list(tokenizer.pieces)
    letter = tokenizer.encode(["a"])[0]
    first = tokenizer.decode(letter)
    second = tokenizer.decode(letter * 2)[len(first) :]
    blank = len(second) > len(first)
    cut = np.array([blank and p[:1] == b" " for p in spoken], np.uint8)
    for i in np.flatnonzero(tokenizer.kinds != NORMAL).tolist():
        if tokenizer.kinds[i] != BYTE:
            between = tokenizer.decode([*letter, i, *letter])
            spoken[i] = between[len(first) : len(between) - len(second)].encode()
        cut[i] = len(spoken[i]) + len(second) - len(tokenizer.decode([i, *letter]).encode()) if spoken[i] else 0
    return spoken, cut
