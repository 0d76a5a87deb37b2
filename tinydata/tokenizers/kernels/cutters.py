"""Where text may be cut into words, decided from the tokenizer itself.

* byte-level BPE: its pre-tokenizer cuts (`Gpt2`, `Cl100k`, `O200k`, `DeepSeek`: four families of regexes);
* BPE over characters (SentencePiece, Llama-2, Gemma): between two characters if no piece contains that pair
  (`PairCuts`): no merge can cross such a place, so this is exact for Chinese too.

Price of a cut per byte: about 3 ns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from tinydata.core.kernels import compiled, inlined
from tinydata.tokenizers.kernels.bpe import char_at
from tinydata.tokenizers.kernels.memory import LOW_BITS, has_byte, load8
from tinydata.tokenizers.kernels.neighbors import Neighbors, adjacent, character, stretch
from tinydata.tokenizers.kernels.regexes import cl100k, deepseek, gpt2, o200k

OPTIONS: Any = {"forceinline": True, "_nrt": False}  # as bpe.inlined


# Where the dummy prefix stands
DOCUMENT = 0  # before each document, even if an atom begins it (SentencePiece)
SECTION = 1  # before all text between atoms (the normalizer Prepend)
DOCUMENT_BARE = 2  # before a document that begins with text other than a space (Metaspace, "first")
SECTION_BARE = 3  # before such text between atoms (Metaspace, "always")


class Sections(NamedTuple):
    """What is done before text is cut into words: atoms, strings with an id of their own, are found in it."""

    atom_next: np.ndarray  # int32[nodes, 256]: trie of the atoms
    atom_id: np.ndarray  # int32[nodes]: id of the atom that ends here, or -1
    atom_first: np.ndarray  # uint64[n]: the first byte of atoms, eight times; empty: they have more than two such bytes
    prefix: int = -1  # the dummy prefix: a symbol before the first of the text; -1: none
    place: int = DOCUMENT


class Inside(NamedTuple):
    """How words of a regex are cut further, where no piece contains both characters."""

    neighbors: Neighbors
    longest: int  # bytes of a word up to which it is not


class Gpt2(NamedTuple):
    """Cuts as GPT-2's regex does."""

    sections: Sections
    inside: Inside
    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE


class Cl100k(NamedTuple):
    """Cuts as the regex of cl100k, Llama-3 and Qwen does."""

    sections: Sections
    inside: Inside
    classes: np.ndarray
    digits: int  # most \\p{N} in one word; 0: no limit


class O200k(NamedTuple):
    """Cuts as the regex of o200k (GPT-4o, gpt-oss) and of Mistral's tekken does: capitals, then lower case."""

    sections: Sections
    inside: Inside
    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE UPPER LOWER MARK
    digits: int
    contractions: bool  # whether 's, 't … belong to the word before them


class DeepSeek(NamedTuple):
    """Cuts as the three splits of DeepSeek-V3 do, one after the other: numbers, runs of Chinese and kana, the rest."""

    sections: Sections
    inside: Inside
    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE MARK SYMBOL, with CJK in the middle split's range


class PairCuts(NamedTuple):
    """Cuts between two characters that are adjacent in no piece."""

    sections: Sections
    neighbors: Neighbors


class RunCuts(NamedTuple):
    """As PairCuts, but never inside a run of letters, numbers or other characters, nor after the space before it.

    So words stay whole for pieces that are still to be learned.
    """

    sections: Sections
    neighbors: Neighbors
    classes: np.ndarray  # uint8[0x110000]: OTHER LETTER NUMBER SPACE


Cutter = Gpt2 | Cl100k | O200k | DeepSeek | PairCuts | RunCuts


def atoms(strings: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """{bytes: id} -> the first three of Sections."""
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
    first = np.flatnonzero(nxt[0]).astype(np.uint64)
    return np.stack(nxt), np.array(ids, np.int32), first[: 3 * (len(first) <= 2)] * LOW_BITS


@inlined()
def _runs(data, i, stop, classes, neighbors):
    """End of the stretch at i in which every two neighbors are of one class, or adjacent in some piece."""
    c, w = char_at(data, i)
    i += w
    while i < stop:
        before = i - w
        d, w = char_at(data, i)
        if c != 0x20 and classes[c] != classes[d]:
            left, _ = character(data, before)
            right, _ = character(data, i)
            if not adjacent(left, right, data[i - 1], data[i], neighbors):
                return i
        c = d
        i += w
    return i


@compiled()
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
        return lambda data, i, stop, cut: _runs(data, i, stop, cut.classes, cut.neighbors)
    return lambda data, i, stop, cut: stretch(data, i, stop, cut.neighbors)


@compiled()
def _part_end(data, i, word, neighbors):
    """Not inlined: few words are long enough."""
    return stretch(data, i, word, neighbors)


def part_end(data, i, word, cut):
    """End of the part at i of a word that ends at `word`, where both sides of each cut are merged apart."""
    raise AssertionError("compiled code only")


@overload(part_end, jit_options=OPTIONS)
def _part_end_of(data, i, word, cut):
    if cut.instance_class in (PairCuts, RunCuts):
        return lambda data, i, word, cut: word
    return lambda data, i, word, cut: (
        word if word - i <= cut.inside.longest else _part_end(data, i, word, cut.inside.neighbors)
    )


@compiled()
def section(data, i, stop, sections):
    """Next atom at or after i -> (its start, its id, its end); without one (stop, -1, stop)."""
    first = sections.atom_first
    if len(sections.atom_id) > 1:
        while i < stop:
            if len(first) and i + 8 <= stop:
                eight = load8(data, i)
                if not has_byte(eight, first[0]) and not has_byte(eight, first[-1]):
                    i += 8
                    continue
            if sections.atom_next[0, data[i]]:
                token, end = _atom(data, i, stop, sections.atom_next, sections.atom_id)
                if token >= 0:
                    return i, token, end
            i += 1
    return stop, -1, stop


@compiled()
def is_prefixed(data, i, end, first, sections):
    """Whether the dummy prefix stands before the text [i, end) between atoms; first: it begins the document."""
    if sections.prefix < 0 or not (first or sections.place & SECTION):
        return False
    if sections.place == DOCUMENT or end == i:
        return sections.place == DOCUMENT
    if sections.place == SECTION:
        return True
    blank = end - i >= 3 and data[i] == 0xE2 and data[i + 1] == 0x96 and data[i + 2] == 0x81  # U+2581
    return data[i] != 0x20 and not blank


class Place(NamedTuple):
    """Where counting continues."""

    doc: int
    at: int  # byte in all documents; -1: the document's first
    word: int  # end of the word that `at` is inside of, or up to `at`: inside of none
    fresh: bool  # whether text between atoms begins here


@compiled()
def part_at(data, place, start, stop, cut):
    """What is at a Place of a document [start, stop) -> (end of the part, end of its word, the prefix or -1)."""
    _, i, word, fresh = place
    end, _, _ = section(data, i, stop, cut.sections)
    if word <= i:
        word = word_end(data, i, end, cut)
    prefixed = fresh and is_prefixed(data, i, end, i == start, cut.sections)
    return part_end(data, i, word, cut), word, cut.sections.prefix if prefixed else -1
