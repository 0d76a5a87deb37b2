"""WordPiece: `vocab.txt` as BERT has it, or `tokenizer.json` with that model.

A word is spelled by the longest piece that begins it, then the longest `##` piece, and so on; if nothing
matches somewhere, the whole word is one [UNK]. Single characters are kept in both forms, so that no word
becomes unknown. Source: google-research/bert tokenization.py; huggingface/tokenizers
models/wordpiece/mod.rs.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.tokenizers.base import NORMAL
from tinydata.tokenizers.families import hf_files
from tinydata.tokenizers.families.matching import Matching
from tinydata.tokenizers.families.tokenizer_json import TokenizerJson
from tinydata.tokenizers.kernels.matching import Matcher, new_matcher
from tinydata.tokenizers.kernels.merge_tree import Tree

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BEFORE = ("q", "1")  # beginnings of the words that a continuation is tested in


class WordPiece(Matching, TokenizerJson):
    """In `pieces`, a piece that begins a word starts with a space, and one that continues it does not."""

    family = "wordpiece"
    why_not = "its words are cut and normalized by the library"

    @classmethod
    def from_vocab(cls, files: dict[str, bytes], path: str) -> WordPiece:
        """{vocab.txt, tokenizer_config.json or not} -> BERT's tokenizer with that vocabulary.

        Without `do_lower_case` in the configuration, text is lowercased if the vocabulary has no piece that
        lowercasing would change.
        """
        try:
            lines = files[next(iter(files))].decode().split("\n")
        except UnicodeDecodeError as e:
            raise _no_vocab(f"it is not UTF-8 ({e})", path) from None
        lines = [line.rstrip("\r") for line in lines]
        vocab = {piece: i for i, piece in enumerate(lines) if piece}
        if "[UNK]" not in vocab:
            raise _no_vocab("it has no [UNK]", path)
        options = hf_files.read(files, "tokenizer_config.json")
        cased = any(p != p.lower() for p in vocab if not (p.startswith("[") and p.endswith("]")))
        lower = bool(options.get("do_lower_case", not cased))
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        ends = [t for t in ("[CLS]", "[SEP]") if t in vocab]
        processor = None
        if len(ends) == 2:
            processor = {"type": "BertProcessing", "cls": ["[CLS]", vocab["[CLS]"]], "sep": ["[SEP]", vocab["[SEP]"]]}
        config = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": vocab[t], "content": t} | flags for t in SPECIAL if t in vocab],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": bool(options.get("tokenize_chinese_chars", True)),
                "strip_accents": options.get("strip_accents"),
                "lowercase": lower,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": processor,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": vocab,
            },
        }
        return cls(files, config)

    @property
    def _prefix(self) -> str:
        return self.config["model"].get("continuing_subword_prefix", "##")

    def text_of(self, piece: str) -> bytes:
        inner = len(piece) > len(self._prefix) and piece.startswith(self._prefix)
        return piece[len(self._prefix) :].encode() if inner else b" " + piece.encode()

    def characters(self) -> list[str]:
        """As in `pieces`: one trie for both forms."""
        return [p.decode() if kind == NORMAL else "" for p, kind in zip(self.pieces, self.kinds.tolist(), strict=True)]

    @cached_property
    def matcher(self) -> Matcher:  # type: ignore[override]
        texts = {i: t for i, t in enumerate(self.characters()) if t}
        return new_matcher(texts, self.size, max(self.unk, 0), np.zeros(0, np.int32))

    @cached_property
    def _occurs(self) -> np.ndarray:
        """bool[size]: pieces that occur in words after normalization and pre-tokenization."""
        out = np.ones(self.size, np.bool_)
        limit = self.config["model"].get("max_input_chars_per_word", 100)
        for i, text in enumerate(self.characters()):
            if text:
                words = [text[1:]] if text[0] == " " else [before + text for before in _BEFORE]
                out[i] = any(self._cut(w) == [w] for w in words) and len(words[0]) <= limit
        return out

    def _cut(self, text: str) -> list[str]:
        native = self._native
        normal = native.normalizer.normalize_str(text) if native.normalizer else text
        return [w for w, _ in native.pre_tokenizer.pre_tokenize_str(normal)] if native.pre_tokenizer else [normal]

    def tree(self) -> Tree:
        tree = super().tree()
        return tree._replace(reachable=tree.reachable & self._occurs)

    def removable(self) -> np.ndarray:
        """Pieces that characters can spell, and characters of no word: so no word becomes unknown."""
        removable = (self.kinds == NORMAL) | self.gap
        texts = self.characters()
        begin = {t[1] for t in texts if len(t) == 2 and t[0] == " "}
        inside = {t for t in texts if len(t) == 1}
        for i in np.flatnonzero(self._occurs & (self.kinds == NORMAL)).tolist():
            text = texts[i]
            first, rest = (text[1], text[2:]) if text[0] == " " else ("", text)
            single = len(text) == 1 + (text[0] == " ")
            removable[i] = not single and (not first or first in begin) and set(rest) <= inside
        return removable

    def extra_files(self, config: dict[str, Any]) -> dict[str, bytes]:
        """tokenizer_config.json, and vocab.txt for other BERT tools."""
        added = {t["content"] for t in config["added_tokens"]}
        roles = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        roles["mask_token"] = "[MASK]"
        file: dict[str, Any] = {"tokenizer_class": "BertTokenizer", "clean_up_tokenization_spaces": True}
        normalizer = config.get("normalizer") or {}
        if normalizer.get("type") == "BertNormalizer":
            file["do_lower_case"] = normalizer["lowercase"]
        else:
            file["tokenizer_class"] = "PreTrainedTokenizerFast"
        file |= {role: t for role, t in roles.items() if t in added}
        out = {"tokenizer_config.json": hf_files.dump(file)}
        ids = config["model"]["vocab"]
        if sorted(ids.values()) == list(range(len(ids))):
            out["vocab.txt"] = "".join(f"{t}\n" for t in ids).encode()
        return out


def _no_vocab(why: str, path: str) -> TinydataError:
    return TinydataError(
        f"this kind of tokenizer is not supported: not a vocab.txt of WordPiece, {why}",
        where=str(path),
        fix="pass BERT's vocab.txt, one piece per line, including [UNK]",
        code=UNREADABLE,
    )
