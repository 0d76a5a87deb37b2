"""BPE over characters in `tokenizer.json`: Llama 2, Mistral, Gemma, as converted from SentencePiece.

Merges are listed as for byte-level BPE; a character without a piece becomes its bytes before any
merging. Blanks are written U+2581 by the normalizer or the pre-tokenizer. Source:
huggingface/tokenizers models/bpe/model.rs.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tinydata.tokenizers.base import SPACE
from tinydata.tokenizers.families import hf_files as companions
from tinydata.tokenizers.families.merging import Merging
from tinydata.tokenizers.families.tokenizer_json import TokenizerJson
from tinydata.tokenizers.kernels.bpe import Pairs, Symbols, build_pairs


class CharacterBPE(Merging, TokenizerJson):
    """A tokenizer.json with model BPE that is not byte-level; counted by its library."""

    family = "character-bpe"
    why_not = "its tokenizer.json is not byte-level; a tokenizer.model in the same directory would be used instead"
    cutter = None
    unsafe = None
    odd: list[str] = []  # noqa: RUF012 - a constant

    def normal(self, text: str) -> None:
        """Only `encode` can tell."""

    def text_of(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()

    @cached_property
    def symbols(self) -> Symbols:
        by_char = np.full(0x110000, -1, np.int32)
        char_of = np.full(self.size, -1, np.int32)
        for text, i in self.vocab.items():
            if len(text) == 1:
                by_char[ord(text)] = i
                char_of[i] = ord(text)
        by_char[0x20] = by_char[ord(SPACE)]
        return Symbols(np.zeros(0, np.int32), by_char, char_of, self.byte_ids, max(self.unk, 0), self.size)

    @cached_property
    def pairs(self) -> Pairs:
        vocab = self.vocab
        ranks = {companions.split_merge(m): rank for rank, m in enumerate(self.config["model"]["merges"])}
        rows = [
            (vocab[left], vocab[right], rank, vocab[left + right])
            for (left, right), rank in ranks.items()
            if left in vocab and right in vocab and left + right in vocab
        ]
        return build_pairs(*np.array(rows, np.int64).reshape(-1, 4).T)
