"""What every `tokenizer.json` of Hugging Face tokenizers shares, whatever its model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.tokenizers.base import (
    ADDED,
    BYTE,
    CONTROL,
    NORMAL,
    Tokenizer,
    first_free,
    places,
    removable_pieces,
)
from tinydata.tokenizers.families import hf_files


class Native:
    """Encoding and decoding with the `tokenizers` library, from `config`, the parsed tokenizer.json."""

    files: dict[str, bytes]
    config: dict[str, Any]

    @cached_property
    def _native(self) -> Any:
        native = self._library(self.config)
        if self._renumbered(native):  # the library gives an added token that the vocabulary lacks the next free id
            added = {t["content"]: t["id"] for t in self.config["added_tokens"]}
            model = self.config["model"]
            if isinstance(model["vocab"], dict):
                native = self._library({**self.config, "model": {**model, "vocab": model["vocab"] | added}})
            if wrong := self._renumbered(native):
                raise broken(f"the tokenizers library gives {wrong!r} another id than it", next(iter(self.files)))
        native.no_padding()
        native.no_truncation()
        return native

    def _library(self, config: dict[str, Any]) -> Any:
        import tokenizers

        try:
            return tokenizers.Tokenizer.from_str(json.dumps(config))
        except Exception as e:  # the library raises no narrower class
            raise broken(f"the tokenizers library cannot read it ({e})", next(iter(self.files))) from None

    def _renumbered(self, native: Any) -> str:
        """The first added token that has another id in the library than in the file; "" if there is none."""
        added = [t for t in self.config.get("added_tokens") or () if t["content"]]
        return next((t["content"] for t in added if native.token_to_id(t["content"]) != t["id"]), "")

    def written(self) -> dict[str, bytes]:
        return self.files

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self._native.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: list[int]) -> str:
        return self._native.decode(ids, skip_special_tokens=False)


class TokenizerJson(Native):
    """A tokenizer.json whose model is not byte-level BPE; `config` is its parsed content."""

    family = ""

    def __init__(self, files: dict[str, bytes], config: dict[str, Any]):
        self.files = files
        self.config = config
        self._added = config.get("added_tokens") or []
        extra = hf_files.added_tokens(files) | {t["id"]: t["content"] for t in self._added}
        self.size = max([*self.vocab.values(), *extra]) + 1
        self.kinds = np.full(self.size, CONTROL, np.uint8)  # ids without a token stay so until renumbered
        self.texts = [""] * self.size  # as the vocabulary writes them
        self.pieces = [b""] * self.size
        self.gap = np.ones(self.size, np.bool_)
        fallback = bool(config["model"].get("byte_fallback"))
        for text, i in self.vocab.items():
            byte = _byte(text) if fallback else b""
            self.kinds[i] = BYTE if byte else NORMAL
            self.texts[i], self.pieces[i], self.gap[i] = text, byte or self.text_of(text), False
        plain = {t["id"] for t in self._added if not t.get("special")}
        for i, text in extra.items():
            self.kinds[i] = ADDED if i in plain else CONTROL
            self.texts[i], self.pieces[i], self.gap[i] = text, text.encode(), False
        if self.unk >= 0:
            self.kinds[self.unk] = CONTROL

    @property
    def vocab(self) -> dict[str, int]:
        return self.config["model"]["vocab"]

    def text_of(self, piece: str) -> bytes:
        """The bytes of a piece in text."""
        return piece.encode()

    @property
    def unk(self) -> int:
        """As base.Tokenizer."""
        return self.vocab.get(self.config["model"].get("unk_token") or "", -1)

    @cached_property
    def byte_ids(self) -> np.ndarray:
        """int32[256]: the id of each byte; empty if a character without a piece cannot be spelled with bytes.

        -1: a byte that no such character has (Gemma has a piece for the tabulator instead).
        """
        ids = np.full(256, -1, np.int32)
        for i in np.flatnonzero(self.kinds == BYTE):
            ids[self.pieces[i][0]] = i
        known = {ord(c) for c in self.vocab if len(c) == 1 and "\0" < c < "\x80"} | NEVER_IN_UTF8
        return ids if all(ids[b] >= 0 or b in known for b in range(256)) else ids[:0]

    def removable(self) -> np.ndarray:
        return removable_pieces(self.kinds, self.gap, self.texts, len(self.byte_ids) > 0)

    def order(self, keep: np.ndarray) -> np.ndarray:
        return np.sort(np.asarray(keep, np.int64))

    def subset(self, keep: np.ndarray) -> Self:
        new_id = {int(old): new for new, old in enumerate(self.order(keep))}
        return self._with(hf_files.slice_json(self.config, new_id), new_id)

    def _with(self, config: dict[str, Any], new_id: dict[int, int]) -> Self:
        files = {"tokenizer.json": hf_files.dump(config)}
        files |= {n: c for n, c in hf_files.renumber(self.files, new_id).items() if n not in files}
        files |= {n: c for n, c in self.extra_files(config).items() if n not in files}
        return type(self)(files, config)

    def extra_files(self, config: dict[str, Any]) -> dict[str, bytes]:
        """{name: content} of files that transformers needs with the compact tokenizer.json, unless they exist."""
        file = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        return {"tokenizer_config.json": hf_files.dump(file)}


def with_merges(
    tok: Tokenizer, config: dict[str, Any], vocab: dict[str, int], merges: Sequence[tuple[int, int]]
) -> tuple[dict[str, Any], dict[int, int]]:
    """A tokenizer.json, its vocabulary {text: id} -> (the same with base.Extendable's merges, {old id: new id})."""
    texts = {i: t for t, i in vocab.items()}
    pairs = []
    for k, (left, right) in enumerate(merges):
        pairs.append((texts[left], texts[right]))
        texts[tok.size + k] = "".join(pairs[-1])
    new_id = {old: int(new) for old, new in enumerate(places(tok, len(merges))[: tok.size])}
    learned = [left + right for left, right in pairs]
    return hf_files.extend_json(hf_files.slice_json(config, new_id), first_free(tok), learned, pairs), new_id


FLAGS = ("lstrip", "rstrip", "single_word")  # an added token with one of them depends on the text around it
OVERLAP = "its added tokens of the two passes could overlap"


def overlap(added: list[dict[str, Any]], literals: list[str]) -> bool:
    """Whether an added token that is matched before normalization could begin inside one that is matched after it.

    Otherwise both are found in one pass: of two that overlap the one further to the left, and there the longer one.
    literals: the string that is matched for each added token.
    """
    raw = {s for s, t in zip(literals, added, strict=True) if not t["normalized"]}
    late = {s for s, t in zip(literals, added, strict=True) if t["normalized"]}
    return any(_can_overlap(b, a) for a in raw for b in late)


def _can_overlap(a: str, b: str) -> bool:
    """Whether b can begin inside an occurrence of a."""
    return b in a or any(a.endswith(b[:k]) for k in range(1, len(b)))


NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
LONGEST = 1 << 14  # bytes of a piece; the longest of known tokenizers have some hundred
SPARSE = 1 << 16  # ids without a token that a vocabulary may have


def check_tokens(config: dict[str, Any], extra: Any, path: str) -> None:
    """Raises TinydataError unless all tokens are text with ids that may be used as sizes.

    extra: the content of added_tokens.json, {token: id}, if there is one.
    """
    added = config.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(t, dict) for t in added):
        raise broken("its added_tokens are not a list of objects", path)
    vocab = config["model"].get("vocab")
    listed = isinstance(vocab, list)
    if listed and not all(isinstance(p, list) and len(p) == 2 and isinstance(p[1], int | float) for p in vocab):
        raise broken("its vocab is not a list of [token, score]", path)
    if not isinstance(extra, dict):
        raise broken("added_tokens.json is not an object", path)
    tokens = [(p[0], i) for i, p in enumerate(vocab)] if listed else list((vocab or {}).items())
    tokens += [(t.get("content"), t.get("id")) for t in added] + list(extra.items())
    for text, i in tokens:
        if not isinstance(text, str) or type(i) is not int or i < 0:
            raise broken(f"a token {text!r:.40} with id {i!r:.40}", path)
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise broken(f"token {i} is not valid Unicode (a lone surrogate)", path) from None
        if size > LONGEST:
            raise broken(f"token {i} has {size:,} bytes, more than {LONGEST:,}", path)
    last = max((i for _, i in tokens), default=0)
    if last > len(tokens) + SPARSE:
        raise broken(f"its {len(tokens):,} tokens have ids up to {last:,}", path)


def check_bpe(model: dict[str, Any], path: str) -> None:
    """Raises TinydataError if the vocabulary or the merges are missing or of the wrong type."""
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not vocab or any(type(i) is not int or i < 0 for i in vocab.values()):
        raise broken("its model has no vocab of {token: id}", path)
    if not isinstance(merges, list):
        raise broken("its model has no list of merges", path)


def _byte(text: str) -> bytes:
    """`<0x41>` -> its byte; anything else -> b""."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes([int(text[3:5], 16)])
        except ValueError:
            pass
    return b""


def read_json(content: bytes, path: str) -> dict[str, Any]:
    """JSON object -> dict; raises TinydataError for anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as e:
        raise broken(f"not valid JSON ({e})", path) from None
    if not isinstance(value, dict):
        raise broken("JSON, but not an object", path)
    return value


def broken(why: str, path: str) -> TinydataError:
    """The error that a tokenizer.json cannot be used."""
    return TinydataError(
        f"this kind of tokenizer is not supported: {why}",
        where=str(path),
        fix="pass a tokenizer.json as Hugging Face tokenizers writes it, downloaded whole",
        code=UNREADABLE,
    )
