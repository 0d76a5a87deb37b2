"""Byte-level BPE: `tokenizer.json`, or the older `vocab.json` with `merges.txt` (GPT-2).

Merges are listed, and their position is their rank. Source: huggingface/tokenizers
models/bpe/model.rs and pre_tokenizers/byte_level.rs; openai/gpt-2 src/encoder.py.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, Self

import numpy as np

from tinydata.tokenizers.base import ADDED, BYTE, CONTROL, NORMAL
from tinydata.tokenizers.families import hf_files
from tinydata.tokenizers.families.merging import Merging, build_tree, listed_pairs
from tinydata.tokenizers.families.tokenizer_json import (
    FLAGS,
    NEVER_IN_UTF8,
    OVERLAP,
    Native,
    broken,
    check_bpe,
    overlap,
    read_json,
    with_merges,
)
from tinydata.tokenizers.kernels.bpe import Pairs, Symbols
from tinydata.tokenizers.kernels.cutters import Cl100k, Cutter, DeepSeek, Gpt2, Inside, O200k, Sections, atoms
from tinydata.tokenizers.kernels.merge_tree import Tree
from tinydata.tokenizers.kernels.neighbors import neighbors_of
from tinydata.tokenizers.kernels.regexes import CJK, LETTER, LOWER, MARK, NUMBER, SPACE, SYMBOL, UPPER

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CL100K_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = _CONTRACTIONS + _LETTERS + r"\p{N}" + _CL100K_REST
CL100K_3 = _CONTRACTIONS + _LETTERS + r"\p{N}{1,3}" + _CL100K_REST
# regex of a Split pre-tokenizer -> most digits in one word (0: no limit)
_CL100K = {QWEN: 1, CL100K_3: 3, _CONTRACTIONS + _LETTERS + r"\p{N}+" + _CL100K_REST: 0}
_CAPITALIZED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_CAPITALS = r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_O200K_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = _CAPITALIZED + _CONTRACTIONS + "?" + _CAPITALS + _CONTRACTIONS + "?" + r"|\p{N}{1,3}" + _O200K_REST
TEKKEN = _CAPITALIZED + _CAPITALS + r"|\p{N}" + _O200K_REST
DEEPSEEK = "\0".join(
    [
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
LONGEST_WHOLE = 16  # bytes of a word that is not cut inside: what a slot of the tables holds
_O200K = {O200K: (3, True), TEKKEN: (1, False)}  # regex -> (most digits in one word, contractions)


class ByteLevelBPE(Native, Merging):
    """A byte-level BPE with its normalizer, pre-tokenizer and added tokens as tokenizer.json has them."""

    family = "byte-level-bpe"
    unk = -1  # every byte has a piece

    def __init__(self, files: dict[str, bytes], config: dict[str, Any]):
        self.files = files
        self.config = config
        model = config["model"]
        self._vocab: dict[str, int] = model["vocab"]
        self._added = config.get("added_tokens") or []
        extra = hf_files.added_tokens(files)
        top = max([*self._vocab.values(), *extra, *(t["id"] for t in self._added)])
        self.size = top + 1
        self.kinds = np.full(self.size, CONTROL, np.uint8)  # ids without a token stay so until renumbered
        self.pieces = [b""] * self.size
        self.gap = np.ones(self.size, np.bool_)
        for text, i in self._vocab.items():
            self.kinds[i] = BYTE if text in BYTE_OF and len(text) == 1 else NORMAL
            self.pieces[i] = _to_bytes(text)
            self.gap[i] = False
        special = {t["id"] for t in self._added if t.get("special")}
        for i, text in {**extra, **{t["id"]: t["content"] for t in self._added}}.items():
            self.kinds[i] = CONTROL if i in special else ADDED
            self.pieces[i] = text.encode()
            self.gap[i] = False

    @classmethod
    def from_config(cls, files: dict[str, bytes], config: dict[str, Any], path: str) -> ByteLevelBPE:
        """{name: content}, the parsed tokenizer.json -> ByteLevelBPE; raises TinydataError if parts are missing."""
        check_bpe(config["model"], path)
        return cls(files, config)

    @classmethod
    def from_vocab_merges(cls, files: dict[str, bytes], path: str) -> ByteLevelBPE:
        """{vocab.json, merges.txt} -> the tokenizer that GPT-2's tokenizer.json describes."""
        name = next(iter(files))
        vocab = read_json(files[name], path)
        try:
            lines = files["merges.txt"].decode().split("\n")
        except UnicodeDecodeError as e:
            raise broken(f"its merges.txt is not UTF-8 ({e})", path) from None
        merges = [line for line in lines if line and not line.startswith("#version")]
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        end = [t for t in ("<|endoftext|>",) if t in vocab]
        added = [
            {"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for t in end
        ]
        config = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": level,
            "post_processor": {**level, "trim_offsets": False},
            "decoder": level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocab,
                "merges": merges,
            },
        }
        return cls(files, config)

    # -- normalization ------------------------------------------------------------------------

    @cached_property
    def _normalizer(self) -> str:
        node = self.config.get("normalizer") or {"type": ""}
        return "" if node["type"] == "Sequence" and not node["normalizers"] else node["type"]

    @cached_property
    def may_change(self) -> np.ndarray | None:
        """As base.Tokenizer. NFC: exactly; NFD, NFKC, NFKD: all but ASCII; other normalizers: every character."""
        if not self._normalizer:
            return None
        if self._normalizer == "NFC":
            return _changed_by_nfc()
        table = np.ones(0x110000, np.uint8)
        if self._normalizer in ("NFD", "NFKC", "NFKD"):
            table[:0x80] = 0
        return table

    def normalize(self, text: str) -> str | None:
        if not self._normalizer:
            return text
        out = self._native.normalizer.normalize_str(text)
        raw = [t["content"] for t in self._added if not t["normalized"]]
        if any(t in text or t in out for t in raw) or any(t in out for t in self.library_only):
            return None  # the library does not normalize across a raw token, nor find one in normalized text
        return out

    @cached_property
    def _literals(self) -> list[str]:
        """The string that the library matches for each added token: some are normalized like the text."""
        normalize = self._native.normalizer.normalize_str if self._normalizer else str
        return [normalize(t["content"]) if t["normalized"] else t["content"] for t in self._added]

    @cached_property
    def library_only(self) -> list[str]:
        """Added tokens that are matched together with, or depending on, the text around them."""
        return [s for s, t in zip(self._literals, self._added, strict=True) if any(t.get(flag) for flag in FLAGS)]

    # -- for the compiled kernels -------------------------------------------------------------

    @cached_property
    def _regex(self) -> str:
        """The regex that cuts text into words, or several, one after the other, with NUL between them; "" if the
        pre-tokenizer does not work by these."""
        node = self.config.get("pre_tokenizer") or {}
        nodes = node.get("pretokenizers", []) if node.get("type") == "Sequence" else [node]
        if not nodes or nodes[-1].get("type") != "ByteLevel" or nodes[-1].get("add_prefix_space"):
            return ""
        if len(nodes) == 1:
            return GPT2 if nodes[0].get("use_regex", True) else ""
        plain = all(
            n.get("type") == "Split" and n.get("behavior") == "Isolated" and not n.get("invert") for n in nodes[:-1]
        )
        if not plain or nodes[-1].get("use_regex", True):
            return ""
        regexes = [(n.get("pattern") or {}).get("Regex", "") for n in nodes[:-1]]
        return "\0".join(regexes).replace("\r", r"\r").replace("\n", r"\n") if all(regexes) else ""

    @property
    def why_not(self) -> str:
        model = self.config["model"]
        if self._regex not in (GPT2, DEEPSEEK, *_CL100K, *_O200K):
            return "its pre-tokenizer is not one of the known ones"
        if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            return "its model uses dropout, a continuing-subword prefix or an end-of-word suffix"
        if any(c not in self._vocab for c, b in BYTE_OF.items() if b not in NEVER_IN_UTF8):
            return "it lacks some of the byte symbols that UTF-8 text needs"
        return OVERLAP if overlap(self._added, self._literals) else ""

    @cached_property
    def whole_words(self) -> dict[bytes, int]:  # type: ignore[override]
        if not self.config["model"].get("ignore_merges"):
            return {}
        unmerged = np.flatnonzero(~build_tree(self).reachable & (self.kinds == NORMAL) & ~self.gap).tolist()
        pieces = {self.pieces[i]: i for i in unmerged}
        texts = {piece: i for piece, i in pieces.items() if piece.decode("utf-8", "ignore").encode() == piece}
        rows = self.encode([piece.decode() for piece in texts])
        return {piece: i for (piece, i), ids in zip(texts.items(), rows, strict=True) if ids == [i]}

    def tree(self) -> Tree:
        """As base.Tokenizer; a piece that is only looked up as a whole word is spelled with what merging gives."""
        tree = build_tree(self)
        tree.reachable[list(self.whole_words.values())] = True
        return tree

    @cached_property
    def cutter(self) -> Cutter | None:
        if self.why_not:
            return None
        excluded = set(self.library_only)
        added = zip(self._literals, self._added, strict=True)
        sections = Sections(*atoms({s.encode(): t["id"] for s, t in added if s not in excluded}))
        inside = Inside(neighbors_of([self.pieces[i] for i in self._vocab.values()]), LONGEST_WHOLE)
        if self._regex == GPT2:
            return Gpt2(sections, inside, _classes())
        if self._regex == DEEPSEEK:
            return DeepSeek(sections, inside, _classes_of_deepseek())
        if self._regex in _O200K:
            return O200k(sections, inside, _classes_by_case(), *_O200K[self._regex])
        return Cl100k(sections, inside, _classes(), _CL100K[self._regex])

    @cached_property
    def symbols(self) -> Symbols:
        by_byte = np.full(256, -1, np.int32)
        for text, b in BYTE_OF.items():
            by_byte[b] = self._vocab.get(text, -1)
        empty = np.zeros(0, np.int32)
        return Symbols(by_byte, empty, empty, empty, 0, self.size)

    @cached_property
    def pairs(self) -> Pairs:
        return listed_pairs(self._vocab, self.config["model"]["merges"])

    def removable(self) -> np.ndarray:
        return (self.kinds == NORMAL) | self.gap

    # -- the compact tokenizer ----------------------------------------------------------------

    def order(self, keep: np.ndarray) -> np.ndarray:
        return np.sort(np.asarray(keep, np.int64))

    def subset(self, keep: np.ndarray) -> Self:
        new_id = {int(old): new for new, old in enumerate(self.order(keep))}
        return self._with(hf_files.slice_json(self.config, new_id), new_id)

    def extended(self, merges: Sequence[tuple[int, int]]) -> Self:
        """As base.Extendable: the new merges are appended to the list."""
        return self._with(*with_merges(self, self.config, self._vocab, merges))

    def _with(self, config: dict[str, Any], new_id: dict[int, int]) -> Self:
        files = {"tokenizer.json": hf_files.dump(config)}
        files |= hf_files.renumber({n: c for n, c in self.files.items() if n not in files}, new_id)
        if "merges.txt" in self.files:
            merges = [" ".join(hf_files.split_merge(m)) for m in config["model"]["merges"]]
            files["vocab.json"] = json.dumps(config["model"]["vocab"], ensure_ascii=False).encode() + b"\n"
            files["merges.txt"] = ("#version: 0.2\n" + "\n".join(merges) + "\n").encode()
        if "tokenizer_config.json" not in files:
            end = {t["content"] for t in self._added} & {"<|endoftext|>"}
            config_file = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
            files["tokenizer_config.json"] = hf_files.dump(
                config_file | ({"eos_token": end.pop(), "add_prefix_space": False} if end else {})
            )
        return type(self)(files, config)


