"""ids of documents -> their texts: the tokens' bytes laid end to end, where the library would say the same.

For the held-out slice of a tokenized corpus. It is one document in a hundred, and still decoding it
with the libraries, by way of Python lists (3 M ids/s), took six times as long as counting them all.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinydata.core.kernels import compiled, inlined
from tinydata.tokenizers.base import BYTE, NORMAL, Tokenizer
from tinydata.tokenizers.kernels.merge_tree import join
from tinydata.tokenizers.probe import PROBE

_WORD = 8  # bytes moved at a time


class Decoder:
    """Some 400 M ids/s. A document whose bytes are not plainly its text goes to the library."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        spoken, self._cut = _asked(tokenizer)
        data, self._offsets = join(spoken)
        self._data = np.concatenate([data, np.zeros(_WORD, np.uint8)])
        self._plain = True
        probe = tokenizer.encode(PROBE)
        ids = np.array([i for document in probe for i in document], np.int32)
        ends = np.cumsum([0, *map(len, probe)])
        self._plain = self.texts(ids, ends, np.arange(len(probe))).to_pylist() == [tokenizer.decode(d) for d in probe]

    def texts(self, ids: np.ndarray, offsets: np.ndarray, documents: np.ndarray) -> pa.StringArray:
        """ids int[n], offsets int[docs + 1], which documents int[m] -> string[m].

        A negative id stands for its absolute value.
        """
        ends = np.zeros(len(documents) + 1, np.int64)
        doubt = np.zeros(len(documents), np.bool_)
        size = _measure(ids, offsets, documents, self._offsets, self._cut, ends, doubt)
        out = np.empty(size + _WORD, np.uint8)
        _lay(ids, offsets, documents, self._offsets, self._cut, self._data, ends, out)
        if self._plain and size < 1 << 31 and not doubt.any():
            laid = pa.StringArray.from_buffers(len(documents), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(out))
            try:
                laid.validate(full=True)  # every text UTF-8
                return laid
            except pa.ArrowInvalid:
                pass
        texts = []
        for k, d in enumerate(documents):
            sure = self._plain and not doubt[k]
            texts.append(self._one(out[ends[k] : ends[k + 1]].tobytes(), ids[offsets[d] : offsets[d + 1]], sure))
        return pa.array(texts, pa.string())

    def _one(self, laid: bytes, ids: np.ndarray, sure: bool) -> str:
        if sure:
            try:
                return laid.decode()
            except UnicodeDecodeError:
                pass
        return self.tokenizer.decode(np.abs(ids).tolist())


@cache
def decoder(tokenizer: Tokenizer) -> Decoder:
    """The tokenizer's Decoder, made once per process."""
    return Decoder(tokenizer)


def _asked(tokenizer: Tokenizer) -> tuple[list[bytes], np.ndarray]:
    """What each id adds to a text, and uint8[size]: how many bytes of that it loses at the beginning of one.

    Of normal pieces and bytes this is known; of the others the library is asked. Only
    SentencePiece takes something off: the blank of its dummy prefix.
    """
    spoken = list(tokenizer.pieces)
    letter = tokenizer.encode(["a"])[0]
    first = tokenizer.decode(letter)
    second = tokenizer.decode(letter * 2)[len(first) :]
    for i in np.flatnonzero((tokenizer.kinds != NORMAL) & (tokenizer.kinds != BYTE)).tolist():
        between = tokenizer.decode([*letter, i, *letter])
        spoken[i] = between[len(first) : len(between) - len(second)].encode()
    cut = np.zeros(tokenizer.size, np.uint8)
    if len(second) > len(first):
        cut[:] = [s[:1] == b" " for s in spoken]
    for i in np.flatnonzero(cut & (tokenizer.kinds != NORMAL)).tolist():
        cut[i] = tokenizer.decode([i, *letter]).encode() == spoken[i][1:] + second.encode()
    return spoken, cut


@inlined()
def _bounds(i, offsets):
    """id, maybe negative -> where its bytes are."""
    k = np.uint64(abs(np.int64(i)))
    return offsets[k], offsets[k + np.uint64(1)]


@inlined()
def _opening(ids, first, stop, offsets, cut):
    """Bytes that the document's first token with any bytes loses, and how many it has."""
    for i in range(first, stop):
        a, b = _bounds(ids[i], offsets)
        if b > a:
            return np.int64(cut[abs(np.int64(ids[i]))]), b - a
    return np.int64(0), np.int64(1)


@compiled()
def _measure(ids, offsets, documents, pieces, cut, ends, doubt):
    """-> bytes of all texts; ends int64[m + 1], doubt bool[m]: a text that begins with nothing but the blank."""
    n = np.int64(0)
    for k in range(len(documents)):
        first, stop = np.int64(offsets[documents[k]]), np.int64(offsets[documents[k] + 1])
        for i in range(first, stop):
            a, b = _bounds(ids[i], pieces)
            n += b - a
        less, whole = _opening(ids, first, stop, pieces, cut)
        doubt[k] = less == whole
        n -= less
        ends[k + 1] = n
    return n


@intrinsic
def _move_word(typingctx, out, i, data, j):
    """out[i : i + 8] = data[j : j + 8], unaligned, unchecked."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(64).as_pointer()
        to, source = (context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2))
        load = builder.load(builder.bitcast(builder.gep(source.data, [args[3]]), word))
        load.align = 1
        store = builder.store(load, builder.bitcast(builder.gep(to.data, [args[1]]), word))
        store.align = 1
        return context.get_dummy_value()

    return types.void(out, types.intp, data, types.intp), codegen


_move: Any = _move_word


@compiled()
def _lay(ids, offsets, documents, pieces, cut, data, ends, out):
    for k in range(len(documents)):
        first, stop = np.int64(offsets[documents[k]]), np.int64(offsets[documents[k] + 1])
        less, _ = _opening(ids, first, stop, pieces, cut)
        n = ends[k]
        for i in range(first, stop):
            a, b = _bounds(ids[i], pieces)
            if b > a:
                a += less
                less = np.int64(0)
            for j in range(0, b - a, _WORD):
                _move(out, n + j, data, a + j)
            n += b - a
