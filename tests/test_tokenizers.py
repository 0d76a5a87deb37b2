"""One suite that every tokenizer passes: what is counted, merged, cut down and saved is what its own library says.

The trained ones of conftest always, real ones where `../shared/data` is. `library` is the oracle
throughout: sentencepiece or tokenizers, asked about whole documents.
"""

from __future__ import annotations

import base64
import heapq
import json
import random
import string
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from conftest import LLAMA3, QWEN, SENTENCES, SYMBOLS, train_pieces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Tokenizers

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.tokenizers.base import ADDED, BYTE, CONTROL, NORMAL, Tokenizer, fingerprint
from tinydata.tokenizers.decoder import Decoder
from tinydata.tokenizers.families import byte_bpe as bytebpe
from tinydata.tokenizers.families.matching import Matching
from tinydata.tokenizers.families.merging import dead_pieces
from tinydata.tokenizers.families.tiktoken import canonical_merges
from tinydata.tokenizers.kernels.bpe import SHORT, encode, merge_long, merge_short
from tinydata.tokenizers.kernels.merge_tree import Tree
from tinydata.tokenizers.kernels.words import word_at
from tinydata.tokenizers.open import load, open_tokenizer
from tinydata.tokenizers.probe import PROBE, agrees
from tinydata.tokenizers.text_counter import TextCounter
from tinydata.tokenizers.text_encoder import TextEncoder
from tinydata.verbs.compact.prune import Order, kept, protected, removal_order

TRAINED = {
    "gpt2": ("byte_bpe", "gpt2"),
    "qwen": ("byte_bpe", "qwen"),
    "llama3": ("byte_bpe", "llama3"),
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
    "stories_512": "models/stories260K/hf/tokenizer.model",
    "stories_hf": "models/stories260K/hf",  # with its tokenizer.json and tokenizer_config.json
    "nfkc_1000": "tokenizers/sp_bpe/transformers_fixture_1000",
    "gpt2_50257": "tokenizers/bytebpe/gpt2_50257",
    "neox_50280": "tokenizers/bytebpe/olmo_gpt_neox_v1_5",
    "unigram_1000": "tokenizers/sp_unigram/transformers_fixture_1000",
    "t5_32000": "tokenizers/sp_unigram/t5_base_32000",
    "bert_28996": "tokenizers/wordpiece/bert_base_cased_28996",
    "stories_json": "models/stories260K/hf/tokenizer.json",
    "tiktoken_50257": "tokenizers/tiktoken/whisper_gpt2",
}

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
    if (counted(tok, texts, bits=bits) == library(tok, texts)).all():
        ids, ends = TextEncoder(tok, bits=bits).encode(pa.array(texts, pa.string()))
        rows = (ids[a:b].tolist() for a, b in pairwise(ends))
        wrong = [t for t, row, own in zip(texts, rows, tok.encode(texts), strict=True) if row != own]
        assert not wrong, f"encoded otherwise than by the library: {min(wrong, key=len)[:200]!r}"
        return
    wrong = [t for t in texts if (counted(tok, [t], bits=bits) != library(tok, [t])).any()]
    shortest = min(wrong, key=len, default="only together")
    raise AssertionError(f"{shortest[:200]!r}: the library gives {tok.encode([shortest])[0][:50]}")


@pytest.fixture(scope="module", params=[*TRAINED, *REAL])
def tok(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param in TRAINED:
        family, name = TRAINED[request.param]
        return open_tokenizer(str(request.getfixturevalue(family) / name))
    return open_tokenizer(str(request.getfixturevalue("shared") / REAL[request.param]))


@pytest.fixture
def merging(tok: Tokenizer) -> Tokenizer:
    if isinstance(tok, Matching):
        pytest.skip("its pieces are not merged")
    return tok


@pytest.fixture
def matching_tok(tok: Tokenizer) -> Tokenizer:
    if not isinstance(tok, Matching):
        pytest.skip("its pieces are merged")
    return tok


@pytest.fixture(scope="session")
def documents(text: list[str]) -> list[str]:
    """The text of conftest, and beginnings of documents of each real corpus where they are."""
    from conftest import SHARED

    real = []
    for file in sorted((SHARED / "corpora").glob("*.jsonl.zst")):
        with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as f:
            lines = f.read(1 << 17).split(b"\n")[:-1]
        real += [json.loads(line)["text"][:1500] for line in lines[:10]]
    return text + real


# -- counting ---------------------------------------------------------------------------------


def test_words_come_first_wherever_they_may(tok: Tokenizer) -> None:
    whole = _counted_whole(tok)
    assert (tok.cutter is None) == bool(tok.why_not) == whole
    assert agrees(tok, PROBE) == (not whole)


def test_tricky_text_is_counted_as_the_library_does(tok: Tokenizer) -> None:
    assert_counted(tok, TRICKY)
    assert_counted(tok, [a + b for a, b in pairwise(TRICKY)], bits=8)


def test_real_text_is_counted_as_the_library_does(tok: Tokenizer, documents: list[str]) -> None:
    assert_counted(tok, documents, bits=8)


letters = "aeiost'sSdDmlLrRvVeEtT"
blanks = " \t\n\r\x0b\u00a0\u3000\u2028"
marks = "0189٣½.,!?-_'’\"▁Ġ"
wide = "éßſſKﬁİıñЖжבعक्षि\u0301\u0327\u200d中漢字かなカ가각가🙂👩\u2581"
any_text = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=letters + blanks + marks + wide, max_size=60),
    st.text(alphabet="ab \n'1", max_size=120),
)


@few
@given(texts=st.lists(any_text, max_size=6))
def test_any_text_is_counted_as_the_library_does(tok: Tokenizer, texts: list[str]) -> None:
    assert_counted(tok, texts)


@cache
def printable(tok: Tokenizer) -> list[str]:
    """Pieces that are text by themselves, a few thousand."""
    out = [p.decode() for p in tok.pieces if p and p.decode("utf-8", "ignore").encode() == p]
    return random.Random(5).sample(out, min(len(out), 3000))


@few
@given(data=st.data())
def test_text_of_pieces_is_counted_as_the_library_does(tok: Tokenizer, data: st.DataObject) -> None:
    pieces = st.lists(st.sampled_from(printable(tok)), max_size=20).map("".join)
    assert_counted(tok, data.draw(st.lists(pieces, max_size=5)))


@few
@given(data=st.data())
def test_special_tokens_inside_text_are_counted_as_the_library_does(tok: Tokenizer, data: st.DataObject) -> None:
    whole = [p.decode() for p, kind in zip(tok.pieces, tok.kinds, strict=True) if kind in (CONTROL, ADDED) and p]
    whole = random.Random(6).sample(whole, min(len(whole), 50))
    parts = [*whole, *(w[:-1] for w in whole), *(w[1:] for w in whole), "a", " ", "\n", "word", "中", "  ", "'s", "1"]
    assert_counted(tok, data.draw(st.lists(st.lists(st.sampled_from(parts), max_size=12).map("".join), max_size=4)))


