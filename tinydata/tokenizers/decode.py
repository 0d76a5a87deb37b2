"""documents of ids -> their texts: the tokens' bytes laid end to end, where the library would say the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tinydata.tokenizers.base import BYTE, NORMAL, Tokenizer
from tinydata.tokenizers.bpe import compiled
from tinydata.tokenizers.count import PROBE
from tinydata.tokenizers.tree import join

HEAD = 8  # tokens of each document that the library is asked about


class Decoder:
    """Per core some 150 M ids/s; the libraries, by way of Python lists, 3 M.

    A document for which it is not plain that the bytes are the text goes to the library: bytes
    that are no UTF-8, or a beginning that the library spells otherwise.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._data, self._offsets = join(_spoken(tokenizer))
        self._plain = True
        probe = pa.array(tokenizer.encode(PROBE), pa.list_(pa.int32()))
        self._plain = self.texts(probe).to_pylist() == [tokenizer.decode(ids) for ids in probe.to_pylist()]

    def texts(self, documents: pa.ListArray) -> pa.StringArray:
        """documents list<int>[n], a negative id standing for its absolute value -> string[n]."""
        offsets = documents.offsets.to_numpy()
        ids = np.abs(documents.values.to_numpy())
        ends = np.zeros(len(ids) + 1, np.int64)
        out = np.empty(_size(ids, self._offsets, ends), np.uint8)
        _gather(ids, self._data, self._offsets, ends, out)
        laid = out.tobytes()
        texts = []
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            middle = min(a + HEAD, b)
            start = laid[ends[a] : ends[middle]]
            begun = self.tokenizer.decode(ids[a:middle].tolist()).encode()
            texts.append(self._text(laid[ends[a] : ends[b]], start, begun) or self.tokenizer.decode(ids[a:b].tolist()))
        return pa.array(texts, pa.string())

    def _text(self, laid: bytes, start: bytes, begun: bytes) -> str:
        """A document's bytes, those of its first tokens, what the library makes of these -> text, or "" if in doubt."""
        blank = start[:1] == b" " and begun == start[1:]  # SentencePiece takes its dummy prefix off again
        if not self._plain or not begun or not (blank or begun == start):
            return ""
        try:
            return laid[blank:].decode()
        except UnicodeDecodeError:
            return ""


def _spoken(tokenizer: Tokenizer) -> list[bytes]:
    """What each id adds to a text. Of normal pieces and bytes it is known; of the others the library is asked."""
    out = list(tokenizer.pieces)
    letter = tokenizer.encode(["a"])[0]
    first = tokenizer.decode(letter)
    second = tokenizer.decode(letter * 2)[len(first) :]
    for i in np.flatnonzero((tokenizer.kinds != NORMAL) & (tokenizer.kinds != BYTE)).tolist():
        between = tokenizer.decode([*letter, i, *letter])
        out[i] = between[len(first) : len(between) - len(second)].encode()
    return out


@compiled()
def _size(ids, offsets, ends):
    """ids int[n] -> bytes they take, and where each one's end: ends int64[n + 1]."""
    n = np.int64(0)
    for i in range(len(ids)):
        k = np.uint64(ids[i])
        n += offsets[k + np.uint64(1)] - offsets[k]
        ends[i + 1] = n
    return n


@compiled()
def _gather(ids, data, offsets, ends, out):
    for i in range(len(ids)):
        k = np.uint64(ids[i])
        piece = data[offsets[k] : offsets[k + np.uint64(1)]]
        to = out[ends[i] : ends[i + 1]]
        for j in range(len(piece)):
            to[j] = piece[j]
