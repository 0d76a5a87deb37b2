"""`tinydata count`: the histogram, the held-out slice, domains, quarantine, totals, each against a plain reference."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata.cli.texts.count import warnings_text
from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.engines.local import LocalEngine
from tinydata.formats.base import Wanted
from tinydata.tokenizers import open, probe
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.families.byte_bpe import ByteLevelBPE
from tinydata.tokenizers.kernels.regexes import OTHER
from tinydata.tokenizers.open import open_tokenizer
from tinydata.tokenizers.probe import PROBE
from tinydata.verbs.count import heldout, verb, worker
from tinydata.verbs.count.plan import Settings
from tinydata.verbs.count.worker import count_ids

Rows = list[dict[str, Any]]
DEFAULT = Settings()
INT64 = pa.int64()


@pytest.fixture(scope="module")
def path(byte_bpe: Path) -> str:
    return str(byte_bpe / "gpt2")


@pytest.fixture(scope="module")
def tok(path: str) -> Tokenizer:
    return open_tokenizer(path)


def write(file: Path, rows: Rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return file


def count(corpus: Path, tokenizer: str, settings: Settings = DEFAULT, **options: Any) -> tuple[dict[str, Any], Path]:
    """-> (manifest, output directory)."""
    out = corpus.parent / f"counts-{sum(1 for _ in corpus.parent.iterdir())}"
    return verb.count([str(corpus)], tokenizer, str(out), LocalEngine(1), settings, **options), out


def counted(out: Path, column: str = "count") -> dict[str, Counter[int]]:
    """domain -> Counter of token ids."""
    found: dict[str, Counter[int]] = {}
    for row in pq.read_table(out / "counts.parquet").to_pylist():
        if row[column]:
            found.setdefault(row["domain"], Counter())[row["token_id"]] = row[column]
    return found


def table(out: Path, name: str) -> Rows:
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def encoded(tok: Tokenizer, texts: list[str]) -> Counter[int]:
    return Counter(i for ids in tok.encode(texts) for i in ids)


# -- the histogram ----------------------------------------------------------------------------

DTYPES = ["uint8", "uint16", "int32", "int64"]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[str, list[tuple[int, list[int]]], int]:
    """(dtype, [(group, ids)], vocabulary size): mostly ids inside, some negative, some far outside."""
    dtype = draw(st.sampled_from(DTYPES))
    size = draw(st.integers(1, 300))
    kind = np.iinfo(dtype)
    inside = st.integers(max(int(kind.min), 1 - size), min(int(kind.max), size - 1))
    anything = st.integers(int(kind.min), int(kind.max)) | st.sampled_from([int(kind.min), int(kind.max)])
    ids = st.lists(inside, max_size=20) | st.lists(inside | anything, max_size=20)
    return dtype, draw(st.lists(st.tuples(st.integers(0, 2), ids), max_size=12)), size


@settings(deadline=None, max_examples=300)
@given(corpora(), st.sampled_from([1, 7, 1 << 14]))
def test_count_ids_is_bincount(case: tuple[str, list[tuple[int, list[int]]], int], stretch: int) -> None:
    dtype, documents, size = case
    counts, totals = np.zeros((3, size), np.int64), np.zeros((3, 4), np.int64)
    wrong = np.full(len(documents), -1, np.int64)
    values = np.array([i for _, ids in documents for i in ids], dtype)
    offsets = np.cumsum([0, *(len(ids) for _, ids in documents)]).astype(np.int32)
    groups = np.array([g for g, _ in documents], np.int32)
    count_ids(values, values.view(f"u{values.itemsize}"), offsets, groups, counts, totals, wrong)

    right = np.zeros_like(counts)
    for n, (group, ids) in enumerate(documents):
        outside = [k for k, i in enumerate(ids) if abs(i) >= size]
        assert wrong[n] == (offsets[n] + outside[0] if outside else -1)
        if not outside:
            right[group] += np.bincount(np.abs(np.array(ids, np.int64)), minlength=size)
            totals[group] -= (1, 0, 0, sum(i < 0 for i in ids))
    assert (counts == right).all()
    assert not totals.any()


def test_every_integer_type_of_a_parquet_file(path: str, tok: Tokenizer, tmp_path: Path) -> None:
    """One file each; the counts are those of the values, whatever holds them."""
    documents = [[0, 1, 255, 0], [], [17] * 300]
    for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.int16(), pa.int32(), pa.int64()):
        file = tmp_path / f"{kind}.parquet"
        pq.write_table(pa.table({"input_ids": pa.array(documents, pa.list_(kind))}), file)
        manifest, out = count(file, path)
        assert counted(out) == {file.stem: Counter({0: 2, 1: 1, 255: 1, 17: 300})}, kind
        assert manifest["totals"]["documents"] == 3


# -- ids that cannot be -----------------------------------------------------------------------


def ids_corpus(folder: Path, documents: list[list[int]], kind: pa.DataType = INT64) -> Path:
    names = [f"web-{n}" for n in range(len(documents))]
    file = folder / "ids.parquet"
    pq.write_table(pa.table({"doc_id": names, "input_ids": pa.array(documents, pa.list_(kind))}), file)
    return file


def test_an_id_outside_is_an_error_that_names_it(path: str, tok: Tokenizer, tmp_path: Path) -> None:
    file = ids_corpus(tmp_path, [[1, 2], [3, tok.size, 4], [5]])
    with pytest.raises(TinydataError) as caught:
        count(file, path)
    e = caught.value
    assert f"token id {tok.size} is outside the vocabulary of {tok.size}" in e.what
    assert e.where == f"{file}, row 1, document web-1: [3, {tok.size}, 4]"
    assert "--tokenizer" in e.fix
    assert e.code == FIXABLE


@pytest.mark.parametrize("outside", [2_503, 1 << 31, (1 << 63) - 1, -(1 << 63), -2_503])
def test_a_document_with_an_id_outside_leaves_no_trace(outside: int, path: str, tok: Tokenizer, tmp_path: Path) -> None:
    assert tok.size == 2_503
    file = ids_corpus(tmp_path, [[1, 2], [3, 3, outside, 4], [5]])
    manifest, out = count(file, path, Settings(heldout=0, max_bad=0.5))
    assert counted(out) == {"ids": Counter([1, 2, 5])}
    assert {k: manifest["totals"][k] for k in ("documents", "tokens", "masked")} == {
        "documents": 2,
        "tokens": 3,
        "masked": 0,
    }
    [bad] = table(out, "quarantine")
    assert (bad["path"], bad["position"], bad["doc_id"]) == (str(file), 1, "web-1")
    negative = f"token id {outside} is negative, and only InternEvo's format masks tokens in this way"
    assert bad["reason"] == (negative if outside < 0 else f"token id {outside} is outside the vocabulary of 2503")
    assert bad["excerpt"] == f"[3, 3, {outside}, 4]"[:80]
    assert manifest["quarantined"]["documents"] == 1


def test_unsigned_ids_beyond_int64_are_outside_too(path: str, tmp_path: Path) -> None:
    """As int64 they would be small negative numbers: masked labels."""
    file = ids_corpus(tmp_path, [[1, 2], [(1 << 64) - 3], [5]], pa.uint64())
    manifest, out = count(file, path, Settings(heldout=0, max_bad=0.5))
    assert counted(out) == {"ids": Counter([1, 2, 5])}
    assert manifest["totals"]["masked"] == 0
    [bad] = table(out, "quarantine")
    assert bad["reason"].startswith(f"token id {(1 << 64) - 3} is outside")


def test_negative_ids_are_masked_labels_in_internevo_s_files(path: str, tok: Tokenizer, tmp_path: Path) -> None:
    """Counted as the same token, and said so."""
    (tmp_path / "ids").mkdir()
    (tmp_path / "ids" / "a.bin").write_text('{"tokens": [5, -6, -6]}\n{"tokens": [7]}\n{"tokens": [-8]}\n')
    manifest, out = count(tmp_path / "ids", path)
    assert counted(out) == {"a": Counter([5, 6, 6, 7, 8])}
    assert manifest["totals"]["masked"] == 3
    assert [d["masked"] for d in table(out, "domains")] == [3]
    assert "note: 3 masked tokens (no loss, or negative ids) counted as all others" in warnings_text(manifest)


@pytest.mark.parametrize("mask", [False, True])
def test_negative_ids_elsewhere_are_no_ids(path: str, tok: Tokenizer, tmp_path: Path, mask: bool) -> None:
    """-100 is what other libraries put where there is no label; it is not token 100."""
    ids = [[5, -100, 6], [7, 8], [-1], [9] * 9000 + [-3], [3]]
    columns: dict[str, Any] = {"input_ids": pa.array(ids, pa.list_(pa.int32()))}
    if mask:
        columns["loss_mask"] = [[True] * len(row) for row in ids]
    pq.write_table(pa.table(columns), tmp_path / "ids.parquet")
    manifest, out = count(tmp_path / "ids.parquet", path, Settings(heldout=0, max_bad=1))
    assert counted(out) == {"ids": Counter([7, 8, 3])}
    assert manifest["totals"]["masked"] == 0 and manifest["totals"]["documents"] == 2
    assert [(b["position"], b["reason"].split(",")[0]) for b in table(out, "quarantine")] == [
        (0, "token id -100 is negative"), (2, "token id -1 is negative"), (3, "token id -3 is negative"),
    ]  # fmt: skip


# -- the held-out slice -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(text: list[str]) -> Rows:
    """10,000 short documents with ids."""
    pieces = [t[i : i + 40] for t in text for i in range(0, len(t), 40)]
    return [{"id": f"doc {n}", "text": pieces[n % len(pieces)]} for n in range(10_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_held_out_share(share: float, many: Rows, path: str, tmp_path: Path) -> None:
    manifest, out = count(write(tmp_path / "corpus.jsonl", many), path, Settings(heldout=share))
    held = manifest["totals"]["heldout_documents"]
    assert held == len(table(out, "heldout"))
    assert abs(held - share * len(many)) < 4 * (len(many) * share * (1 - share)) ** 0.5


def test_held_out_counts_are_exactly_those_of_the_held_out_texts(
    many: Rows, path: str, tok: Tokenizer, tmp_path: Path
) -> None:
    rows = [{**r, "domain": "ab"[n % 2]} for n, r in enumerate(many)]
    manifest, out = count(write(tmp_path / "corpus.jsonl", rows), path, Settings(heldout=0.1))
    held = table(out, "heldout")
    by_id = {r["id"]: r for r in rows}
    assert all(by_id[h["doc_id"]]["text"] == h["text"] and by_id[h["doc_id"]]["domain"] == h["domain"] for h in held)
    texts = {d: [h["text"] for h in held if h["domain"] == d] for d in "ab"}
    assert counted(out, "heldout") == {d: encoded(tok, t) for d, t in texts.items()}
    for row in table(out, "domains"):
        mine = texts[row["domain"]]
        assert row["heldout_documents"] == len(mine)
        assert row["heldout_bytes"] == sum(len(t.encode()) for t in mine)
        assert row["heldout_tokens"] == encoded(tok, mine).total()
    assert manifest["totals"]["heldout_tokens"] == sum(r["heldout_tokens"] for r in table(out, "domains"))


def test_nothing_held_out(many: Rows, path: str, tmp_path: Path) -> None:
    manifest, out = count(write(tmp_path / "corpus.jsonl", many[:100]), path, Settings(heldout=0))
    assert table(out, "heldout") == []
    assert manifest["totals"]["heldout_documents"] == manifest["totals"]["heldout_tokens"] == 0


def test_held_out_goes_by_the_documents_id_not_its_place(many: Rows, path: str, tmp_path: Path) -> None:
    """The same documents in another order, in other files: the same are held out."""
    _, one = count(write(tmp_path / "one" / "corpus.jsonl", many), path, Settings(heldout=0.05))
    shuffled = [many[i] for i in np.random.default_rng(1).permutation(len(many))]
    write(tmp_path / "two" / "corpus" / "x.jsonl", shuffled[:300])
    write(tmp_path / "two" / "corpus" / "y.jsonl", shuffled[300:])
    _, two = count(tmp_path / "two" / "corpus", path, Settings(heldout=0.05))
    assert [r["doc_id"] for r in table(one, "heldout")] == [r["doc_id"] for r in table(two, "heldout")]


def test_held_out_without_ids_goes_by_name_and_position(many: Rows, path: str, tmp_path: Path) -> None:
    """The corpus may be moved, and counted in any number of tasks."""
    rows = [{"text": r["text"]} for r in many]
    found = []
    for folder, partitions in (("here", 1), ("there/deeper", 3)):
        write(tmp_path / folder / "corpus" / "x.jsonl", rows[:5_000])
        write(tmp_path / folder / "corpus" / "y.jsonl", rows[5_000:])
        _, out = count(tmp_path / folder / "corpus", path, Settings(heldout=0.05), partitions=partitions)
        found.append(table(out, "heldout"))
    assert found[0] == found[1]
    assert {r["doc_id"].partition(":")[0] for r in found[0]} == {"x.jsonl", "y.jsonl"}


def test_held_out_text_is_cut_at_its_limit(
    many: Rows, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lowest hashes first, as many as fit; the counts are of all that is held out."""
    file = write(tmp_path / "corpus.jsonl", many)
    whole_manifest, whole = count(file, path, Settings(heldout=0.2))
    monkeypatch.setattr(heldout, "HELDOUT_BYTES", 10_000)
    for partitions in (1, 4):
        manifest, out = count(file, path, Settings(heldout=0.2), partitions=partitions)
        kept = table(out, "heldout")
        sizes = [len(r["text"].encode()) for r in table(whole, "heldout")]
        assert kept == table(whole, "heldout")[: int(np.searchsorted(np.cumsum(sizes), 10_000, side="right"))]
        assert 9_000 < sum(len(r["text"].encode()) for r in kept) <= 10_000
        assert [r["hash"] for r in kept] == sorted(r["hash"] for r in kept)
        assert manifest["totals"] == whole_manifest["totals"]


