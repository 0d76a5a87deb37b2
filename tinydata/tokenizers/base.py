"""The interface of every tokenizer family; `open.open_tokenizer(path)` returns one.

A tokenizer is data (the contents of its files) and what compaction needs to know: the bytes of each piece,
which pieces must stay, where text may be cut into words, and how words become ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tinydata.tokenizers.kernels.bpe import BPE
from tinydata.tokenizers.kernels.cutters import Cutter
from tinydata.tokenizers.kernels.merge_tree import Tree

# The kinds of ids. Only NORMAL pieces may be removed.
NORMAL, CONTROL, BYTE, ADDED = 0, 1, 2, 3

SPACE = "\u2581"  # a space inside pieces of SentencePiece models, and of files converted from them


class Tokenizer(Protocol):
    """Ids are 0..size-1; `encode` and `decode` call the native library."""

    family: str
    files: dict[str, bytes]  # name -> content: everything the tokenizer is loaded from, as sent to workers
    size: int
    pieces: list[bytes]  # the bytes of a token in text; of CONTROL and ADDED tokens: their literal text
    kinds: np.ndarray  # uint8[size]
    gap: np.ndarray  # bool[size]: ids without a token

    @property
    def unk(self) -> int:
        """Id of the unknown token; -1: the tokenizer has none."""

    def __hash__(self) -> int: ...
    def encode(self, texts: list[str]) -> list[list[int]]: ...
    def decode(self, ids: list[int]) -> str: ...
    @property
    def may_change(self) -> np.ndarray | None:
        """uint8[0x110000], 1: a text with this character needs `normalize`; None: no text does."""

    @property
    def library_only(self) -> list[str]:
        """Only `encode` can encode a text that contains one of these strings."""

    def normalize(self, text: str) -> str | None:
        """The text that is cut into words; None: only `encode` can encode it."""

    @property
    def cutter(self) -> Cutter | None:
        """Where text may be cut into words; None: nowhere."""

    @property
    def why_not(self) -> str:
        """Why there is no cutter; empty if there is one."""

    @property
    def bpe(self) -> BPE:
        """How a word is merged; raises NotImplementedError for a family that does not merge."""

    @property
    def whole_words(self) -> dict[bytes, int]:
        """{bytes: id} of words that are looked up and that merging would split (ignore_merges)."""

    def tree(self) -> Tree:
        """What each piece is spelled with when it is removed."""

    def spell(self, pieces: list[bytes]) -> list[np.ndarray]:
        """Bytes of each piece -> the int32 ids that encode them inside a text."""

    def removable(self) -> np.ndarray:
        """bool[size]: pieces whose text can be spelled without them."""

    def subset(self, keep: np.ndarray) -> Tokenizer:
        """keep int[n], ascending old ids -> the tokenizer with only these, renumbered.

        New ids follow `order(keep)`; a merge is kept if both its parts and its result are.
        """

    def order(self, keep: np.ndarray) -> np.ndarray:
        """keep int[n] -> the same old ids in the order of their new ids."""

    def written(self) -> dict[str, bytes]:
        """{name: content} of a directory with this tokenizer: `files`, and what other libraries need to read it."""


class Extendable(Tokenizer, Protocol):
    """A family that merges can be added to."""

    implied: bool  # whether pieces merge because the result is a piece, not by a list

    def extended(self, merges: Sequence[tuple[int, int]]) -> Extendable:
        """(left, right) of new merges, of lower priority than all others -> the tokenizer with them.

        Merge k produces the id size + k, which later merges may refer to; `places` gives its final id.
        """


def first_free(tokenizer: Tokenizer) -> int:
    """The id after the last NORMAL or BYTE piece: learned pieces are inserted there, before the special tokens."""
    return int(np.flatnonzero((tokenizer.kinds == NORMAL) | (tokenizer.kinds == BYTE))[-1]) + 1


def places(tokenizer: Tokenizer, merges: int) -> np.ndarray:
    """int64[size + merges]: the id in `extended` of each old id, then of each learned merge."""
    at = first_free(tokenizer)
    old = np.arange(tokenizer.size)
    return np.concatenate([old + merges * (old >= at), at + np.arange(merges)])


def removable_pieces(kinds: np.ndarray, gap: np.ndarray, texts: list[str], fallback: bool) -> np.ndarray:
    """texts: pieces as the vocabulary writes them; fallback: bytes spell a missing character -> bool[size].

    NORMAL pieces, but of single characters only those that bytes can spell, and never ASCII or the space.
    """
    removable = (kinds == NORMAL) | gap
    for i in np.flatnonzero(kinds == NORMAL):
        text = texts[i]
        if len(text) == 1 and (not fallback or "\0" < text < "\x80" or text == SPACE):
            removable[i] = False
    return removable


def fingerprint(tokenizer: Tokenizer) -> str:
    """Hash of the family and each id's kind and bytes: it does not depend on the layout of the files."""
    h = hashlib.blake2b(tokenizer.family.encode(), digest_size=16)
    for i, piece in enumerate(tokenizer.pieces):
        h.update(b"%d %d %d " % (i, tokenizer.kinds[i], len(piece)))
        h.update(piece)
    return h.hexdigest()
