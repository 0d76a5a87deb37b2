"""ids of documents -> their texts: the tokens' bytes concatenated, if the library would give the same.

For the held-out slice of a tokenized corpus. It is one document in a hundred, yet decoding it with the
libraries, from Python lists (3 M ids/s), took six times as long as counting the whole corpus.
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

_WORD = 8  # bytes copied at a time


class Decoder:
    """Some 400 M ids/s. The library decodes a document whose bytes may not be its text."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        texts, self._cut = _token_texts(tokenizer)
        data, self._offsets = join(texts)
        self._data = np.concatenate([data, np.zeros(_WORD, np.uint8)])
        self._exact = True
        probe = tokenizer.encode(PROBE)
        ids = np.array([i for document in probe for i in document], np.int32)
        ends = np.cumsum([0, *map(len, probe)])
        self._exact = self.texts(ids, ends, np.arange(len(probe))).to_pylist() == [tokenizer.decode(d) for d in probe]

    def texts(self, ids: np.ndarray, offsets: np.ndarray, documents: np.ndarray) -> pa.StringArray:
        """ids int[n], offsets int[docs + 1], documents int[m] to decode -> string[m].

        The sign of an id is ignored.
        """
        ends = np.zeros(len(documents) + 1, np.int64)
        doubtful = np.zeros(len(documents), np.bool_)
        size = _measure(ids, offsets, documents, self._offsets, self._cut, ends, doubtful)
        out = np.empty(size + _WORD, np.uint8)
        _concatenate(ids, offsets, documents, self._offsets, self._cut, self._data, ends, out)
        if self._exact and size < 1 << 31 and not doubtful.any():
            texts = pa.StringArray.from_buffers(len(documents), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(out))
            try:
                texts.validate(full=True)  # every text is UTF-8
                return texts
            except pa.ArrowInvalid:
                pass
        rows = []
        for k, d in enumerate(documents):
            content = out[ends[k] : ends[k + 1]].tobytes() if self._exact and not doubtful[k] else None
            rows.append(self._one(content, ids[offsets[d] : offsets[d + 1]]))
        return pa.array(rows, pa.string())

    def _one(self, content: bytes | None, ids: np.ndarray) -> str:
        """The concatenated bytes, or None where they may be wrong, and the ids of a document -> its text."""
        if content is not None:
            try:
                return content.decode()
            except UnicodeDecodeError:
                pass
        return self.tokenizer.decode(np.abs(ids).tolist())


@cache
def decoder(tokenizer: Tokenizer) -> Decoder:
    """The tokenizer's Decoder, created once per process."""
    return Decoder(tokenizer)


def _token_texts(tokenizer: Tokenizer) -> tuple[list[bytes], np.ndarray]:
    """The bytes that each id adds to a text, and uint8[size]: how many of them it loses at the beginning of a text.

    For normal pieces and bytes this is known; for the others the library decodes them. Only SentencePiece
    removes something: the space of its dummy prefix.
    """
    texts = list(tokenizer.pieces)
    letter = tokenizer.encode(["a"])[0]
    first = tokenizer.decode(letter)
    second = tokenizer.decode(letter * 2)[len(first) :]
    for i in np.flatnonzero((tokenizer.kinds != NORMAL) & (tokenizer.kinds != BYTE)).tolist():
        between = tokenizer.decode([*letter, i, *letter])
        texts[i] = between[len(first) : len(between) - len(second)].encode()
    cut = np.zeros(tokenizer.size, np.uint8)
    if len(second) > len(first):
        cut[:] = [s[:1] == b" " for s in texts]
    for i in np.flatnonzero(cut & (tokenizer.kinds != NORMAL)).tolist():
        cut[i] = tokenizer.decode([i, *letter]).encode() == texts[i][1:] + second.encode()
    return texts, cut


@inlined()
def _bounds(i, offsets):
    """id, possibly negative -> where its bytes begin and end."""
    k = np.uint64(abs(np.int64(i)))
    return offsets[k], offsets[k + np.uint64(1)]


@inlined()
def _first_token(ids, first, stop, offsets, cut):
    """For the first token with any bytes: how many of them the document loses, and how many there are."""
    for i in range(first, stop):
        a, b = _bounds(ids[i], offsets)
        if b > a:
            return np.int64(cut[abs(np.int64(ids[i]))]), b - a
    return np.int64(0), np.int64(1)


@compiled()
def _measure(ids, offsets, documents, pieces, cut, ends, doubtful):
    """-> bytes of all texts; ends int64[m + 1], doubtful bool[m]: the first token is only the space."""
    n = np.int64(0)
    for k in range(len(documents)):
        first, stop = np.int64(offsets[documents[k]]), np.int64(offsets[documents[k] + 1])
        for i in range(first, stop):
            a, b = _bounds(ids[i], pieces)
            n += b - a
        less, whole = _first_token(ids, first, stop, pieces, cut)
        doubtful[k] = less == whole
        n -= less
        ends[k + 1] = n
    return n


@intrinsic
def _copy_word_intrinsic(typingctx, out, i, data, j):
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


_copy_word: Any = _copy_word_intrinsic


@compiled()
def _concatenate(ids, offsets, documents, pieces, cut, data, ends, out):
    for k in range(len(documents)):
        first, stop = np.int64(offsets[documents[k]]), np.int64(offsets[documents[k] + 1])
        less, _ = _first_token(ids, first, stop, pieces, cut)
        n = ends[k]
        for i in range(first, stop):
            a, b = _bounds(ids[i], pieces)
            if b > a:
                a += less
                less = np.int64(0)
            for j in range(0, b - a, _WORD):
                _copy_word(out, n + j, data, a + j)
            n += b - a
