"""Which tokenizers there are, and what their own libraries say: the oracle of all tests of this folder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.conftest import QWEN, SENTENCES, SYMBOLS
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.families import byte_bpe as bytebpe
from tinydata.tokenizers.kernels.merge_tree import Tree
from tinydata.tokenizers.open import load, open_tokenizer
from tinydata.tokenizers.probe import PROBE
from tinydata.tokenizers.text_counter import TextCounter
from tinydata.tokenizers.text_encoder import TextEncoder
from tinydata.verbs.compact.prune import Order

TRAINED = {
    "gpt2": ("byte_bpe", "gpt2"),
    "qwen": ("byte_bpe", "qwen"),
    "llama3": ("byte_bpe", "llama3"),
    "o200k": ("byte_bpe", "o200k"),
    "plain": ("spm", "plain"),
    "prefix": ("spm", "prefix"),
    "unigram": ("matching", "unigram"),
    "unigram_bytes": ("matching", "unigram_bytes"),
    "unigram_json": ("matching", "unigram_json"),
    "wordpiece": ("matching", "wordpiece"),
    "wordpiece_json": ("matching", "wordpiece_json"),
    "ranks": ("ranks", "made"),
    "char_json": ("matching", "char_json"),
}
REAL = {
    "internlm_103168": "tokenizers/sp_bpe/internlm_103168",
    "mistral_32000": "tokenizers/sp_bpe/mistral_v1_32000",
    "stories_hf": "models/stories260K/hf",  # with its tokenizer.json and tokenizer_config.json
    "nfkc_1000": "tokenizers/sp_bpe/transformers_fixture_1000",
    "gpt2_50257": "tokenizers/bytebpe/gpt2_50257",
    "neox_50280": "tokenizers/bytebpe/olmo_gpt_neox_v1_5",
    "unigram_1000": "tokenizers/sp_unigram/transformers_fixture_1000",
    "t5_32000": "tokenizers/sp_unigram/t5_base_32000",
    "bert_28996": "tokenizers/wordpiece/bert_base_cased_28996",
    "stories_json": "models/stories260K/hf/tokenizer.json",
}
WHISPER = "tokenizers/tiktoken/whisper_gpt2"  # gpt2_50257 as a rank file, which has tests of its own
MATCHING = (  # their pieces are matched, those of all others are merged
    *("unigram", "unigram_bytes", "unigram_json", "wordpiece", "wordpiece_json"),
    *("unigram_1000", "t5_32000", "bert_28996"),
)
LIBRARY_ONLY = (*MATCHING, "nfkc_1000")  # the library encodes all text; others by words
# One of each way through the kernels: three regexes, characters, with and without a prefix, NFC, whole words.
KERNELS = ("gpt2", "qwen", "llama3", "o200k", "plain", "prefix")
FIRST = ("gpt2", "prefix", "char_json", "unigram", "unigram_json", "wordpiece")  # one of each family

few = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# Where cutting text into words can go wrong; all documents are counted together, so blanks stand beside all.
TRICKY = [
    *PROBE,
    *SENTENCES,
    *(
        a + b
        for a in ("'s", "'S", "'ſ", "'re", "'LL", "'", "''ll", " 's", "x's")
        for b in ("", "t", " ", "\n", "1", "!")
    ),
    *(
        " " * a + b + " " * c
        for a in (0, 1, 2)
        for b in ("", "a", "1", "!", "\n", "\t", "\u3000", "中")
        for c in (0, 1, 3)
    ),
    *("\r\n" * a + b + "\n" * c for a in (0, 1, 3) for b in ("", " ", "  a", "!", " !\t") for c in (0, 1, 2)),
    *("7" * n for n in range(1, 9)),
    "1234567890１２３٤٥٦ⅧⅨ½²",
    "a\u0301 e\u0301\u0301 \u0301 \u0345\u0301 \u1100\u1161\u11a8 \u212b \u1e9b\u0323 \ufb01 \uff21",
    "\u0085\u00a0\u1680\u2000\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff",
    "\x00a\x00 \x00\x00 \x7f\x1f",
    "\U0010ffff\U00010000\ue000\ufffd\uffff\ud7ff",
    "<0x0A><0xE4><0x41> <s></s> <unk> <pad> [UNK] Ġa Ċ ▁▁▁a ▁",
    "a" * 47 + " " + "a" * 48 + " " + "a" * 49 + " " + "ab" * 500,
    "=" * 300 + "\n" + "-" * 33 + "  " * 90 + "." * 17,
    "x" * 16 + " " + "x" * 15 + " " + "x" * 17 + "中" * 5 + " " + "中" * 6,
]


def native(tok: Tokenizer) -> Any:
    """The library's own object."""
    return tok._native  # type: ignore[attr-defined]


