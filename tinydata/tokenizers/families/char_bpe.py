"""BPE over characters in `tokenizer.json`: Llama 2, Mistral, Gemma, as converted from SentencePiece.

Merges are listed as for byte-level BPE; a character without a piece becomes its bytes before any
merging. The normalizer or the pre-tokenizer writes a space as U+2581. Source: huggingface/tokenizers
models/bpe/model.rs.
"""

from __future__ import annotations

from functools import cached_property

from tinydata.tokenizers.base import SPACE
from tinydata.tokenizers.families.merging import Merging, character_symbols, listed_pairs
from tinydata.tokenizers.families.tokenizer_json import TokenizerJson
from tinydata.tokenizers.kernels.bpe import Pairs, Symbols


class CharacterBPE(Merging, TokenizerJson):
    """A tokenizer.json with model BPE that is not byte-level; only its library encodes text."""

    family = "character-bpe"
    why_not = "its tokenizer.json is not byte-level; a tokenizer.model in the same directory would be used instead"
    cutter = None
    may_change = None
    library_only: list[str] = []  # noqa: RUF012 - a constant

    def normalize(self, text: str) -> None:
        """Only `encode` can encode it."""

    def text_of(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()

    @cached_property
    def symbols(self) -> Symbols:
        return character_symbols(self.vocab, self.size, self.byte_ids, max(self.unk, 0))

    @cached_property
    def pairs(self) -> Pairs:
        return listed_pairs(self.vocab, self.config["model"]["merges"])
