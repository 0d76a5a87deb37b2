"""`tinydata compact --adapt`: the learner against a naive one, then vocabularies of each family by the command line.

The tokenizers of conftest know other text than this corpus, so there is something to learn.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata.cli.main import main
from tinydata.core.errors import UNREADABLE, USAGE, TinydataError
from tinydata.core.hashing import held_out
from tinydata.engines.local import LocalEngine
from tinydata.formats.corpus import plan, read
from tinydata.tokenizers.open import open_tokenizer
from tinydata.tokenizers.probe import PROBE, agrees
from tinydata.verbs.compact import adapt, card, corpus_words, domain_guard
from tinydata.verbs.compact.bpe_training import learn
from tinydata.verbs.compact.domain_guard import TracedTokenizer
from tinydata.verbs.compact.pair_index import LONGEST
from tinydata.verbs.compact.plan import Goal, choose, open_counts
from tinydata.verbs.compact.tradeoff import Heldout
from tinydata.verbs.compact.training_text import TrainingSymbols, spelled, symbols_of, tally
from tinydata.verbs.compact.verb import compact
from tinydata.verbs.compact.word_collector import WordCollector
from tinydata.verbs.count import verb as count_verb
from tinydata.verbs.count.plan import Settings

OTHERS = ("tarfile", "zipfile", "pathlib", "subprocess", "threading", "doctest", "pickle", "difflib", "optparse")
FOLDERS = {"byte_bpe": ("gpt2", "qwen", "llama3"), "spm": ("plain", "prefix")}
FAMILIES = [name for names in FOLDERS.values() for name in names]
VOCAB = 1_200


@pytest.fixture(scope="module")
def corpus(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other modules of the library, and the sentences: documents of 1,000 characters in two domains."""
    library = Path(sysconfig.get_paths()["stdlib"])
    code = "".join((library / f"{name}.py").read_text(encoding="utf-8")[:40_000] for name in OTHERS)
    rows = [{"id": f"c{i}", "domain": "code", "text": code[i : i + 1_000]} for i in range(0, len(code), 1_000)]
    prose = "\n".join(text[-10:])
    rows += [{"id": f"p{i}", "domain": "prose", "text": prose[i : i + 400]} for i in range(0, len(prose), 400)]
    file = tmp_path_factory.mktemp("adapt") / "corpus.jsonl"
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def tokenizers(byte_bpe: Path, spm: Path) -> dict[str, str]:
    folders = {"byte_bpe": byte_bpe, "spm": spm}
    return {name: str(folders[folder] / name) for folder, names in FOLDERS.items() for name in names}


def count(corpus: Path, tokenizer: str, out: Path) -> Path:
    count_verb.count([str(corpus)], tokenizer, str(out), LocalEngine(1), Settings(heldout=0.2))
    return out


@pytest.fixture(scope="module")
def counts(corpus: Path, tokenizers: dict[str, str]) -> dict[str, Path]:
    return {name: count(corpus, path, corpus.parent / f"counts-{name}") for name, path in tokenizers.items()}


@pytest.fixture(scope="module")
def vocabularies(counts: dict[str, Path]) -> dict[str, Path]:
    made = {}
    for name, path in counts.items():
        made[name] = path.parent / f"vocab-{name}"
        assert run(str(path), "--vocab", str(VOCAB), "--adapt", "-o", str(made[name])) == 0
    return made


def run(*args: str) -> int:
    """`tinydata compact …` -> exit code."""
    with pytest.raises(SystemExit) as left:
        main(["compact", *args])
    return int(left.value.code or 0)


def manifest(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "manifest.json").read_bytes())


# -- the learner ------------------------------------------------------------------------------


