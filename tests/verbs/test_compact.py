"""`tinydata compact`: every goal, every invariant of the vocabulary, on each family; then real tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tinydata.cli.main import main
from tinydata.core.errors import DONE, FIXABLE, UNREADABLE, USAGE, TinydataError
from tinydata.engines.local import LocalEngine
from tinydata.tokenizers.base import ADDED, BYTE, CONTROL
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.compact.plan import Counts, Goal, choose, curve, open_counts
from tinydata.verbs.compact.prune import kept, most_frequent, real_size
from tinydata.verbs.compact.tradeoff import Heldout
from tinydata.verbs.compact.verb import compact
from tinydata.verbs.count import verb as count_verb
from tinydata.verbs.count.plan import Settings

FOLDERS = {  # of conftest, and of each the tokenizers in it
    "byte_bpe": ("gpt2", "qwen", "llama3"),
    "spm": ("plain", "prefix"),
    "matching": ("unigram", "unigram_bytes", "unigram_json", "wordpiece", "wordpiece_json", "char_json"),
    "ranks": ("made",),
}
FAMILIES = [name for names in FOLDERS.values() for name in names]
UNSPELLED = ("unigram", "unigram_json", "wordpiece", "wordpiece_json")  # without byte fallback
VOCAB = 1_500
SHARE = 0.3


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return file


def count(corpus: Path, tokenizer: str, out: Path, share: float = SHARE) -> Path:
    count_verb.count([str(corpus)], tokenizer, str(out), LocalEngine(1), Settings(heldout=share))
    return out


@pytest.fixture(scope="module")
def rows(text: list[str]) -> list[dict[str, str]]:
    """Documents of 1,000 characters in two domains, so that a good number is held out."""
    pieces = [(n, t[i : i + 1_000]) for n, t in enumerate(text) for i in range(0, len(t), 1_000)]
    return [{"id": f"{n}-{k}", "domain": "code" if n < 60 else "prose", "text": t} for k, (n, t) in enumerate(pieces)]


@pytest.fixture(scope="module")
def corpus(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("compact") / "corpus.jsonl", rows)


@pytest.fixture(scope="module")
def tokenizers(byte_bpe: Path, spm: Path, matching: Path, ranks: Path) -> dict[str, str]:
    folders = {"byte_bpe": byte_bpe, "spm": spm, "matching": matching, "ranks": ranks}
    return {name: str(folders[folder] / name) for folder, names in FOLDERS.items() for name in names}


@pytest.fixture(scope="module")
def counts(corpus: Path, tokenizers: dict[str, str]) -> dict[str, Path]:
    """Family -> COUNTS directory."""
    return {name: count(corpus, path, corpus.parent / f"counts-{name}") for name, path in tokenizers.items()}


@pytest.fixture(scope="module")
def opened(counts: dict[str, Path]) -> dict[str, Counts]:
    return {name: open_counts(str(path)) for name, path in counts.items()}


@pytest.fixture(scope="module")
def vocabularies(counts: dict[str, Path], tokenizers: dict[str, str]) -> dict[str, Path]:
    """Family -> VOCAB directory of 1,500 ids."""
    made = {}
    for name, path in counts.items():
        made[name] = path.parent / f"vocab-{name}"
        compact(str(path), tokenizers[name], str(made[name]), Goal(vocab=VOCAB))
    return made


def run(*args: str) -> int:
    """`tinydata compact …` -> exit code."""
    with pytest.raises(SystemExit) as left:
        main(["compact", *args])
    return int(left.value.code or 0)


def manifest(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "manifest.json").read_bytes())


def content(directory: Path) -> dict[str, bytes]:
    found = {p.name: p.read_bytes() for p in directory.iterdir()}
    found.pop(".run.json", None)
    return found


# -- what a vocabulary is ---------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_vocabulary(family: str, vocabularies: dict[str, Path]) -> None:
    """As many ids as were asked for, none dead, no gap; and the text of every sampled document is the same."""
    made = manifest(vocabularies[family])
    trade = made["trade"]
    small = open_tokenizer(str(vocabularies[family]))
    assert small.size == VOCAB == trade["ids"]["after"] == made["vocabulary"]["size"]
    assert not small.gap.any()
    assert trade["dead_pieces"]["after"] == int((~small.tree().reachable).sum()) == 0
    trip = trade["heldout"]["round_trip"]
    assert trip["same_text"] == trip["documents"] > 30


@pytest.mark.parametrize("family", FAMILIES)
def test_idmap(family: str, tokenizers: dict[str, str], vocabularies: dict[str, Path]) -> None:
    """A kept id maps to the id of the same piece; a removed one to kept pieces that spell it; new ids are 0..n-1."""
    big, small = open_tokenizer(tokenizers[family]), open_tokenizer(str(vocabularies[family]))
    table = pq.read_table(vocabularies[family] / "idmap.parquet").to_pylist()
    assert [r["old_id"] for r in table] == list(range(big.size))
    new = [r["parts"][0] for r in table if r["kept"]]
    dead = ~big.tree().reachable
    assert sorted(new) == list(range(small.size))
    for r in table:
        if r["kept"]:
            assert len(r["parts"]) == 1
            assert small.kinds[r["parts"][0]] == big.kinds[r["old_id"]]
        elif not dead[r["old_id"]]:
            assert len(r["parts"]) > 1
        spelled = b"".join(small.pieces[p] for p in r["parts"])
        assert spelled == big.pieces[r["old_id"]] or (dead[r["old_id"]] and r["parts"] == [small.unk])
    special = [r for r in table if big.kinds[r["old_id"]] in (CONTROL, BYTE, ADDED)]
    assert all(r["kept"] for r in special)
    assert len(special) > (2 if family in UNSPELLED else 256)


@pytest.mark.parametrize("family", FAMILIES)
def test_trade_is_what_the_library_measures(
    family: str, tokenizers: dict[str, str], vocabularies: dict[str, Path], opened: dict[str, Counts]
) -> None:
    big, small = open_tokenizer(tokenizers[family]), open_tokenizer(str(vocabularies[family]))
    held = opened[family].heldout.to_pylist()
    trade = manifest(vocabularies[family])["trade"]["heldout"]
    assert trade["documents"] == len(held) > 30
    for name, said in [("", trade), *((d["domain"], d) for d in trade["domains"])]:
        texts = [r["text"] for r in held if name in ("", r["domain"])]
        before, after = (sum(map(len, t.encode(texts))) for t in (big, small))
        assert (said["tokens_before"], said["tokens_after"]) == (before, after)
        assert said["inflation"] == pytest.approx(after / before - 1)
        assert said["bytes_per_token_after"] == pytest.approx(sum(len(t.encode()) for t in texts) / after)
    assert {d["domain"] for d in trade["domains"]} == {"code", "prose"}


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_gives_the_same_ids(
    family: str, vocabularies: dict[str, Path], text: list[str], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copytree(vocabularies[family], tmp_path / "vocab")  # transformers' own loader, from the directory as it is
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "vocab"))
    ours = open_tokenizer(str(vocabularies[family]))
    assert len(theirs) == ours.size
    # sentencepiece puts its dummy prefix before a blank too, transformers does not: with the big tokenizer as well
    documents = [t[:1_500].lstrip() for t in text]
    pairs = [
        (theirs.encode(t, add_special_tokens=False), o) for t, o in zip(documents, ours.encode(documents), strict=True)
    ]
    # sentencepiece adds up the scores of a whole text in 32 bits, tokenizers in 64: near ties go another way
    assert sum(a != b for a, b in pairs) <= 2 * (ours.family == "sentencepiece-unigram")


@pytest.mark.parametrize("family", ["gpt2", "prefix"])
def test_same_bytes_the_second_time(family: str, counts: dict[str, Path], tokenizers: dict[str, str]) -> None:
    made = []
    for n in range(2):
        out = counts[family].parent / f"twice-{family}-{n}"
        compact(str(counts[family]), tokenizers[family], str(out), Goal(vocab=1_200, min_per_domain=50))
        made.append(content(out))
    assert made[0] == made[1]
    assert {"manifest.json", "README.md", "idmap.parquet"} < set(made[0])


def test_held_out_text_has_no_say(rows: list[dict[str, str]], tokenizers: dict[str, str], tmp_path: Path) -> None:
    """Other text in the held-out documents: another measurement, the same choice."""
    path = tokenizers["gpt2"]
    first = open_counts(str(count(write(tmp_path / "a.jsonl", rows), path, tmp_path / "a")))
    held = set(first.heldout["doc_id"].to_pylist())
    other = [{**r, "text": "völlig anderer Text 12345 " * 40} if r["id"] in held else r for r in rows]
    second = open_counts(str(count(write(tmp_path / "b.jsonl", other), path, tmp_path / "b")))
    for goal in (Goal(vocab=VOCAB), Goal(coverage=0.9), Goal(vocab=VOCAB, min_per_domain=300)):
        one, two = choose(first, path, goal), choose(second, path, goal)
        assert (one.keep == two.keep).all()
        assert one.tradeoff["heldout"]["inflation"] != two.tradeoff["heldout"]["inflation"]


# -- how far to go ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "prefix"])
@pytest.mark.parametrize("coverage", [0.8, 0.95, 1.0])
def test_coverage(family: str, coverage: float, opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    """At least the share that was asked for, and with one piece less it would not be."""
    choice = choose(opened[family], tokenizers[family], Goal(coverage=coverage))
    train = opened[family].train.sum(0)
    assert choice.tradeoff["coverage"] == train[choice.keep].sum() / train.sum() >= coverage
    less = kept(choice.big, choice.order, int(choice.keep.sum()) - 1)
    assert train[less].sum() / train.sum() < coverage


@pytest.mark.parametrize("family", ["gpt2", "prefix"])
@pytest.mark.parametrize("limit", [0.005, 0.05])
def test_max_inflation(family: str, limit: float, opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    """Measured within the limit, and 64 ids fewer would not be."""
    choice = choose(opened[family], tokenizers[family], Goal(max_inflation=limit))
    assert choice.tradeoff["heldout"]["inflation"] <= limit
    fewer = kept(choice.big, choice.order, choice.small.size - 64)
    assert Heldout(opened[family].heldout, choice.big).inflation(fewer) > limit


def test_max_inflation_of_nothing(opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    choice = choose(opened["gpt2"], tokenizers["gpt2"], Goal(max_inflation=0.0))
    assert choice.tradeoff["heldout"]["inflation"] == 0
    assert choice.small.size <= choice.big.size


@pytest.mark.parametrize(
    "goal", [Goal(vocab=1_501, multiple_of=64), Goal(coverage=0.9, multiple_of=128), Goal(max_inflation=0.05)]
)
def test_multiple_of(goal: Goal, opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    """Rounded up."""
    plain = choose(opened["gpt2"], tokenizers["gpt2"], goal._replace(multiple_of=1)).small.size
    round_up = choose(opened["gpt2"], tokenizers["gpt2"], goal).small.size
    assert round_up == -(-plain // goal.multiple_of) * goal.multiple_of


def test_multiple_of_never_goes_beyond_the_big_tokenizer(opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    choice = choose(opened["gpt2"], tokenizers["gpt2"], Goal(vocab=2_503, multiple_of=1_000))
    assert choice.small.size == choice.big.size == 2_503


@pytest.mark.parametrize("family", ["gpt2", "prefix"])
def test_keep_tokens(family: str, opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    """By text and by #ID; with each stays what it is merged from, so that it can be produced."""
    plain = choose(opened[family], tokenizers[family], Goal(vocab=VOCAB))
    long = [i for i in np.flatnonzero(~plain.keep).tolist() if len(plain.big.pieces[i]) >= 6]
    by_text = next(i for i in long if plain.big.pieces[i].decode("utf-8", "replace").strip().isalpha())
    by_id = next(i for i in long if i != by_text)
    wanted = (plain.big.pieces[by_text].decode(), f"#{by_id}")
    choice = choose(opened[family], tokenizers[family], Goal(vocab=VOCAB, keep_tokens=wanted))
    assert choice.keep[by_text]
    assert choice.keep[by_id]
    assert choice.small.size == VOCAB
    assert choice.tradeoff["dead_pieces"]["after"] == 0