def library(tok: Tokenizer, texts: list[str], groups: Iterable[int] | None = None) -> np.ndarray:
    """texts -> counts int64[groups, ids] as the library encodes them."""
    where = [0] * len(texts) if groups is None else list(groups)
    out = np.zeros((max(where, default=0) + 1, tok.size), np.int64)
    for ids, group in zip(tok.encode(texts), where, strict=True):
        out[group] += np.bincount(np.array(ids, np.int64), minlength=tok.size)
    return out


def counted(tok: Tokenizer, texts: list[str], groups: Iterable[int] | None = None, bits: int = 6) -> np.ndarray:
    """The same by TextCounter; 6 bits: 32 short words, 8 long ones, so every table overflows."""
    where = np.array([0] * len(texts) if groups is None else list(groups), np.int32)
    counter = TextCounter(tok, bits=bits)
    counter.grow(int(where.max(initial=0)) + 1)
    counter.add(pa.array(texts, pa.string()), where)
    return counter.finish()


def assert_counted(tok: Tokenizer, texts: list[str], bits: int = 6) -> None:
    """Counts and ids are the library's; if not, the shortest text for which they are not is shown."""
    expected = tok.encode(texts)
    sums = np.bincount(np.array([i for row in expected for i in row], np.int64), minlength=tok.size)
    if (counted(tok, texts, bits=bits) == sums).all():
        ids, ends = TextEncoder(tok, bits=bits).encode(pa.array(texts, pa.string()))
        rows = (ids[a:b].tolist() for a, b in pairwise(ends))
        wrong = [t for t, row, own in zip(texts, rows, expected, strict=True) if row != own]
        assert not wrong, f"encoded differently than by the library: {min(wrong, key=len)[:200]!r}"
        return
    wrong = [t for t in texts if (counted(tok, [t], bits=bits) != library(tok, [t])).any()]
    shortest = min(wrong, key=len, default="only together")
    raise AssertionError(f"{shortest[:200]!r}: the library gives {tok.encode([shortest])[0][:50]}")


letters = "aeiost'sSdDmlLrRvVeEtT"
blanks = " \t\n\r\x0b\u00a0\u3000\u2028"
marks = "0189٣½.,!?-_'’\"▁Ġ"
wide = "éßſſKﬁİıñЖжבعक्षि\u0301\u0327\u200d中漢字かなカ가각가🙂👩\u2581"
any_text = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=letters + blanks + marks + wide, max_size=60),
    st.text(alphabet="ab \n'1", max_size=120),
)


def native_word(tok: Tokenizer, word: str) -> list[int]:
    """Ids of a stretch of text that is not cut."""
    if tok.family == "sentencepiece-bpe":
        return tok.encode([word])[0]
    if tok.family == "character-bpe":
        return [t.id for t in native(tok).model.tokenize(word.replace(" ", "▁"))]
    letters = "".join(bytebpe.LETTER_OF[b] for b in word.encode())
    return [t.id for t in native(tok).model.tokenize(letters)]


def has_prefix(tok: Any) -> bool:
    return tok.proto.normalizer_spec.add_dummy_prefix