@pytest.mark.parametrize("family", ["gpt2", "prefix"])
def test_held_out_ids_are_decoded(family: str, byte_bpe: Path, spm: Path, text: list[str], tmp_path: Path) -> None:
    tokenizer = str((byte_bpe if family == "gpt2" else spm) / family)
    tok = open_tokenizer(tokenizer)
    documents = tok.encode(text)
    manifest, out = count(ids_corpus(tmp_path, documents, pa.int32()), tokenizer, Settings(heldout=0.5))
    held = {r["doc_id"]: r["text"] for r in table(out, "heldout")}
    assert 20 < len(held) == manifest["totals"]["heldout_documents"]
    for name, found in held.items():
        assert found == tok.decode(documents[int(name.removeprefix("web-"))])


# -- domains ----------------------------------------------------------------------------------


def test_domains_from_folders_and_from_a_column(path: str, tok: Tokenizer, text: list[str], tmp_path: Path) -> None:
    """A domain column decides; where it is null, and in files without one, the folder does."""
    source = ["web", "books", None, "web"]
    mixed = [{"text": t, "source": s} for t, s in zip(text[:4], source, strict=True)]
    write(tmp_path / "corpus" / "mixed" / "part-0.jsonl", mixed)
    write(tmp_path / "corpus" / "code" / "a" / "part-0.jsonl", [{"text": t, "source": None} for t in text[4:6]])
    settings = Settings(wanted=Wanted(domain="source"))
    manifest, out = count(tmp_path / "corpus", path, settings)
    right = {"web": [0, 3], "books": [1], "mixed": [2], "code": [4, 5]}
    assert counted(out) == {d: encoded(tok, [text[i] for i in which]) for d, which in right.items()}
    assert {r["domain"]: r["documents"] for r in table(out, "domains")} == {d: len(w) for d, w in right.items()}
    assert manifest["options"]["domain_column"] == "source"