def long_runs() -> list[str]:
    rng = random.Random(7)
    line = "".join(rng.choices(string.ascii_lowercase, k=100_000))
    return ["a" * 200_000, line, "x" + line[:5_000] + " " * 3_000 + "y", "中" * 5_000, "=" * 4_097 + "\n" * 999]


def test_long_runs_are_counted_as_the_library_does(tok: Tokenizer) -> None:
    assert_counted(tok, ["before", *long_runs(), "", "after"])


def test_empty_documents_count_for_nothing(tok: Tokenizer) -> None:
    assert counted(tok, []).sum() == 0
    assert counted(tok, ["", "", ""]).sum() == 0
    texts = ["", "a", "", "b", ""]
    assert (counted(tok, texts, [0, 0, 1, 1, 2]) == library(tok, texts, [0, 0, 1, 1, 2])).all()


@pytest.mark.parametrize("bits", [6, 7, 8, 20])
def test_groups_are_kept_apart_across_batches(tok: Tokenizer, text: list[str], bits: int) -> None:
    rng = random.Random(8)
    texts = [*TRICKY, *(t[:300] for t in text)]
    groups = [rng.randrange(5) for _ in texts]
    column, where = pa.array(texts, pa.string()), np.array(groups, np.int32)
    counter = TextCounter(tok, bits=bits)
    for a, b in pairwise([0, 1, 1, 40, 200, len(texts)]):  # slices of one buffer, one of them empty
        counter.grow(int(where[:b].max(initial=0)) + 1)
        counter.add(column[a:b], where[a:b])
    assert (counter.finish() == library(tok, texts, groups)).all()


def our_words(tok: Tokenizer, text: str) -> list[str]:
    data = np.frombuffer(text.encode() or b"\0", np.uint8)
    out, at, stop = [], 0, len(text.encode())
    while at < stop:
        end = word_at(data, at, stop, tok.cutter)
        out.append(bytes(data[at:end]).decode())
        at = end
    return out


@pytest.mark.parametrize("name", ["gpt2", "qwen", "llama3", "digits"])
def test_words_are_cut_where_the_regex_cuts(byte_bpe: Path, documents: list[str], name: str) -> None:
    """Ids alone do not show it: a merge across the wrong place may not exist."""
    if name == "digits":
        tok = changed(byte_bpe / "gpt2", lambda c: _split_by(c, QWEN.replace(r"|\p{N}|", r"|\p{N}+|")))
    else:
        tok = open_tokenizer(str(byte_bpe / name))

    def check(text: str) -> None:
        if not any(t["content"] in text for t in tok.config["added_tokens"]):  # type: ignore[attr-defined]
            theirs = [text[a:b] for _, (a, b) in native(tok).pre_tokenizer.pre_tokenize_str(text)]
            assert our_words(tok, text) == theirs

    for text in [*TRICKY, *(a + b for a, b in pairwise(TRICKY)), *documents]:
        check(text)
    settings(few, max_examples=300)(given(any_text)(check))()


# -- the merge procedure ----------------------------------------------------------------------


def native_word(tok: Tokenizer, word: str) -> list[int]:
    """Ids of a stretch of text that is not cut."""
    if tok.family == "sentencepiece-bpe":
        return tok.encode([word])[0]
    if tok.family == "character-bpe":
        return [t.id for t in native(tok).model.tokenize(word.replace(" ", "▁"))]
    letters = "".join(bytebpe.LETTER_OF[b] for b in word.encode())
    return [t.id for t in native(tok).model.tokenize(letters)]


def compiled_word(tok: Tokenizer, word: str) -> list[int]:
    data = np.frombuffer(word.encode(), np.uint8)
    sym, value, chars = np.empty(2048, np.int32), np.empty(2048, np.int64), np.empty(2048, np.int32)
    prefix = tok.symbols.by_char[0x20] if getattr(tok, "proto", None) and _has_prefix(tok) else -1
    n = encode(data, 0, len(data), prefix, tok.symbols, tok.pairs, sym, value, chars, -1)
    return sym[:n].tolist()


def _has_prefix(tok: Any) -> bool:
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


def test_compiled_merging_is_the_librarys(merging: Tokenizer, text: list[str]) -> None:
    tok = merging
    sample = words(text, 150)
    if _rewrites(tok):  # only what its normalizer leaves alone
        sample = ["".join(c for c in w if c in string.ascii_letters + "𐍈ꙮ") or "a" for w in sample]
    wrong = [w for w in sample if compiled_word(tok, w) != native_word(tok, w)]
    assert not wrong, min(wrong, key=len)


def _rewrites(tok: Any) -> bool:
    return tok.family == "sentencepiece-bpe" and tok._rewrites


def _counted_whole(tok: Tokenizer) -> bool:
    return isinstance(tok, Matching) or tok.family == "character-bpe" or _rewrites(tok)


def test_both_ways_to_merge_are_the_same(merging: Tokenizer, text: list[str]) -> None:
    tok = merging
    by_char = tok.symbols.by_char
    rng = random.Random(10)
    for word in words(text, 150):
        first = by_char[[ord(c) for c in word]] if len(by_char) else tok.symbols.by_byte[list(word.encode())]
        first = np.where(first < 0, -1000, first).astype(np.int32)  # a character in no piece
        for banned in (-1, rng.randrange(tok.size)):
            a, b, value = first.copy(), first.copy(), np.empty(len(first), np.int64)
            short = merge_short(a, len(a), value, tok.pairs, banned)
            assert a[:short].tolist() == b[: merge_long(b, len(b), tok.pairs, banned)].tolist()
    assert SHORT < 300  # else the long way was not taken above


# -- the merge tree ---------------------------------------------------------------------------


