"""The one interface of every tokenizer family, and the door to them: `open_tokenizer(path)`.

A tokenizer is data (the files that make it) plus what compaction needs to know: the bytes of
each piece, which pieces may never go, how text may be cut into words, and how words become ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tinydata.tokenizers.kernels.bpe import Pairs, Symbols
from tinydata.tokenizers.kernels.cutters import Cutter
from tinydata.tokenizers.kernels.merge_tree import Tree

# What an id is. Only NORMAL pieces may be removed.
NORMAL, CONTROL, BYTE, ADDED = 0, 1, 2, 3

SPACE = "\u2581"  # how SentencePiece, and what is converted from it, writes a blank inside pieces


class Tokenizer(Protocol):
    """ids 0..size-1; `encode` and `decode` are the native library's own."""

    family: str
    files: dict[str, bytes]  # name -> content: what made it, and all that travels to a worker
    size: int
    pieces: list[bytes]  # bytes a token stands for in text; of CONTROL and ADDED: its literal
    kinds: np.ndarray  # uint8[size]
    gap: np.ndarray  # bool[size]: ids that stand for nothing

    @property
    def unk(self) -> int:
        """Id of text that no piece spells; -1: there is none."""

    def __hash__(self) -> int: ...
    def encode(self, texts: list[str]) -> list[list[int]]: ...
    def decode(self, ids: list[int]) -> str: ...
    @property
    def unsafe(self) -> np.ndarray | None:
        """uint8[0x110000], 1: a text with this character must go through `normal`; None: no text must."""

    @property
    def odd(self) -> list[str]:
        """Strings whose documents only `encode` can do."""

    def normal(self, text: str) -> str | None:
        """The text as the cutter wants it, or None if only `encode` can tell what it becomes."""

    @property
    def cutter(self) -> Cutter | None: ...
    @property
    def why_not(self) -> str:
        """Why there is no cutter (empty if there is)."""

    @property
    def symbols(self) -> Symbols:
        """Of a family that merges, as are `pairs`; asked for only there and where there is a cutter."""

    @property
    def pairs(self) -> Pairs: ...
    @property
    def whole_words(self) -> dict[bytes, int]:
        """Words looked up before merging, {bytes: id}, less those that merging gives anyway (ignore_merges)."""

    def tree(self) -> Tree: ...
    def spell(self, pieces: list[bytes]) -> list[np.ndarray]:
        """Bytes of each piece -> int32 ids the tokenizer makes of them, as inside a text."""

    def removable(self) -> np.ndarray:
        """bool[size]: pieces whose text can still be spelled without them."""

    def subset(self, keep: np.ndarray) -> Tokenizer:
        """keep int[n], ascending old ids -> the tokenizer with just these, renumbered.

        New ids follow `order(keep)`; a merge survives if its parts and its result do.
        """

    def order(self, keep: np.ndarray) -> np.ndarray:
        """keep int[n] -> the same old ids in the order of their new ids."""


class Extendable(Tokenizer, Protocol):
    """A family that can be taught more merges."""

    def extended(self, merges: Sequence[tuple[int, int]]) -> Extendable:
        """(left, right) of new merges, to come after all others -> the tokenizer with them.

        Merge k makes the id size + k, which later merges may name; `places` says which id it has
        in the end.
        """


def first_free(tokenizer: Tokenizer) -> int:
    """The id behind the last piece that text is merged from: learned pieces stand there, special tokens behind."""
    return int(np.flatnonzero((tokenizer.kinds == NORMAL) | (tokenizer.kinds == BYTE))[-1]) + 1


def places(tokenizer: Tokenizer, merges: int) -> np.ndarray:
    """int64[size + merges]: id in `extended` of each id, those of the learned merges last."""
    at = first_free(tokenizer)
    old = np.arange(tokenizer.size)
    return np.concatenate([old + merges * (old >= at), at + np.arange(merges)])


def pieces_that_may_go(kinds: np.ndarray, gap: np.ndarray, texts: list[str], fallback: bool) -> np.ndarray:
    """texts: pieces as the vocabulary writes them -> bool[size]: NORMAL ones; single characters only where bytes
    can stand in, ASCII and the blank never."""
    may = (kinds == NORMAL) | gap
    for i in np.flatnonzero(kinds == NORMAL):
        text = texts[i]
        if len(text) == 1 and (not fallback or "\0" < text < "\x80" or text == SPACE):
            may[i] = False
    return may


def fingerprint(tokenizer: Tokenizer) -> str:
    """Hash over (id, piece bytes), kind and family: equal for equal ids, whatever the file format's layout."""
    h = hashlib.blake2b(tokenizer.family.encode(), digest_size=16)
    for i, piece in enumerate(tokenizer.pieces):
        h.update(b"%d %d %d " % (i, tokenizer.kinds[i], len(piece)))
        h.update(piece)
    return h.hexdigest()