def naive(words: list[list[int]], counts: list[int], size: int, price: list[int]) -> list[tuple[int, int, int]]:
    learned: list[tuple[int, int, int]] = []
    texts = [bytes([i]) for i in range(size)]
    while len(learned) < len(price):
        pairs: Counter[tuple[int, int]] = Counter()
        for word, n in zip(words, counts, strict=True):
            for a, b in pairwise(word):
                pairs[a, b] += n * (texts[a] + texts[b] not in texts)
        best = min(pairs, key=lambda p: (-pairs[p], p), default=(0, 0))
        if pairs[best] <= price[len(learned)]:
            break
        words = [merged(w, best, len(texts)) for w in words]
        texts.append(texts[best[0]] + texts[best[1]])
        learned.append((*best, pairs[best]))
    return learned


def merged(word: list[int], pair: tuple[int, int], made: int) -> list[int]:
    out: list[int] = []
    i = 0
    while i < len(word):
        whole = tuple(word[i : i + 2]) == pair
        out.append(made if whole else word[i])
        i += 1 + whole
    return out


def laid(words: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = [i for w in words for i in (*w, -1)]
    word = [k for k, w in enumerate(words) for _ in range(len(w) + 1)]
    return np.array(ids, np.int32), np.array(word, np.int32)


def letters(size: int) -> TrainingSymbols:
    """Ids that are the bytes of the same number, each free to merge with each."""
    none = np.zeros(size, np.uint8)
    return TrainingSymbols(np.arange(1, size + 1, dtype=np.uint64), np.ones(size, np.int64), none, none.copy())


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.lists(
                st.tuples(st.lists(st.integers(0, size - 1), max_size=12), st.integers(1, 9)), min_size=1, max_size=9
            ),
        )
    ),
    st.lists(st.integers(1, 30), min_size=1, max_size=12).map(sorted),
)
def test_learn(words: tuple[int, list[tuple[list[int], int]]], price: list[int]) -> None:
    """The same merges in the same order as the naive way, and what is left in the words is what they give."""
    size, pairs = words
    spelling, counts = [w for w, _ in pairs], [n for _, n in pairs]
    ids, word = laid(spelling)
    found = learn(ids, word, np.array(counts, np.int64), letters(size), np.array(price, np.int64))
    want = naive(spelling, counts, size, price)
    assert list(zip(*(a.tolist() for a in found), strict=True)) == want
    for k, (a, b, _) in enumerate(want):
        spelling = [merged(w, (a, b), size + k) for w in spelling]
    assert ids[ids >= 0].tolist() == [i for w in spelling for i in w]


def test_price() -> None:
    """A merge is learned only while its pair is worth more than the next price, and none is longer than LONGEST."""
    ids, word = laid([[0, 1], [0, 2], [1, 2]])
    counts = np.array([9, 7, 5], np.int64)
    found = learn(ids, word, counts, letters(3), np.array([1, 7, 7]))
    assert found.gain.tolist() == [9]
    ids, word = laid([[0] * 200])
    found = learn(ids, word, np.array([9], np.int64), letters(1), np.ones(50, np.int64))
    lengths = [1]
    for a, b in zip(found.left, found.right, strict=True):
        lengths.append(lengths[a] + lengths[b])
    assert max(lengths) <= LONGEST


def test_scratch(text: list[str], byte_bpe: Path) -> None:
    """From bytes on it learns as many merges that spell as short as the library's trainer's."""
    big = open_tokenizer(str(byte_bpe / "gpt2"))
    bytes_only = big.subset(np.flatnonzero(~big.removable()))
    collector = WordCollector(bytes_only, bits=14)
    import pyarrow as pa

    collector.add(pa.array(text, pa.string()), np.zeros(len(text), np.int32))
    words = collector.words()
    ids, word = spelled(words, bytes_only)
    count = words.weighted(np.ones(1))
    found = learn(ids, word, count, symbols_of(bytes_only), np.ones(big.size - bytes_only.size, np.int64))
    ours = int(tally(ids, word, count, big.size).sum())
    theirs = sum(map(len, big.encode(text)))
    assert len(found.left) == big.size - bytes_only.size
    assert abs(ours / theirs - 1) < 0.001