def merged(symbols: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """BPE as one would explain it: the best pair first, the leftmost of equals, until there is none."""
    while True:
        ranked = [(r, k) for k, (a, b) in enumerate(pairwise(symbols)) if (r := rank(a, b)) is not None]
        if not ranked:
            return symbols
        k = min(ranked)[1]
        symbols = [*symbols[:k], symbols[k] + symbols[k + 1], *symbols[k + 2 :]]


def parts_by_bytes(tok: Any, i: int, banned: int) -> list[int]:
    ranks = _ranks(tok)
    gone = native(tok).id_to_token(banned) if banned >= 0 else None
    ends = merged(list(native(tok).id_to_token(i)), lambda a, b: None if a + b == gone else ranks.get((a, b)))
    if tok.family == "character-bpe" and gone in ends:
        ends = [f"<0x{b:02X}>" for s in ends for b in s.encode()]
    return [native(tok).token_to_id(s) for s in ends]


@cache
def _ranks(tok: Any) -> dict[tuple[str, str], int]:
    merges = tok.config["model"]["merges"]
    return {tuple(m.split(" ") if isinstance(m, str) else m): r for r, m in enumerate(merges)}


def parts_by_scores(tok: Any, i: int, banned: int) -> list[int]:
    model = native(tok)
    may = {s for s in _substrings(model.id_to_piece(i)) if _mergeable(tok, s) and model.piece_to_id(s) != banned}
    ends = merged(list(model.id_to_piece(i)), lambda a, b: -model.get_score(model[a + b]) if a + b in may else None)
    out: list[int] = []
    for s in ends:
        known = _mergeable(tok, s) and model.piece_to_id(s) != banned
        out += [model.piece_to_id(s)] if known else [model.piece_to_id(f"<0x{b:02X}>") for b in s.encode()]
    return out


def _substrings(s: str) -> set[str]:
    return {s[a:b] for a in range(len(s)) for b in range(a + 1, len(s) + 1)}


def _mergeable(tok: Any, s: str) -> bool:
    i = native(tok).piece_to_id(s)
    return native(tok).id_to_piece(i) == s and tok.kinds[i] == NORMAL and s != "\0"


def test_the_tree_is_what_merging_without_the_piece_leaves(merging: Tokenizer) -> None:
    tok = merging
    tree = tok.tree()
    normal = np.flatnonzero((tok.kinds == NORMAL) & ~tok.gap).tolist()
    if (tok.kinds == BYTE).sum() == 0:  # nothing to spell a removed character with
        normal = [i for i in normal if len(tok.pieces[i].decode()) > 1]
    single = [i for i in normal if len(tok.pieces[i].decode("utf-8", "ignore")) == 1]
    dead = np.flatnonzero(~tree.reachable).tolist()
    rng = random.Random(11)
    reference = parts_by_scores if tok.family == "sentencepiece-bpe" else parts_by_bytes
    for i in {*rng.sample(normal, min(300, len(normal))), *rng.sample(single, min(50, len(single))), *dead[:50]}:
        assert tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist() == reference(tok, i, i), tok.pieces[i]
        assert tree.reachable[i] == (reference(tok, i, -1) == [i]), tok.pieces[i]
    for i in np.flatnonzero(tok.kinds != NORMAL):
        assert tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist() == [i]


def test_reachable_is_what_the_library_makes_of_a_pieces_own_text(merging: Tokenizer) -> None:
    tok = merging
    if tok.family == "sentencepiece-bpe" and (_has_prefix(tok) or _rewrites(tok)):
        pytest.skip("the library never encodes a text without its prefix")
    normal = [i for i in np.flatnonzero(tok.kinds == NORMAL).tolist() if tok.pieces[i].decode("utf-8", "ignore")]
    normal = [i for i in normal if tok.pieces[i].decode("utf-8", "ignore").encode() == tok.pieces[i]]
    texts = [tok.pieces[i].decode() for i in normal]
    made = tok.encode(texts) if tok.family == "sentencepiece-bpe" else [native_word(tok, t) for t in texts]
    assert tok.tree().reachable[normal].tolist() == [ids == [i] for ids, i in zip(made, normal, strict=True)]


def test_a_piece_without_a_way_to_it_is_dead(spm: Path) -> None:
    tok = remade(spm / "prefix", lambda p: [_piece(p, "xqzqx", 1, -1.0), _piece(p, "the the", 1, -1.0)])
    assert dead_pieces(tok).tolist() == [2000, 2001]


def test_pieces_are_spelled_as_the_library_spells_them(merging: Tokenizer, text: list[str]) -> None:
    tok = merging
    some = [w for w in words(text, 30) if len(w) > 1 and not _rewrites(tok)]
    if tok.family == "sentencepiece-bpe" and _has_prefix(tok):
        some = []  # inside a text there is no prefix, and the library always puts one
    assert [ids.tolist() for ids in tok.spell([w.encode() for w in some])] == [native_word(tok, w) for w in some]
    assert [ids.tolist() for ids in tok.spell([b""])] == [[]]


def segmented(tok: Any, text: str, banned: int = -1) -> list[int]:
    """Ids of characters as the trie has them, as one would explain it; [] where some character has no piece."""
    pieces = _matched(tok)
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
def _matched(tok: Any) -> dict[str, int]:
    return {t: i for i, t in enumerate(tok.characters()) if t}


def test_matched_pieces_fall_back_on_what_matches_without_them(matching_tok: Tokenizer) -> None:
    tok: Any = matching_tok
    tree, texts = tok.tree(), tok.characters()
    may = np.flatnonzero(tok.removable()).tolist()
    for i in random.Random(13).sample(may, min(400, len(may))):
        parts = tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist()
        expected = segmented(tok, texts[i], i)
        assert not expected or parts == expected, texts[i]
        if expected or tok.byte_ids.size:
            assert b"".join(tok.pieces[p] for p in parts) == tok.pieces[i]
        else:  # a character that no text is cut down to
            assert not tree.reachable[i]
        if tok.family != "wordpiece":
            assert tree.reachable[i] == (segmented(tok, texts[i]) == [i])
    for i in np.flatnonzero(tok.kinds != NORMAL):
        assert tree.parts[tree.offsets[i] : tree.offsets[i + 1]].tolist() == [i]


def test_matched_words_are_spelled_as_the_library_spells_them(matching_tok: Tokenizer, text: list[str]) -> None:
    """Words of letters, which no normalizer touches, with the blank in front that most of these put there."""
    tok = matching_tok
    plain = {w.lower() for t in text for w in t.split() if w.isascii() and w.isalpha()}
    some = sorted(plain)[::3]
    begin = "" if tok.family == "sentencepiece-unigram" and not _has_prefix(tok) else " "
    assert [ids.tolist() for ids in tok.spell([(begin + w).encode() for w in some])] == tok.encode(some)
    assert [ids.tolist() for ids in tok.spell([b""])] == [[]]


@pytest.mark.parametrize("name", ["unigram", "unigram_bytes", "wordpiece"])
def test_matched_pieces_go_cheapest_first(matching: Path, text: list[str], name: str) -> None:
    """As one would do it: look at all that is left, take off the cheapest, again."""
    big: Any = open_tokenizer(str(matching / name))
    train = library(big, text)[0]
    locked = protected(big, big.tree(), train[None])
    used = np.flatnonzero(~locked)
    rest = used[np.argsort(-train[used], kind="stable")][200:]  # to have it done in time: only some are there
    tok: Any = big.subset(np.setdiff1d(np.arange(big.size), rest))
    count = library(tok, text)[0]
    locked = protected(tok, tok.tree(), count[None])
    order = removal_order(tok, tok.tree(), count, locked)
    turn, kept_ids = tok.tree().reachable, set(np.flatnonzero(~locked).tolist())
    texts, pieces = tok.characters(), dict(_matched(tok))
    flowing, cost = count.tolist(), []
    for gone in order.removed.tolist()[:80]:
        prices = {}
        for i in kept_ids:
            _matched(tok).pop(texts[i])
            parts = segmented(tok, texts[i]) or list(range(1 + len(texts[i].encode())))
            prices[i] = (turn[i], flowing[i] * (len(parts) - 1) * turn[i], -i, parts)
            _matched(tok)[texts[i]] = i
        best = min(prices, key=lambda i: prices[i][:3])
        assert best == gone
        cost.append(int(prices[best][1]))
        for p in prices[best][3]:
            flowing[p] += flowing[best]
        kept_ids.remove(best)
        del _matched(tok)[texts[best]]
    assert order.cost[: len(cost)].tolist() == np.cumsum(cost).tolist()
    assert pieces


# -- the order of removal ---------------------------------------------------------------------


class Cut(NamedTuple):
    tree: Tree
    train: np.ndarray  # int64[ids]
    locked: np.ndarray  # bool[ids]
    order: Order


@pytest.fixture(scope="module")
def cut(tok: Tokenizer, documents: list[str]) -> Cut:
    train = counted(tok, documents, bits=14)[0]
    tree = tok.tree()
    locked = protected(tok, tree, train[None])
    return Cut(tree, train, locked, removal_order(tok, tree, train, locked))


def leaf_removal(tok: Tokenizer, cut: Cut) -> list[int]:
    """Cumulative cost of taking off, again and again, the leaf that costs least; its count flows to its parts.

    Pieces that are never produced go first, for nothing.
    """
    tree, count = cut.tree, cut.train.tolist()
    parts = [tree.parts[a:b].tolist() for a, b in pairwise(tree.offsets)]
    users = [0] * tok.size  # kept pieces that are made of this one
    for i in range(tok.size):
        for p in set(parts[i]) - {i}:
            users[p] += 1

    def price(i: int) -> tuple[bool, int, int]:
        return bool(tree.reachable[i]), count[i] * (len(parts[i]) - 1), i

    heap = [price(i) for i in range(tok.size) if not cut.locked[i] and not users[i]]
    heapq.heapify(heap)
    total = [0]
    while heap:
        produced, cost, i = heapq.heappop(heap)
        total.append(total[-1] + cost * produced)
        for p in parts[i]:
            if p != i:
                count[p] += count[i]
        for p in set(parts[i]) - {i}:
            users[p] -= 1
            if not users[p] and not cut.locked[p]:
                heapq.heappush(heap, price(p))
    return total[1:]


def test_the_order_costs_what_leaf_removal_costs(merging: Tokenizer, cut: Cut) -> None:
    assert cut.order.cost.tolist() == leaf_removal(merging, cut)


def test_every_prefix_of_the_order_is_closed(tok: Tokenizer, cut: Cut) -> None:
    """A piece goes only when all that is made of it is gone; protected ones never."""
    place = np.full(tok.size, tok.size)
    place[cut.order.removed] = np.arange(len(cut.order.removed))
    assert not cut.locked[cut.order.removed].any()
    assert len(set(cut.order.removed.tolist())) == len(cut.order.removed) == (~cut.locked).sum()
    for i in np.flatnonzero(cut.tree.reachable & ~cut.locked & (not isinstance(tok, Matching))):
        for p in cut.tree.parts[cut.tree.offsets[i] : cut.tree.offsets[i + 1]]:
            assert p == i or place[p] > place[i], (tok.pieces[i], tok.pieces[p])


def test_no_piece_dies_where_its_characters_are_no_pieces(spm: Path, text: list[str]) -> None:
    """Such a piece costs more than its parts: without it, its character is four bytes."""
    tok = remade(spm / "plain", lambda p: [_piece(p, "éж", 1, -1.0), _piece(p, "𐍈éж", 1, -2.0)])
    tree = tok.tree()
    train = counted(tok, ["𐍈éж" * 50, *text])[0]
    order = removal_order(tok, tree, train, protected(tok, tree, train[None]))
    place = {tok.pieces[i].decode("utf-8", "replace"): at for at, i in enumerate(order.removed)}
    assert place["𐍈éж"] < place["éж"] < place["é"]
    for size in range(tok.size - len(order.removed), tok.size, 50):
        assert dead_pieces(tok.subset(np.flatnonzero(kept(tok, order, size)))).tolist() == []


# -- the compact tokenizer --------------------------------------------------------------------


class Small(NamedTuple):
    tok: Tokenizer
    keep: np.ndarray  # old ids, ascending
    path: Path


@pytest.fixture(scope="module", params=["half", "third", "smallest"])
def small(tok: Tokenizer, cut: Cut, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    floor = tok.size - len(cut.order.removed)
    size = {"half": tok.size // 2, "third": tok.size // 3, "smallest": floor}[request.param]
    keep = np.flatnonzero(kept(tok, cut.order, max(size, floor)))
    made = tok.subset(keep)
    path = tmp_path_factory.mktemp("small")
    for name, content in made.files.items():
        (path / name).write_bytes(content)
    return Small(made, keep, path)


def test_no_piece_is_dead(small: Small) -> None:
    assert dead_pieces(small.tok).tolist() == []


def test_ids_are_dense_and_mean_what_they_meant(tok: Tokenizer, small: Small) -> None:
    order = tok.order(small.keep)
    assert sorted(order.tolist()) == small.keep.tolist()
    assert small.tok.size == len(order) == len(small.tok.pieces)
    assert small.tok.pieces == [tok.pieces[i] for i in order]
    assert small.tok.kinds.tolist() == tok.kinds[order].tolist()
    assert not small.tok.gap.any()
    model = native(small.tok)
    size = model.get_piece_size() if hasattr(model, "get_piece_size") else model.get_vocab_size()
    assert size == small.tok.size


def test_saved_and_opened_it_is_the_same(small: Small) -> None:
    again = open_tokenizer(str(small.path))
    assert fingerprint(again) == fingerprint(small.tok)
    assert again.encode(TRICKY) == small.tok.encode(TRICKY)
    assert fingerprint(open_tokenizer(str(small.path / next(iter(small.tok.files))))) == fingerprint(again)


def test_the_compact_one_is_counted_as_its_library_does(small: Small, documents: list[str]) -> None:
    assert bool(small.tok.cutter) == (not _counted_whole(small.tok))
    assert_counted(small.tok, TRICKY)
    assert_counted(small.tok, documents, bits=9)


def test_text_comes_back_as_from_the_big_one(tok: Tokenizer, small: Small, documents: list[str]) -> None:
    texts = [*TRICKY, *documents]
    for a, b, text in zip(tok.encode(texts), small.tok.encode(texts), texts, strict=True):
        assert tok.decode(a) == small.tok.decode(b), text[:200]


def test_special_tokens_keep_their_text(tok: Tokenizer, small: Small) -> None:
    special = [i for i in range(tok.size) if tok.kinds[i] in (CONTROL, ADDED) and not tok.gap[i]]
    at = {int(old): new for new, old in enumerate(tok.order(small.keep))}
    for i in special:
        assert small.tok.pieces[at[i]] == tok.pieces[i]
        if tok.encode([tok.pieces[i].decode()])[0] == [i]:
            assert small.tok.encode([tok.pieces[i].decode()])[0] == [at[i]]


PROCESSORS: dict[str, dict[str, Any]] = {
    "template": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [2501], "tokens": ["<|im_start|>"]}},
    },
    "roberta": {
        "type": "RobertaProcessing",
        "cls": ["<|im_start|>", 2501],
        "sep": ["<|im_end|>", 2502],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    "bert": {"type": "BertProcessing", "cls": ["<|im_start|>", 2501], "sep": ["<|im_end|>", 2502]},
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_post_processors_are_renumbered(byte_bpe: Path, kind: str, deep: bool) -> None:
    """`ids` and pairs of (token, id), inside a sequence of processors too."""
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    node = {"type": "Sequence", "processors": [level, PROCESSORS[kind]]} if deep else PROCESSORS[kind]
    tok = changed(byte_bpe / "gpt2", lambda c: c.update(post_processor=node))
    keep = np.append(np.flatnonzero(~tok.removable()), 300)
    small = tok.subset(keep)
    at = dict(zip(tok.order(keep).tolist(), range(len(keep)), strict=True))
    big_ids = native(tok).encode("a!").ids
    assert big_ids[0] == 2501 and (kind == "template" or big_ids[-1] == 2502)
    assert native(small).encode("a!").ids == [at[i] for i in big_ids]


@pytest.fixture(scope="module")
def auto(small: Small) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(small.path)


def test_transformers_gives_the_same_ids(auto: Any, small: Small, documents: list[str]) -> None:
    assert len(auto) == small.tok.size
    if _rewrites(small.tok):
        pytest.skip("LlamaTokenizer knows no normalizer, and there is no other class for SentencePiece BPE")
    texts = [_common(small.tok, t) for t in documents]
    rows = zip(texts, auto(texts, add_special_tokens=False)["input_ids"], small.tok.encode(texts), strict=True)
    wrong = [(t[:200], a[:50], b[:50]) for t, a, b in rows if a != b]
    if small.tok.family == "sentencepiece-unigram":
        rows = zip(texts, auto(texts, add_special_tokens=False)["input_ids"], small.tok.encode(texts), strict=True)
        wrong = [w for w in rows if w[1] != w[2] and not _as_good(small.tok, w[1], w[2])]
    assert not wrong, (len(wrong), min(wrong, key=lambda w: len(w[0])))


def _as_good(tok: Tokenizer, a: list[int], b: list[int]) -> bool:
    """Whether two segmentations of a text have the same sum of scores, as far as 32 bits go.

    sentencepiece adds up scores of whole texts in these, tokenizers in 64: among equals they choose otherwise.
    """
    scores = np.array([p.score for p in getattr(tok, "proto").pieces], np.float64)  # noqa: B009 - of this family only
    sums = scores[a].sum(), scores[b].sum()
    return tok.decode(a) == tok.decode(b) and abs(sums[0] - sums[1]) < 1e-5 * abs(sums[0])


def _common(tok: Tokenizer, text: str) -> str:
    """The text without what transformers reads otherwise than sentencepiece, with the big tokenizer too.

    To it a control token spelled in the text is one, and a text that begins with a blank gets no dummy prefix.
    """
    if not tok.family.startswith("sentencepiece"):
        return text
    controls = [p.decode() for p, kind in zip(tok.pieces, tok.kinds, strict=True) if kind == CONTROL]
    for control in controls:
        text = text.replace(control, "")
    return text.lstrip(" ") if _has_prefix(tok) else text


def test_decoding_many_is_decoding_each(tok: Tokenizer, documents: list[str]) -> None:
    rng = random.Random(12)
    noise = [[rng.randrange(tok.size) for _ in range(rng.randrange(30))] for _ in range(300)]
    plain = np.flatnonzero(~tok.gap).tolist()
    rows = [
        *tok.encode(TRICKY),
        *tok.encode(documents),
        *([i if not tok.gap[i] else plain[0] for i in row] for row in noise),
    ]
    ids = np.array([-i if rng.random() < 0.1 else i for row in rows for i in row], np.int32)
    offsets = np.cumsum([0, *map(len, rows)])
    some = np.array(rng.sample(range(len(rows)), len(rows) // 2))
    assert Decoder(tok).texts(ids, offsets, some).to_pylist() == [tok.decode(rows[i]) for i in some]


# -- tiktoken's rank files ----------------------------------------------------------------------


def rank_encoding(tok: Any) -> Any:
    """The same tokenizer as tiktoken itself would have it: ranks from the file, the rest from tokenizer.json."""
    tiktoken = pytest.importorskip("tiktoken")
    lines = next(iter(tok.files.values())).split(b"\n")[:-1]
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    special = {t["content"]: t["id"] for t in tok.config["added_tokens"]}
    return tiktoken.Encoding("it", pat_str=tok._regex, mergeable_ranks=ranks, special_tokens=special)


@pytest.mark.parametrize("part", [1, 2, 3, 100])
@pytest.mark.parametrize("name", ["made", "whisper"])
def test_tiktoken_gives_the_same_ids(
    name: str, part: int, ranks: Path, request: pytest.FixtureRequest, documents: list[str], tmp_path: Path
) -> None:
    """Of the big one and of compact ones, from the file that was written; merging alone has no dead piece."""
    here = ranks / "made" if name == "made" else request.getfixturevalue("shared") / REAL["tiktoken_50257"]
    tok: Any = open_tokenizer(str(here))
    tree = tok.tree()
    train = counted(tok, documents, bits=14)[0]
    order = removal_order(tok, tree, train, protected(tok, tree, train[None]))
    small: Any = tok.subset(np.flatnonzero(kept(tok, order, tok.size // part)))
    assert not small.whole_words
    assert sorted(t["id"] for t in small.config["added_tokens"])[-1] == small.size - 1
    reference = rank_encoding(small)
    assert reference.n_vocab == small.size
    texts = [*TRICKY, *documents]
    assert [reference.encode(t, allowed_special="all") for t in texts] == small.encode(texts)
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(unknown(tmp_path / "small", *small.files.items()))
    assert auto(texts, add_special_tokens=False)["input_ids"] == small.encode(texts)


def test_canonical_merges_are_those_it_was_trained_with(ranks: Path) -> None:
    tok: Any = open_tokenizer(str(ranks / "made"))
    made = canonical_merges({p: i for i, p in enumerate(tok.pieces[:2500])})
    as_bytes = [[bytes(bytebpe.BYTE_OF[c] for c in half) for half in m] for m in tok.config["model"]["merges"]]
    assert made == as_bytes


def test_rank_files_that_are_refused(ranks: Path, tmp_path: Path) -> None:
    content = (ranks / "made" / "made.tiktoken").read_bytes()
    refused(unknown(tmp_path / "a", ("made.tiktoken", content)), "its name is none of the known")
    refused(unknown(tmp_path / "b", ("gpt2.tiktoken", content)), "2,500 ranks instead of the 50,256 of that name")
    refused(unknown(tmp_path / "c", ("x.tiktoken", b"version https://git-lfs.github.com/spec/v1")), "line 1 is not")
    refused(unknown(tmp_path / "d", ("x.tiktoken", b"IQ== 0\nIg== 1\n")), "no rank for some byte")
    refused(unknown(tmp_path / "e", ("x.tiktoken", content + b"AAAAAA== 7\n")), "twice")
    other = (ranks / "made" / "tokenizer.json").read_bytes().replace(b'"the"', b'"thx"')
    refused(unknown(tmp_path / "f", ("made.tiktoken", content), ("tokenizer.json", other)), "other tokens or ids")
    (tmp_path / "a" / "tokenizer.json").write_bytes((ranks / "made" / "tokenizer.json").read_bytes())
    assert (
        open_tokenizer(str(tmp_path / "a")).size == open_tokenizer(str(tmp_path / "a" / "made.tiktoken")).size == 2503
    )


# -- settings of a tokenizer.json ---------------------------------------------------------------


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Tokenizer:
    """A tokenizer.json with something done to it."""
    config = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(config)
    return load({"tokenizer.json": json.dumps(config).encode()})


def _pre(config: dict[str, Any], **values: Any) -> None:
    config["pre_tokenizer"] |= values


def _model(config: dict[str, Any], **values: Any) -> None:
    config["model"] |= values


def _split_by(config: dict[str, Any], regex: str = QWEN, **values: Any) -> None:
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} | values
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    config["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, level]}


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


def _added(config: dict[str, Any], *tokens: tuple[str, dict[str, bool]]) -> None:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    known = config["model"]["vocab"]
    for text, flags in tokens:
        free = max([*known.values(), *(t["id"] for t in config["added_tokens"])]) + 1
        config["added_tokens"].append({"id": known.get(text, free), "content": text} | plain | flags)


WHOLE_ONLY: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a prefix space": (lambda c: _pre(c, add_prefix_space=True), "pre-tokenizer"),
    "no regex": (lambda c: _pre(c, use_regex=False), "pre-tokenizer"),
    "an unknown regex": (lambda c: _split_by(c, r"\\p{L}+|\\s+"), "pre-tokenizer"),
    "o200k-like digits": (lambda c: _split_by(c, QWEN.replace(r"|\p{N}|", r"|\p{N}{1,2}|")), "pre-tokenizer"),
    "removed matches": (lambda c: _split_by(c, behavior="Removed"), "pre-tokenizer"),
    "merged matches": (lambda c: _split_by(c, behavior="MergedWithPrevious"), "pre-tokenizer"),
    "inverted": (lambda c: _split_by(c, invert=True), "pre-tokenizer"),
    "a string, no regex": (lambda c: _split_by(c, pattern={"String": " "}), "pre-tokenizer"),
    "no pre-tokenizer": (lambda c: c.update(pre_tokenizer=None), "pre-tokenizer"),
    "no newline byte": (_no_newline, "byte symbols"),
    "two passes that overlap": (
        lambda c: _added(c, ("<ab>", {"normalized": True}), ("b>c", {"normalized": False})),
        "two passes",
    ),
}


@pytest.mark.parametrize("what", WHOLE_ONLY)
def test_exotic_settings_are_counted_whole(byte_bpe: Path, text: list[str], what: str) -> None:
    change, reason = WHOLE_ONLY[what]
    tok = changed(byte_bpe / "gpt2", change)
    assert tok.cutter is None and reason in tok.why_not
    assert not agrees(tok, PROBE)
    assert_counted(tok, [*TRICKY, "qzqzqz <ab>c b>c", *text[::5]])


def test_dropout_is_not_counted_by_words(byte_bpe: Path) -> None:
    tok = changed(byte_bpe / "gpt2", lambda c: _model(c, dropout=0.1))
    assert tok.cutter is None and "dropout" in tok.why_not


WORDS_STILL: dict[str, Callable[[dict[str, Any]], None]] = {
    "cl100k digits without limit": lambda c: _split_by(c, QWEN.replace(r"|\p{N}|", r"|\p{N}+|")),
    "llama3": lambda c: _split_by(c, LLAMA3),
    "ignore_merges": lambda c: _model(c, ignore_merges=True),
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
    "merges as strings": lambda c: _model(
        c, merges=[m if isinstance(m, str) else " ".join(m) for m in c["model"]["merges"]]
    ),
    "a merge twice": lambda c: _model(c, merges=[*c["model"]["merges"], *c["model"]["merges"][:40]]),
    "no merges": _no_merges,
    "one pre-tokenizer in a sequence": lambda c: c.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [c["pre_tokenizer"]]}
    ),
    "an empty added token": lambda c: _added(c, ("", {})),
    "added: plain and special": lambda c: _added(
        c, ("[X]", {}), ("[XY]", {"special": True}), ("[XY", {}), (" [Z]", {})
    ),
    "added: normalized": lambda c: _added(c, ("[X]", {"normalized": True}), ("é!", {"normalized": True})),
    "added: pieces and words": lambda c: _added(c, ("the", {}), ("q", {"normalized": True}), ("  ", {}), ("\n\n", {})),
    "added: lstrip": lambda c: _added(c, ("[X]", {"lstrip": True}), ("[XY]", {})),
    "added: rstrip": lambda c: _added(c, ("[X]", {"rstrip": True}), ("[XY]", {"special": True})),
    "added: both": lambda c: _added(c, ("[X]", {"rstrip": True, "lstrip": True}), ("[Y]", {"normalized": True})),
    "added: single word": lambda c: _added(c, ("word", {"single_word": True}), ("[X]", {})),
    "added: single word and strip": lambda c: _added(c, ("word", {"single_word": True, "lstrip": True})),
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
        and dead_pieces(changed(byte_bpe / "gpt2", lambda c: _whole_only(c) or _model(c, ignore_merges=False))).size
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
        _added(config, *extra)

    tok = changed(byte_bpe / "gpt2", change)
    near = [
        f"{a} {b}{a}{c}"
        for a in ("[X]", "[x]", "é", "e\u0301", "[X]É", "[x]é", "[X]e\u0301a")
        for b in ("", "\u0301")
        for c in "aÅ"
    ]
    assert_counted(tok, [*ACCENTS, *near, *AROUND_ADDED, *TRICKY, *text[::9]])


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
    assert tok.unsafe is not None
    safe = [chr(c) for c in np.flatnonzero(tok.unsafe == 0).tolist()]
    assert len(safe) > 100_000 and set(string.printable) < set(safe)
    composing = "aeiouAEIOUYyдЖαω\u1100\uac00\u09c7\u0b47\u1025\u304b\u30ab\U000110a5\u0cc6"
    for order in (
        "".join(safe),
        "".join(reversed(safe)),
        *("".join(c + s for s in safe) for c in composing if c in safe),
    ):
        assert native(tok).normalizer.normalize_str(order) == order


# -- a model.proto's settings -------------------------------------------------------------------


def remade(folder: Path, change: Callable[[Any], None]) -> Tokenizer:
    """A tokenizer.model with something done to it."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    change(proto)
    return load({"tokenizer.model": proto.SerializeToString()})


def _piece(proto: Any, text: str, kind: int, score: float = 0.0) -> None:
    """Adds a piece, or makes the one that is there this."""
    piece = next((p for p in proto.pieces if p.piece == text), None) or proto.pieces.add(piece=text)
    piece.type, piece.score = kind, score


PIECES_WHOLE: dict[str, tuple[Callable[[Any], None], str]] = {
    "extra blanks removed": (lambda p: setattr(p.normalizer_spec, "remove_extra_whitespaces", True), "rewrites"),
    "blanks not escaped": (lambda p: setattr(p.normalizer_spec, "escape_whitespaces", False), "blanks"),
    "blanks as suffix": (lambda p: setattr(p.trainer_spec, "treat_whitespace_as_suffix", True), "blanks"),
    "unused pieces": (lambda p: setattr(p.pieces[900], "type", 5), "UNUSED"),
    "a blank in a symbol": (lambda p: _piece(p, "▁▁x", 4), "holds a blank"),
    "no blank": (lambda p: p.pieces.remove(next(x for x in p.pieces if x.piece == "▁")), "no piece for the blank"),
}


@pytest.mark.parametrize("name", ["plain", "prefix"])
@pytest.mark.parametrize("what", PIECES_WHOLE)
def test_exotic_models_are_counted_whole(spm: Path, text: list[str], what: str, name: str) -> None:
    change, reason = PIECES_WHOLE[what]
    tok = remade(spm / name, change)
    assert tok.cutter is None and reason in tok.why_not
    assert_counted(tok, [*TRICKY, "a  x▁▁x", "[LABEL]", *text[::5]])


def _tie_all(proto: Any) -> None:
    for piece in proto.pieces:
        piece.score = -1.0 if piece.type == 1 else 0.0


PIECES_WORDS: dict[str, Callable[[Any], None]] = {
    "a NUL piece": lambda p: _piece(p, "\0", 1, -5.0),
    "symbols that overlap": lambda p: [_piece(p, s, 4) for s in ("ab", "abc", "bcd", "the", "中", "\n", "\t\t")],
    "a symbol of one letter": lambda p: _piece(p, "e", 4),
    "all scores equal": _tie_all,
    "characters only inside pieces": lambda p: [_piece(p, s, 1, -1.0) for s in ("𐍈a", "a𐍈", "𐍈𐍈", "𐍈𐍈𐍈a", "e𐍈𐍈")],
    "a control token that is a word": lambda p: _piece(p, "the", 3),
}


@pytest.mark.parametrize("name", ["plain", "prefix"])
@pytest.mark.parametrize("what", PIECES_WORDS)
def test_models_that_still_allow_words(spm: Path, text: list[str], what: str, name: str) -> None:
    tok = remade(spm / name, PIECES_WORDS[what])
    assert tok.why_not == "" and tok.cutter is not None
    near = [
        "abcd abd \0 a\0b\0\0 the\n\n\t\t\t中中",
        "𐍈a𐍈𐍈𐍈𐍈a e𐍈𐍈𐍈 𐍈",
        "abc",
        "中",
        "the",
        "e",
        "𐍈",
        "\0",
        "[LABEL]",
        "、、、",
    ]
    assert_counted(tok, [*near, *TRICKY, *text[::5]])


def test_tokens_added_behind_a_model(spm: Path, tmp_path: Path, text: list[str]) -> None:
    """Hugging Face numbers them from the model's size on, sometimes with gaps; sentencepiece does not know them."""
    added = {"<extra>": 2000, "<é>": 2003}
    model = (spm / "plain" / "tokenizer.model").read_bytes()
    tok = load({"tokenizer.model": model, "added_tokens.json": json.dumps(added).encode()})
    assert tok.size == 2004 and np.flatnonzero(tok.gap).tolist() == [2001, 2002]
    assert_counted(tok, ["a <extra> b", *text[::9]])
    assert tok.decode([*tok.encode(["ab"])[0], 2000, 2003]) == "ab<extra><é>"
    train = np.ones((1, tok.size), np.int64)
    tree = tok.tree()
    order = removal_order(tok, tree, train[0], protected(tok, tree, train))
    assert {2001, 2002} == set(order.removed[:2].tolist())
    small = tok.subset(np.flatnonzero(kept(tok, order, 1000)))
    unknown(tmp_path / "small", *small.files.items())
    again = open_tokenizer(str(tmp_path / "small"))
    assert again.size == 1000 and not again.gap.any() and fingerprint(again) == fingerprint(small)
    assert [again.decode([i]) for i in (998, 999)] == ["<extra>", "<é>"]


# -- what is no tokenizer of a known kind -------------------------------------------------------


def unknown(where: Path, *files: tuple[str, bytes]) -> Path:
    where.mkdir(exist_ok=True)
    for name, content in files:
        (where / name).write_bytes(content)
    return where


def refused(path: Path, what: str) -> None:
    with pytest.raises(TinydataError, match=what) as e:
        open_tokenizer(str(path))
    assert e.value.code == UNREADABLE and e.value.fix and str(path) in e.value.where


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no tokenizer here")
    refused(tmp_path / "tokenizer.json", "no tokenizer here")
    refused(tmp_path, "the directory holds nothing")
    refused(unknown(tmp_path, ("README.md", b"")), "the directory holds README.md")


def test_wordpiece_that_is_none(tmp_path: Path) -> None:
    refused(unknown(tmp_path / "a", ("vocab.txt", b"the\n##s\n")), "no vocab.txt of WordPiece, it has no .UNK.")
    refused(unknown(tmp_path / "a", ("vocab.txt", b"\xff\n[UNK]")), "not UTF-8")
    model = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {}, "max_input_chars_per_word": 9}
    config = {"version": "1.0", "added_tokens": [], "pre_tokenizer": None, "model": model}
    refused(unknown(tmp_path / "b", ("tokenizer.json", json.dumps(config).encode())), "no vocab")


def test_other_models_are_refused(tmp_path: Path, text: list[str]) -> None:
    refused(train_pieces(tmp_path / "b", text[:30], size=600, model_type="char"), "type char")
    config = {"model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}}
    refused(unknown(tmp_path / "c", ("tokenizer.json", json.dumps(config).encode())), "model WordLevel")


def test_bpe_with_marked_pieces_is_refused(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a</w>": 0}, "merges": [], "end_of_word_suffix": "</w>"}
    config = {"model": model, "pre_tokenizer": {"type": "Whitespace"}}
    refused(unknown(tmp_path / "a", ("tokenizer.json", json.dumps(config).encode())), "marked with '</w>'")


# -- directories and repositories ---------------------------------------------------------------


def test_the_tokenizer_json_beside_a_unigram_model(matching: Path, tmp_path: Path, text: list[str]) -> None:
    """With the same ids, and with tokens added behind them, both are cut down; with others, only it is read."""
    model = (matching / "unigram" / "tokenizer.model").read_bytes()
    bare: Any = open_tokenizer(str(matching / "unigram"))
    every = bare.subset(np.arange(bare.size)).files
    config = json.loads(every["tokenizer.json"])
    config["added_tokens"].append({**config["added_tokens"][0], "id": bare.size, "content": "<extra_id_0>"})
    both = load({"spiece.model": model, "tokenizer.json": json.dumps(config).encode()})
    assert both.family == "sentencepiece-unigram" and both.size == bare.size + 1
    keep = np.setdiff1d(np.arange(both.size), np.flatnonzero(both.removable())[500:])
    small = both.subset(keep)
    assert small.size == len(keep)
    native_json = Tokenizers.from_str(small.files["tokenizer.json"].decode())
    assert [native_json.encode(t).ids for t in text] == small.encode(text)
    assert native_json.token_to_id("<extra_id_0>") == small.size - 1
    config["model"]["vocab"].insert(0, ["<s0>", 0.0])
    moved = load({"spiece.model": model, "tokenizer.json": json.dumps({**config, "added_tokens": []}).encode()})
    assert moved.family == "unigram" and list(moved.files) == ["tokenizer.json"]
    assert moved.pieces[1:] == bare.pieces


def test_vocab_txt_says_itself_whether_it_is_of_lower_case(tmp_path: Path) -> None:
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "##s", "t", "##h", "##e", "s"]
    for more, lower in (([], True), (["The"], False)):
        where = unknown(tmp_path / str(lower), ("vocab.txt", "\n".join([*lines, *more]).encode()))
        tok: Any = open_tokenizer(str(where))
        assert tok.config["normalizer"]["lowercase"] is lower
        assert tok.encode(["THE the"])[0] == ([4, 4] if lower else [1, 4])
        (where / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": not lower}), encoding="utf-8")
        assert open_tokenizer(str(where)).config["normalizer"]["lowercase"] is not lower  # type: ignore[attr-defined]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte_bpe: Path) -> Path:
    """huggingface_hub's cache with one repository, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--org--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    (repository / "blobs").mkdir()
    (repository / "blobs" / "1").write_bytes((byte_bpe / "gpt2" / "tokenizer.json").read_bytes())
    (snapshot / "tokenizer.json").symlink_to("../../blobs/1")
    return repository


@pytest.mark.parametrize(
    "path", ["hf://org/name", "hf://org/name/", "hf://org/name@main", "hf://org/name/tokenizer.json"]
)
def test_a_repository_of_the_hub(hub: Path, byte_bpe: Path, path: str) -> None:
    assert fingerprint(open_tokenizer(path)) == fingerprint(open_tokenizer(str(byte_bpe / "gpt2")))


@pytest.mark.parametrize("path", ["hf://org/other", "hf://org/name@v2", "hf://", "hf://or g/na me"])
def test_a_repository_that_is_not_there(hub: Path, path: str) -> None:
    with pytest.raises(TinydataError, match="cannot get the tokenizer of this Hugging Face repository") as e:
        open_tokenizer(path)
    assert e.value.code == UNREADABLE and e.value.where == path and "\n" not in e.value.what


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BROKEN_JSON = {
    "cut": b'{"version": "1.0", "model": {"ty',
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "a number": b"5",
    "empty": b"",
    "no model": b"{}",
    "a model that is a number": b'{"model": 5}',
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "no vocab": json.dumps({"model": {"type": "BPE", "merges": []}, "pre_tokenizer": LEVEL}).encode(),
    "no merges": json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}}, "pre_tokenizer": LEVEL}).encode(),
    "empty vocab": json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": LEVEL}).encode(),
    "vocab of texts": json.dumps(
        {"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}, "pre_tokenizer": LEVEL}
    ).encode(),
    "nested": b'{"model": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("what", BROKEN_JSON)
def test_broken_json_is_refused(tmp_path: Path, what: str) -> None:
    refused(unknown(tmp_path / "a", ("tokenizer.json", BROKEN_JSON[what])), "tokenizer of an unknown kind")


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x0a\x05<unk>", b"version https://git-lfs.github.com/"])
def test_broken_models_are_refused(tmp_path: Path, content: bytes) -> None:
    refused(unknown(tmp_path / "a", ("tokenizer.model", content)), "tokenizer of an unknown kind")


def test_a_model_cut_short_is_refused(tmp_path: Path, spm: Path) -> None:
    whole = (spm / "plain" / "tokenizer.model").read_bytes()
    refused(unknown(tmp_path / "a", ("tokenizer.model", whole[: len(whole) // 2])), "tokenizer of an unknown kind")


def test_what_the_library_refuses_is_refused(byte_bpe: Path, spm: Path) -> None:
    no_part = changed(byte_bpe / "gpt2", lambda c: _model(c, merges=[*c["model"]["merges"], ["qz", "qz"]]))
    twice = remade(spm / "plain", lambda p: p.pieces.add(piece="the", type=1))
    for tok in (no_part, twice):
        with pytest.raises(TinydataError, match="library cannot read it") as e:
            tok.encode(["a"])
        assert e.value.code == UNREADABLE and e.value.fix


def test_vocab_json_wants_its_merges(tmp_path: Path) -> None:
    where = unknown(tmp_path / "a", ("vocab.json", b'{"a": 0, "model": 1}'))
    refused(where, "merges.txt is missing")
    with pytest.raises(TinydataError, match=r"merges.txt is missing"):
        open_tokenizer(str(where / "vocab.json"))
    (where / "merges.txt").write_bytes(b"#version: 0.2\n\xff \xfe\n")
    refused(where, "merges.txt")


def test_broken_companions_are_refused(tmp_path: Path, byte_bpe: Path) -> None:
    content = (byte_bpe / "gpt2" / "tokenizer.json").read_bytes()
    where = unknown(tmp_path / "a", ("tokenizer.json", content), ("tokenizer_config.json", b'{"model_max'))
    with pytest.raises(TinydataError, match=r"tokenizer_config.json .* no JSON object") as e:
        open_tokenizer(str(where))
    assert e.value.code == UNREADABLE and e.value.fix