def words(text: list[str], number: int) -> list[str]:
    """1 to 300 characters of real text, of few letters, and of letters no tokenizer has; no blanks."""
    rng = random.Random(9)
    flat = "".join("".join(text).split()).replace(SYMBOLS[-1], "")
    out = []
    for n in range(number):
        size = 1 + n * 300 // number
        at = rng.randrange(len(flat) - size)
        out += [flat[at : at + size], "".join(rng.choices("aab", k=size)), "".join(rng.choices("thein𐍈ꙮ", k=size))]
    return out


def rewrites(tok: Any) -> bool:
    return tok.family == "sentencepiece-bpe" and tok._rewrites


def merged(symbols: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """BPE as one would explain it: the best pair first, the leftmost of equals, until there is none."""
    while True:
        ranked = [(r, k) for k, (a, b) in enumerate(pairwise(symbols)) if (r := rank(a, b)) is not None]
        if not ranked:
            return symbols
        k = min(ranked)[1]
        symbols = [*symbols[:k], symbols[k] + symbols[k + 1], *symbols[k + 2 :]]


def segmented(tok: Any, text: str, banned: int = -1) -> list[int]:
    """Ids of characters as the trie has them, as one would explain it; [] where some character has no piece."""
    pieces = matched(tok)
    scores = tok.matcher.score
    if not len(scores):  # the longest match, again and again
        out, at = [], 0
        while at < len(text):
            ends = [k for k in range(len(text), at, -1) if pieces.get(text[at:k], banned) != banned]
            if not ends:
                return []
            out.append(pieces[text[at : ends[0]]])
            at = ends[0]
        return out
    best: list[tuple[float, list[int]] | None] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        way = None
        for start in range(end):
            i, before = pieces.get(text[start:end], banned), best[start]
            if i != banned and before is not None and (way is None or before[0] + scores[i] > way[0]):
                total = before[0] + scores[i]
                way = (float(np.float32(total)) if tok.matcher.single else total, [*before[1], i])
        best.append(way)
    return best[-1][1] if best[-1] else []


@cache
def matched(tok: Any) -> dict[str, int]:
    return {t: i for i, t in enumerate(tok.characters()) if t}


class Cut(NamedTuple):
    tree: Tree
    train: np.ndarray  # int64[ids]
    locked: np.ndarray  # bool[ids]
    order: Order


class Small(NamedTuple):
    tok: Tokenizer
    keep: np.ndarray  # old ids, ascending
    path: Path


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Tokenizer:
    """A tokenizer.json with something done to it."""
    config = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(config)
    return load({"tokenizer.json": json.dumps(config).encode()})


def set_model(config: dict[str, Any], **values: Any) -> None:
    config["model"] |= values


def split_by(config: dict[str, Any], regex: str = QWEN, **values: Any) -> None:
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} | values
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    config["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, level]}


def add_tokens(config: dict[str, Any], *tokens: tuple[str, dict[str, bool]]) -> None:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    known = config["model"]["vocab"]
    for text, flags in tokens:
        free = max([*known.values(), *(t["id"] for t in config["added_tokens"])]) + 1
        config["added_tokens"].append({"id": known.get(text, free), "content": text} | plain | flags)


def remade(folder: Path, change: Callable[[Any], None]) -> Tokenizer:
    """A tokenizer.model with something done to it."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    change(proto)
    return load({"tokenizer.model": proto.SerializeToString()})


def set_piece(proto: Any, text: str, kind: int, score: float = 0.0) -> None:
    """Adds a piece, or makes the one that is there this."""
    piece = next((p for p in proto.pieces if p.piece == text), None) or proto.pieces.add(piece=text)
    piece.type, piece.score = kind, score


def unknown(where: Path, *files: tuple[str, bytes]) -> Path:
    where.mkdir(exist_ok=True)
    for name, content in files:
        (where / name).write_bytes(content)
    return where


def refused(path: Path, what: str) -> None:
    with pytest.raises(TinydataError, match=what) as e:
        open_tokenizer(str(path))
    assert e.value.code == UNREADABLE and e.value.fix and str(path) in e.value.where