# -- the words --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_words(family: str, corpus: Path, counts: dict[str, Path], tokenizers: dict[str, str]) -> None:
    """The words of the sample, encoded, are the counts without the held-out documents: but for special tokens."""
    big, opened = open_tokenizer(tokenizers[family]), open_counts(str(counts[family]))
    words, weights = corpus_words.corpus_words(opened.manifest, opened.domain_table, big, big)
    assert weights.tolist() == [1.0, 1.0]
    ids, word = spelled(words, big)
    assert (tally(ids, word, words.weighted(weights), big.size) == opened.train.sum(0)).all()


def test_held_out_is_left_out(corpus: Path, counts: dict[str, Path], tokenizers: dict[str, str]) -> None:
    batches = [b for s in plan([str(corpus)]).splits for b in read(s, lambda *bad: None)]
    held = sum(int(held_out(b, 0.2).sum()) for b in batches)
    assert held == manifest(counts["gpt2"])["totals"]["heldout_documents"] > 10


# -- what is made -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_vocabulary(family: str, counts: dict[str, Path], vocabularies: dict[str, Path], text: list[str]) -> None:
    """As many ids as asked for, none dead, fewer tokens than pruning alone gives, and every text comes back."""
    made, small = manifest(vocabularies[family]), open_tokenizer(str(vocabularies[family]))
    adapted, trade = made["adapted"], made["trade"]
    assert small.size == VOCAB == adapted["learned"] + adapted["pruned_to"] == trade["ids"]["after"]
    assert adapted["learned"] > 20
    assert trade["dead_pieces"]["after"] == int((~small.tree().reachable).sum()) == 0
    assert adapted["heldout"]["inflation"] == trade["heldout"]["inflation"]
    assert adapted["heldout"]["inflation"] < adapted["heldout"]["inflation_pruned_only"] - 0.01
    assert adapted["heldout"]["worst_domain"]["against_pruned_only"] <= domain_guard.BOUND
    trip = trade["heldout"]["round_trip"]
    assert trip["same_text"] == trip["documents"] > 30
    assert agrees(small, PROBE) and agrees(small, text)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers(family: str, vocabularies: dict[str, Path], text: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(str(vocabularies[family]))
    small = open_tokenizer(str(vocabularies[family]))
    assert len(auto) == small.size
    # sentencepiece puts its dummy prefix before a blank too, transformers does not: with the big tokenizer as well
    documents = [t.lstrip() for t in text]
    assert [auto.encode(t, add_special_tokens=False) for t in documents] == small.encode(documents)


@pytest.mark.parametrize("family", FAMILIES)
def test_learned(family: str, tokenizers: dict[str, str], vocabularies: dict[str, Path]) -> None:
    """left and right merge to new_id, in that order of ids; the old parts spell it; idmap knows only old pieces."""
    big, small = open_tokenizer(tokenizers[family]), open_tokenizer(str(vocabularies[family]))
    rows = pq.read_table(vocabularies[family] / "learned.parquet").to_pylist()
    assert len(rows) == manifest(vocabularies[family])["adapted"]["learned"]
    assert [r["new_id"] for r in rows] == sorted(r["new_id"] for r in rows)
    new = [r["new_id"] for r in rows]
    for r in rows:
        piece = small.pieces[r["new_id"]]
        assert small.pieces[r["left"]] + small.pieces[r["right"]] == piece
        assert b"".join(big.pieces[i] for i in r["old_parts"]) == piece
        assert max(r["left"], r["right"]) < r["new_id"] or r["left"] in new or r["right"] in new
    idmap = pq.read_table(vocabularies[family] / "idmap.parquet").to_pylist()
    kept = [r["parts"][0] for r in idmap if r["kept"]]
    assert sorted([*kept, *new]) == list(range(VOCAB))
    for r in idmap:
        assert b"".join(small.pieces[p] for p in r["parts"]) == big.pieces[r["old_id"]]
        if r["kept"]:
            assert small.kinds[r["parts"][0]] == big.kinds[r["old_id"]]


@pytest.mark.parametrize("family", ["gpt2", "prefix"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_slice(
    family: str, dtype: str, corpus: Path, tokenizers: dict[str, str], vocabularies: dict[str, Path], tmp_path: Path
) -> None:
    """`tinydata slice` on it: an old token keeps its row, a learned one gets the mean of its old parts' rows."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    rows = open_tokenizer(tokenizers[family]).size
    config = transformers.LlamaConfig(vocab_size=rows, bos_token_id=None, eos_token_id=None, **shape)
    big = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
    big.save_pretrained(tmp_path / "model")
    shutil.copytree(tokenizers[family], tmp_path / "model", dirs_exist_ok=True)
    vocab, out = vocabularies[family], str(tmp_path / "out")
    with pytest.raises(SystemExit) as left:
        main(["slice", str(tmp_path / "model"), "--vocab", str(vocab), "-o", out])
    assert not left.value.code
    learned = pq.read_table(vocab / "learned.parquet").to_pylist()
    said = manifest(tmp_path / "out")["rows"]
    assert (said["kept"], said["learned"], said["after"]) == (VOCAB - len(learned), len(learned), VOCAB)

    few = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto").eval()
    assert few.config.vocab_size == VOCAB
    for take in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(m, take)().weight.detach().to(torch.float32) for m in (big, few))
        for r in pq.read_table(vocab / "idmap.parquet").to_pylist():
            if r["kept"]:
                assert torch.equal(after[r["parts"][0]], before[r["old_id"]])
        for r in learned:
            mean = before[r["old_parts"]].mean(0).to(getattr(torch, dtype)).to(torch.float32)
            assert torch.allclose(after[r["new_id"]], mean, rtol=1e-2 if dtype == "bfloat16" else 1e-5, atol=1e-7)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = tokenizer(json.loads(corpus.read_text().splitlines()[3])["text"], return_tensors="pt")["input_ids"]
    assert set(ids[0].tolist()) & {r["new_id"] for r in learned}
    with torch.no_grad():
        assert few(ids).logits.shape == (*ids.shape, VOCAB)


def test_same_bytes(counts: dict[str, Path], vocabularies: dict[str, Path], tmp_path: Path) -> None:
    assert run(str(counts["qwen"]), "--vocab", str(VOCAB), "--adapt", "-o", str(tmp_path / "again")) == 0
    for file in vocabularies["qwen"].iterdir():
        if file.name != ".run.json":
            assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_vocab_json_and_merges(
    corpus: Path, tokenizers: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2's two files are written too, and say the same as tokenizer.json."""
    model = json.loads((Path(tokenizers["gpt2"]) / "tokenizer.json").read_text())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (tmp_path / "old").mkdir()
    (tmp_path / "old/vocab.json").write_text(json.dumps(model["vocab"] | {"<|endoftext|>": len(model["vocab"])}))
    (tmp_path / "old/merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    counted = count(corpus, str(tmp_path / "old"), tmp_path / "counts")
    assert run(str(counted), "--vocab", str(VOCAB), "--adapt", "-o", str(tmp_path / "new")) == 0
    assert "tokens were learned" in capsys.readouterr().err
    made = json.loads((tmp_path / "new/tokenizer.json").read_text())
    assert json.loads((tmp_path / "new/vocab.json").read_text()) == made["model"]["vocab"]
    end = made["added_tokens"][0]
    assert (end["content"], end["id"]) == ("<|endoftext|>", VOCAB - 1)
    for file in ("tokenizer.json", "vocab.json"):
        tok = open_tokenizer(str(tmp_path / "new" / file))
        assert tok.encode(PROBE[:3]) == open_tokenizer(str(tmp_path / "new")).encode(PROBE[:3])


# -- limits and errors ------------------------------------------------------------------------


def test_guard(counts: dict[str, Path], tokenizers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is learned helps every domain by half: then it is pruning alone, and said so."""
    monkeypatch.setattr(domain_guard, "BOUND", -0.5)
    monkeypatch.setattr(domain_guard, "ATTEMPTS", 2)
    opened = open_counts(str(counts["gpt2"]))
    choice = choose(opened, tokenizers["gpt2"], Goal(vocab=VOCAB, adapt=True))
    plain = choose(opened, tokenizers["gpt2"], Goal(vocab=VOCAB))
    assert choice.adapted and choice.adapted.facts["learned"] == 0
    assert choice.adapted.facts["heldout"]["guard"]["attempts"] == 2 + domain_guard.HALVINGS
    assert choice.small.files == plain.small.files
    assert (choice.keep == plain.keep).all()


def test_fewer_merges(counts: dict[str, Path], tokenizers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weighing does not bring a domain within the bound, as many merges are learned as do."""
    swap = adapt.swap

    def ruinous(*args: Any) -> Any:
        """As if a tenth of the merges were all that the held-out text bears."""
        small, origin = swap(*args)
        return TracedTokenizer(small if (origin < 0).sum() <= 40 else bytes_only, origin)

    opened, big = open_counts(str(counts["gpt2"])), open_tokenizer(tokenizers["gpt2"])
    bytes_only = big.subset(np.flatnonzero(~big.removable()))
    monkeypatch.setattr(adapt, "swap", ruinous)
    adapted = choose(opened, tokenizers["gpt2"], Goal(vocab=VOCAB, adapt=True)).adapted
    assert adapted and 20 <= adapted.facts["learned"] <= 40
    facts = adapted.facts["heldout"]
    assert facts["guard"]["attempts"] == domain_guard.ATTEMPTS + domain_guard.HALVINGS
    assert facts["guard"]["fewer_merges"] and "fewer tokens were learned" in card.adaptation_text(adapted.facts)
    assert facts["inflation"] < facts["inflation_pruned_only"]
    assert facts["worst_domain"]["against_pruned_only"] <= domain_guard.BOUND


def test_other_options(counts: dict[str, Path], tokenizers: dict[str, str]) -> None:
    """--multiple-of, --keep-tokens and --min-per-domain hold for what is adapted too."""
    opened, big = open_counts(str(counts["gpt2"])), open_tokenizer(tokenizers["gpt2"])
    rare = next(i for i in range(big.size - 4, 0, -1) if not opened.train[:, i].any() and len(big.pieces[i]) > 3)
    goal = Goal(vocab=1_100, multiple_of=128, keep_tokens=(f"#{rare}",), min_per_domain=100, adapt=True)
    choice = choose(opened, tokenizers["gpt2"], goal)
    assert choice.small.size == 1_152
    assert choice.keep[rare]
    for row in opened.train:
        assert choice.keep[np.argsort(-row, kind="stable")[:100]].all()


@pytest.mark.parametrize("wrong", [["--coverage", "0.9"], ["--max-inflation", "0.1"], ["--method", "frequency"], []])
def test_usage(wrong: list[str], counts: dict[str, Path], tmp_path: Path) -> None:
    size = ["--vocab", "900"] if "--method" in wrong else []
    assert run(str(counts["gpt2"]), "--adapt", *size, *wrong, "-o", str(tmp_path / "out")) == USAGE


def test_no_corpus(corpus: Path, tokenizers: dict[str, str], tmp_path: Path) -> None:
    moved = tmp_path / "corpus.jsonl"
    moved.write_bytes(corpus.read_bytes())
    counted = count(moved, tokenizers["gpt2"], tmp_path / "counts")
    moved.unlink()
    with pytest.raises(TinydataError, match="learns from the counted corpus") as error:
        compact(str(counted), tokenizers["gpt2"], str(tmp_path / "out"), Goal(vocab=VOCAB, adapt=True))
    assert error.value.code == UNREADABLE


def test_families_without_merges(matching: Path, corpus: Path, tmp_path: Path) -> None:
    path = str(matching / "unigram_bytes")
    counted = count(corpus, path, tmp_path / "counts")
    with pytest.raises(TinydataError, match="cannot add tokens to this tokenizer"):
        choose(open_counts(str(counted)), path, Goal(vocab=VOCAB, adapt=True))


def test_token_ids(corpus: Path, tokenizers: dict[str, str], tmp_path: Path) -> None:
    """A corpus of ids is decoded, and the same is learned as from its text."""
    big = open_tokenizer(tokenizers["gpt2"])
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    rows = [{"id": r["id"], "domain": r["domain"], "ids": big.encode([r["text"]])[0]} for r in rows]
    file = tmp_path / "ids.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    choices = []
    for path in (file, corpus):
        counted = count(path, tokenizers["gpt2"], tmp_path / f"counts-{path.stem}")
        choices.append(choose(open_counts(str(counted)), tokenizers["gpt2"], Goal(vocab=VOCAB, adapt=True)))
    assert choices[0].small.files == choices[1].small.files


def test_no_held_out(corpus: Path, tokenizers: dict[str, str], tmp_path: Path) -> None:
    count_verb.count(
        [str(corpus)], tokenizers["plain"], str(tmp_path / "counts"), LocalEngine(1), Settings(heldout=0.0)
    )
    opened = open_counts(str(tmp_path / "counts"))
    choice = choose(opened, tokenizers["plain"], Goal(vocab=VOCAB, adapt=True))
    assert choice.adapted and choice.adapted.facts["learned"] > 20
    assert choice.adapted.facts["heldout"] is None
    assert not Heldout(opened.heldout, choice.big).measurable


@pytest.mark.parametrize("family", FOLDERS["spm"])
def test_tokenizer_json_beside_a_model(
    family: str, corpus: Path, tokenizers: dict[str, str], tmp_path: Path, text: list[str]
) -> None:
    """A tokenizer.json made from the model by transformers is taught too, and gives the model's ids."""
    transformers = pytest.importorskip("transformers")
    import tokenizers as library

    old = open_tokenizer(tokenizers[family])
    both = tmp_path / "both"
    both.mkdir()
    for name, content in old.subset(np.arange(old.size)).files.items():
        (both / name).write_bytes(content)
    transformers.AutoTokenizer.from_pretrained(str(both)).save_pretrained(str(tmp_path / "saved"))
    (both / "tokenizer.json").write_bytes((tmp_path / "saved/tokenizer.json").read_bytes())
    counted = count(corpus, str(both), tmp_path / "counts")
    assert run(str(counted), "--vocab", str(VOCAB), "--adapt", "-o", str(tmp_path / "new")) == 0
    made, small = manifest(tmp_path / "new"), open_tokenizer(str(tmp_path / "new"))
    assert made["adapted"]["learned"] > 20
    fast = library.Tokenizer.from_file(str(tmp_path / "new/tokenizer.json"))
    assert fast.get_vocab_size() == small.size
    documents = [t.lstrip() for t in text]  # as in test_transformers
    found = [e.ids for e in fast.encode_batch(documents, add_special_tokens=False)]
    assert found == small.encode(documents)


def test_sample(
    corpus: Path, counts: dict[str, Path], tokenizers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a corpus larger than the sample a part is read, the same each time, and it stands for all of it."""
    monkeypatch.setattr(corpus_words, "SAMPLE_BYTES", 40_000)
    monkeypatch.setattr(corpus_words, "STRETCH_BYTES", 1)
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    folder = counts["plain"].parent / "parts"
    folder.mkdir()
    for k in range(16):
        (folder / f"code-{k:05}.jsonl").write_text("".join(lines[k::16]), encoding="utf-8")
    big = open_tokenizer(tokenizers["plain"])
    opened = open_counts(str(count(folder, tokenizers["plain"], counts["plain"].parent / "counts-parts")))
    words, weights = corpus_words.corpus_words(opened.manifest, opened.domain_table, big, big)
    again, _ = corpus_words.corpus_words(opened.manifest, opened.domain_table, big, big)
    assert (words.data == again.data).all() and (words.count == again.count).all()
    assert weights.max() > 2
    ids, word = spelled(words, big)
    tokens = tally(ids, word, words.weighted(weights), big.size).sum()
    assert tokens / opened.train.sum() == pytest.approx(1, abs=0.25)
