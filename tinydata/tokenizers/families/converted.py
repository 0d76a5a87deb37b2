"""A SentencePiece model as a tokenizer.json with the same ids for all text, since no class of transformers reads every
model so: LlamaTokenizer knows no normalizer, and gives a text that begins with a blank no dummy prefix.

Control symbols are special tokens in the file, so the library finds them in text, where sentencepiece does not.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from tinydata.tokenizers.base import SPACE
from tinydata.tokenizers.families import hf_files

_UNKNOWN, _CONTROL, _USER, _BYTE = 2, 3, 4, 6  # sentencepiece_model.proto
_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def unigram_files(proto: Any) -> dict[str, bytes]:
    """ModelProto of type unigram -> its tokenizer.json and tokenizer_config.json."""
    normal = [p.score for p in proto.pieces if p.type == 1]
    scores = [len(p.piece.encode()) * max(normal) - 0.1 if p.type == _USER else p.score for p in proto.pieces]
    model = {
        "type": "Unigram",
        "unk_id": next(i for i, p in enumerate(proto.pieces) if p.type == _UNKNOWN),
        "vocab": [[p.piece, s] for p, s in zip(proto.pieces, scores, strict=True)],
        "byte_fallback": _fallback(proto),
    }
    return _files(proto, model, users=False)


def bpe_files(proto: Any, merges: list[tuple[str, str]]) -> dict[str, bytes]:
    """ModelProto of type BPE, its merges by priority -> its tokenizer.json and tokenizer_config.json."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": next((p.piece for p in proto.pieces if p.type == _UNKNOWN), None),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": _fallback(proto),
        "ignore_merges": False,
        "vocab": {p.piece: i for i, p in enumerate(proto.pieces)},
        "merges": [list(merge) for merge in merges],
    }
    return _files(proto, model, users=True)


def _files(proto: Any, model: dict[str, Any], users: bool) -> dict[str, bytes]:
    """users: user-defined symbols become added tokens, which the library finds in the normalized text."""
    control = {p.piece for p in proto.pieces if p.type in (_UNKNOWN, _CONTROL)}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config["unk_token"] = next((p.piece for p in proto.pieces if p.type == _UNKNOWN), None)
    config |= {role: token for role, token in _ROLES.items() if token in control}
    kinds = (_UNKNOWN, _CONTROL, _USER) if users else (_UNKNOWN, _CONTROL)
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    added = [
        {"id": i, "content": p.piece, **flags, "normalized": p.type == _USER, "special": p.type != _USER}
        for i, p in enumerate(proto.pieces)
        if p.type in kinds
    ]
    symbols = [p.piece for p in proto.pieces if p.type == _USER] if users else []
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": _normalizer(proto.normalizer_spec, symbols),
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": _decoder(proto),
        "model": model,
    }
    return {"tokenizer.json": hf_files.dump(tokenizer), "tokenizer_config.json": hf_files.dump(config)}


def _normalizer(spec: Any, symbols: list[str]) -> dict[str, Any] | None:
    """The model's normalizer as steps; symbols: added tokens, which the library normalizes as if they were texts."""
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps += [_replace(Regex=rf"\A +|[ {SPACE}]+\z", by=""), _replace(Regex=" {2,}", by=" ")]
    if spec.add_dummy_prefix and symbols:  # whatever the text is, unless it is empty or one of the symbols
        longest_first = sorted(symbols, key=len, reverse=True)
        steps.append(_replace(Regex=rf"\A(?!(?:{'|'.join(map(re.escape, longest_first))})\z)(?=[\s\S])", by=SPACE))
    elif spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    if spec.escape_whitespaces:
        steps.append(_replace(String=" ", by=SPACE))
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _decoder(proto: Any) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [_replace(String=SPACE, by=" ")]
    steps += [{"type": "ByteFallback"}] * _fallback(proto) + [{"type": "Fuse"}]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _fallback(proto: Any) -> bool:
    """Whether bytes spell what has no piece."""
    return sum(p.type == _BYTE for p in proto.pieces) == 256


def _replace(by: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": by}
