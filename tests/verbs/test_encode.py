"""Encoding and rewriting against short references, and shards against what the formats' own readers make of them."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata.cli.main import main
from tinydata.core import schema
from tinydata.core.errors import UNREADABLE, TinydataError, UpToDate
from tinydata.core.hashing import shuffle_keys
from tinydata.engines.local import LocalEngine
from tinydata.formats.corpus import plan, read
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.open import open_tokenizer
from tinydata.tokenizers.probe import PROBE
from tinydata.tokenizers.special_tokens import Edges, edges, frame
from tinydata.tokenizers.text_encoder import TextEncoder, exact
from tinydata.verbs.compact import domain_guard, verb
from tinydata.verbs.compact import plan as compact
from tinydata.verbs.count import plan as count
from tinydata.verbs.count import verb as count_verb
from tinydata.verbs.encode import assemble, rewrite
from tinydata.verbs.encode import plan as encode
from tinydata.verbs.encode import verb as encode_verb
from tinydata.verbs.encode.encoders import COMPARED
from tinydata.verbs.encode.plan import Settings
from tinydata.verbs.encode.rewrite import Rewriter, id_map

TRAINED = ["byte_bpe/gpt2", "byte_bpe/qwen", "byte_bpe/llama3", "spm/plain", "spm/prefix"]
LOCAL = LocalEngine(1)


@pytest.fixture(scope="module", params=TRAINED)
def tok(request: pytest.FixtureRequest) -> Tokenizer:
    folder, name = request.param.split("/")
    return open_tokenizer(str(request.getfixturevalue(folder) / name))


def rows(ids: np.ndarray, ends: np.ndarray) -> list[list[int]]:
    return [ids[a:b].tolist() for a, b in pairwise(ends)]


# -- text to ids ------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 6, 18])  # lines of the cache: evictions all the time, often, hardly
def test_ids_are_the_librarys(tok: Tokenizer, text: list[str], bits: int) -> None:
    texts = [*text, *PROBE, "a" * 5_000, "b " * 3_000, "\n".join(text[:20])]
    encoder = TextEncoder(tok, bits=bits)
    assert rows(*encoder.encode(pa.array(texts))) == tok.encode(texts)
    assert rows(*encoder.encode(pa.array(texts).slice(7, 9))) == tok.encode(texts[7:16])  # and from a slice


def test_most_are_encoded_words_first(tok: Tokenizer) -> None:
    assert (exact(tok) == "") == (tok.cutter is not None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=6))
def test_ids_of_any_text(tok: Tokenizer, texts: list[str]) -> None:
    assert rows(*TextEncoder(tok, bits=4).encode(pa.array(texts, pa.string()))) == tok.encode(texts)


# -- old ids to new ---------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1 << 26])  # elements reserved unseen
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_rewriting_is_looking_up_each_id(room: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 70_000))
    new = st.integers(0, size - 1)
    parts = data.draw(st.lists(st.lists(new, min_size=1, max_size=7), min_size=1, max_size=8))
    dtype = data.draw(st.sampled_from(["int32", "int64", "uint16", "uint64", "int16"]))
    out = np.uint16 if size < 1 << 16 else np.int32
    low = -len(parts) - 1 if dtype.startswith("int") else 0
    documents = data.draw(st.lists(st.lists(st.integers(low, len(parts)), max_size=20), max_size=5))
    flat = [i for d in documents for i in d]
    given_mask = data.draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=len(flat), max_size=len(flat))))
    offsets = np.cumsum([0, *map(len, documents)])
    mask = None if given_mask is None else np.array(given_mask, np.bool_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrite, "ROOM", room)
        ids, ends, flags, wrong = Rewriter(table_of(parts, size), out).rewrite(np.array(flat, dtype), offsets, mask)

    masked = [m or i < 0 for i, m in zip(flat, given_mask or [False] * len(flat), strict=True)]
    for d, document in enumerate(documents):
        first = int(offsets[d])
        if any(abs(i) >= len(parts) for i in document):
            assert abs(flat[wrong[d]]) >= len(parts)
            assert ends[d] == ends[d + 1]
            continue
        assert wrong[d] == -1
        assert ids[ends[d] : ends[d + 1]].tolist() == [p for i in document for p in parts[abs(i)]]
        want = [masked[first + k] for k, i in enumerate(document) for _ in parts[abs(i)]]
        assert (flags[ends[d] : ends[d + 1]].tolist() if flags is not None else [False] * len(want)) == want


def table_of(parts: list[list[int]], size: int) -> Any:
    columns = {"old_id": range(len(parts)), "kept": [len(p) == 1 for p in parts], "parts": parts}
    return id_map(pa.table(columns).cast(pa.schema([*schema.IDMAP])), size)


@pytest.mark.parametrize("parts, size", [([[0], [5]], 5), ([[0], [-1]], 5)])
def test_a_damaged_map_is_refused(parts: list[list[int]], size: int) -> None:
    with pytest.raises(ValueError, match="not all below 5"):
        table_of(parts, size)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=5), max_size=5),
    st.integers(-1, 3),
    st.integers(-1, 3),
    st.booleans(),
)
def test_framing(documents: list[list[int]], bos: int, eos: int, front: bool) -> None:
    ids, ends = np.array([i for d in documents for i in d], np.int32), np.cumsum([0, *map(len, documents)])
    out, flags = np.empty(len(ids) + 2 * len(ends), np.int32), np.empty(len(ids) + 2 * len(ends), np.bool_)
    n = frame(ids, ends, np.ones(len(ids), np.bool_), bos, eos, front, out, flags)
    want = []
    for d in documents:
        if front:
            d = d[:-1] if d and d[-1] == eos else d
            want.append(d if eos < 0 or d[:1] == [eos] else [eos, *d])
        else:
            framed = d if bos < 0 or d[:1] == [bos] else [bos, *d]
            want.append(framed if eos < 0 or d[-1:] == [eos] else [*framed, eos])
    assert rows(out, ends) == want
    assert n == sum(map(len, want))
    assert (~flags[:n]).sum() <= 2 * len(documents)


# -- shards -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders code and prose: JSON lines, gzip, Parquet without ids."""
    root = tmp_path_factory.mktemp("encode") / "corpus"
    (root / "code").mkdir(parents=True)
    (root / "prose").mkdir()
    named = [{"id": f"d{i}", "text": t} for i, t in enumerate(text)]
    lines = [json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in named]
    (root / "code" / "a.jsonl").write_bytes(b"".join(lines[:30]))
    (root / "code" / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[30:50]), mtime=0))
    pq.write_table(pa.table({"text": text[50:]}), root / "prose" / "a.parquet", row_group_size=5)
    return root