@pytest.mark.parametrize("partitions", [1, 2])
def test_too_many_domains(partitions: int, path: str, tmp_path: Path) -> None:
    """An error, whether one task meets them or all together do."""
    half = worker.MAX_DOMAINS // 2 + 1
    for name in ("a", "b"):
        write(tmp_path / "corpus" / f"{name}.jsonl", [{"text": "x", "domain": f"{name}{i}"} for i in range(half)])
    with pytest.raises(TinydataError, match=f"more than {worker.MAX_DOMAINS} domains") as caught:
        count(tmp_path / "corpus", path, partitions=partitions)
    assert "--domain-column" in caught.value.fix


def test_as_many_domains_as_may_be(path: str, tmp_path: Path) -> None:
    rows = [{"text": "x", "domain": f"{i}"} for i in range(worker.MAX_DOMAINS)]
    manifest, _ = count(write(tmp_path / "corpus.jsonl", rows), path)
    assert manifest["totals"]["domains"] == worker.MAX_DOMAINS


# -- quarantine -------------------------------------------------------------------------------


@pytest.fixture
def broken(text: list[str], tmp_path: Path) -> Path:
    """100 lines, the 41st and the last of them broken."""
    rows = [{"id": str(n), "text": text[n % len(text)][:200]} for n in range(100)]
    file = write(tmp_path / "corpus.jsonl", rows)
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[40] = '{"id": "40", "text": "it breaks off'
    lines[99] = '{"id": "99", "text": 17}'
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_more_bad_documents_than_allowed(broken: Path, path: str) -> None:
    with pytest.raises(TinydataError) as caught:
        count(broken, path, Settings(max_bad=0.019))
    e = caught.value
    assert e.what.startswith(
        "2 of 100 documents cannot be used, more than --max-bad 0.019; the first: broken JSON line"
    )
    start = broken.read_bytes().index(b'{"id": "40"')
    assert e.where == f'{broken}, byte {start}: {{"id": "40", "text": "it breaks off'
    assert e.fix == "repair or remove the file, or allow more with --max-bad"
    assert e.code == FIXABLE


