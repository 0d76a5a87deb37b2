"""Where text may be cut into words, decided from the tokenizer itself.

* byte-level BPE: its pre-tokenizer cuts (`Gpt2`, `Cl100k`, `O200k`, `DeepSeek`: four families of regexes);
* SentencePiece BPE: between two characters if no piece contains that pair (`PairCuts`): no merge can
  cross such a place, so this is exact for Chinese too.

Price of a cut per byte: about 3 ns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from tinydata.core.hashing import GOLDEN
from tinydata.core.kernels import cached, compiled, inlined
from tinydata.tokenizers.kernels.bpe import char_at
from tinydata.tokenizers.kernels.regexes import cl100k, deepseek, gpt2, o200k

OPTIONS: Any = {"forceinline": True, "_nrt": False}  # as bpe.inlined


class Gpt2(NamedTuple):
    """Cuts as GPT-2's regex does."""

    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE
    atom_next: np.ndarray  # int32[nodes, 256]: trie of the strings that are matched first
    atom_id: np.ndarray  # int32[nodes]: id of the string ending here, or -1
    prefix: int  # symbol before each document (SentencePiece's dummy prefix) or -1


class Cl100k(NamedTuple):
    """Cuts as the regex of cl100k, Llama-3 and Qwen does."""

    classes: np.ndarray
    digits: int  # most \\p{N} in one word; 0: no limit
    atom_next: np.ndarray
    atom_id: np.ndarray
    prefix: int


class O200k(NamedTuple):
    """Cuts as the regex of o200k (GPT-4o, gpt-oss) and of Mistral's tekken does: capitals, then lower case."""

    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE UPPER LOWER MARK
    digits: int
    contractions: bool  # whether 's, 't … belong to the word before them
    atom_next: np.ndarray
    atom_id: np.ndarray
    prefix: int


class DeepSeek(NamedTuple):
    """Cuts as the three splits of DeepSeek-V3 do, one after the other: numbers, runs of Chinese and kana, the rest."""

    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE MARK SYMBOL, with CJK in the middle split's range
    atom_next: np.ndarray
    atom_id: np.ndarray
    prefix: int


class PairCuts(NamedTuple):
    """Cuts between two characters that are adjacent in no piece."""

    ascii_pairs: np.ndarray  # bool[128 * 128]: some piece contains this pair
    pair_bits: np.ndarray  # uint8[2**k], hashed bit set of the other pairs; a false positive only joins two words
    atom_next: np.ndarray
    atom_id: np.ndarray
    prefix: int


class RunCuts(NamedTuple):
    """As PairCuts, but never inside a run of letters, numbers or other characters, nor after the space before it.

    So words stay whole for pieces that are still to be learned.
    """

    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE
    ascii_pairs: np.ndarray
    pair_bits: np.ndarray
    atom_next: np.ndarray
    atom_id: np.ndarray
    prefix: int


Cutter = Gpt2 | Cl100k | O200k | DeepSeek | PairCuts | RunCuts


def atoms(strings: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray]:
    """{bytes: id} -> trie (next int32[nodes, 256], id int32[nodes])."""
    nxt = [np.zeros(256, np.int32)]
    ids = [-1]
    for text, token in strings.items():
        node = 0
        for b in text:
            if not nxt[node][b]:
                nxt[node][b] = len(nxt)
                nxt.append(np.zeros(256, np.int32))
                ids.append(-1)
            node = int(nxt[node][b])
        ids[node] = token
    return np.stack(nxt), np.array(ids, np.int32)


@inlined()
def pair_slot(a, b, size):
    """Hashed position of a pair of code points in a bit set of `size` bits (a power of two)."""
    h = ((np.uint64(a) << np.uint64(21)) | np.uint64(b)) * GOLDEN
    return np.int64((h >> np.uint64(20)) & np.uint64(size - 1))


@cached()
def add_pairs(bits, first, second):
    """Adds pairs of code points, int32[n] each, to the bit set uint8[2**k]."""
    for i in range(len(first)):
        p = pair_slot(first[i], second[i], len(bits) * 8)
        bits[p >> 3] |= np.uint8(1 << (p & 7))


@inlined()
def _adjacent(c, d, ascii_pairs, bits):
    """Whether some piece may contain these two characters, one after the other."""
    if c < 128 and d < 128:
        return ascii_pairs[(c << 7) | d] != 0
    p = pair_slot(c, d, len(bits) * 8)
    return (bits[p >> 3] >> np.uint8(p & 7)) & 1 != 0


@inlined()
def _pairs(data, i, stop, ascii_pairs, bits):
    """End of the stretch at i in which every two neighbors are adjacent in some piece."""
    c, w = char_at(data, i)
    i += w
    while i < stop:
        d, w = char_at(data, i)
        if not _adjacent(c, d, ascii_pairs, bits):
            return i
        c = d
        i += w
    return i


@inlined()
def _runs(data, i, stop, classes, ascii_pairs, bits):
    """End of the stretch at i in which every two neighbors are of one class, or adjacent in some piece."""
    c, w = char_at(data, i)
    i += w
    while i < stop:
        d, w = char_at(data, i)
        if c != 0x20 and classes[c] != classes[d] and not _adjacent(c, d, ascii_pairs, bits):
            return i
        c = d
        i += w
    return i


@inlined()
def _atom(data, i, stop, nxt, ids):
    """Longest atom at i -> (id, end) or (-1, i)."""
    node = 0
    best, end = -1, i
    j = i
    while j < stop:
        node = nxt[node, data[j]]
        if node == 0:
            break
        j += 1
        if ids[node] >= 0:
            best, end = ids[node], j
    return best, end


def word_end(data, i, stop, cut):
    """End of the word at i. The type of `cut` decides at compile time: a branch here costs 3x."""
    raise AssertionError("compiled code only")


@overload(word_end, jit_options=OPTIONS)
def _word_end_of(data, i, stop, cut):
    if cut.instance_class is Gpt2:
        return lambda data, i, stop, cut: gpt2(data, i, stop, cut.classes)
    if cut.instance_class is Cl100k:
        return lambda data, i, stop, cut: cl100k(data, i, stop, cut.classes, cut.digits)
    if cut.instance_class is O200k:
        return lambda data, i, stop, cut: o200k(data, i, stop, cut.classes, cut.digits, cut.contractions)
    if cut.instance_class is DeepSeek:
        return lambda data, i, stop, cut: deepseek(data, i, stop, cut.classes)
    if cut.instance_class is RunCuts:
        return lambda data, i, stop, cut: _runs(data, i, stop, cut.classes, cut.ascii_pairs, cut.pair_bits)
    return lambda data, i, stop, cut: _pairs(data, i, stop, cut.ascii_pairs, cut.pair_bits)


@inlined()
def section(data, i, stop, atom_next, atom_id):
    """Next atom at or after i -> (its start, its id, its end); without one (stop, -1, stop)."""
    if len(atom_id) > 1:
        while i < stop:
            if atom_next[0, data[i]]:
                token, end = _atom(data, i, stop, atom_next, atom_id)
                if token >= 0:
                    return i, token, end
            i += 1
    return stop, -1, stop


@compiled()
def word_at(data, i, stop, cut):
    """End of the word at i, at most the next atom: for a word that does not fit into a table."""
    end, _, _ = section(data, i, stop, cut.atom_next, cut.atom_id)
    return word_end(data, i, end, cut)
