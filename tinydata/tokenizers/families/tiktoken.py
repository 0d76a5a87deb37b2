"""tiktoken's rank files (`*.tiktoken`): base64 bytes, a space and the rank on each line; the rank is the id.

Merges are implied: two neighbors merge if their concatenation has a rank, the lowest first. A word that
has a rank itself is looked up, not merged. How text is cut into words and which special tokens exist is not in the
file, but in a tokenizer.json or a tiktoken.json in its directory, or known from its documented name. A tiktoken.json
has two arguments of tiktoken.Encoding, {"pat_str": "…", "special_tokens": {"<|endoftext|>": 100257}}.
With canonical merges (for each piece only the last merge that produces it) the tokenizers library gives
the same ids as tiktoken, so it does the encoding. Source: openai/tiktoken src/lib.rs,
tiktoken_ext/openai_public.py; openai/whisper tokenizer.py; Qwen-7B tokenization_qwen.py; meta-llama/llama3
llama/tokenizer.py.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.tokenizers.families import hf_files
from tinydata.tokenizers.families.byte_bpe import CL100K_3, GPT2, LETTER_OF, O200K, QWEN, ByteLevelBPE
from tinydata.tokenizers.families.tokenizer_json import LONGEST, NEVER_IN_UTF8, SPARSE
from tinydata.tokenizers.kernels.bpe import BPE, Symbols, build_pairs
from tinydata.tokenizers.kernels.implied_merges import code_points, splits
from tinydata.tokenizers.kernels.merge_tree import merge_parts


class Encoding(NamedTuple):
    """What the name of a rank file implies."""

    ranks: int
    regex: str
    special: dict[str, int]
    normalizer: str = ""
    sample: dict[bytes, int] = {}  # noqa: RUF012 - ranks that such a file has, where its name says little


_END = "<|endoftext|>"
_FILL = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
ENCODINGS = {
    "gpt2": Encoding(50256, GPT2, {_END: 50256}),
    "r50k_base": Encoding(50256, GPT2, {_END: 50256}),
    "p50k_base": Encoding(50280, GPT2, {_END: 50256}),
    "p50k_edit": Encoding(50280, GPT2, {_END: 50256} | {t: 50281 + k for k, t in enumerate(_FILL)}),
    "cl100k_base": Encoding(
        100256, CL100K_3, {_END: 100257, "<|endofprompt|>": 100276} | {t: 100258 + k for k, t in enumerate(_FILL)}
    ),
    "o200k_base": Encoding(199998, O200K, {_END: 199999, "<|endofprompt|>": 200018}),
    "qwen": Encoding(
        151643,
        QWEN,
        {_END: 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
        | {f"<|extra_{k}|>": 151646 + k for k in range(205)},
        "NFC",
    ),
    "multilingual": Encoding(50257, GPT2, {_END: 50257}),  # Whisper's other special tokens differ by model
}
_RESERVED = [f"<|reserved_special_token_{k}|>" for k in range(251)]
_LLAMA3 = (  # the names of 3.0; later models name some of the reserved ones
    *("<|begin_of_text|>", "<|end_of_text|>", *_RESERVED[:4], "<|start_header_id|>", "<|end_header_id|>"),
    *(_RESERVED[4], "<|eot_id|>", *_RESERVED[5:]),
)
ENCODINGS["tokenizer.model"] = Encoding(
    128000,
    CL100K_3,
    {t: 128000 + k for k, t in enumerate(_LLAMA3)},
    sample={b" the": 279, b" function": 734, "的".encode(): 9554, b" SELECT": 19638},
)
_CONFIG = "tiktoken.json"


class Tiktoken(ByteLevelBPE):
    """A rank file; `config` is the equivalent tokenizer.json."""

    family = "tiktoken"

    @classmethod
    def from_ranks(cls, files: dict[str, bytes], path: str) -> Tiktoken:
        """{NAME.tiktoken, tokenizer.json or not} -> Tiktoken; raises TinydataError if the regex is not known."""
        name = next(iter(files))
        ranks = _read(files[name], path)
        config = hf_files.read(files, "tokenizer.json")
        if config:
            _check_same_vocab(config, ranks, path)
            config["model"]["ignore_merges"] = True
        else:
            known = _given(files, path) or _encoding(name.removesuffix(".tiktoken"), ranks, path)
            config = _as_json(ranks, known)
        return cls(files, config)

    def _with(self, config: dict[str, Any], new_id: dict[int, int]) -> Self:
        small = super()._with(config, new_id)
        added = {t["id"] for t in small.config["added_tokens"]}
        lines = (
            base64.b64encode(piece) + b" %d\n" % i
            for i, piece in enumerate(small.pieces)
            if i not in added and not small.gap[i]
        )
        name = next(iter(self.files))
        return type(self)({name: b"".join(lines), **small.files}, small.config)


def _read(content: bytes, path: str) -> dict[bytes, int]:
    """Lines -> {bytes: rank}."""
    ranks = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                token, rank = line.split()
                if token == b"=":  # the empty token, as some files list it, takes no part in merging
                    continue
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error):
                raise _no_ranks(f"line {number} is not base64, a space and a rank", path) from None
    if missing := [b for b in range(256) if bytes([b]) not in ranks and b not in NEVER_IN_UTF8]:
        raise _no_ranks(f"the byte {missing[0]:#04x} has no rank", path)
    if len(set(ranks.values())) < len(ranks) or min(ranks.values()) < 0:
        raise _no_ranks("a rank occurs twice, or is negative", path)
    if max(ranks.values()) > len(ranks) + SPARSE or max(map(len, ranks)) > LONGEST:
        raise _no_ranks(f"ranks up to {max(ranks.values()):,} for {len(ranks):,} tokens, or too long a token", path)
    return ranks


# The special tokens of tekken.json files that do not list them, in the order of their ids; others are <SPECIAL_20> …
_TEKKEN = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip


def from_tekken(content: bytes, path: str) -> dict[str, bytes]:
    """Mistral's tekken.json -> {tokenizer.json, tokenizer_config.json} with the same ids.

    Special tokens have the first ids, and a rank is counted from the id after them. Only the first ranks belong to
    the vocabulary: the file lists more. Source: mistralai/mistral-common tokens/tokenizers/tekken.py.
    """
    try:
        tekken = json.loads(content)
        config = tekken["config"]
        first, size = int(config["default_num_special_tokens"]), int(config["default_vocab_size"])
        listed = {int(t["rank"]): str(t["token_str"]) for t in tekken.get("special_tokens") or ()}
        rows = sorted((int(t["rank"]), base64.b64decode(t["token_bytes"])) for t in tekken["vocab"])[: size - first]
        regex = str(config["pattern"])
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as e:
        raise _no_ranks(f"tekken.json is damaged: {e!r}", path) from None
    special = listed or dict(enumerate(_TEKKEN))
    names = {special.get(i, f"<SPECIAL_{i}>"): i for i in range(first)}
    ranks = {token: rank for rank, token in rows}
    if (
        len(names) < first
        or len(ranks) < size - first
        or any(bytes([b]) not in ranks for b in range(256) if b not in NEVER_IN_UTF8)
    ):
        raise _no_ranks("tekken.json has too few tokens, one of them twice, or a byte without a rank", path)
    tokenizer = _as_json(ranks, Encoding(len(ranks), regex, names), first)
    edges = {"bos_token": special.get(1, "<s>"), "eos_token": special.get(2, "</s>"), "add_bos_token": True}
    return {"tokenizer.json": json.dumps(tokenizer).encode(), "tokenizer_config.json": json.dumps(edges).encode()}


def is_ranks(content: bytes) -> bool:
    """Whether a file begins as a rank file does, whatever its name."""
    return re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", content[:200]) is not None


def _given(files: dict[str, bytes], path: str) -> Encoding | None:
    """What a tiktoken.json in the directory says; None: there is none."""
    if _CONFIG not in files:
        return None
    given = hf_files.read(files, _CONFIG)
    special = {**{text: i for i, text in hf_files.added_tokens(files).items()}, **(given.get("special_tokens") or {})}
    if not isinstance(given.get("pat_str"), str) or not all(isinstance(i, int) and i >= 0 for i in special.values()):
        raise TinydataError(
            "tiktoken.json does not say how text is cut into words",
            where=str(path),
            fix='write {"pat_str": REGEX, "special_tokens": {TEXT: ID}}, as the arguments of tiktoken.Encoding',
            code=UNREADABLE,
        )
    return Encoding(0, given["pat_str"], special)


def _encoding(name: str, ranks: dict[bytes, int], path: str) -> Encoding:
    known = ENCODINGS.get(name)
    if known and known.ranks == len(ranks) and known.sample.items() <= ranks.items():
        return known
    if known and known.ranks == len(ranks):
        why = "it has as many ranks as the file of that name, but others"
    elif known:
        why = f"{len(ranks):,} ranks instead of the {known.ranks:,} of that name"
    else:
        why = "its name is not a known one"
    raise TinydataError(
        f"how this rank file's text is cut into words is not in the file, and not known: {why}",
        where=str(path),
        fix="put its tokenizer.json into the same directory, or a tiktoken.json with arguments of tiktoken.Encoding,"
        ' {"pat_str": REGEX, "special_tokens": {TEXT: ID}}; or rename the file to its documented name: '
        + ", ".join(n if "." in n else f"{n}.tiktoken" for n in ENCODINGS),
        code=UNREADABLE,
    )


def _check_same_vocab(config: dict[str, Any], ranks: dict[bytes, int], path: str) -> None:
    added = {t["content"] for t in config.get("added_tokens") or ()}
    vocab = {text: i for text, i in ((config.get("model") or {}).get("vocab") or {}).items() if text not in added}
    if vocab != {_letters(token): rank for token, rank in ranks.items()}:
        raise TinydataError(
            "the tokenizer.json in the directory of the rank file has other tokens or ids",
            where=str(path),
            fix="pass the one of the two that the ids were made with, in a directory of its own",
            code=UNREADABLE,
        )


def _letters(token: bytes) -> str:
    return "".join(LETTER_OF[b] for b in token)


def canonical_merges(ranks: dict[bytes, int]) -> list[list[bytes]]:
    """{bytes: rank} -> the two parts that each piece is merged from, by rank; ranks may be missing."""
    tokens = sorted(ranks, key=ranks.__getitem__)
    place = {token: k for k, token in enumerate(tokens)}
    texts = code_points([t.decode("latin-1") for t in tokens])
    left, right, result = splits(texts, np.arange(len(tokens)), np.ones(len(tokens), np.bool_)).T
    by_byte = np.array([place.get(bytes([b]), -1) for b in range(256)], np.int32)
    empty = np.zeros(0, np.int32)
    symbols = Symbols(by_byte, empty, empty, empty, 0, len(tokens))
    bpe = BPE(symbols, build_pairs(left, right, result, result))
    tree = merge_parts(tokens, np.array([len(t) == 1 for t in tokens]), bpe)
    rows = [tree.parts[a:b].tolist() for a, b in pairwise(tree.offsets.tolist())]
    return [[tokens[k] for k in row] for row in rows if len(row) == 2]


def _as_json(ranks: dict[bytes, int], known: Encoding, first: int = 0) -> dict[str, Any]:
    """Ranks -> the equivalent tokenizer.json; first: the id of rank 0."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    cut = {"type": "Split", "pattern": {"Regex": known.regex}, "behavior": "Isolated", "invert": False}
    vocab = {_letters(t): first + i for t, i in sorted(ranks.items(), key=lambda kv: kv[1])}
    vocab |= known.special  # or the library would give them the ids after the last of the vocabulary
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": t} | flags for t, i in sorted(known.special.items(), key=lambda kv: kv[1])
        ],
        "normalizer": {"type": known.normalizer} if known.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, level]},
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocab,
            "merges": [[_letters(a), _letters(b)] for a, b in canonical_merges(ranks)],
        },
    }


def _no_ranks(why: str, path: str) -> TinydataError:
    return TinydataError(
        f"this kind of tokenizer is not supported: not a rank file of tiktoken, {why}",
        where=str(path),
        fix="pass a .tiktoken file downloaded whole (a Git LFS pointer is 130 bytes)",
        code=UNREADABLE,
    )
