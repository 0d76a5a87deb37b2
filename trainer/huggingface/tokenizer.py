"""Reads a tokenizer's files: encode, decode, the bytes of each piece, and the fingerprint that is stored with shards.

`tokenizer.json` is read by the tokenizers library, `tokenizer.model` by sentencepiece; each is imported only when it
is needed. The fingerprint is the one of `tinydata`, computed from the same data: the family, and the kind and piece of
each id. It shows whether shards were written with a different tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from trainer.errors import UNREADABLE, TrainerError

NORMAL, CONTROL, BYTE, ADDED = 0, 1, 2, 3  # kinds of ids; control tokens and unused ids encode no text
SPACE = "\u2581"  # the space character in a SentencePiece piece

_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
_MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_BEGINS = ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]")
_ENDS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>", "[SEP]")
_PADS = ("<pad>", "<|pad|>", "[PAD]")


@dataclass(frozen=True)
class Tokenizer:
    """ids 0 .. size - 1."""

    family: str
    files: tuple[Path, ...]  # the files that an export copies
    pieces: list[bytes]  # bytes of text, or the name of a control token
    kinds: list[int]
    bos: int | None  # None: it has none
    eos: int | None
    pad: int | None
    _encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]  # special tokens stay visible

    @property
    def size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, bos: bool = False) -> list[int]:
        """text -> ids, without special tokens; `bos`: preceded by the begin token, if the tokenizer has one."""
        return ([self.bos] if bos and self.bos is not None else []) + self._encode(text)

    @cached_property
    def piece_bytes(self) -> list[int]:
        """Bytes of text that each id encodes, by which bits per byte divides; 0 for control tokens."""
        return [0 if kind == CONTROL else len(piece) for piece, kind in zip(self.pieces, self.kinds, strict=True)]

    @cached_property
    def fingerprint(self) -> str:
        """Hash over family and (id, kind, piece), as in the manifests of `tinydata`."""
        h = hashlib.blake2b(self.family.encode(), digest_size=16)
        for i, (piece, kind) in enumerate(zip(self.pieces, self.kinds, strict=True)):
            h.update(b"%d %d %d " % (i, kind, len(piece)))
            h.update(piece)
        return h.hexdigest()


def read_tokenizer(path: str | Path) -> Tokenizer:
    """Directory, `tokenizer.json`, `*.model`, or `vocab.json` with `merges.txt` -> Tokenizer.

    Raises TrainerError if there is none, or if its format is not supported.
    """
    path = Path(path)
    if path.is_dir():
        names = {f.name for f in path.iterdir()}
        companions = tuple(path / n for n in _COMPANIONS if n in names)
        model = next((n for n in (*_MODELS, *sorted(n for n in names if n.endswith(".model"))) if n in names), None)
        ranks = next((n for n in sorted(names) if n.endswith(".tiktoken")), None)
        if model and not ranks:
            return _sentencepiece(path / model, path / "tokenizer.json", companions)
        if "tokenizer.json" in names:
            return _json(path / "tokenizer.json", companions, path / ranks if ranks else None)
        if {"vocab.json", "merges.txt"} <= names:
            return _vocab_merges(path / "vocab.json", path / "merges.txt", companions)
        raise _unknown(path, f"the directory contains {', '.join(sorted(names)[:8]) or 'no files'}")
    if not path.exists():
        raise TrainerError(
            "no tokenizer was found at this path",
            where=str(path),
            fix="pass a directory or file that contains one: --tokenizer DIR",
            code=UNREADABLE,
        )
    if path.suffix == ".model":
        return _sentencepiece(path, None, ())
    if path.name.endswith(("vocab.json", "encoder.json")) and (path.parent / "merges.txt").exists():
        return _vocab_merges(path, path.parent / "merges.txt", ())
    if path.suffix == ".json":
        return _json(path, (), None)
    if path.suffix == ".tiktoken" and (path.parent / "tokenizer.json").exists():
        return _json(path.parent / "tokenizer.json", (), path)
    raise _unknown(path, f"files such as {path.name} are not supported")


def _json(path: Path, companions: tuple[Path, ...], ranks: Path | None) -> Tokenizer:
    config = _object(path)
    if not isinstance(config.get("model"), dict) or not config["model"].get("vocab"):
        raise _unknown(path, "it has no model with a vocabulary")
    if ranks is None:
        return _from_config(config, _family(config), (path, *companions))
    config["model"]["ignore_merges"] = True  # tiktoken looks up whole words before it merges
    return _from_config(config, "tiktoken", (ranks, path, *companions))


def _vocab_merges(vocab: Path, merges: Path, companions: tuple[Path, ...]) -> Tokenizer:
    """GPT-2's two files, with GPT-2's pre-tokenization."""
    ids = _object(vocab)
    lines = [line for line in merges.read_text(encoding="utf-8").split("\n") if line and line[:8] != "#version"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    marks = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    end = [{"id": ids[t], "content": t, **marks} for t in ("<|endoftext|>",) if t in ids]
    model = {"type": "BPE", "vocab": ids, "merges": lines}
    config = {"version": "1.0", "added_tokens": end, "pre_tokenizer": level, "decoder": level, "model": model}
    return _from_config(config, "byte-level-bpe", (vocab, merges, *companions))


def _from_config(config: dict[str, Any], family: str, files: tuple[Path, ...]) -> Tokenizer:
    """The content of a tokenizer.json -> Tokenizer."""
    model, listed = config["model"], config.get("added_tokens") or []
    by_bytes = family in ("byte-level-bpe", "tiktoken")
    rows = isinstance(model["vocab"], list)  # Unigram: ids are positions in the list
    vocab = {row[0]: i for i, row in enumerate(model["vocab"])} if rows else model["vocab"]
    added = _added(files) | {t["id"]: t["content"] for t in listed}
    size = max([*vocab.values(), *added]) + 1
    pieces, kinds = [b""] * size, [CONTROL] * size
    for text, i in vocab.items():
        pieces[i], kinds[i] = _byte_piece(text) if by_bytes else _piece(text, model)
    plain = {t["id"] for t in listed if not t.get("special")}
    for i, text in added.items():
        pieces[i], kinds[i] = text.encode(), ADDED if i in plain else CONTROL
    unknown = model.get("unk_id") if rows else vocab.get(model.get("unk_token") or "")
    if unknown is not None and not by_bytes:
        kinds[unknown] = CONTROL
    native = _native(config, files)
    return _tokenizer(
        family,
        files,
        pieces,
        kinds,
        lambda text: native.encode(text, add_special_tokens=False).ids,
        lambda ids: native.decode(ids, skip_special_tokens=False),
    )


def _native(config: dict[str, Any], files: tuple[Path, ...]) -> Any:
    import tokenizers

    try:
        native = tokenizers.Tokenizer.from_str(json.dumps(config))
    except Exception as e:  # the library raises nothing narrower
        raise _unknown(files[0], f"the tokenizers library cannot read it ({e})") from None
    native.no_padding()
    native.no_truncation()
    return native


def _sentencepiece(path: Path, companion: Path | None, companions: tuple[Path, ...]) -> Tokenizer:
    """A tokenizer.json in its directory is read instead where it numbers the pieces otherwise, as XLM-R's does."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
        native = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except Exception as e:  # protobuf's DecodeError, sentencepiece's RuntimeError
        raise _unknown(path, f"the sentencepiece library cannot read it ({e})") from None
    if companion is not None and companion.exists():
        vocab = (_object(companion).get("model") or {}).get("vocab") or {}
        ids = {row[0]: i for i, row in enumerate(vocab)} if isinstance(vocab, list) else vocab
        if any(ids.get(p.piece) != i for i, p in enumerate(proto.pieces)):
            return _json(companion, companions, None)
        companions = (companion, *companions)
    inside = len(proto.pieces)
    extra = {i: text for i, text in _added(companions).items() if i >= inside}
    pieces = [_spm_piece(p.piece, p.type) for p in proto.pieces]
    pieces += [extra.get(i, "").encode() for i in range(inside, max([inside, *(i + 1 for i in extra)]))]
    kinds = [_SPM_KINDS[p.type] for p in proto.pieces] + [ADDED] * (len(pieces) - inside)

    def decode(ids: list[int]) -> str:
        runs = groupby(ids, key=lambda i: i < inside)
        return "".join(native.decode([*run]) if old else b"".join(pieces[i] for i in run).decode() for old, run in runs)

    family = {1: "sentencepiece-unigram", 2: "sentencepiece-bpe"}.get(proto.trainer_spec.model_type)
    if family is None:
        raise _unknown(path, "it is a SentencePiece model that is neither BPE nor unigram")
    return _tokenizer(family, (path, *companions), pieces, kinds, native.encode, decode)


