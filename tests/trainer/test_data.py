"""Order, sequences, held-out runs, masks: bit for bit against short references."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

from trainer.data.loader import Loader
from trainer.data.order import Sequences, permuted
from trainer.data.rounds import read_kept
from trainer.data.shards import Shards
from trainer.errors import TrainerError
from trainer.model.head_loss import IGNORE


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 63, 64, 65, 1000, 4097])
def test_permutation_is_one(size):
    index = np.arange(size)
    for key in (0, 1, 12345678901):
        assert sorted(permuted(index, size, key).tolist()) == list(range(size))
    if size > 60:
        assert (permuted(index, size, 0) != permuted(index, size, 1)).mean() > 0.9


def test_permutation_is_a_function_of_one_index_and_looks_random():
    size = 50_000
    all_at_once = permuted(np.arange(size), size, 7)
    some = np.array([49_999, 0, 17, 17, 31_415])
    assert (permuted(some, size, 7) == all_at_once[some]).all()
    # neighbours part, and halves mix: correlation and share of a random permutation
    assert abs(np.corrcoef(np.arange(size), all_at_once)[0, 1]) < 0.02
    assert abs((all_at_once[: size // 2] < size // 2).mean() - 0.5) < 0.01


def test_order_is_frozen():
    """Runs of older versions must go on with the same data."""
    assert permuted(np.arange(8), 1000, 42).tolist() == [225, 837, 579, 747, 268, 240, 553, 809]


def whole(shards: Shards) -> np.ndarray:
    files = [
        np.fromfile(shards.directory / f"{s['name']}.bin", shards.manifest["dtype"]) for s in shards.manifest["shards"]
    ]
    return np.concatenate(files).astype(np.int64)


def test_stream_crosses_shards(shards):
    s = Shards.open(shards)
    assert len(s.manifest["shards"]) > 2
    stream = whole(s)
    assert s.tokens == len(stream) == s.manifest["totals"]["tokens"]
    edge = int(s.bounds[1])
    for a, b in ((0, 10), (edge - 5, edge + 5), (edge, edge + 1), (5, s.tokens), (s.tokens - 1, s.tokens)):
        assert (s.read(a, b) == stream[a:b]).all()


def test_documents_and_domains(shards):
    s = Shards.open(shards)
    end = s.manifest["end_of_text"]
    expected = np.concatenate([[0], np.flatnonzero(whole(s) == end) + 1])[:-1]
    assert (s.documents == expected).all()
    names, of = s.domains
    assert sorted(names) == ["code", "text"] and len(of) == len(s.documents)
    tokens = np.bincount(of, np.diff(np.append(s.documents, s.tokens)))
    for name, n in zip(names, tokens, strict=True):
        assert n == s.manifest["domains"][name]["tokens"]


@pytest.mark.parametrize("holdout", [0, 1, 7, 40])
def test_every_sequence_is_trained_on_once_or_held_out(shards, holdout):
    s = Sequences(Shards.open(shards), 64, holdout)
    assert s.total == (s.shards.tokens - 1) // 64 and len(s.held_out) == holdout
    seen = s.order(np.arange(s.size), seed=3)
    assert sorted([*seen.tolist(), *s.held_out.tolist()]) == list(range(s.total))
    second = s.order(np.arange(s.size, 2 * s.size), seed=3)
    assert sorted(second.tolist()) == sorted(seen.tolist()) and (second != seen).any()


def test_sequences_are_consecutive_tokens(shards):
    s = Sequences(Shards.open(shards), 50, 10)
    stream = whole(s.shards)
    got = s.read(np.array([0, 7, s.total - 1]), s.shards.vocab, documents=True)
    for row, i in enumerate((0, 7, s.total - 1)):
        assert (got.tokens[row].numpy() == stream[i * 50 : i * 50 + 50]).all()
        assert (got.targets[row].numpy() == stream[i * 50 + 1 : i * 50 + 51]).all()
        ends = (stream[i * 50 : i * 50 + 49] == s.shards.manifest["end_of_text"]).astype(int)
        assert (np.diff(got.documents[row].numpy()) == ends).all()


def test_kept_sequences_are_a_round_without_a_copy(shards, tmp_path):
    s = Sequences(Shards.open(shards), 64, 20)
    keep = np.arange(1, s.total, 3)
    pq.write_table(pa.table({"sequence": keep}), tmp_path / "keep.parquet")
    round1 = Sequences(s.shards, 64, 20, read_kept(tmp_path / "keep.parquet", s.total).numbers)
    assert (round1.held_out == s.held_out).all()
    seen = round1.order(np.arange(round1.size), seed=0)
    assert sorted(seen.tolist()) == sorted(set(keep.tolist()) - set(s.held_out.tolist()))
    with pytest.raises(TrainerError, match="does not exist"):
        read_kept(tmp_path / "keep.parquet", 10)
    with pytest.raises(TrainerError, match="the list of kept sequences"):
        read_kept(tmp_path / "nothing.parquet", 10)


def test_masked_tokens_are_no_targets(shards, tmp_path):
    copy = tmp_path / "masked"
    shutil.copytree(shards, copy)
    s = Shards.open(copy)
    flags = np.ones(s.manifest["shards"][0]["tokens"], np.uint8)
    flags[100:130] = 0
    flags.tofile(copy / f"{s.manifest['shards'][0]['name']}.loss")
    got = Sequences(Shards.open(copy), 64, 0).read(np.array([1, 2, 500]), s.vocab)
    expected = [99 <= i < 129 for i in range(64, 192)]  # targets lie one on
    assert (got.targets[:2].flatten() == IGNORE).tolist() == expected
    assert not (got.targets[2] == IGNORE).any()
    edge = int(s.bounds[1])  # the next shard has no flags: all of it bears loss
    assert Shards.open(copy).bears_loss(edge - 3, edge + 3).all()


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_the_same_batches(shards, world):
    s = Sequences(Shards.open(shards), 32, 8)
    ways = []
    for rank in range(world):
        reader = Loader(s, seed=5, rows=12, vocab=s.shards.vocab, rank=rank, ranks=world).batches(24)
        ways.append([next(reader) for _ in range(3)])
        reader.close()
    for k in range(3):
        expected = s.order(np.arange(24 + 12 * k, 36 + 12 * k), seed=5)
        rows = torch.empty(12, 32, dtype=torch.int64)
        for rank, way in enumerate(ways):
            assert (way[k].numbers == expected).all()
            rows[rank::world] = way[k].batch.tokens
        assert (rows == s.read(expected, s.shards.vocab).tokens).all()


def test_foreign_ids_and_broken_directories_say_where(shards, tmp_path):
    s = Sequences(Shards.open(shards), 64, 8)
    with pytest.raises(TrainerError, match="outside the model's vocabulary of 100") as e:
        s.read(np.arange(5), 100)
    assert "sequence" in e.value.where
    reader = Loader(s, seed=0, rows=4, vocab=100).batches(0)
    with pytest.raises(TrainerError, match="outside"):
        next(reader)
    with pytest.raises(TrainerError, match="no complete shards"):
        Shards.open(tmp_path)
    with pytest.raises(TrainerError, match="give 1 sequences"):
        Sequences(s.shards, s.shards.tokens - 1, 0)
    copy = tmp_path / "cut"
    shutil.copytree(shards, copy)
    file = copy / "shard-00001.bin"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(TrainerError, match="bytes, but the manifest lists"):
        Shards.open(copy)
    shutil.rmtree(copy)
    shutil.copytree(shards, copy)
    for name in ("shard-00001.idx", "shard-00001.docs.parquet"):
        whole_file = (copy / name).read_bytes()
        (copy / name).write_bytes(whole_file[:40])
        with pytest.raises(TrainerError, match="cannot be read"):
            _ = Shards.open(copy).documents, Shards.open(copy).domains
        (copy / name).write_bytes(whole_file)
    (copy / "shard-00001.loss").write_bytes(b"\1" * 10)
    with pytest.raises(TrainerError, match="10 bytes, but the manifest lists"):
        Shards.open(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["options"]["to"] = "parquet"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainerError, match="native format"):
        Shards.open(copy)
