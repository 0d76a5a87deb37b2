"""Settings of a tokenizer.json: those that are counted by words, and those that are counted whole."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import LLAMA3, QWEN
from tests.tokenizers.helpers import (
    TRICKY,
    add_tokens,
    assert_counted,
    changed,
    counted,
    few,
    library,
    native,
    set_model,
    split_by,
)
from tinydata.tokenizers.families.merging import dead_pieces
from tinydata.tokenizers.open import open_tokenizer
from tinydata.tokenizers.probe import PROBE, agrees
from tinydata.verbs.compact.prune import kept, protected, removal_order


def _pre(config: dict[str, Any], **values: Any) -> None:
    config["pre_tokenizer"] |= values


def _no_newline(config: dict[str, Any]) -> None:
    del config["model"]["vocab"]["Ċ"]
    config["model"]["merges"] = [m for m in config["model"]["merges"] if "Ċ" not in "".join(m)]


def _unreachable(config: dict[str, Any]) -> None:
    """The last piece becomes one that no merge makes."""
    vocab, merges = config["model"]["vocab"], config["model"]["merges"]
    last = max(vocab, key=vocab.__getitem__)
    vocab["qzqzqz"] = vocab.pop(last)
    config["model"] |= {"ignore_merges": True, "merges": [m for m in merges if "".join(m) != last]}


def _whole_only(config: dict[str, Any]) -> None:
    """Every third piece loses its merges, long ones too: it is found as a whole word, if at all."""
    vocab, merges = config["model"]["vocab"], config["model"]["merges"]
    long = "".join(random.Random(14).choices("etaoin", k=40))
    new = ["中", "qzqzqz", *(f"Ġ{long[:n]}" for n in (14, 15, 16, 17, 40))]
    last = sorted(vocab, key=vocab.__getitem__)[-len(new) :]
    vocab |= {text: vocab.pop(old) for text, old in zip(new, last, strict=True)}
    gone = {*last, *sorted(vocab, key=vocab.__getitem__)[600:2500:3]}
    config["model"] |= {"ignore_merges": True, "merges": [m for m in merges if not gone & {"".join(m), *m}]}


def _no_merges(config: dict[str, Any]) -> None:
    vocab = [t for t in config["model"]["vocab"] if len(t) == 1]
    config["model"] |= {"merges": [], "vocab": {t: i for i, t in enumerate(vocab)}}
    config["added_tokens"] = []


WHOLE_ONLY: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a prefix space": (lambda c: _pre(c, add_prefix_space=True), "pre-tokenizer"),
    "no regex": (lambda c: _pre(c, use_regex=False), "pre-tokenizer"),
    "an unknown regex": (lambda c: split_by(c, r"\\p{L}+|\\s+"), "pre-tokenizer"),
    "o200k-like digits": (lambda c: split_by(c, QWEN.replace(r"|\p{N}|", r"|\p{N}{1,2}|")), "pre-tokenizer"),
    "removed matches": (lambda c: split_by(c, behavior="Removed"), "pre-tokenizer"),
    "merged matches": (lambda c: split_by(c, behavior="MergedWithPrevious"), "pre-tokenizer"),
    "inverted": (lambda c: split_by(c, invert=True), "pre-tokenizer"),
    "a string, no regex": (lambda c: split_by(c, pattern={"String": " "}), "pre-tokenizer"),
    "no pre-tokenizer": (lambda c: c.update(pre_tokenizer=None), "pre-tokenizer"),
    "no newline byte": (_no_newline, "byte symbols"),
    "two passes that overlap": (
        lambda c: add_tokens(c, ("<ab>", {"normalized": True}), ("b>c", {"normalized": False})),
        "two passes",
    ),
}


@pytest.mark.parametrize("what", WHOLE_ONLY)
def test_exotic_settings_are_counted_whole(byte_bpe: Path, text: list[str], what: str) -> None:
    change, reason = WHOLE_ONLY[what]
    tok = changed(byte_bpe / "gpt2", change)
    assert tok.cutter is None and reason in tok.why_not
    assert not agrees(tok, PROBE)
    assert_counted(tok, ["qzqzqz <ab>c b>c", *text[::20]])


def test_dropout_is_not_counted_by_words(byte_bpe: Path) -> None:
    tok = changed(byte_bpe / "gpt2", lambda c: set_model(c, dropout=0.1))
    assert tok.cutter is None and "dropout" in tok.why_not


WORDS_STILL: dict[str, Callable[[dict[str, Any]], None]] = {
    "cl100k digits without limit": lambda c: split_by(c, QWEN.replace(r"|\p{N}|", r"|\p{N}+|")),
    "llama3": lambda c: split_by(c, LLAMA3),
    "ignore_merges": lambda c: set_model(c, ignore_merges=True),
    "a whole word that merging never makes": _unreachable,
    "many such words": lambda c: _whole_only(c),
    "truncation and padding": lambda c: c.update(
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "!",
        },
    ),
    "merges as strings": lambda c: set_model(
        c, merges=[m if isinstance(m, str) else " ".join(m) for m in c["model"]["merges"]]
    ),
    "a merge twice": lambda c: set_model(c, merges=[*c["model"]["merges"], *c["model"]["merges"][:40]]),
    "no merges": _no_merges,
    "one pre-tokenizer in a sequence": lambda c: c.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [c["pre_tokenizer"]]}
    ),
    "an empty added token": lambda c: add_tokens(c, ("", {})),
    "added: plain and special": lambda c: add_tokens(
        c, ("[X]", {}), ("[XY]", {"special": True}), ("[XY", {}), (" [Z]", {})
    ),
    "added: normalized": lambda c: add_tokens(c, ("[X]", {"normalized": True}), ("é!", {"normalized": True})),
    "added: pieces and words": lambda c: add_tokens(
        c, ("the", {}), ("q", {"normalized": True}), ("  ", {}), ("\n\n", {})
    ),
    "added: lstrip": lambda c: add_tokens(c, ("[X]", {"lstrip": True}), ("[XY]", {})),
    "added: rstrip": lambda c: add_tokens(c, ("[X]", {"rstrip": True}), ("[XY]", {"special": True})),
    "added: both": lambda c: add_tokens(c, ("[X]", {"rstrip": True, "lstrip": True}), ("[Y]", {"normalized": True})),
    "added: single word": lambda c: add_tokens(c, ("word", {"single_word": True}), ("[X]", {})),
    "added: single word and strip": lambda c: add_tokens(c, ("word", {"single_word": True, "lstrip": True})),
}
AROUND_ADDED = [
    "[X] [XY] [XY[X]] [XYZ [Z] x[Z] [Y][X][X]  [X]\n[X]",
    " [X]  [XY]  [X]word[X] [X",
    "\n\n[X]\n\n\n[XY]\r\n",
    "word words word-word sword word\u0301 _word word_ (word) 1word word",
    "the theatre, bathe  the   the\n\nthe é!é! e\u0301! É!",
    "<|endoftext|>a<|endoftext|> <|im_start|>user\n<|im_end|><|im_end",
]


@pytest.mark.parametrize("what", WORDS_STILL)
def test_settings_that_still_allow_words(byte_bpe: Path, text: list[str], what: str) -> None:
    tok = changed(byte_bpe / "gpt2", WORDS_STILL[what])
    assert tok.cutter is not None and tok.why_not == ""
    long = " ".join(p.decode() for p in tok.whole_words)
    assert_counted(tok, [*AROUND_ADDED, long, f"x{long}", *TRICKY, *text[::5]])


def test_whole_words_are_removed_for_what_merging_makes_of_them(byte_bpe: Path, text: list[str]) -> None:
    """Looked up first, a piece without merges is alive; its text is merged when it is gone."""
    tok = changed(byte_bpe / "gpt2", _whole_only)
    tree, whole = tok.tree(), set(tok.whole_words.values())
    assert (
        len(whole) > 500
        and dead_pieces(changed(byte_bpe / "gpt2", lambda c: _whole_only(c) or set_model(c, ignore_merges=False))).size
    )
    train = counted(tok, text, bits=14)[0]
    assert train[list(whole)].sum() > 1000
    order = removal_order(tok, tree, train, protected(tok, tree, train[None]))
    assert set(np.flatnonzero(~tree.reachable)) == set(order.removed[: (~tree.reachable).sum()].tolist())
    at = next(k for k, i in enumerate(order.removed.tolist()) if i in whole and train[i] > 3)
    before, after = (np.flatnonzero(kept(tok, order, tok.size - k)) for k in (at, at + 1))
    added = library(tok.subset(after), text).sum() - library(tok.subset(before), text).sum()
    assert added == order.cost[at] - order.cost[at - 1] > 0
    for size in (2000, 1000, 300):
        small = tok.subset(np.flatnonzero(kept(tok, order, size)))
        assert dead_pieces(small).tolist() == []
        assert_counted(small, [*TRICKY, *text[::5]])


NORMALIZERS: dict[str, Any] = {
    "NFC": {"type": "NFC"},
    "NFD": {"type": "NFD"},
    "NFKC": {"type": "NFKC"},
    "NFKD": {"type": "NFKD"},
    "lowercase": {"type": "Lowercase"},
    "strip": {"type": "Strip", "strip_left": True, "strip_right": True},
    "replace": {"type": "Replace", "pattern": {"String": "a"}, "content": "bb"},
    "several": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]},
}
ACCENTS = [
    "e\u0301 é a\u0308\u0301 \u0301 x\u0323\u0307 x\u0307\u0323 \u212b \u2126 \u0340",
    "한국 \u1112\u1161\u11ab\u1100\u116e\u11a8 \uac00\u11a8 \u1100\u1100\u1161",
    "\u0915\u093c \u0958 \u09c7\u09be \u0b47\u0b56 \u1025\u102e \u3046\u3099 \u304b\u3099 \ufa30 \U0001d15e",
    "ﬁ Ⅷ ½ Ａ １ ㍿ ﷺ İ ẞ Σς ΑΣ \u1e9b\u0323 \U00011131\U00011127",
]


@pytest.mark.parametrize("what", NORMALIZERS)
@pytest.mark.parametrize("added", ["none", "raw", "normalized", "changing", "stripping"])
def test_normalizers(byte_bpe: Path, text: list[str], what: str, added: str) -> None:
    extra = {
        "none": (),
        "raw": (("[X]", {}), ("é", {})),
        "normalized": (("[x]", {"normalized": True}),),
        "changing": (("[X]É", {"normalized": True}), ("e\u0301a", {"normalized": True})),
        "stripping": (("é", {"normalized": True, "lstrip": True}), ("[X]", {"rstrip": True})),
    }[added]

    def change(config: dict[str, Any]) -> None:
        config["normalizer"] = NORMALIZERS[what]
        add_tokens(config, *extra)

    tok = changed(byte_bpe / "gpt2", change)
    near = [
        f"{a} {b}{a}{c}"
        for a in ("[X]", "[x]", "é", "e\u0301", "[X]É", "[x]é", "[X]e\u0301a")
        for b in ("", "\u0301")
        for c in "aÅ"
    ]
    assert_counted(tok, [*ACCENTS, *near, *AROUND_ADDED, *([*TRICKY, *text[::9]] if added == "none" else [])])


@few
@given(
    texts=st.lists(
        st.text(alphabet="aeoAÅ\u0301\u0308\u0323\u0327é가\u1100\u1161\u11a8각がか\u3099क\u093c Ω1", max_size=25),
        max_size=5,
    )
)
def test_nfc_of_any_marks(byte_bpe: Path, texts: list[str]) -> None:
    assert_counted(open_tokenizer(str(byte_bpe / "qwen")), texts)


def test_characters_taken_as_safe_from_nfc_are(byte_bpe: Path) -> None:
    """All of them side by side, both ways round and behind letters that compose: NFC leaves them alone."""
    tok = open_tokenizer(str(byte_bpe / "qwen"))
    assert tok.may_change is not None
    safe = [chr(c) for c in np.flatnonzero(tok.may_change == 0).tolist()]
    assert len(safe) > 100_000 and set(string.printable) < set(safe)
    composing = "aeiouAEIOUYyдЖαω\u1100\uac00\u09c7\u0b47\u1025\u304b\u30ab\U000110a5\u0cc6"
    for order in (
        "".join(safe),
        "".join(reversed(safe)),
        *("".join(c + s for s in safe) for c in composing if c in safe),
    ):
        assert native(tok).normalizer.normalize_str(order) == order


def _metaspace(scheme: str, split: bool = False) -> dict[str, Any]:
    cut = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}
    return {"normalizer": None, "pre_tokenizer": cut}


def _of_gemma(config: dict[str, Any]) -> None:
    """Spaces by the normalizer, a split that finds none, no byte for what has a piece, and tokens with line ends."""
    config["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    config["pre_tokenizer"] = split
    del config["model"]["vocab"]["<0x61>"]
    add_tokens(config, ("\n\n", {}), ("\n\n\n", {}), ("\u2581\u2581", {}), ("  [X]", {"special": True}))


CHARACTERS: dict[str, Callable[[dict[str, Any]], None]] = {
    **{s: lambda c, s=s: c.update(_metaspace(s)) for s in ("first", "always", "never")},  # type: ignore[misc]
    "gemma": _of_gemma,
    "added": lambda c: add_tokens(c, ("[X]", {}), (" [XY]", {"special": True}), ("the", {}), ("[X", {})),
    "lstrip": lambda c: add_tokens(c, ("[X]", {"lstrip": True}), ("[XY]", {})),
}


@pytest.mark.parametrize("what", CHARACTERS)
def test_characters_merge_word_by_word(matching: Path, text: list[str], what: str) -> None:
    tok = changed(matching / "char_json", CHARACTERS[what])
    assert tok.why_not == "" and tok.cutter is not None
    more = ["[X] [XY] a[XY][X]", "</s>a</s> a", " </s>", "\u2581a", "</s>\u2581a </s>  b", " \u2581 \u2581\u2581x"]
    assert_counted(tok, [*AROUND_ADDED, *more, *TRICKY, *text[::5]])


CHARACTERS_WHOLE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "split at blanks": (lambda c: c.update(_metaspace("first", True)), "write spaces"),
    "another normalizer": (lambda c: c.update(normalizer={"type": "NFC"}), "write spaces"),
    "no byte fallback": (lambda c: c["model"].update(byte_fallback=False), "byte fallback"),
    "a missing byte": (lambda c: c["model"]["vocab"].pop("<0xE4>"), "byte fallback"),
    "whole texts": (lambda c: set_model(c, ignore_merges=True), "whole texts"),
    "a token in normalized text": (lambda c: add_tokens(c, ("[X]", {"normalized": True})), "with ▁ for spaces"),
}


@pytest.mark.parametrize("what", CHARACTERS_WHOLE)
def test_characters_that_only_the_library_encodes(matching: Path, text: list[str], what: str) -> None:
    change, reason = CHARACTERS_WHOLE[what]
    tok = changed(matching / "char_json", change)
    assert tok.cutter is None and reason in tok.why_not
    assert_counted(tok, ["[X] a [X]", *text[::20]])