def test_bad_documents_as_many_as_allowed(broken: Path, path: str, tok: Tokenizer) -> None:
    """Exactly two in a hundred; each is in the table with its place and its first 80 characters."""
    manifest, out = count(broken, path, Settings(heldout=0, max_bad=0.02))
    assert manifest["quarantined"] == {"documents": 2, "reasons": {"broken JSON line": 2}, "unread_bytes": {}}
    data = broken.read_bytes()
    rows = table(out, "quarantine")
    assert [data[r["position"] :][:12] for r in rows] == [b'{"id": "40",', b'{"id": "99",']
    assert all(data[r["position"] :].decode().startswith(r["excerpt"]) for r in rows)
    good = [json.loads(line)["text"] for n, line in enumerate(data.splitlines()) if n not in (40, 99)]
    assert counted(out) == {"corpus": encoded(tok, good)}
    [warning] = warnings_text(manifest)
    assert warning.startswith("warning: 2 documents quarantined (2 x broken JSON line)")


def test_allowing_more_after_the_error_does_not_read_again(broken: Path, path: str, tmp_path: Path) -> None:
    """--max-bad decides what becomes of the counts, not what they are."""

    class Idle(LocalEngine):
        def run(self, tasks: list[Any], *rest: Any, **options: Any) -> Any:
            assert not tasks
            return super().run(tasks, *rest, **options)

    out = str(tmp_path / "counts")
    with pytest.raises(TinydataError):
        verb.count([str(broken)], path, out, LocalEngine(1), Settings(max_bad=0))
    manifest = verb.count([str(broken)], path, out, Idle(1), Settings(max_bad=0.1))
    assert manifest["totals"]["documents"] == 98


