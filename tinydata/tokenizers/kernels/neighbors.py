"""Which characters are adjacent in some piece of a BPE: no merge crosses a place between two that are not.

Each merge produces a piece, so a merge across a place would produce a piece that contains it. Text may be cut there,
and both sides be merged apart, with the same result. In byte-level BPE a piece may begin inside a character or
end inside one; such a beginning or end stands for the bytes of the character that it has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import cached, compiled, inlined
from tinydata.tokenizers.kernels.merge_tree import join


class Neighbors(NamedTuple):
    """The pairs of characters that some piece contains; a false positive only joins two stretches of text."""

    ascii: np.ndarray  # bool[128 * 128]: pairs of ASCII characters
    others: np.ndarray  # uint8[2**k]: hashed bit set of the other pairs, their UTF-8 bytes read as two numbers
    ends: np.ndarray  # bool[256]: a piece begins with bytes inside a character of which this is the last
    begins: np.ndarray  # bool[256]: a piece ends inside a character of which this is the first byte


def neighbors_of(pieces: list[bytes], blank: bool = False) -> Neighbors:
    """Bytes of the pieces -> Neighbors; blank: U+2581 in text is the same as a space."""
    count = sum(map(len, pieces))
    bits = np.zeros(1 << max(12, min(19, count.bit_length())), np.uint8)  # up to 512 kB
    out = Neighbors(np.zeros(128 * 128, np.bool_), bits, np.zeros(256, np.bool_), np.zeros(256, np.bool_))
    _add(*join(pieces), blank, out)
    return out


@inlined()
def character(data, i):
    """UTF-8 at i -> (its bytes as one number, their count). The text is valid UTF-8: Arrow strings are."""
    b = np.uint64(data[i])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        return (b << np.uint64(8)) | np.uint64(data[i + 1]), 2
    if b < 0xF0:
        return (b << np.uint64(16)) | (np.uint64(data[i + 1]) << np.uint64(8)) | np.uint64(data[i + 2]), 3
    high = (b << np.uint64(24)) | (np.uint64(data[i + 1]) << np.uint64(16))
    return high | (np.uint64(data[i + 2]) << np.uint64(8)) | np.uint64(data[i + 3]), 4


@inlined()
def _place(c, d, size):
    """Hashed position of a pair in a bit set of `size` bits (a power of two)."""
    h = ((c << np.uint64(32)) | d) * GOLDEN
    return np.int64((h ^ (h >> np.uint64(32))) & np.uint64(size - 1))


@inlined()
def contains(c, d, bits):
    """Whether a pair of numbers below 2**32, as uint64, may be in the hashed bit set uint8[2**k]."""
    p = _place(c, d, len(bits) * 8)
    return (bits[p >> 3] >> np.uint8(p & 7)) & 1 != 0


@inlined()
def put(c, d, bits):
    """Adds the pair to the bit set."""
    p = _place(c, d, len(bits) * 8)
    bits[p >> 3] |= np.uint8(1 << (p & 7))


@compiled()
def _put(c, d, neighbors):
    if c < 0x80 and d < 0x80:
        neighbors.ascii[np.int64((c << np.uint64(7)) | d)] = True
    else:
        put(c, d, neighbors.others)


@compiled()
def _width(b):
    """Bytes of a character whose first one is b; 1 for a byte inside a character."""
    return 1 if b < 0xC0 else 2 if b < 0xE0 else 3 if b < 0xF0 else 4


@cached()
def _add(data, offsets, blank, neighbors):
    for piece in range(len(offsets) - 1):
        i, stop = offsets[piece], offsets[piece + 1]
        start, before = i, np.uint64(0)
        while i < stop:
            first = i
            w = _width(data[i])
            if data[i] & 0xC0 == 0x80:  # bytes inside a character, at the beginning of the piece
                w = 1
                while i + w < stop and data[i + w] & 0xC0 == 0x80:
                    w += 1
            here = np.uint64(0)
            i = min(i + w, stop)
            for k in range(first, i):
                here = (here << np.uint64(8)) | np.uint64(data[k])
            if first > start:
                if first + w > stop:
                    neighbors.begins[data[first]] = True
                _put(before, here, neighbors)
                if blank and before == 0x20:
                    _put(np.uint64(0xE29681), here, neighbors)
                if blank and here == 0x20:
                    _put(before, np.uint64(0xE29681), neighbors)
                if blank and before == 0x20 and here == 0x20:
                    _put(np.uint64(0xE29681), np.uint64(0xE29681), neighbors)
            elif data[first] & 0xC0 == 0x80 and i < stop:
                neighbors.ends[data[i - 1]] = True
            before = here


@compiled()
def _adjacent_in_part(c, d, neighbors):
    """Whether a piece may contain an end of c and a beginning of d, not both whole."""
    for k in range(4):  # without the last k bytes of d
        part = d >> np.uint64(8 * k)
        if part == 0 and k > 0:
            break
        if contains(c, part, neighbors.others):
            return True
        mask = np.uint64(0xFF)
        while mask < c:
            if contains(c & mask, part, neighbors.others):
                return True
            mask = (mask << np.uint64(8)) | np.uint64(0xFF)
    return False


@inlined()
def adjacent(c, d, last, first, neighbors):
    """Whether a piece may contain c and then d: characters as numbers, last byte of c, first byte of d."""
    if c < 0x80 and d < 0x80:
        return neighbors.ascii[np.int64((c << np.uint64(7)) | d)]
    if neighbors.ends[last] or neighbors.begins[first]:
        return _adjacent_in_part(c, d, neighbors)
    return contains(c, d, neighbors.others)


@inlined()
def stretch(data, i, stop, neighbors):
    """End of the stretch at i in which every two neighbors are adjacent in some piece."""
    c, w = character(data, i)
    i += w
    while i < stop:
        d, w = character(data, i)
        if not adjacent(c, d, data[i - 1], data[i], neighbors):
            return i
        c = d
        i += w
    return i
