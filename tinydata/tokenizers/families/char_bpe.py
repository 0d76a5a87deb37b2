"""BPE over characters in `tokenizer.json`: Llama 2, Mistral, Gemma, as converted from SentencePiece.

Merges are listed as for byte-level BPE; a character without a piece becomes its bytes before any
merging. The normalizer or the pre-tokenizer writes a space as U+2581, and may put one before the text.
Source: huggingface/tokenizers models/bpe/model.rs, normalizers/prepend.rs, pre_tokenizers/metaspace.rs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

from tinydata.tokenizers.base import BYTE, SPACE
from tinydata.tokenizers.families import hf_files
from tinydata.tokenizers.families.merging import Merging, character_symbols, listed_pairs
from tinydata.tokenizers.families.tokenizer_json import FLAGS, OVERLAP, TokenizerJson, overlap, with_merges
from tinydata.tokenizers.kernels import cutters
from tinydata.tokenizers.kernels.bpe import Pairs, Symbols
from tinydata.tokenizers.kernels.cutters import Cutter, PairCuts, Sections, atoms
from tinydata.tokenizers.kernels.neighbors import neighbors_of

_NOWHERE = -1  # no dummy prefix
_SCHEMES = {"always": cutters.SECTION_BARE, "first": cutters.DOCUMENT_BARE, "never": _NOWHERE}


class CharacterBPE(Merging, TokenizerJson):
    """A tokenizer.json with model BPE that is not byte-level."""

    family = "character-bpe"
    may_change = None

    def normalize(self, text: str) -> str | None:
        """As base.Tokenizer: nothing but spaces changes, and the kernels know that."""
        return text

    def text_of(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()

    # -- for the compiled kernels -------------------------------------------------------------

    @cached_property
    def _prefix_place(self) -> int | None:
        """Where the dummy prefix stands, as in cutters.py; None: spaces are written in a way that is not known."""
        normalizers = _nodes(self.config.get("normalizer"), "normalizers")
        cut = _nodes(self.config.get("pre_tokenizer"), "pretokenizers")
        if [n.get("type") for n in cut] == ["Metaspace"] and not normalizers:
            known = cut[0].get("replacement") == SPACE and cut[0].get("split") is False
            return _SCHEMES.get(cut[0].get("prepend_scheme", "always")) if known else None
        if any(n.get("type") != "Split" or n.get("pattern") != {"String": " "} for n in cut):
            return None  # after the normalizer there is no space at which such a split could cut
        place = _NOWHERE
        if normalizers and normalizers[0] == {"type": "Prepend", "prepend": SPACE}:
            place, normalizers = cutters.SECTION, normalizers[1:]
        return place if normalizers == [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}] else None

    @cached_property
    def why_not(self) -> str:
        model, place = self.config["model"], self._prefix_place
        if place is None:
            return "its normalizer and pre-tokenizer do more than write spaces as ▁"
        if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            return "its model uses dropout, a continuing-subword prefix or an end-of-word suffix"
        if model.get("ignore_merges"):
            return "its model looks whole texts up before it merges"
        if not len(self.byte_ids):
            return "it has no byte fallback, so runs of unknown characters depend on their neighbours"
        if SPACE not in self.vocab:
            return "it has no piece for the space"
        if any(self.kinds[self.vocab[p]] == BYTE for m in self._merges for p in m):
            return "it merges bytes that stand for characters without a piece"
        if any(t["normalized"] and (place >= 0 or " " in t["content"] or SPACE in t["content"]) for t in self._added):
            return "an added token is looked for in the text with ▁ for spaces"
        return OVERLAP if overlap(self._added, [t["content"] for t in self._added]) else ""

    @cached_property
    def _merges(self) -> list[tuple[str, str]]:
        """The merges whose parts and result have ids."""
        vocab = self.vocab
        merges = map(hf_files.split_merge, self.config["model"]["merges"])
        return [m for m in merges if m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]

    @cached_property
    def library_only(self) -> list[str]:
        """As base.Tokenizer: added tokens that are matched together with, or depending on, the text around them."""
        return [t["content"] for t in self._added if any(t.get(flag) for flag in FLAGS)]

    @cached_property
    def cutter(self) -> Cutter | None:
        if self.why_not:
            return None
        excluded = set(self.library_only)
        found = atoms({t["content"].encode(): t["id"] for t in self._added if t["content"] not in excluded})
        place = self._prefix_place or 0
        prefix = self.vocab[SPACE] if place >= 0 else -1
        results = [self.text_of(left + right) for left, right in self._merges]
        return PairCuts(Sections(*found, prefix, max(place, 0)), neighbors_of(results, blank=True))

    @cached_property
    def symbols(self) -> Symbols:
        return character_symbols(self.vocab, self.size, self.byte_ids, max(self.unk, 0))

    @cached_property
    def pairs(self) -> Pairs:
        return listed_pairs(self.vocab, self.config["model"]["merges"])

    # -- the compact tokenizer ----------------------------------------------------------------

    def extended(self, merges: Sequence[tuple[int, int]]) -> Self:
        """As base.Extendable: the new merges are appended to the list."""
        return self._with(*with_merges(self, self.config, self.vocab, merges))


def _nodes(node: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer -> the list of what it does, a Sequence as its members."""
    if not node:
        return []
    return list(node.get(inner, [])) if node.get("type") == "Sequence" else [node]