def _alphabet() -> dict[str, int]:
    """{printable character: byte}: GPT-2's way to write any byte as text."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF = _alphabet()
LETTER_OF = {b: c for c, b in BYTE_OF.items()}


def _to_bytes(text: str) -> bytes:
    try:
        return bytes(BYTE_OF[c] for c in text)
    except KeyError:  # a piece that is not written in the byte alphabet
        return text.encode()


@cache
def _classes() -> np.ndarray:
    """uint8[0x110000]: OTHER LETTER NUMBER SPACE."""
    return _by_library({LETTER: r"\P{L}+", NUMBER: r"\P{N}+", SPACE: r"\S+"})


@cache
def _classes_by_case() -> np.ndarray:
    """uint8[0x110000]: OTHER LETTER (without case) NUMBER SPACE UPPER LOWER MARK."""
    letters = {LETTER: r"[^\p{Lm}\p{Lo}]+", UPPER: r"[^\p{Lu}\p{Lt}]+", LOWER: r"\P{Ll}+"}
    return _by_library({**letters, NUMBER: r"\P{N}+", SPACE: r"\S+", MARK: r"\P{M}+"})


@cache
def _classes_of_deepseek() -> np.ndarray:
    """uint8[0x110000]: OTHER LETTER NUMBER SPACE MARK SYMBOL, and the flag CJK."""
    kinds = {LETTER: r"\P{L}+", NUMBER: r"\P{N}+", SPACE: r"\S+", MARK: r"\P{M}+", SYMBOL: r"[^\p{P}\p{S}]+"}
    table = _by_library(kinds)
    for first, last in ("一龥", "぀ゟ", "゠ヿ"):
        table[ord(first) : ord(last) + 1] |= CJK
    return table


def _by_library(others: dict[int, str]) -> np.ndarray:
    """{class: regex of what is not in it} -> uint8[0x110000], determined with the library itself; 0: in none.

    Its Unicode version is not Python's: unicodedata of 3.11 differs on thousands of letters.
    """
    from tokenizers import Regex, normalizers

    table = np.zeros(0x110000, np.uint8)
    # surrogates are not text; planes 4 to 13 are empty, those above the fourteenth are for private use
    points = np.concatenate([np.arange(0xD800), np.arange(0xE000, 0x40000), np.arange(0xE0000, 0xE1000)])
    every = points.astype("<u4").tobytes().decode("utf-32-le")
    for kind, regex in others.items():
        of_kind = normalizers.Replace(Regex(regex), "").normalize_str(every)
        table[np.frombuffer(of_kind.encode("utf-32-le"), np.uint32)] = kind
    return table


@cache
def _changed_by_nfc() -> np.ndarray:
    """uint8[0x110000], 0: NFC never changes this character, whatever its neighbors are.

    That is: assigned, its own NFC, not a combining mark, and never the second of a composition.
    """
    table = np.ones(0x110000, np.uint8)
    second = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # Hangul vowels and finals
    for c in range(0x33000):  # above: unassigned, tags and private use
        s = chr(c)
        parts = unicodedata.decomposition(s).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            second.add(int(parts[1], 16))
        if 0xD800 <= c < 0xE000 or unicodedata.category(s) == "Cn" or unicodedata.combining(s):
            continue
        table[c] = not unicodedata.is_normalized("NFC", s)
    table[list(second)] = 1
    return table