def test_nothing_but_bad_documents(path: str, tmp_path: Path) -> None:
    file = write(tmp_path / "corpus.jsonl", [{"text": "x"}])
    file.write_text('{"text": "x", "n": 1\n' * 3, encoding="utf-8")
    with pytest.raises(TinydataError) as caught:
        count(file, path, Settings(max_bad=1))
    assert caught.value.code == UNREADABLE


# -- totals and files -------------------------------------------------------------------------


def test_totals(path: str, tok: Tokenizer, text: list[str], tmp_path: Path) -> None:
    """Empty documents are documents; bytes are those of the text in UTF-8."""
    texts = [*text, "", ""]
    manifest, _ = count(write(tmp_path / "corpus.jsonl", [{"text": t} for t in texts]), path)
    right = encoded(tok, texts)
    assert {k: manifest["totals"][k] for k in ("documents", "tokens", "bytes", "distinct_tokens", "domains")} == {
        "documents": len(texts),
        "tokens": right.total(),
        "bytes": sum(len(t.encode()) for t in texts),
        "distinct_tokens": len(right),
        "domains": 1,
    }


def test_bytes_of_a_tokenized_corpus_are_those_of_its_text(
    path: str, tok: Tokenizer, text: list[str], tmp_path: Path
) -> None:
    manifest, _ = count(ids_corpus(tmp_path, tok.encode(text)), path)
    assert manifest["totals"]["bytes"] == sum(len(t.encode()) for t in text)


