"""Words and a vocabulary -> what BPE training works on: the words as ids, and which pieces may merge.

Two bit sets say which symbols must not merge: `ends` of the left one and `begins` of the right one have a bit in
common.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tinydata.core.kernels import cached
from tinydata.tokenizers.base import BYTE, NORMAL, Tokenizer
from tinydata.tokenizers.kernels.bpe import encode
from tinydata.tokenizers.kernels.merge_tree import scratch_for
from tinydata.tokenizers.kernels.regexes import LETTER, NUMBER, OTHER, SPACE
from tinydata.verbs.compact.pair_index import LONGEST
from tinydata.verbs.compact.word_collector import Words, character_classes

ALL = 0b1111  # one bit per class of characters
BREAK = np.int32(-1)  # an id: the end of a word
MERGED = np.int32(-2)  # an id: this position is now part of the symbol on its left
BASE = np.uint64(0x5851F42D4C957F2D)  # of the polynomial hash of a piece's bytes


class TrainingSymbols(NamedTuple):
    """What may be merged; one entry per id."""

    hashes: np.ndarray  # uint64[ids]: of the bytes
    lengths: np.ndarray  # int64[ids], bytes; LONGEST + 1: never merges
    begins: np.ndarray  # uint8[ids]: bits of the class of the first character
    ends: np.ndarray  # uint8[ids]: bits of the classes that must not follow the last character


class Spelling(NamedTuple):
    """Words as ids, end to end."""

    ids: np.ndarray  # int32[n]: the ids of each word, and a BREAK behind it
    word: np.ndarray  # int32[n]: number of the word that each belongs to


class Text(NamedTuple):
    """A Spelling in which symbols are merged in place, and how often each word occurs."""

    ids: np.ndarray  # int32[n]; MERGED in place of what became part of the symbol on its left
    word: np.ndarray  # int32[n]
    counts: np.ndarray  # int64[words]: how often each word occurs


def spelled(words: Words, tokenizer: Tokenizer) -> Spelling:
    """Words -> their ids under the tokenizer."""
    cutter = tokenizer.cutter
    prefix = cutter.sections.prefix if cutter else -1
    scratch = scratch_for(words.offsets)
    return Spelling(*_spelled(words.data, words.offsets, words.first, prefix, tokenizer.bpe, scratch))


@cached()
def _spelled(data, offsets, first, prefix, bpe, scratch):
    out = np.empty(len(data) // 2 + 2 * len(first) + 4 * len(scratch.sym), np.int32)
    word = np.empty(len(out), np.int32)
    at = 0
    for w in range(len(first)):
        lead = prefix if first[w] else -1
        n = encode(data, offsets[w], offsets[w + 1], lead, bpe, scratch, -1)
        if at + n + 1 > len(out):
            out = np.concatenate((out, np.empty(len(out), np.int32)))
            word = np.concatenate((word, np.empty(len(word), np.int32)))
        for k in range(n):
            out[at] = scratch.sym[k]
            word[at] = w
            at += 1
        out[at] = BREAK
        word[at] = w
        at += 1
    return out[:at].copy(), word[:at].copy()


@cached()
def tally(ids, word, count, size):
    """ids, word as in Spelling, count int64[words] -> int64[size]: how often each id occurs."""
    out = np.zeros(size, np.int64)
    for i in range(len(ids)):
        if ids[i] >= 0:
            out[ids[i]] += count[word[i]]
    return out


def symbols_of(tokenizer: Tokenizer) -> TrainingSymbols:
    """Which pieces may merge: with a pre-tokenizer all, within words; without one what SentencePiece's trainer would.

    Those are characters of the same class, and a blank with what follows it; digits only where an old piece contains
    them in this way; bytes never.
    """
    n = tokenizer.size
    hashes, begins, ends = np.zeros(n, np.uint64), np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    lengths = np.array([len(p) for p in tokenizer.pieces], np.int64)
    data = np.frombuffer(b"".join(tokenizer.pieces), np.uint8)
    _hash_all(data, np.concatenate([[0], np.cumsum(lengths)]), hashes)
    characters = len(tokenizer.bpe.symbols.by_char) > 0
    may = tokenizer.kinds == NORMAL if characters else (tokenizer.kinds == NORMAL) | (tokenizer.kinds == BYTE)
    if characters:
        kinds = character_classes()
        texts = {int(i): tokenizer.pieces[i].decode() for i in np.flatnonzero(may)}
        pairs = {(a, b) for t in texts.values() for a, b in pairwise(t) if b.isdigit()}
        behind = {k: ALL & ~(1 << k) for k in (OTHER, LETTER, NUMBER, SPACE)}  # what must not follow
        if not any(a.isdigit() for a, _ in pairs):
            behind[NUMBER] = ALL
        blank = 0 if any(a == " " for a, _ in pairs) else 1 << NUMBER
        for i, text in texts.items():
            if text:
                begins[i] = 1 << int(kinds[ord(text[0])])
                ends[i] = blank if text[-1] == " " else behind[int(kinds[ord(text[-1])])]
    lengths[~may] = LONGEST + 1
    return TrainingSymbols(hashes, lengths, begins, ends)


@cached()
def _hash_all(data, offsets, out):
    for i in range(len(out)):
        h = np.uint64(0)
        for k in range(offsets[i], offsets[i + 1]):
            h = h * BASE + np.uint64(data[k]) + np.uint64(1)
        out[i] = h