_SPM_KINDS = {1: NORMAL, 2: CONTROL, 3: CONTROL, 4: ADDED, 5: NORMAL, 6: BYTE}  # sentencepiece_model.proto


def _spm_piece(text: str, kind: int) -> bytes:
    if kind == 6:
        return bytes([int(text[3:5], 16)])
    return (text.replace(SPACE, " ") if kind in (1, 5) else text).encode()


def _tokenizer(family: str, files: Any, pieces: Any, kinds: Any, encode: Any, decode: Any) -> Tokenizer:
    """Finds the begin, end and padding tokens: those named in the companion files, else by common names."""
    declared: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for file in files:
            if file.name == name:
                declared |= {k: v for k, v in _object(file).items() if v is not None}
    control = {piece.decode("utf-8", "replace"): i for i, piece in enumerate(pieces) if kinds[i] == CONTROL}

    def named(key: str, usual: tuple[str, ...]) -> int | None:
        token = declared.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        return next((control[t] for t in (text, *usual) if isinstance(t, str) and t in control), None)

    bos, eos, pad = named("bos_token", _BEGINS), named("eos_token", _ENDS), named("pad_token", _PADS)
    return Tokenizer(family, tuple(files), pieces, kinds, bos, eos, pad, encode, decode)


def _family(config: dict[str, Any]) -> str:
    model = config["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "")
    if kind == "BPE":
        level = '"ByteLevel"' in json.dumps([config.get("pre_tokenizer"), config.get("decoder")])
        return "byte-level-bpe" if level else "character-bpe"
    return {"Unigram": "unigram", "WordPiece": "wordpiece"}.get(kind, kind)


def _byte_piece(text: str) -> tuple[bytes, int]:
    """A piece in GPT-2's byte alphabet -> (its bytes, its kind)."""
    if any(c not in _BYTE_OF for c in text):
        return text.encode(), NORMAL
    return bytes(_BYTE_OF[c] for c in text), BYTE if len(text) == 1 else NORMAL


def _piece(text: str, model: dict[str, Any]) -> tuple[bytes, int]:
    """A piece as written in any other tokenizer.json -> (the bytes that it encodes, its kind)."""
    if model.get("byte_fallback") and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)]), BYTE
    if model.get("type") == "WordPiece":
        prefix = model.get("continuing_subword_prefix", "##")
        inner = len(text) > len(prefix) and text.startswith(prefix)
        return (text[len(prefix) :].encode() if inner else b" " + text.encode()), NORMAL
    return text.replace(SPACE, " ").encode(), NORMAL


def _byte_alphabet() -> dict[str, int]:
    """{printable character: byte}: GPT-2's notation of bytes as text."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


_BYTE_OF = _byte_alphabet()


def _added(companions: tuple[Path, ...]) -> dict[int, str]:
    """{id: text} of the added tokens that any file of the tokenizer's directory lists."""
    found: dict[int, str] = {}
    for file in companions:
        if file.name == "added_tokens.json":
            found |= {i: text for text, i in _object(file).items()}
        if file.name == "tokenizer_config.json":
            found |= {int(i): t["content"] for i, t in (_object(file).get("added_tokens_decoder") or {}).items()}
        if file.name == "tokenizer.json":
            found |= {t["id"]: t["content"] for t in _object(file).get("added_tokens") or []}
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise _unknown(path, f"it is not readable JSON ({e})") from None
    if not isinstance(value, dict):
        raise _unknown(path, "it is JSON, but not an object")
    return value


def _unknown(path: Path, why: str) -> TrainerError:
    return TrainerError(
        f"the tokenizer is not in a supported format: {why}",
        where=str(path),
        fix="use tokenizer.json, tokenizer.model (SentencePiece), or vocab.json next to merges.txt; "
        "`tinydata compact` writes one of these",
        code=UNREADABLE,
    )