def test_json_freq_is_a_counter_in_json(path: str, tok: Tokenizer, text: list[str], tmp_path: Path) -> None:
    rows = [{"text": t, "domain": "ab"[n % 2]} for n, t in enumerate(text)]
    _, out = count(write(tmp_path / "corpus.jsonl", rows), path, json_freq=True)
    found = json.loads((out / "total_token_freq.json").read_text())
    assert {int(k): n for k, n in found.items()} == encoded(tok, text)
    assert list(map(int, found)) == sorted(map(int, found))


def test_internevo_files_of_the_real_tool(shared: Path, tmp_path: Path) -> None:
    """Lines of {"tokens": [...]}, as json reads them."""
    shutil.copytree(shared / "fixtures" / "internevo_bin_meta", corpus := tmp_path / "corpus")
    for source in corpus.rglob("*.source.txt.gz"):  # the text it was made of
        source.unlink()
    tokenizer = str(shared / "tokenizers" / "sp_bpe" / "internlm_103168")
    manifest = verb.count([str(corpus)], tokenizer, str(tmp_path / "counts"), LocalEngine(1), Settings())
    right: dict[str, Counter[int]] = {}
    documents = 0
    for file in sorted(corpus.rglob("*.bin")):
        for line in file.read_text().splitlines():
            right.setdefault(file.parent.name, Counter()).update(map(abs, json.loads(line)["tokens"]))
            documents += 1
    assert set(right) == {"cn", "en"}
    assert counted(tmp_path / "counts") == right
    assert manifest["totals"]["documents"] == documents
    assert manifest["kind"] == "ids"


# -- words first, and when it is wrong --------------------------------------------------------


def cutting_wrongly(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every byte-level cutter takes `letter` for punctuation."""
    right = ByteLevelBPE.cutter.func  # type: ignore[attr-defined]

    def wrong(self: ByteLevelBPE) -> Any:
        cutter = right(self)
        classes = cutter.classes.copy()
        classes[ord(letter)] = OTHER
        return cutter._replace(classes=classes)

    monkeypatch.setattr(ByteLevelBPE, "cutter", property(wrong))
    open._LOADED.clear()


@pytest.fixture(autouse=True)
def fresh_tokenizers() -> Any:
    """No tokenizer that a test bent is met by the next."""
    yield
    open._LOADED.clear()


def test_a_split_that_words_first_gets_wrong_is_encoded_whole(
    path: str, tok: Tokenizer, text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that the built-in probe does not show, in one of two files: exact all the same, and said."""
    assert "q" not in "".join(PROBE)
    documents = [t for t in text if "q" in t][:20], [t.replace("q", "k") for t in text[:20]]
    for name, texts in zip("ab", documents, strict=True):
        write(tmp_path / "corpus" / f"{name}.jsonl", [{"text": t} for t in texts])
    cutting_wrongly("q", monkeypatch)
    for partitions in (1, 2):
        manifest, out = count(tmp_path / "corpus", path, partitions=partitions)
        assert counted(out) == {n: encoded(tok, texts) for n, texts in zip("ab", documents, strict=True)}
        assert manifest["encoded_whole"] == [str(tmp_path / "corpus" / "a.jsonl")]
        said = [line for line in warnings_text(manifest) if "words first" in line]
        where = tmp_path / "corpus" / "a.jsonl"
        assert said == [
            f"note: encoding words first differs from the tokenizer's library on {where}; it was encoded whole"
        ]


def test_the_fault_is_one(path: str, tok: Tokenizer, text: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above relies on: with that cutter, words first by itself gives other counts."""
    texts = [t for t in text if "q" in t][:20]
    cutting_wrongly("q", monkeypatch)
    from tinydata.tokenizers.probe import agrees

    bent = open_tokenizer(path)
    assert agrees(bent, PROBE)
    assert not agrees(bent, texts)


def test_a_tokenizer_that_the_probe_refuses_is_not_cut_at_all(
    path: str, tok: Tokenizer, text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutting_wrongly("l", monkeypatch)
    exact, why = probe.words_first(open_tokenizer(path))
    assert not exact
    assert "probe" in why
    _, out = count(write(tmp_path / "corpus.jsonl", [{"text": t} for t in text]), path)
    assert counted(out) == {"corpus": encoded(tok, text)}