@pytest.mark.parametrize("line", ["no such token at all", "#999999"])
def test_keep_tokens_that_are_not_there(
    line: str, counts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keep.txt").write_text(f"{line}\n", encoding="utf-8")
    out = str(tmp_path / "vocab")
    code = run(str(counts["gpt2"]), "--vocab", "1500", "--keep-tokens", str(tmp_path / "keep.txt"), "-o", out)
    assert code == FIXABLE
    assert f"error: --keep-tokens: the original tokenizer has no token {line!r}" in capsys.readouterr().err


def test_keep_tokens_from_a_file(counts: dict[str, Path], tokenizers: dict[str, str], tmp_path: Path) -> None:
    """One a line, blanks as they are in text; #ID, and an empty line is none."""
    big = open_tokenizer(tokenizers["gpt2"])
    plain = choose(open_counts(str(counts["gpt2"])), tokenizers["gpt2"], Goal(vocab=VOCAB))
    gone = [i for i in np.flatnonzero(~plain.keep).tolist() if big.pieces[i].strip().isalpha()]
    spaced = next(i for i in gone if big.pieces[i].startswith(b" "))
    text = f"{big.pieces[spaced].decode()}\n\n#{gone[0]}\n"
    (tmp_path / "keep.txt").write_text(text, encoding="utf-8")
    args = ["--vocab", str(VOCAB), "--keep-tokens", str(tmp_path / "keep.txt"), "-o", str(tmp_path / "vocab")]
    assert run(str(counts["gpt2"]), *args) == DONE
    mapped = pq.read_table(tmp_path / "vocab" / "idmap.parquet")["kept"].to_pylist()
    assert mapped[spaced]
    assert mapped[gone[0]]
    assert manifest(tmp_path / "vocab")["options"]["keep_tokens"] == [big.pieces[spaced].decode(), f"#{gone[0]}"]


def test_min_per_domain(opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    """Each domain's own most frequent ids stay, however small the domain."""
    source = opened["gpt2"]
    choice = choose(source, tokenizers["gpt2"], Goal(vocab=1_300, min_per_domain=400))
    plain = choose(source, tokenizers["gpt2"], Goal(vocab=1_300))
    lost = 0
    for row in source.train:
        best = np.argsort(-row, kind="stable")[:400]
        best = best[row[best] > 0]
        assert choice.keep[best].all()
        lost += int((~plain.keep[best]).sum())
    assert lost, "the option made no difference here"
    assert choice.small.size == 1_300


@pytest.mark.parametrize("family", FAMILIES)
def test_frequency_is_worse(family: str, opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    leaf = choose(opened[family], tokenizers[family], Goal(vocab=VOCAB)).tradeoff
    frequency = choose(opened[family], tokenizers[family], Goal(vocab=VOCAB, method="frequency")).tradeoff
    both = {"leaf": leaf, "frequency": frequency}
    assert leaf["ids"]["after"] == frequency["ids"]["after"] == VOCAB
    lost = {name: t["heldout"]["unknown_after"] - t["heldout"]["unknown_before"] for name, t in both.items()}
    assert lost["leaf"] <= 0
    if lost["frequency"] > 0:  # it dropped characters, and shortened the text so
        assert family in UNSPELLED
    else:
        assert leaf["heldout"]["inflation"] < frequency["heldout"]["inflation"]
    assert leaf["dead_pieces"]["after"] == 0


@pytest.mark.parametrize("goal", [Goal(coverage=0.9, method="frequency"), Goal(max_inflation=0.1, method="frequency")])
def test_frequency_is_for_a_given_size(goal: Goal, opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    """The other goals are searched along the leaf order; a vocabulary of another method would miss them."""
    with pytest.raises(TinydataError, match="frequency"):
        choose(opened["gpt2"], tokenizers["gpt2"], goal)


def test_d_model(opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    trade = choose(opened["gpt2"], tokenizers["gpt2"], Goal(vocab=VOCAB), d_model=100).tradeoff
    assert trade["embedding_and_head_parameters"] == {"before": 2 * 2_503 * 100, "after": 2 * VOCAB * 100}


def test_curve_falls(opened: dict[str, Counts], tokenizers: dict[str, str]) -> None:
    choice = choose(opened["gpt2"], tokenizers["gpt2"], Goal(vocab=VOCAB))
    points = curve(choice, opened["gpt2"], 2048)
    sizes, inflations, covered = ([p[k] for p in points] for k in ("vocab", "inflation", "coverage"))
    assert sizes == sorted(sizes)
    assert VOCAB in sizes
    assert sizes[-1] == 2_503
    assert inflations[-1] == 0
    assert inflations == sorted(inflations, reverse=True)
    assert covered == sorted(covered)
    assert next(p for p in points if p["vocab"] == VOCAB)["inflation"] == choice.tradeoff["heldout"]["inflation"]


# -- a tokenizer with gaps --------------------------------------------------------------------


@pytest.fixture(scope="module")
def gappy(tokenizers: dict[str, str], corpus: Path) -> tuple[str, Counts]:
    """GPT-2's with three ids that stand for nothing, and a few pieces that can never be produced."""
    where = corpus.parent / "gappy"
    where.mkdir()
    config = json.loads((Path(tokenizers["gpt2"]) / "tokenizer.json").read_text(encoding="utf-8"))
    model = config["model"]
    parts = {half for merge in model["merges"] for half in (merge if isinstance(merge, list) else merge.split(" "))}
    leaves = [
        piece for piece in sorted(model["vocab"], key=model["vocab"].get) if len(piece) > 3 and piece not in parts
    ]
    gone, dead = set(leaves[10:13]), set(leaves[-5:])
    model["vocab"] = {piece: i for piece, i in model["vocab"].items() if piece not in gone}
    model["merges"] = [
        m for m in model["merges"] if "".join(m if isinstance(m, list) else m.split()) not in gone | dead
    ]
    (where / "tokenizer.json").write_text(json.dumps(config), encoding="utf-8")
    return str(where), open_counts(str(count(corpus, str(where), corpus.parent / "counts-gappy")))


@pytest.mark.parametrize("method", ["leaf", "frequency"])
@pytest.mark.parametrize("size", [2_500, 2_499, 1_500])
def test_gaps_go_first(size: int, method: str, gappy: tuple[str, Counts]) -> None:
    """A compact vocabulary has none: whoever keeps all real ids keeps no gap in place of one."""
    path, source = gappy
    big = open_tokenizer(path)
    assert (big.size, real_size(big), int((~big.tree().reachable).sum())) == (2_503, 2_500, 5)
    choice = choose(source, path, Goal(vocab=size, method=method))
    assert choice.small.size == size
    assert not choice.small.gap.any()
    assert not (choice.keep & big.gap).any()
    assert choice.small.encode(["a plain sentence, 12 words"])


# -- through the command line -----------------------------------------------------------------


def test_command_line(counts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Talk on stderr, the result on stdout; --json is the manifest."""
    out = tmp_path / "vocab"
    assert run(str(counts["prefix"]), "--vocab", "1200", "--multiple-of", "64", "-o", str(out), "--json") == DONE
    said = capsys.readouterr()
    assert json.loads(said.out) == manifest(out)
    assert manifest(out)["trade"]["ids"]["after"] == 1_216
    assert "inflation on held-out text" in said.err


def test_dry_run_writes_nothing(counts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(counts["gpt2"].parent.iterdir())
    assert run(str(counts["gpt2"]), "--vocab", "1200", "-o", str(tmp_path / "vocab"), "--dry-run") == DONE
    assert "inflation on held-out text" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert sorted(counts["gpt2"].parent.iterdir()) == before


def test_curve_without_a_size(counts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only looks."""
    assert run(str(counts["gpt2"]), "--curve", "-o", str(tmp_path / "vocab"), "--json") == DONE
    found = json.loads(capsys.readouterr().out)
    assert [p["vocab"] for p in found["curve"]][-1] == 2_503
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("goal", [[], ["--vocab", "1500", "--coverage", "0.9"]])
def test_exactly_one_goal(goal: list[str], counts: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(counts["gpt2"]), *goal, "-o", "never") == USAGE
    assert "exactly one of --vocab, --coverage and --max-inflation" in capsys.readouterr().err


def test_vocab_below_the_floor(counts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says how many must stay and why; that many is then possible."""
    out = str(tmp_path / "vocab")
    assert run(str(counts["gpt2"]), "--vocab", "200", "-o", out) == FIXABLE
    said = capsys.readouterr().err
    assert "error: --vocab 200 is less than the 259 ids that must be kept (3 special, 256 bytes, 0 added" in said
    assert "fix:   pass --vocab 259 or more" in said
    assert run(str(counts["gpt2"]), "--vocab", "259", "-o", out) == DONE
    assert run(str(counts["gpt2"]), "--vocab", "258", "-o", out, "--force") == FIXABLE


def test_vocab_above_the_top(counts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(counts["gpt2"]), "--vocab", "2504", "-o", str(tmp_path / "vocab")) == FIXABLE
    assert "error: --vocab 2,504 is more than the 2,503 ids of the original tokenizer" in capsys.readouterr().err


def test_counts_of_another_tokenizer(
    counts: dict[str, Path], tokenizers: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--tokenizer", tokenizers["qwen"], "--vocab", "1500", "-o", str(tmp_path / "vocab")]
    assert run(str(counts["gpt2"]), *args) == FIXABLE
    said = capsys.readouterr().err
    assert f"error: the counts were computed with a different tokenizer: {tokenizers['gpt2']}" in said
    assert f"where: {tokenizers['qwen']}" in said
    assert list(tmp_path.iterdir()) == []


def test_not_counts(vocabularies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for place, what in [
        (vocabularies["gpt2"], "was created by `tinydata compact`, not by `tinydata count`"),
        (tmp_path / "empty", "has no manifest.json"),
        (tmp_path / "nowhere", "no such directory"),
    ]:
        assert run(str(place), "--vocab", "1500", "-o", str(tmp_path / "vocab")) == UNREADABLE
        assert what in capsys.readouterr().err


def test_max_inflation_without_held_out_text(
    corpus: Path, tokenizers: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A size can still be chosen; inflation is then not measured, and that is said."""
    made = count(corpus, tokenizers["gpt2"], tmp_path / "counts", share=0)
    assert run(str(made), "--max-inflation", "0.1", "-o", str(tmp_path / "vocab")) == FIXABLE
    assert "needs held-out text" in capsys.readouterr().err
    assert run(str(made), "--vocab", "1500", "-o", str(tmp_path / "vocab")) == DONE
    assert "there is no held-out text" in capsys.readouterr().err
    assert manifest(tmp_path / "vocab")["trade"]["heldout"] is None


# -- real tokenizers --------------------------------------------------------------------------

REAL = {
    "internlm": "sp_bpe/internlm_103168",
    "mistral": "sp_bpe/mistral_v1_32000",
    "gpt2": "bytebpe/gpt2_50257",
    "olmo": "bytebpe/olmo_gpt_neox_v1_5",
    "t5": "sp_unigram/t5_base_32000",
    "unigram": "sp_unigram/transformers_fixture_1000",
    "bert": "wordpiece/bert_base_cased_28996",
    "tiktoken": "tiktoken/whisper_gpt2",
}
SOME = ("en_tinystories", "code_redpajama_github", "mul_redpajama_wiki", "zh_drcd_wiki", "en_wikitext2_valid")


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of some real corpora, 3 MB of text."""
    root = tmp_path_factory.mktemp("real") / "corpus"
    root.mkdir()
    for name in SOME:
        shutil.copy(shared / "corpora" / f"{name}.jsonl.zst", root)
    return root


ALWAYS = ("internlm", "t5")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in ALWAYS else pytest.mark.slow) for n in REAL])
def test_real_tokenizers(name: str, shared: Path, real: Path) -> None:
    """To a half and to a third: nothing dead, the same text, and shorter than the most frequent ids give."""
    path = str(shared / "tokenizers" / REAL[name])
    source = open_counts(str(count(real, path, real.parent / f"counts-{name}", share=0.1)))
    big, train = open_tokenizer(path), source.train.sum(0)
    held = Heldout(source.heldout, big)
    for part in (2, 3):
        size = real_size(big) // part
        trade = choose(source, path, Goal(vocab=size)).tradeoff
        assert trade["ids"]["after"] == size
        assert trade["dead_pieces"]["after"] == 0
        trip = trade["heldout"]["round_trip"]
        assert trip["same_text"] == trip["documents"] > 50
        assert trade["heldout"]["unknown_after"] <= trade["heldout"]["unknown_before"]
        # what must stay, first: no method may shorten the text by dropping characters
        often = most_frequent(big, np.where(big.removable(), train, train.max() + 1), size)
        worse = held.inflation(often)
        assert trade["heldout"]["inflation"] <= worse and (part == 2 or trade["heldout"]["inflation"] < worse)
