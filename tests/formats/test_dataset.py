"""Shards and rounds as numbered sequences: the trainer reads the same."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinydata.core import schema
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, to_json
from tinydata.engines.local import LocalEngine
from tinydata.formats.dataset import Stream
from tinydata.formats.megatron import read_index
from tinydata.verbs.encode.plan import Settings
from tinydata.verbs.encode.verb import encode

T = 100


@pytest.fixture(scope="module")
def tokens(shards: Path) -> np.ndarray:
    """All tokens of the stream."""
    manifest = json.loads((shards / "manifest.json").read_bytes())
    files = [shards / f"{s['name']}.bin" for s in manifest["shards"]]
    assert len(files) > 2
    return np.concatenate([np.fromfile(f, manifest["dtype"]) for f in files])


def test_ranges_and_sequences(shards: Path, tokens: np.ndarray) -> None:
    stream = Stream.open(str(shards))
    assert stream.tokens == len(tokens)
    assert stream.size(T) == stream.total(T) == (len(tokens) - 1) // T
    for a, b in [(0, 10), (24_000, 51_000), (0, len(tokens)), (len(tokens) - 1, len(tokens))]:
        assert (stream.read(a, b) == tokens[a:b]).all()
    some = np.array([0, 1, 2, 11, 12, 240, 250, stream.total(T) - 1])
    assert (stream.rows(some, T) == [tokens[i * T : i * T + T + 1] for i in some]).all()
    assert stream.bears_loss(0, 10) is None
    assert stream.targets_bear_loss(some, T) is None


def test_the_trainer_reads_the_same(shards: Path) -> None:
    data = pytest.importorskip("trainer.data.order", reason="the trainer needs torch: pip install 'tinydata[train]'")
    ours, theirs = Stream.open(str(shards)), data.Shards.open(shards)
    sequences = data.Sequences(theirs, T, 8)
    numbers = np.arange(sequences.total)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.total(T) == sequences.total
    batch = sequences.read(numbers, 1 << 16)
    rows = ours.rows(numbers, T)
    assert (rows[:, :-1] == batch.tokens.numpy()).all()
    assert (rows[:, 1:] == batch.targets.numpy()).all()
    whole = ours.documents(0, ours.tokens)
    assert (whole.starts == theirs.documents).all()
    names, which = theirs.domains
    assert [whole.domains[d] for d in whole.domain] == [names[d] for d in which]


def test_documents_of_a_range(shards: Path) -> None:
    """They are those documents of the whole stream that the range touches, with their numbers."""
    stream = Stream.open(str(shards))
    whole = stream.documents(0, stream.tokens)
    assert whole.first == 0
    assert set(whole.domains) == {"code", "text"}
    for a, b in [(0, 5), (24_500, 25_500), (30_000, 60_000), (stream.tokens - 5, stream.tokens)]:
        part = stream.documents(a, b)
        positions = np.arange(a, b)
        assert (part.first + part.at(positions) == whole.at(positions)).all()
        assert [part.domains[part.domain[k]] for k in part.at(positions)] == [
            whole.domains[whole.domain[k]] for k in whole.at(positions)
        ]


def test_only_the_shards_of_the_range_are_read(shards: Path, tmp_path: Path) -> None:
    """If all shards but one are missing, that one can still be read."""
    shutil.copytree(shards, tmp_path / "shards")
    for file in (tmp_path / "shards").glob("shard-0000[!1]*"):
        file.unlink()
    stream = Stream.open(str(tmp_path / "shards"))
    a, b = stream.bounds[1:3].tolist()
    assert len(stream.read(a, b)) == b - a
    assert stream.documents(a, b).starts[0] == a
    with pytest.raises(TinydataError, match="it is missing; the manifest says"):
        stream.read(a - 1, b)


def test_masked_tokens(shards: Path, tmp_path: Path) -> None:
    """One shard has a loss file, the others have none."""
    shutil.copytree(shards, tmp_path / "shards")
    manifest = json.loads((shards / "manifest.json").read_bytes())
    size = manifest["shards"][1]["tokens"]
    flags = np.random.default_rng(0).integers(0, 2, size).astype(np.uint8)
    flags.tofile(tmp_path / "shards" / "shard-00001.loss")
    manifest["files"]["shard-00001.loss"] = {"bytes": size, "sha256": "0" * 64}
    (tmp_path / "shards" / "manifest.json").write_bytes(to_json(manifest))
    stream = Stream.open(str(tmp_path / "shards"))
    wanted = np.ones(stream.tokens, bool)
    wanted[stream.bounds[1] : stream.bounds[2]] = flags
    assert (stream.bears_loss(0, stream.tokens) == wanted).all()
    numbers = np.arange(stream.total(T))
    assert (stream.targets_bear_loss(numbers, T) == [wanted[i * T + 1 : i * T + T + 1] for i in numbers]).all()
    assert stream.fingerprint != Stream.open(str(shards)).fingerprint


# -- rounds -----------------------------------------------------------------------------------


def write_round(where: Path, shards: Stream, kept: list[list[int]], **more: object) -> Path:
    """A round without --materialize, as `resample` writes it."""
    where.mkdir()
    parts = []
    for k, numbers in enumerate(kept):
        n = len(numbers)
        table = pa.table({"sequence": numbers, "inclusion": [0.5] * n, "repeats": [1 + i % 2 for i in numbers]})
        pq.write_table(table.cast(schema.KEEP), where / f"keep-{k:07d}.parquet")
        parts.append({"name": f"keep-{k:07d}.parquet", "sequences": n})
    manifest = {"verb": "resample", "round": 1, "seq_len": T, "base": shards.facts, "parts": parts}
    manifest |= {"kept": {"sequences": sum(map(len, kept))}, "files": {}, **more}
    (where / "manifest.json").write_bytes(to_json(manifest))
    return where


@pytest.mark.parametrize("kept", [[[0, 3, 4], [], [200, 201, 300]], [[7]]])
def test_a_round_keeps_the_numbers_of_its_base(shards: Path, tmp_path: Path, kept: list[list[int]]) -> None:
    base = Stream.open(str(shards))
    stream = Stream.open(str(write_round(tmp_path / "round-1", base, kept)))
    every = [i for part in kept for i in part]
    assert stream.round == 1
    assert stream.size(T) == len(every)
    assert stream.total(T) == base.total(T)
    for a in range(len(every)):
        for b in range(a + 1, len(every) + 1):
            assert stream.numbers(a, b).tolist() == every[a:b]
            assert stream.repeats(a, b).tolist() == [1 + i % 2 for i in every[a:b]]
    assert stream.fingerprint == base.fingerprint
    with pytest.raises(TinydataError, match="keeps sequences of 100 tokens, not of 64"):
        stream.size(64)


def test_a_round_finds_its_base(shards: Path, tmp_path: Path) -> None:
    """At its recorded path, next to the round if both were moved, or at the given path; otherwise the error names the
    option."""
    shutil.copytree(shards, tmp_path / "shards")
    base = Stream.open(str(tmp_path / "shards"))
    facts = {**base.facts, "path": "shards"}
    write_round(tmp_path / "round-1", base, [[1]], base=facts)
    assert Stream.open(str(tmp_path / "round-1")).shards_at == Location.of(str(tmp_path / "shards"))
    (tmp_path / "moved").mkdir()
    for name in ("shards", "round-1"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    moved = str(tmp_path / "moved" / "round-1")
    assert Stream.open(moved).shards_at == Location.of(str(tmp_path / "moved" / "shards"))
    (tmp_path / "moved" / "shards").rename(tmp_path / "elsewhere")
    with pytest.raises(TinydataError, match="specify their path with --base") as caught:
        Stream.open(moved)
    assert caught.value.code == UNREADABLE
    assert Stream.open(moved, str(tmp_path / "elsewhere")).numbers(0, 1).tolist() == [1]


def test_a_round_of_other_shards(shards: Path, tmp_path: Path) -> None:
    base = Stream.open(str(shards))
    write_round(tmp_path / "round-1", base, [[1]], base={**base.facts, "fingerprint": "0" * 32})
    with pytest.raises(TinydataError, match="not the shards that the round was created from"):
        Stream.open(str(tmp_path / "round-1"))


def test_a_copy_for_another_process(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is small, and independent of the working directory of that process."""
    monkeypatch.chdir(shards.parent)
    stream = Stream.open("shards")
    write_round(tmp_path / "round-1", stream, [[5, 6]])
    listed = Stream.open(str(tmp_path / "round-1"))
    stream.read(0, 50_000), listed.numbers(0, 2)
    sent = [pickle.dumps(s) for s in (stream, listed)]
    assert max(map(len, sent)) < 1_000
    monkeypatch.chdir(tmp_path)
    plain, again = (pickle.loads(s) for s in sent)
    assert (plain.read(0, 500) == stream.read(0, 500)).all()
    assert again.numbers(0, 2).tolist() == [5, 6]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no manifest.json"), (b"{", "damaged"), (b"[1]", "another program"), (b'{"verb": "count"}', "by count")],
)
def test_any_other_directory_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(TinydataError, match=said) as caught:
        Stream.open(str(tmp_path))
    assert caught.value.code == UNREADABLE


def test_shards_of_another_format(text: list[str], byte_bpe: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text[0])
    out = str(tmp_path / "shards")
    encode([str(tmp_path / "a.txt")], str(byte_bpe / "gpt2"), out, LocalEngine(1), Settings(to="llmc"))
    with pytest.raises(TinydataError, match="these shards are llmc"):
        Stream.open(out)


def test_a_truncated_index_is_reported(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    index = tmp_path / "shards" / "shard-00000.idx"
    read_index(Location.of(str(tmp_path / "shards" / "shard-00000.bin")))
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(TinydataError, match=r"cannot be read: shard-00000\.idx"):
        Stream.open(str(tmp_path / "shards")).documents(0, 10)