@pytest.fixture(scope="module")
def big(byte_bpe: Path) -> str:
    return str(byte_bpe / "gpt2")


@pytest.fixture(scope="module")
def vocab(corpus: Path, big: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A compact vocabulary of a third."""
    root = tmp_path_factory.mktemp("vocab")
    count_verb.count([str(corpus)], big, str(root / "counts"), LOCAL, count.Settings(heldout=0.1))
    verb.compact(str(root / "counts"), big, str(root / "vocab"), compact.Goal(vocab=850))
    return str(root / "vocab")


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "UNIT_BYTES", 1)  # each split a part of its own


def made(corpus: Any, vocab: str, out: Path, engine: Any = LOCAL, **options: Any) -> dict[str, Any]:
    partitions = options.pop("partitions", 0)
    given = [str(c) for c in (corpus if isinstance(corpus, list) else [corpus])]
    return encode_verb.encode(given, vocab, str(out), engine, Settings(**options), partitions=partitions)


def documents(where: Path, **wanted: Any) -> list[tuple[str | None, str, list[int], list[bool] | None]]:
    """(doc_id, domain, ids, mask) of each document, read as any corpus is."""
    found = []
    for split in plan([str(where)]).splits:
        for batch in read(split, lambda *bad: pytest.fail(str(bad))):
            masks = batch.column("mask").to_pylist() if "mask" in batch.schema.names else [None] * len(batch)
            columns = (batch.column(c).to_pylist() for c in ("doc_id", "domain", "ids"))
            found += [(*row, mask) for *row, mask in zip(*columns, masks, strict=True)]
    return found


def content(where: Path) -> dict[str, bytes]:
    """All files but the note of the run."""
    return {p.name: p.read_bytes() for p in sorted(where.iterdir()) if p.name != ".run.json"}


def expected(text: list[str], path: str) -> list[list[int]]:
    tok = open_tokenizer(path)
    [end] = tok.encode(["<|endoftext|>"])
    return [[*ids, *end] for ids in tok.encode(text)]


def test_shards_hold_the_documents_in_order(corpus: Path, text: list[str], big: str, tmp_path: Path) -> None:
    manifest = made(corpus, big, tmp_path / "out")
    found = documents(tmp_path / "out")
    assert [ids for _, _, ids, _ in found] == expected(text, big)
    assert [d for _, d, _, _ in found] == ["code"] * 50 + ["prose"] * (len(text) - 50)
    assert [i for i, *_ in found[:50]] == [f"d{k}" for k in range(50)]
    assert [i for i, *_ in found[50:53]] == ["prose/a.parquet:0", "prose/a.parquet:1", "prose/a.parquet:2"]
    assert manifest["totals"]["documents"] == len(text)
    assert manifest["totals"]["tokens"] == sum(len(ids) for _, _, ids, _ in found)
    assert manifest["totals"]["bytes"] == sum(len(t.encode()) for t in text)
    assert manifest["dtype"] == "uint16"
    assert manifest["quarantined"]["documents"] == 0


@pytest.mark.parametrize("to", ["megatron", "parquet", "internevo", "llmc"])
def test_each_format_reads_back(corpus: Path, text: list[str], big: str, tmp_path: Path, to: str) -> None:
    made(corpus, big, tmp_path / "out", to=to, shard_tokens=20_000)
    want = expected(text, big)
    if to == "llmc":  # the token that ends a text stands in front of it
        want = [[ids[-1], *ids[:-1]] for ids in want]
    found = [ids for _, _, ids, _ in documents(tmp_path / "out")]
    assert found == want
    assert len(list((tmp_path / "out").glob("*.docs.parquet"))) == (0 if to == "parquet" else 4)


def sizes(where: Path) -> tuple[np.ndarray, np.ndarray]:
    """pieces.parquet -> bytes, special, by id."""
    table = pq.read_table(where / "pieces.parquet")
    assert table.schema.equals(schema.PIECES)
    assert table["token_id"].to_pylist() == list(range(len(table)))
    return table["bytes"].to_numpy(), table["special"].to_numpy()


@pytest.mark.parametrize("name", ["gpt2", "qwen", "llama3"])
def test_bytes_of_a_documents_ids_are_those_of_its_text(
    corpus: Path, text: list[str], byte_bpe: Path, tmp_path: Path, name: str
) -> None:
    manifest = made(corpus, str(byte_bpe / name), tmp_path / "out")
    size, special = sizes(tmp_path / "out")
    assert len(size) == manifest["tokenizer"]["size"]
    assert [int(size[ids].sum()) for _, _, ids, _ in documents(tmp_path / "out")] == [len(t.encode()) for t in text]
    assert special[manifest["eos"]]
    assert not size[special].any()
    assert (size[~special] > 0).all()
    listed = manifest["files"]["pieces.parquet"]
    content = (tmp_path / "out" / "pieces.parquet").read_bytes()
    assert listed == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("name, more", [("plain", 0), ("prefix", 1)])
def test_a_dummy_prefix_counts_as_a_byte(
    corpus: Path, text: list[str], spm: Path, tmp_path: Path, name: str, more: int
) -> None:
    made(corpus, str(spm / name), tmp_path / "out")
    size, special = sizes(tmp_path / "out")
    found = [int(size[ids].sum()) for _, _, ids, _ in documents(tmp_path / "out")]
    tok = open_tokenizer(str(spm / name))
    assert found == [len(tok.decode(ids).encode()) + more for ids in tok.encode(text)]
    assert special[tok.unk]


def test_only_native_shards_have_sizes(corpus: Path, big: str, tmp_path: Path) -> None:
    for to in ("parquet", "internevo", "llmc"):
        made(corpus, big, tmp_path / to, to=to)
        assert not (tmp_path / to / "pieces.parquet").exists()


def test_sizes_are_of_the_new_ids(corpus: Path, big: str, vocab: str, tmp_path: Path) -> None:
    """Text, and ids of the big tokenizer rewritten: the same table, and shards that have one are read as ids."""
    made(corpus, big, tmp_path / "ids")
    made(tmp_path / "ids", vocab, tmp_path / "rewritten")
    made(corpus, vocab, tmp_path / "text")
    tables = [(tmp_path / name / "pieces.parquet").read_bytes() for name in ("ids", "rewritten", "text")]
    assert tables[1] == tables[2] != tables[0]


def test_megatrons_own_reader(corpus: Path, text: list[str], big: str, tmp_path: Path) -> None:
    """Documents, lengths and type as Megatron-LM reads them."""
    tool = pytest.importorskip(
        "megatron.core.datasets.indexed_dataset", reason="pip install --no-deps megatron-core", exc_type=ImportError
    )
    made(corpus, big, tmp_path / "out", shard_tokens=20_000)
    found = []
    for index in sorted((tmp_path / "out").glob("*.idx")):
        shard = tool.IndexedDataset(str(index.with_suffix("")), mmap=True)
        assert shard.index.dtype == np.uint16
        assert shard.document_indices.tolist() == list(range(len(shard) + 1))
        found += [shard[i].tolist() for i in range(len(shard))]
    assert found == expected(text, big)


def test_pointers_of_a_megatron_index_are_bytes(corpus: Path, big: str, tmp_path: Path) -> None:
    """By the layout itself: our reader makes pointers of lengths, and Megatron's is not everywhere."""
    made(corpus, big, tmp_path / "out", to="megatron", shard_tokens=20_000)
    for index in sorted((tmp_path / "out").glob("*.idx")):
        data = index.read_bytes()
        number = int.from_bytes(data[18:26], "little")
        lengths = np.frombuffer(data, np.int32, number, offset=34)
        pointers = np.frombuffer(data, np.int64, number, offset=34 + 4 * number)
        width = index.with_suffix(".bin").stat().st_size // int(lengths.sum())
        assert number > 1 and pointers.tolist() == [0, *(width * np.cumsum(lengths[:-1], dtype=np.int64)).tolist()]


def test_internevos_way_to_read(corpus: Path, text: list[str], big: str, tmp_path: Path) -> None:
    """`.meta` gives where each line begins and how many tokens it has; the line is JSON."""
    made(corpus, big, tmp_path / "out", to="internevo")
    found = []
    with (tmp_path / "out" / "shard-00000.bin").open("rb") as f:
        for at, count in np.load(tmp_path / "out" / "shard-00000.bin.meta"):
            f.seek(at)
            found.append(json.loads(f.readline())["tokens"])
            assert len(found[-1]) == count
    assert found == expected(text, big)


def test_llm_c_s_way_to_read(corpus: Path, text: list[str], big: str, tmp_path: Path) -> None:
    """256 int32, then as many uint16 as the third of them says, and nothing else."""
    made(corpus, big, tmp_path / "out", to="llmc", shard_tokens=20_000)
    found: list[int] = []
    for file in sorted((tmp_path / "out").glob("train_*.bin")):
        head = np.fromfile(file, np.int32, 256)
        ids = np.fromfile(file, np.uint16, offset=1024)
        assert head[:3].tolist() == [20240520, 1, len(ids)]
        found += ids.tolist()
    assert found == [i for ids in expected(text, big) for i in [ids[-1], *ids[:-1]]]


@pytest.mark.spark
def test_spark_reads_the_parquet(
    spark: Any, corpus: Path, text: list[str], big: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made(corpus, big, tmp_path / "out", to="parquet")
    found = spark._session.read.parquet(str(tmp_path / "out" / "*.parquet")).collect()
    assert [r.input_ids for r in found] == expected(text, big)


def test_a_shard_ends_with_the_document_that_fills_it(corpus: Path, text: list[str], big: str, tmp_path: Path) -> None:
    size = 15_000
    manifest = made(corpus, big, tmp_path / "out", shard_tokens=size)
    begins = np.cumsum([0, *map(len, expected(text, big))])[:-1]
    want = [int((begins // size == k).sum()) for k in range(int(begins[-1]) // size + 1)]
    assert [s["documents"] for s in manifest["shards"]] == want
    assert min(want) > 0


@pytest.mark.parametrize(
    ("engine", "seed"),
    [("local-1", -1), ("local-2", 3), pytest.param("spark", 3, marks=pytest.mark.cluster)],
    indirect=["engine"],
)
def test_the_same_bytes_whatever_runs_where(
    corpus: Path, vocab: str, big: str, tmp_path: Path, engine: Any, seed: int
) -> None:
    made(corpus, big, tmp_path / "ids", shard_tokens=20_000)
    for source, name in ((corpus, "text"), (tmp_path / "ids", "rewritten")):
        made(source, vocab, tmp_path / name, shard_tokens=9_000, seed=seed)
        for partitions in (2, 7):
            out = tmp_path / f"{name}-{partitions}"
            made(source, vocab, out, engine, shard_tokens=9_000, seed=seed, partitions=partitions)
            assert content(out) == content(tmp_path / name)


def test_parts_go_as_shards_come(corpus: Path, big: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens need not lie on the disk twice."""
    left: list[int] = []

    def watched(*args: Any) -> Any:
        left.append(len(list((tmp_path / ".out.partial" / "parts").glob("*.ids"))))
        return encode_shard(*args)

    encode_shard = assemble.write_shard
    monkeypatch.setattr(encode_verb, "write_shard", watched)
    made(corpus, big, tmp_path / "out", shard_tokens=30_000, partitions=9)
    assert left[0] == 3
    assert left == sorted(left, reverse=True)
    assert left[-1] < 3


def test_shuffling_is_one_order_for_a_seed(corpus: Path, big: str, tmp_path: Path) -> None:
    orders = {}
    for seed in (-1, 0, 1):
        manifest = made(corpus, big, tmp_path / f"s{seed}", seed=seed, shard_tokens=40_000)
        orders[seed] = documents(tmp_path / f"s{seed}")
        assert all(s["documents"] for s in manifest["shards"])
    assert orders[0] != orders[-1] != orders[1] != orders[0]
    assert sorted(map(repr, orders[0])) == sorted(map(repr, orders[-1])) == sorted(map(repr, orders[1]))


def test_keys_are_spread_and_differ_by_seed() -> None:
    hashes = np.arange(10_000, dtype=np.uint64)
    one, two = shuffle_keys(hashes, np.uint64(1)), shuffle_keys(hashes, np.uint64(2))
    assert len(np.unique(one)) == 10_000
    assert not (one == two).any()
    assert abs((one >> np.uint64(63)).mean() - 0.5) < 0.02
    assert abs(np.corrcoef(one.astype(float), two.astype(float))[0, 1]) < 0.05


# -- rewriting --------------------------------------------------------------------------------


def test_rewritten_documents_say_the_same(corpus: Path, text: list[str], big: str, vocab: str, tmp_path: Path) -> None:
    made(corpus, big, tmp_path / "ids")
    manifest = made(tmp_path / "ids", vocab, tmp_path / "new")
    small = open_tokenizer(vocab)
    parts = pq.read_table(Path(vocab) / "idmap.parquet")["parts"].to_pylist()
    found = documents(tmp_path / "new")
    assert [(i, d) for i, d, _, _ in found] == [(i, d) for i, d, _, _ in documents(tmp_path / "ids")]
    for (_, _, new, _), old, t in zip(found, expected(text, big), text, strict=True):
        assert new == [p for i in old for p in parts[i]]
        assert small.decode(new) == t + "<|endoftext|>"
    made(tmp_path / "ids", vocab + "/tokenizer.json", tmp_path / "by-file")
    assert documents(tmp_path / "by-file") == found
    sample = manifest["sample"]
    assert sample["documents"] == COMPARED[0]
    assert 0 < sample["equal"] <= sample["documents"]
    assert sample["tokens"] >= sample["tokens_anew"]
    assert manifest["totals"]["tokens_before"] == sum(map(len, expected(text, big)))


@pytest.fixture(scope="module", params=["byte_bpe/gpt2", "spm/prefix"])
def taught(
    request: pytest.FixtureRequest, text: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """A big tokenizer, and a vocabulary of it to which tokens of another language were added."""
    folder, name = request.param.split("/")
    path, root = str(request.getfixturevalue(folder) / name), tmp_path_factory.mktemp("taught")
    pq.write_table(pa.table({"text": [codecs.encode(t, "rot13") for t in text[:50]]}), root / "a.parquet")
    count_verb.count([str(root / "a.parquet")], path, str(root / "counts"), LOCAL, count.Settings(heldout=0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain_guard, "BOUND", 10)  # whatever becomes of the other documents
        verb.compact(str(root / "counts"), path, str(root / "vocab"), compact.Goal(vocab=1_300, adapt=True))
    return path, str(root / "vocab")


def merged_one_by_one(ids: list[int], pairs: dict[tuple[int, int], tuple[int, int]]) -> list[int]:
    """BPE as it is written down: the pair of best rank, leftmost first, until there is none."""
    while True:
        found = [(pairs[p][0], i) for i, p in enumerate(pairwise(ids)) if p in pairs]
        if not found:
            return ids
        _, i = min(found)
        ids = [*ids[:i], pairs[ids[i], ids[i + 1]][1], *ids[i + 2 :]]


def test_learned_merges_are_done_to_rewritten_ids(text: list[str], taught: tuple[str, str], tmp_path: Path) -> None:
    path, vocab = taught
    text = [codecs.encode(t[:1_500], "rot13") for t in text[::6]]
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    small, big = open_tokenizer(vocab), open_tokenizer(path)
    new = set(pq.read_table(Path(vocab) / "learned.parquet")["new_id"].to_pylist())
    assert len(new) > 20
    keys, values = small.pairs.table[::2].tolist(), small.pairs.table[1::2].tolist()
    low = (1 << 32) - 1
    pairs = {
        (k >> 32, k & low): (v >> 32, v & low)
        for k, v in zip(keys, values, strict=True)
        if k != 2**64 - 1 and v & low in new
    }
    parts = pq.read_table(Path(vocab) / "idmap.parquet")["parts"].to_pylist()
    made(tmp_path / "a.parquet", path, tmp_path / "ids", eos="none")
    manifest = made(tmp_path / "ids", vocab, tmp_path / "new")
    found = [ids for _, _, ids, _ in documents(tmp_path / "new")]
    assert found == [merged_one_by_one([p for i in ids for p in parts[i]], pairs) for ids in big.encode(text)]
    assert [small.decode(ids) for ids in found] == [big.decode(ids) for ids in big.encode(text)]
    sample = manifest["sample"]
    assert sample["tokens"] < 1.01 * sample["tokens_anew"]
    assert manifest["totals"]["tokens"] < sum(len(parts[i]) for ids in big.encode(text) for i in ids)


def test_learned_merges_keep_masks_apart(taught: tuple[str, str], tmp_path: Path) -> None:
    """What bears loss is not merged with what does not."""
    _, vocab = taught
    first = pq.read_table(Path(vocab) / "learned.parquet").to_pylist()[0]
    old = first["old_parts"][:2]
    masks = [[True, True], [True, False], [False, False]]
    pq.write_table(pa.table({"input_ids": [old] * 3, "loss_mask": masks}), tmp_path / "a.parquet")
    made(tmp_path / "a.parquet", vocab, tmp_path / "out")
    lengths = [(len(ids), mask) for _, _, ids, mask in documents(tmp_path / "out")]
    assert lengths[0][0] == lengths[2][0] < lengths[1][0]
    assert lengths[0][1] == [False] * lengths[0][0]
    assert lengths[2][1] == [True] * lengths[2][0]


def test_ids_of_the_vocabulary_itself_pass_through(corpus: Path, vocab: str, tmp_path: Path) -> None:
    made(corpus, vocab, tmp_path / "a")
    assert not made(tmp_path / "a", vocab, tmp_path / "b", to="parquet")["rewritten"]
    assert not made(tmp_path / "b", vocab, tmp_path / "c")["rewritten"]
    assert content(tmp_path / "c")["shard-00000.bin"] == content(tmp_path / "a")["shard-00000.bin"]


def test_masks_survive_every_format(vocab: str, tmp_path: Path) -> None:
    """Negative ids of InternEvo -> .loss -> loss_mask -> negative ids."""
    lines = [[5, -900, -901, 7], [-8], [2_000, 2_001]]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_text("".join(json.dumps({"tokens": d}) + "\n" for d in lines))
    parts = pq.read_table(Path(vocab) / "idmap.parquet")["parts"].to_pylist()
    want = [[(p, i < 0) for i in d for p in parts[abs(i)]] for d in lines]
    source = tmp_path / "in"
    for to in ("megatron", "parquet", "internevo", "megatron"):
        out = tmp_path / f"{source.name}-{to}"
        assert made(source, vocab, out, to=to)["totals"]["masked"] == sum(m for d in want for _, m in d)
        source = out
        found = documents(out)
        if to == "internevo":
            assert [[(abs(i), i < 0) for i in ids] for _, _, ids, _ in found] == want
        else:
            assert [list(zip(ids, mask, strict=True)) for _, _, ids, mask in found] == want


def test_masks_of_a_batch_that_is_part_of_a_row_group(vocab: str, tmp_path: Path, monkeypatch: Any) -> None:
    """There, ids begin somewhere in the values, and the mask at its own beginning."""
    monkeypatch.setattr("tinydata.formats.parquet.ROWS", 3)
    ids = [[1 + i % 9] * (i % 4) for i in range(20)]
    bears = [[(i + k) % 3 > 0 for k in range(len(d))] for i, d in enumerate(ids)]
    pq.write_table(pa.table({"input_ids": ids, "loss_mask": bears}), tmp_path / "a.parquet")
    made(tmp_path / "a.parquet", vocab, tmp_path / "out")
    parts = pq.read_table(Path(vocab) / "idmap.parquet")["parts"].to_pylist()
    want = [
        ([p for t in d for p in parts[t]], [not b for t, b in zip(d, m, strict=True) for _ in parts[t]])
        for d, m in zip(ids, bears, strict=True)
    ]
    assert [(d, m) for _, _, d, m in documents(tmp_path / "out")] == want


def test_a_masked_id_zero_has_no_negative(vocab: str, tmp_path: Path) -> None:
    table = pa.table({"input_ids": [[0, 1]], "loss_mask": [[False, True]]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(TinydataError, match="masked token has id 0"):
        made(tmp_path / "a.parquet", vocab, tmp_path / "out", to="internevo")
    with pytest.raises(TinydataError, match="has no loss masks"):
        made(tmp_path / "a.parquet", vocab, tmp_path / "out2", to="llmc")
    assert not (tmp_path / "out").exists()
    made(tmp_path / "a.parquet", vocab, tmp_path / "out3")
    assert [mask for *_, mask in documents(tmp_path / "out3")] == [[True, False]]


def test_ids_outside_are_quarantined(vocab: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"input_ids": [[1, 2], [3, 99_999], [4]], "id": ["a", "b", "c"]}), tmp_path / "a.parquet")
    with pytest.raises(TinydataError, match="1 of 3 documents cannot be used"):
        made(tmp_path / "a.parquet", vocab, tmp_path / "out")
    manifest = made(tmp_path / "a.parquet", vocab, tmp_path / "out", max_bad=0.5)
    assert manifest["quarantined"]["documents"] == 1
    [bad] = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert (bad["doc_id"], bad["position"]) == ("b", 1)
    assert [i for i, *_ in documents(tmp_path / "out")] == ["a", "c"]


def test_empty_documents_stay(big: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["", "x", "", ""]}), tmp_path / "a.parquet")
    made(tmp_path / "a.parquet", big, tmp_path / "out", eos="none", shard_tokens=1)
    assert [len(ids) for _, _, ids, _ in documents(tmp_path / "out")] == [0, 1, 0, 0]


# -- what is refused --------------------------------------------------------------------------


def test_shards_of_another_tokenizer(corpus: Path, byte_bpe: Path, vocab: str, big: str, tmp_path: Path) -> None:
    made(corpus, str(byte_bpe / "qwen"), tmp_path / "other")
    with pytest.raises(TinydataError, match=r"the ids were produced by a different tokenizer: .*qwen"):
        made(tmp_path / "other", vocab, tmp_path / "out")
    made(corpus, big, tmp_path / "ids")
    with pytest.raises(TinydataError, match="different tokenizers"):
        made([tmp_path / "other", tmp_path / "ids"], vocab, tmp_path / "out")


def test_a_wrong_vocabulary_is_noticed_by_what_documents_say(
    corpus: Path, big: str, vocab: str, tmp_path: Path
) -> None:
    """Ids of the same size but another meaning, in a format that does not tell."""
    made(corpus, big, tmp_path / "ids", to="parquet")
    moved = tmp_path / "elsewhere" / "a.parquet"
    moved.parent.mkdir()
    (tmp_path / "ids" / "shard-00000.parquet").rename(moved)
    broken = tmp_path / "vocab"
    broken.mkdir()
    for name, bytes_ in content(Path(vocab)).items():
        (broken / name).write_bytes(bytes_)
    table = pq.read_table(broken / "idmap.parquet")
    parts = table["parts"].to_pylist()
    pq.write_table(
        table.set_column(2, "parts", pa.array([parts[-1], *parts[:-1]], pa.list_(pa.int32()))), broken / "idmap.parquet"
    )
    with pytest.raises(TinydataError, match="decodes to a different text"):
        made(moved, str(broken), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "told, why", [({"bos": "<|im_start|>"}, "--bos cannot be used"), ({"eos": "none"}, "nor --eos names one")]
)
def test_llm_c_wants_its_one_token(corpus: Path, big: str, tmp_path: Path, told: dict[str, str], why: str) -> None:
    with pytest.raises(TinydataError, match=why):
        made(corpus, big, tmp_path / "out", to="llmc", **told)


def test_a_seed_without_a_shuffle(corpus: Path, big: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["encode", str(corpus), "--vocab", big, "-o", "nowhere", "--seed", "3"])
    assert left.value.code == 2
    assert "--seed goes with --shuffle" in capsys.readouterr().err


def test_ids_that_the_big_tokenizer_never_made(vocab: str, tmp_path: Path) -> None:
    """Bytes, say: every id is inside the vocabulary, and what they say is decoded without an error."""
    pq.write_table(
        pa.table({"input_ids": [[i % 90 for i in range(n, n + 300)] for n in range(9)]}), tmp_path / "a.parquet"
    )
    with pytest.raises(
        TinydataError, match=r"do not seem to come from the original tokenizer: it encodes .* to [0-9,]+ tokens"
    ):
        made(tmp_path / "a.parquet", vocab, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = encode_verb.encode([str(tmp_path / "a.parquet")], vocab, str(tmp_path / "told"), LOCAL, tokenizer="none")
    assert done["totals"]["documents"] == 9 and done["sample"] is None


def test_edges(big: str, byte_bpe: Path, spm: Path) -> None:
    gpt2 = open_tokenizer(big)
    end = gpt2.encode(["<|endoftext|>"])[0][0]
    assert edges(gpt2) == Edges(-1, end)
    assert edges(gpt2, "<|im_start|>", "none") == Edges(gpt2.encode(["<|im_start|>"])[0][0], -1)
    assert edges(open_tokenizer(str(byte_bpe / "llama3"))).bos == end  # its post-processor puts it in front
    assert edges(open_tokenizer(str(spm / "plain"))) == Edges(-1, 2)
    with pytest.raises(TinydataError, match="--eos: the tokenizer has no token '<nope>'"):
        edges(gpt2, "", "<nope>")


# -- ends that come early ---------------------------------------------------------------------

SLOW = """
import sys, time
from tinydata.verbs.encode import plan
plan.UNIT_BYTES = 1
from tinydata.cli.main import main
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def many(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with corpus/, 60 files, and a script that runs tinydata with a part for each."""
    root = tmp_path_factory.mktemp("many")
    (root / "corpus").mkdir()
    for n in range(60):
        rows = [{"text": t} for t in text[n % 7 :: 2]]
        (root / "corpus" / f"p{n:02}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (root / "slow.py").write_text(SLOW)
    return root


def command(big: str, out: str, *more: str) -> list[str]:
    args = ["encode", "corpus", "--vocab", big, "-o", out, "--shard-tokens", "400000", "--shuffle", *more]
    return [sys.executable, "slow.py", *args]


@pytest.mark.parametrize("step", [pytest.param("part", marks=pytest.mark.slow), "shard"])
def test_killed_and_run_again(many: Path, big: str, step: str) -> None:
    """SIGKILL while parts, or shards, are written; the same command again: the same bytes."""
    undisturbed = subprocess.run(command(big, f"whole-{step}"), cwd=many, capture_output=True, text=True)
    assert undisturbed.returncode == 0, undisturbed.stderr
    out = f"killed-{step}"
    process = subprocess.Popen(command(big, out, "--workers", "2"), cwd=many, start_new_session=True)
    until = time.monotonic() + 60
    while not list(many.glob(f".{out}.partial/parts/{step}-*2.json")) and time.monotonic() < until:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (many / out).exists(), "it was done before it could be killed"
    assert list(many.glob(f".{out}.partial/parts/{step}-*.json"))
    again = subprocess.run(command(big, out), cwd=many, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert content(many / out) == content(many / f"whole-{step}")
    assert not list(many.glob(f".{out}*"))


def test_a_full_disk(many: Path, big: str) -> None:
    """No file may grow beyond 200 kB: an error that says so, nothing published, and with room it goes on."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))

    done = subprocess.run(
        command(big, "full", "--workers", "1"), cwd=many, capture_output=True, text=True, preexec_fn=limit
    )
    assert done.returncode == 1, done.stderr
    assert "error: cannot write: " in done.stderr
    assert "fix:   free disk space" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (many / "full").exists()
    assert not list(many.glob(".full.partial/**/*.tmp"))
    again = subprocess.run(command(big, "full"), cwd=many, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written(corpus: Path, big: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TinydataError, match="cannot write"):
        made(corpus, big, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_there(corpus: Path, big: str, tmp_path: Path) -> None:
    made(corpus, big, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(UpToDate):
        made(corpus, big, tmp_path / "out")
    with pytest.raises(TinydataError, match="the output already exists"):
        made(corpus, big, tmp_path / "out", to="parquet")
    assert content(tmp_path / "out") == before


def test_nothing_to_read(big: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(TinydataError) as e:
        made(tmp_path / "a.jsonl", big, tmp_path / "out")
    assert e.value.code == UNREADABLE
