"""Token files of other programs: each format is compared with a writer of five lines and with its own tool's files."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydata.cli.main import main
from tinydata.cli.options import FORMATS
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.engines.local import LocalEngine
from tinydata.formats import litpkds as packed_dataset
from tinydata.formats import token_files
from tinydata.formats.base import Wanted
from tinydata.formats.corpus import plan, read
from tinydata.formats.domain import domain_of
from tinydata.formats.registry import READERS, WRITERS
from tinydata.verbs.count import verb
from tinydata.verbs.count.plan import Settings

EOS = 7
WHOLE = 64 << 20
Ids = list[list[int]]


class Got(NamedTuple):
    bodies: list[Any]
    positions: list[int]
    doc_ids: list[str | None]
    masks: list[list[bool]]
    bad: list[tuple[int, str]]
    splits: int
    types: dict[str, str]
    note: str


def read_all(path: Path | str, **wanted: Any) -> Got:
    """Reads as a verb does: plan, then each split independently, the last one first."""
    found = plan([str(path)], Wanted(**wanted))
    assert not found.unreadable and not found.skipped
    rows: list[list[Any]] = []
    bad: list[tuple[int, str]] = []
    for split in reversed(found.splits):
        mine: list[list[Any]] = []
        for batch in read(split, lambda p, r, e, **lost: bad.append((p, r))):
            batch.validate(full=True)
            body = batch.column("text" if found.kind == "text" else "ids").to_pylist()
            masks = batch.column("mask").to_pylist() if "mask" in batch.schema.names else [[]] * len(body)
            assert all(not m or len(m) == len(b) for m, b in zip(masks, body, strict=True))
            places, doc_ids = batch.column("position").to_pylist(), batch.column("doc_id").to_pylist()
            mine += [list(row) for row in zip(body, places, doc_ids, masks, strict=True)]
        rows = mine + rows
    columns = [list(c) for c in zip(*rows, strict=True)] or [[], [], [], []]
    about = found.splits[0].columns
    return Got(*columns, bad, len(found.splits), dict(about.types), about.note)


def unreadable(path: Path, **wanted: Any) -> str:
    """Why the one bad file of a directory (or the file) is quarantined."""
    good = path.parent / "good.jsonl"
    good.write_text('{"ids": [1]}\n')
    found = plan([str(path), str(good)], Wanted(**wanted))
    ((where, _, reason, *_),) = found.unreadable
    assert where.startswith(str(path))
    assert all(s.path == str(good) for s in found.splits if s.path == where)
    return reason


def some_ids(n: int = 40, high: int = 900, seed: int = 0) -> Ids:
    """Documents of 1 to 300 ids, none of them EOS."""
    rng = np.random.default_rng(seed)
    return [(8 + rng.integers(0, high - 8, rng.choice([1, 2, 30, 300]))).tolist() for _ in range(n)]


def flat(documents: Ids, dtype: str = "uint16") -> bytes:
    return np.concatenate([np.array(d, dtype) for d in documents]).tobytes()


def ends(documents: Ids) -> list[int]:
    return np.cumsum([len(d) for d in documents]).tolist()


# -- a writer of each format ------------------------------------------------------------------


def datatrove(where: Path, documents: Ids, dtype: str = "uint16") -> Path:
    file = where / "000_web.ds"
    file.write_bytes(flat(documents, dtype))
    (where / "000_web.ds.index").write_bytes(np.array(ends(documents), np.uint64).tobytes())
    size = np.dtype(dtype).itemsize
    (where / "000_web.ds.metadata").write_text(f"a|strange|name.json|{size}\n{ends(documents)[-1]}\n1.0 kT")
    return file


def dolma(where: Path, documents: Ids, dtype: str = "uint16") -> Path:
    (where / "part-0-00000.npy").write_bytes(flat(documents, dtype))
    stops = ends(documents)
    rows = [f'{b - len(d)},{b},"d,{i}",a/b.gz,{i}' for i, (b, d) in enumerate(zip(stops, documents, strict=True))]
    (where / "part-0-00000.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    return where / "part-0-00000.npy"


def nanogpt(where: Path, documents: Ids, dtype: str = "uint16") -> Path:
    (where / "train.bin").write_bytes(flat(documents, dtype))
    return where / "train.bin"


def llmc(where: Path, documents: Ids, dtype: str = "uint16") -> Path:
    ids = flat(documents, dtype)
    head = np.zeros(256, np.int32)
    head[:3] = (20240520, 1, len(ids) // 2) if dtype == "uint16" else (20240801, 7, len(ids) // 4)
    (where / "web_train_000001.bin").write_bytes(head.tobytes() + ids)
    return where / "web_train_000001.bin"


def litpkds(where: Path, documents: Ids, dtype: str = "uint16", pad: int = 50) -> Path:
    ids = flat([*documents, [EOS] * pad], dtype)
    size = np.dtype(dtype).itemsize
    head = b"LITPKDS" + struct.pack("<QBQ", 1, {"uint16": 8, "int32": 4}[dtype], len(ids) // size)
    (where / "train_web_0000000000.bin").write_bytes(head + ids)
    return where / "train_web_0000000000.bin"


def mds(where: Path, columns: dict[str, str], samples: list[dict[str, bytes]], pack: str = "", number: int = 0) -> Path:
    """Writes a shard of encoded values, and adds it to index.json."""
    fixed = {"int": 8, "ndarray:uint32:4": 16}
    names = sorted(columns)
    rows = []
    for sample in samples:
        sizes = [struct.pack("<I", len(sample[n])) for n in names if columns[n] not in fixed]
        rows.append(b"".join(sizes + [sample[n] for n in names]))
    about = {"column_names": names, "column_encodings": [columns[n] for n in names]}
    config = json.dumps(about | {"column_sizes": [fixed.get(columns[n]) for n in names]}).encode()
    offsets = np.cumsum([4 * (len(rows) + 2) + len(config), *map(len, rows)]).astype(np.uint32)
    raw = struct.pack("<I", len(rows)) + offsets.tobytes() + config + b"".join(rows)
    name = f"shard.{number:05d}.mds"
    packed = {"": bytes, "zstd": lambda b: pa.Codec("zstd").compress(b, asbytes=True), "gz": gzip.compress}[pack](raw)
    (where / (name + f".{pack}" * bool(pack))).write_bytes(packed)
    index = where / "index.json"
    known = json.loads(index.read_text())["shards"] if index.exists() else []
    zipped = {"basename": f"{name}.{pack}", "bytes": len(packed)} if pack else None
    known.append({"format": "mds", "raw_data": {"basename": name, "bytes": len(raw)}, "zip_data": zipped})
    index.write_text(json.dumps({"version": 2, "shards": known}))
    return where


def ndarray(ids: list[int], dtype: str = "") -> bytes:
    """The value of an ndarray column: of a fixed type, or int32 that declares its type."""
    shape = bytes([1 << 2 | 2]) + struct.pack("<I", len(ids))
    return (b"" if dtype else b"\x21") + shape + np.array(ids, dtype or "int32").tobytes()


def litdata(where: Path, documents: Ids, dtype: str = "uint16") -> Path:
    form = {"uint16": "no_header_numpy:5", "int32": "no_header_tensor:16"}[dtype]
    chunks = []
    for i, part in enumerate([documents[:15], documents[15:]]):
        size = np.dtype(dtype).itemsize
        offsets = 4 * (len(part) + 2) + np.cumsum([0, *(len(d) * size for d in part)])
        raw = struct.pack("<I", len(part)) + offsets.astype(np.uint32).tobytes() + flat(part, dtype)
        (where / f"chunk-0-{i}.bin").write_bytes(raw)
        chunks.append({"filename": f"chunk-0-{i}.bin", "chunk_size": len(part), "dim": ends(part)[-1]})
    config = {"data_format": [form], "compression": None, "encryption": None}
    (where / "index.json").write_text(json.dumps({"chunks": chunks, "config": config}))
    return where


@pytest.fixture
def pieces_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes splits and batches of about so many bytes."""

    def cut(size: int) -> None:
        monkeypatch.setattr(token_files, "SPLIT_BYTES", size)
        monkeypatch.setattr(token_files, "BATCH", max(size // 3, 1))
        monkeypatch.setattr(token_files, "CELL_BYTES", 1 << 11)  # longer than any document here
        monkeypatch.setattr(token_files, "STRETCH_BYTES", 1 << 8)

    return cut


DECLARED = [datatrove, dolma, litdata]


@pytest.mark.parametrize("size", [100, WHOLE])
@pytest.mark.parametrize("dtype", ["uint16", "wider"])
@pytest.mark.parametrize("write", DECLARED)
def test_documents_with_bounds(
    tmp_path: Path, pieces_of: Callable[[int], None], write: Callable[..., Path], dtype: str, size: int
) -> None:
    dtype = dtype if dtype == "uint16" else "int32" if write is litdata else "uint32"
    documents = some_ids(high=900 if dtype == "uint16" else 150_000)
    write(tmp_path, documents, dtype)
    pieces_of(size)
    got = read_all(tmp_path, vocab=150_000)
    assert got.bodies == documents
    assert got.bad == []
    assert got.types["ids"] == dtype
    assert (got.splits > 2) == (size < WHOLE)
    first = list(range(len(documents)))
    assert got.positions == (first[:15] + first[:25] if write is litdata else first)
    assert got.doc_ids == [f"d,{i}" if write is dolma else None for i in first]


@pytest.mark.parametrize("size", [100, WHOLE])
@pytest.mark.parametrize("dtype", ["uint16", "wider"])
@pytest.mark.parametrize("write", [nanogpt, litpkds, llmc, dolma])
def test_documents_separated_by_an_id(
    tmp_path: Path, pieces_of: Callable[[int], None], write: Callable[..., Path], dtype: str, size: int
) -> None:
    """At the beginning in llm.c, at the end in the others; tokens before the first separator are a document too."""
    dtype = dtype if dtype == "uint16" else "int32" if write is litpkds else "uint32"
    whole = some_ids(high=900 if dtype == "uint16" else 150_000)
    documents = [[*whole[0]], *([EOS, *d] for d in whole[1:])] if write is llmc else [[*d, EOS] for d in whole]
    file = write(tmp_path, documents, dtype)
    (tmp_path / "part-0-00000.csv.gz").unlink(missing_ok=True)
    pieces_of(size)
    got = read_all(tmp_path, vocab=150_000, eos=EOS)
    if write is litpkds:
        documents[-1] = documents[-1][:-1]  # its end cannot be distinguished from the padding
    assert got.bodies == documents
    assert got.positions == [0, *ends(documents)[:-1]]
    assert got.types["ids"] == dtype
    assert (got.splits > 1) == (size < WHOLE)
    assert ("not declared" in got.note) == (write in (nanogpt, dolma))
    assert file.exists()


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.one_of(st.just(EOS), st.integers(8, 99)), min_size=1, max_size=200),
    st.sampled_from([16, 32, 64]),
    st.integers(1, 9),
    st.integers(1, 200),
    st.booleans(),
    st.booleans(),
)
def test_documents_do_not_depend_on_splits(
    tmp_path: Path, ids: list[int], longest: int, cells: int, chunk: int, leads: bool, known: bool
) -> None:
    """No token is lost, each separator separates, and no document is as long as three cells."""
    file = (llmc if leads else nanogpt)(tmp_path, [ids])
    known_facts = {"dtype": "uint16", "eos": EOS if known else -1}

    def at(split_bytes: int, batch: int) -> Got:
        with pytest.MonkeyPatch.context() as patch:
            sizes = {"CELL_BYTES": longest, "STRETCH_BYTES": 8, "SPLIT_BYTES": split_bytes, "BATCH": batch}
            for name, value in sizes.items():
                patch.setattr(token_files, name, value)
            return read_all(file, **known_facts)

    got = at(cells * longest, chunk)
    assert got[:2] == at(WHOLE, WHOLE)[:2]
    assert [i for body in got.bodies for i in body] == ids
    assert got.positions == [0, *ends(got.bodies)[:-1]]
    separated = known and EOS in ids
    if not leads:  # of llm.c the first id may separate
        assert all(len(b) * 2 < 3 * (longest if separated else 8) for b in got.bodies)
    if separated:
        assert all(EOS not in (b[1:] if leads else b[:-1]) for b in got.bodies)


def test_a_file_without_separators_is_read_in_stretches_and_says_so(tmp_path: Path) -> None:
    ids = some_ids(1, 900)[0] * 400
    nanogpt(tmp_path, [ids])
    got = read_all(tmp_path, vocab=900)
    assert [i for b in got.bodies for i in b] == ids
    assert {len(b) for b in got.bodies[:-1]} <= {token_files.STRETCH_BYTES // 2}
    assert "the end-of-text id is not known: each 64 KiB" in got.note
    assert "the end-of-text id 7 was not found" in read_all(tmp_path, vocab=900, eos=EOS).note


# -- undeclared types -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "vocab"),
    [
        ("uint8", 250),
        ("uint16", 900),
        ("uint16", 60_000),
        *((dtype, vocab) for dtype in ("uint32", "int64") for vocab in (900, 60_000, 150_000, 250_000)),
    ],
)
def test_the_type_that_fits_is_found(tmp_path: Path, dtype: str, vocab: int) -> None:
    documents = [[*d, EOS] for d in some_ids(200, vocab)]
    nanogpt(tmp_path, documents, dtype)
    got = read_all(tmp_path, vocab=vocab, eos=EOS)
    assert got.types == {"ids": dtype}
    assert got.bodies == documents
    if dtype != "uint8":  # which is considered for small vocabularies only
        assert read_all(tmp_path).types == {"ids": dtype}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\0" * 4096, "uint16 and uint32 and int64 both fit"),
        (np.arange(20, dtype=np.uint16).tobytes(), "no dtype fits"),
        (np.random.default_rng(0).bytes(1001), "no dtype fits"),
        (np.random.default_rng(0).bytes(1 << 16), "uint16"),
    ],
    ids=["zeros", "few", "odd", "noise"],
)
def test_a_type_that_cannot_be_inferred_is_an_error_with_the_evidence(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(TinydataError) as e:
        plan([str(tmp_path)], Wanted(vocab=50_000))
    assert e.value.code == UNREADABLE
    assert "no .idx, .bin.meta or index.json in the same directory" in e.value.what
    assert "--dtype uint16" in e.value.fix
    lines = e.value.what.splitlines()
    assert lines[1].split("  ")[-1].strip() == "against it"
    assert [row.split()[0] for row in lines[2:]] == ["uint16", "uint32", "int64"]
    assert why.split()[0] in e.value.what
    if len(content) % 2 == 0:
        got = read_all(tmp_path, dtype="uint16")
        assert b"".join(np.array(b, np.uint16).tobytes() for b in got.bodies) == content
        assert "not declared" not in got.note
    else:
        with pytest.raises(TinydataError, match="not a multiple of the 2 of uint16"):
            plan([str(tmp_path)], Wanted(dtype="uint16"))


def test_the_end_of_a_text_decides_between_types(tmp_path: Path) -> None:
    """Both halves of each uint32 are valid ids: only one type has the separator."""
    ids = np.array([5 + 9 * 65536] * 300 + [EOS] + [8 + 6 * 65536] * 300, np.uint32)
    (tmp_path / "x.bin").write_bytes(ids.tobytes())
    with pytest.raises(TinydataError, match="uint16 and uint32 both fit"):
        plan([str(tmp_path)], Wanted(vocab=1_000_000))
    ids[300] = EOS + 6 * 65536
    (tmp_path / "x.bin").write_bytes(ids.tobytes())
    assert read_all(tmp_path, vocab=1_000_000, eos=EOS).types == {"ids": "uint16"}


# -- MDS --------------------------------------------------------------------------------------

ENCODINGS: dict[str, Callable[[list[int]], bytes]] = {
    "ndarray:int32": lambda d: ndarray(d, "int32"),
    "ndarray:uint16": lambda d: ndarray(d, "uint16"),
    "ndarray": ndarray,
    "bytes": lambda d: np.array(d, np.int64).tobytes(),
}


@pytest.mark.parametrize(
    ("encoding", "pack", "size"),
    [("ndarray", "", WHOLE), ("ndarray", "zstd", 300), ("bytes", "gz", 300), *((e, "", 300) for e in ENCODINGS)],
)
def test_mds_ids(tmp_path: Path, pieces_of: Callable[[int], None], encoding: str, pack: str, size: int) -> None:
    documents = some_ids()
    columns = {"tokens": encoding, "id": "str", "domain": "str", "n": "int"}
    label = [{"id": b"d%d" % i, "domain": b"ab"[i % 2 : i % 2 + 1], "n": b"\1" * 8} for i in range(40)]
    samples = [{"tokens": ENCODINGS[encoding](d), **label[i]} for i, d in enumerate(documents)]
    mds(tmp_path, columns, samples[:25], pack)
    mds(tmp_path, columns, samples[25:], pack, 1)
    pieces_of(size)
    got = read_all(tmp_path, vocab=900)
    assert got.bodies == documents
    assert got.doc_ids == [f"d{i}" for i in range(40)]
    assert got.positions == [*range(25), *range(15)]
    assert got.types["tokens"] == ("int64" if encoding == "bytes" else encoding)
    assert got.splits == 2 or not pack


def test_mds_ids_of_fixed_length_and_numbers_as_names(tmp_path: Path) -> None:
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    samples = [{"ids": np.array(r, np.uint32).tobytes(), "doc_id": struct.pack("<q", -i)} for i, r in enumerate(rows)]
    mds(tmp_path, {"ids": "ndarray:uint32:4", "doc_id": "int"}, samples)
    got = read_all(tmp_path)
    assert (got.bodies, got.doc_ids) == (rows, ["0", "-1"])


@pytest.mark.parametrize("pack", ["", "zstd"])
def test_mds_text(tmp_path: Path, pack: str) -> None:
    texts = ["", "one", "zwei – ü", "三" * 500]
    samples = [{"text": t.encode(), "tokens": ndarray([1], "int32")} for t in texts]
    mds(tmp_path, {"text": "str", "tokens": "ndarray:int32"}, samples, pack)
    assert read_all(tmp_path).bodies == texts
    assert read_all(tmp_path, ids="tokens").bodies == [[1]] * 4
    with pytest.raises(TinydataError, match="contains ids, not text"):
        plan([str(tmp_path)], Wanted(text="tokens"))


def test_mds_samples_that_are_broken_are_reported_and_the_others_kept(tmp_path: Path) -> None:
    two = bytes([2 << 2 | 0, 1, 2]) + np.array([1, 2], np.int32).tobytes()
    values = [ndarray([1, 2], "int32"), two, ndarray([3], "int32")[:-1], b"", ndarray([4], "int32")]
    mds(tmp_path, {"tokens": "ndarray:int32"}, [{"tokens": v} for v in values])
    got = read_all(tmp_path)
    assert (got.bodies, got.positions) == ([[1, 2], [4]], [0, 4])
    assert [p for p, _ in got.bad] == [1, 2, 3]
    assert "shape (1, 2)" in got.bad[0][1]


def test_mds_that_is_no_row_of_integers(tmp_path: Path) -> None:
    floats = b"\x22" + bytes([1 << 2, 1]) + np.float32(1).tobytes()
    mds(tmp_path, {"tokens": "ndarray"}, [{"tokens": floats}, {"tokens": ndarray([1])}])
    got = read_all(tmp_path)
    assert got.bodies == [[1]] and "not integers" in got.bad[0][1]
    mds(tmp_path, {"tokens": "ndarray:float32"}, [{"tokens": b""}], number=1)
    (tmp_path / "shard.00000.mds").unlink()
    with pytest.raises(TinydataError, match=r"contains ndarray:float32, not lists"):
        plan([str(tmp_path / "shard.00001.mds")])


def test_mds_shards_in_both_forms_are_read_once(tmp_path: Path) -> None:
    samples = [{"text": b"one"}]
    mds(tmp_path, {"text": "str"}, samples, "zstd")
    index = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").unlink()
    mds(tmp_path, {"text": "str"}, samples)
    (tmp_path / "index.json").write_text(index)
    assert read_all(tmp_path).bodies == ["one"]


def test_mds_of_an_unknown_compression(tmp_path: Path) -> None:
    (tmp_path / "shard.00000.mds.br").write_bytes(b"x" * 100)
    with pytest.raises(TinydataError, match="this compression") as e:
        plan([str(tmp_path)])
    assert "zstd" in e.value.fix


def test_a_compressed_mds_shard_that_ends_early_is_quarantined(tmp_path: Path) -> None:
    blob = np.random.default_rng(0).bytes(50_000).hex().encode()
    mds(tmp_path, {"text": "str"}, [{"text": blob}] * 4, "zstd")
    shard = tmp_path / "shard.00000.mds.zstd"
    shard.write_bytes(shard.read_bytes()[:-1000])
    mds(tmp_path, {"text": "str"}, [{"text": b"whole"}], "zstd", 1)
    found = plan([str(tmp_path)])
    bad = [(u.path, u.reason) for u in found.unreadable]
    bodies = []
    for split in found.splits:
        for batch in read(split, lambda p, r, e, **lost: bad.append((split.path, r))):  # noqa: B023
            bodies += batch.column("text").to_pylist()
    assert bodies == ["whole"]
    assert [(where, "compressed" in reason) for where, reason in bad] == [(str(shard), True)]


# -- dolma, llm.c, LITPKDS, litdata, datatrove: what is their own --------------------------------


def test_a_real_npy_array(tmp_path: Path) -> None:
    for dtype in ("uint16", "int32", "int64"):
        np.save(tmp_path / "x.npy", np.array([1, 2, EOS, 3], dtype))
        assert read_all(tmp_path / "x.npy", eos=EOS)[:2] == ([[1, 2, EOS], [3]], [0, 3])
        assert read_all(tmp_path / "x.npy").bodies == [[1, 2, EOS, 3]]
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"0,1\n1,1\n1,4\n"))
    assert read_all(tmp_path).bodies == [[1], [], [2, EOS, 3]]


@pytest.mark.parametrize("array", [np.zeros((2, 2), int), np.zeros(3), np.zeros(3, bool), np.zeros(3, ">i4")])
def test_an_npy_array_that_is_no_ids(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    assert "not a row of token ids" in unreadable(tmp_path / "x.npy")


def test_dolma_documents_without_names(tmp_path: Path) -> None:
    file = dolma(tmp_path, [[1], [2, 3]])
    for rows, names in (
        (b"0,1\n1,3", [None, None]),
        (b"0,1,,a,1\n1,3,,a,2", [None] * 2),
        (b"0,1,x\n1,3,", ["x", None]),
    ):
        (tmp_path / "part-0-00000.csv.gz").write_bytes(gzip.compress(rows))
        assert read_all(file, dtype="uint16")[:3] == ([[1], [2, 3]], [0, 1], names)


@pytest.mark.parametrize(("dtype", "usual"), [("uint16", 50256), ("uint32", 128000)])
def test_llmc_knows_its_own_end_of_text(tmp_path: Path, dtype: str, usual: int) -> None:
    documents = [[usual, *d] for d in some_ids(10)]
    file = llmc(tmp_path, documents, dtype)
    assert read_all(file).bodies == documents
    assert read_all(file, eos=EOS).bodies == documents
    documents = [[11, *d] for d in some_ids(10)]  # of another tokenizer: the file begins with it
    documents = [[d[0], *(i for i in d[1:] if i != 11)] for d in documents]
    assert read_all(llmc(tmp_path, documents, dtype)).bodies == documents


def test_llmc_evaluation_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hellaswag_val.bin").write_bytes(np.array([20240522, 1, 5] + [0] * 253, np.int32).tobytes() + b"x" * 10)
    with pytest.raises(TinydataError, match="evaluation data") as e:
        plan([str(tmp_path)])
    assert e.value.code == UNREADABLE


@pytest.mark.parametrize("pad", [0, 3, 8, 5000])
def test_litpkds_padding_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pad: int) -> None:
    monkeypatch.setattr(packed_dataset, "BLOCK", 100)
    ids = some_ids(1)[0] * 30
    got = read_all(litpkds(tmp_path, [ids], pad=pad))
    assert [i for b in got.bodies for i in b] == ids + [EOS] * (pad if pad < packed_dataset.MIN_PADDING else 0)


def test_litpkds_with_only_padding_is_empty(tmp_path: Path) -> None:
    with pytest.raises(TinydataError, match="empty"):
        plan([str(litpkds(tmp_path, [[EOS]]))])


def test_litdata_records_and_compression_are_refused(tmp_path: Path) -> None:
    litdata(tmp_path, some_ids())
    index = json.loads((tmp_path / "index.json").read_text())
    for change, what in (({"data_format": ["str", "int"]}, "records"), ({"compression": "zstd"}, "zstd")):
        (tmp_path / "index.json").write_text(json.dumps(index | {"config": index["config"] | change}))
        with pytest.raises(TinydataError, match=what):
            plan([str(tmp_path)])


def test_loss_masks(tmp_path: Path, byte_bpe: Path) -> None:
    """One byte per token, 0 where it carries no loss; `count` counts all tokens, and the masked ones separately."""
    place = tmp_path / "in"
    place.mkdir()
    documents = some_ids()
    file = datatrove(place, documents)
    flags = np.random.default_rng(1).random(ends(documents)[-1]) < 0.3
    (place / "000_web.ds.loss").write_bytes((~flags).astype(np.uint8).tobytes())
    got = read_all(file)
    assert np.concatenate([np.array(m, bool) for m in got.masks]).tolist() == flags.tolist()
    made = counts(place, byte_bpe / "gpt2", tmp_path / "out", heldout=0.3)
    assert made["totals"]["masked"] == flags.sum()
    assert made["totals"]["tokens"] == len(flags)
    assert made["skipped_files"] == []
    documents[3] = [60_000] * 5  # outside: neither counted nor masked
    at = [0, *ends(documents)]
    datatrove(place, documents)
    (place / "000_web.ds.loss").write_bytes(b"\0" * at[-1])
    made = counts(place, byte_bpe / "gpt2", tmp_path / "again", max_bad=0.5)
    assert made["totals"]["masked"] == made["totals"]["tokens"] == at[-1] - 5


# -- broken files -----------------------------------------------------------------------------

BROKEN = {
    "ds cut": (datatrove, "000_web.ds", lambda b: b[:-2], "its index says"),
    "ds index of half a number": (datatrove, "000_web.ds.index", lambda b: b[:-3], "not a multiple of 8"),
    "ds index cut": (datatrove, "000_web.ds.index", lambda b: b[:-8], "its index says"),
    "ds index falls": (datatrove, "000_web.ds.index", lambda b: b[8:16] + b[:8] + b[16:], "end before they begin"),
    "ds index missing": (datatrove, "000_web.ds.index", None, "which lists its documents, is missing"),
    "ds metadata": (datatrove, "000_web.ds.metadata", lambda b: b"nothing", "does not declare 2 or 4 bytes"),
    "ds loss cut": (datatrove, "000_web.ds.loss", lambda b: b"\1", "has 1 bytes for"),
    "npy cut": (dolma, "part-0-00000.npy", lambda b: b[:-2], "its .csv.gz says"),
    "csv cut": (dolma, "part-0-00000.csv.gz", lambda b: b[:-12], "cannot be read"),
    "csv of gaps": (dolma, "part-0-00000.csv.gz", lambda b: gzip.compress(b"0,1\n2,3"), "leave gaps"),
    "csv of words": (dolma, "part-0-00000.csv.gz", lambda b: gzip.compress(b"a,b\n"), "cannot be read"),
    "nanogpt cut": (nanogpt, "train.bin", lambda b: b[:-1], "not a multiple of the 2"),
    "llmc cut": (llmc, "web_train_000001.bin", lambda b: b[:-2], "its header says"),
    "llmc longer": (llmc, "web_train_000001.bin", lambda b: b + b"\0\0", "its header says"),
    "llmc header cut": (llmc, "web_train_000001.bin", lambda b: b[:500], "within its header"),
    "llmc version": (llmc, "web_train_000001.bin", lambda b: b[:4] + b"\2" + b[5:], "version 2"),
    "litpkds cut": (litpkds, "train_web_0000000000.bin", lambda b: b[:-2], "its header says"),
    "litpkds header cut": (litpkds, "train_web_0000000000.bin", lambda b: b[:20], "within its header"),
    "litpkds floats": (litpkds, "train_web_0000000000.bin", lambda b: b[:15] + b"\6" + b[16:], "not an integer type"),
    "litpkds version": (litpkds, "train_web_0000000000.bin", lambda b: b[:7] + b"\2" + b[8:], "version 2"),
    "litdata cut": (litdata, "chunk-0-1.bin", lambda b: b[:-2], "its table of items says"),
    "litdata table": (litdata, "chunk-0-1.bin", lambda b: b[:4] + b"\xff" + b[5:], "table of items is broken"),
    "litdata chunk missing": (litdata, "chunk-0-1.bin", None, "lists chunk-0-1.bin, which does not exist"),
    "litdata another chunk": (litdata, "chunk-0-2.bin", lambda b: b"x", "does not list it"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_are_quarantined(tmp_path: Path, what: str) -> None:
    write, name, change, reason = BROKEN[what]
    place = tmp_path / "in"
    place.mkdir()
    write(place, some_ids())
    if change is None:
        (place / name).unlink()
    else:
        (place / name).write_bytes(change((place / name).read_bytes() if (place / name).exists() else b""))
    assert reason in unreadable(place, dtype="uint16")


MDS_BROKEN = {
    "cut": ("shard.00000.mds", lambda b: b[:-2], "its table of samples says"),
    "table cut": ("shard.00000.mds", lambda b: b[:8], "too few for the table"),
    "table": ("shard.00000.mds", lambda b: b[:4] + b"\0" + b[5:], "table of samples is broken"),
    "columns": ("shard.00000.mds", lambda b: b.replace(b"column_names", b"column_nomen"), "description of columns"),
    "missing": ("shard.00000.mds", None, "lists shard.00000.mds, which does not exist"),
    "another": ("shard.00007.mds", lambda b: b"x", "does not list it"),
}


@pytest.mark.parametrize("what", MDS_BROKEN)
def test_broken_mds_is_quarantined(tmp_path: Path, what: str) -> None:
    name, change, reason = MDS_BROKEN[what]
    place = tmp_path / "in"
    place.mkdir()
    for i in range(2):
        mds(place, {"tokens": "ndarray:int32"}, [{"tokens": ndarray(d, "int32")} for d in some_ids(5)], number=i)
    if change is None:
        (place / name).unlink()
    else:
        (place / name).write_bytes(change((place / name).read_bytes() if (place / name).exists() else b""))
    assert reason in unreadable(place)


@pytest.mark.parametrize("write", [nanogpt, datatrove])
def test_a_file_that_shrinks_after_planning_is_quarantined(tmp_path: Path, write: Callable[..., Path]) -> None:
    file = write(tmp_path, some_ids())
    (split,) = plan([str(file)], Wanted(dtype="uint16")).splits
    file.write_bytes(file.read_bytes()[:-10])
    bad: list[Any] = []
    batches = list(read(split, lambda *a, **lost: bad.append(a)))
    assert write is nanogpt or (batches == [] and "ends early" in bad[0][1])


# -- names, sidecars, the command line --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("000_web.ds", "web"),
        ("00003_unshuffled.ds", "folder"),
        ("fineweb_00000_00002_doc_shuffled.ds", "fineweb"),
        ("part-0-00000.npy", "folder"),
        ("shard.00000.mds.zstd", "folder"),
        ("chunk-0-17.bin", "folder"),
        ("fineweb_train_000001.bin", "fineweb_train"),
        ("train.bin", "train"),
        ("train_slimpajama_0000000003.bin", "train_slimpajama"),
        ("en/shard.00000.mds", "en"),
    ],
)
def test_domains(name: str, domain: str) -> None:
    assert domain_of(name, "folder") == domain


def test_companions_of_data_files_are_not_reported_as_skipped(tmp_path: Path) -> None:
    for write in (datatrove, dolma, litdata, nanogpt):
        (tmp_path / write.__name__).mkdir()
        write(tmp_path / write.__name__, some_ids())
    (tmp_path / "mds").mkdir()
    mds(tmp_path / "mds", {"tokens": "ndarray:int32"}, [{"tokens": ndarray([1], "int32")}])
    (tmp_path / "nanogpt" / "meta.pkl").write_bytes(b"x")
    (tmp_path / "datatrove" / "web.ds.metadata").write_text("x|2\n")
    (tmp_path / "other.idk.gz").write_bytes(b"x")
    found = plan([str(tmp_path)], Wanted(vocab=900))
    assert [Path(p).name for p in found.skipped] == ["other.idk.gz"]
    assert found.unreadable == []
    assert {s.format for s in found.splits} == {"datatrove", "dolma", "litdata", "nanogpt", "mds"}
    assert {s.domain for s in found.splits} == {"datatrove", "dolma", "litdata", "nanogpt", "mds"}


def counts(corpus: Path, tokenizer: Path, out: Path, dtype: str = "", **options: Any) -> dict[str, Any]:
    return verb.count(
        [str(corpus)], str(tokenizer), str(out), LocalEngine(1), Settings(wanted=Wanted(dtype=dtype), **options)
    )


def histogram(out: Path) -> np.ndarray:
    table = pq.read_table(out / "counts.parquet")
    return np.bincount(table["token_id"].to_numpy(), table["count"].to_numpy().astype(float)).astype(np.int64)


def test_count_and_ls(tmp_path: Path, byte_bpe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tokenizer determines the separator of documents, and --dtype the type that the file does not declare."""

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(args))
        return int(left.value.code or 0), *capsys.readouterr()

    (tmp_path / "in").mkdir()
    documents = [[*d, 2_500] for d in some_ids()]
    nanogpt(tmp_path / "in", documents)
    tokenizer = str(byte_bpe / "gpt2")
    code, text, said = run("count", str(tmp_path / "in"), "--tokenizer", tokenizer, "-o", str(tmp_path / "a"))
    assert code == 0
    assert "uint16 is not declared" in text + said
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["totals"]["documents"] == 40
    assert histogram(tmp_path / "a").tolist() == np.bincount(np.concatenate(documents)).tolist()
    (tmp_path / "in" / "train.bin").write_bytes(flat([[5, 6, 0]]))
    code, text, said = run("count", str(tmp_path / "in"), "--tokenizer", tokenizer, "-o", str(tmp_path / "b"))
    assert code == UNREADABLE and "too few ids to tell" in said and "--dtype" in said
    args = ("count", str(tmp_path / "in"), "--tokenizer", tokenizer, "-o", str(tmp_path / "b"), "--dtype", "uint16")
    assert run(*args)[0] == 0
    made = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert (made["options"]["dtype"], made["totals"]["tokens"]) == ("uint16", 3)
    datatrove(tmp_path, documents)
    code, text, _ = run("ls", str(tmp_path / "000_web.ds"), str(tmp_path / "in"))
    assert code == 0 and "datatrove, uint16" in text and "nothing to read" in text and "against it" not in text


# -- files that the formats' own tools wrote --------------------------------------------------


def lines(file: Path) -> list[Any]:
    with gzip.open(file) as f:
        return [json.loads(line) for line in f]


MISTRAL = "sp_bpe/mistral_v1_32000"


def by_document(place: Path, name: str) -> Ids:
    """Megatron's expected sequences, joined to documents."""
    sequences = lines(place / f"{name}.expected.jsonl.gz")
    bounds = json.loads((place / f"{name}.expected.json").read_text())["document_indices"]
    return [[i for s in sequences[a:b] for i in s] for a, b in pairwise(bounds)]


DS = "datatrove_ds/neox_uint16"
FIXTURES: dict[str, Callable[[Path], list[Any]]] = {
    **{
        f"{DS}/{n}.ds": lambda f, n=n: lines(f / DS / f"{n}.ds.expected.jsonl.gz")
        for n in ("merged/000_merged", "tokenized/part_00000_unshuffled", "tokenized/part_00001_unshuffled")
    },
    **{
        f"megatron_indexed/{n}.bin": lambda f, n=n: by_document(f / "megatron_indexed", n)
        for n in ("internlm_int32_text_document", "mistral_uint16_text_document", "mistral_uint16_multiseq_sentence")
    },
    "mosaicml_mds/tokens_int32_ndarray_plain": lambda f: [
        r["tokens"] for r in lines(f / "mosaicml_mds/tokens_int32_ndarray_plain.expected.jsonl.gz")
    ],
    "mosaicml_mds/llmfoundry_bytes_int64_concat256": lambda f: lines(
        f / "mosaicml_mds/llmfoundry_bytes_int64_concat256.expected.jsonl.gz"
    ),
    "mosaicml_mds/text_str_zstd": lambda f: [
        r["text"] for r in lines(f / "mosaicml_mds/text_str_zstd.expected.jsonl.gz")
    ],
    "llmc_bin": lambda f: lines(f / "llmc_bin/expected_docs.jsonl.gz"),
}


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fixtures = shared / "fixtures"
    monkeypatch.setattr(token_files, "SPLIT_BYTES", 4096)
    path = fixtures / name
    if name == "llmc_bin":  # the expected documents are in the same directory
        path = tmp_path / "in"
        path.mkdir()
        for file in (fixtures / name).glob("*.bin"):
            (path / file.name).symlink_to(file)
    documents = FIXTURES[name](fixtures)
    got = read_all(path)
    assert got.bodies == documents
    assert got.bad == []


def test_litdata_fixture(shared: Path, tmp_path: Path) -> None:
    """The expected file has blocks of 257 ids, without the rest of each chunk."""
    place = shared / "fixtures" / "litdata"
    found = plan([str(place / "tokens_int32_block257")])
    blocks: Ids = []
    documents = 0
    for split in found.splits:
        ids: list[int] = []
        for batch in read(split, lambda *a: pytest.fail(str(a))):
            documents += len(batch)
            ids += batch.column("ids").flatten().to_pylist()
        blocks += [ids[i : i + 257] for i in range(0, len(ids) - 256, 257)]
    assert blocks == lines(place / "tokens_int32_block257.expected.jsonl.gz")
    assert documents == 85
    made = counts(place / "tokens_int32_block257", shared / "tokenizers" / MISTRAL, tmp_path / "out")
    ids = np.concatenate([np.concatenate(read_all(place / "tokens_int32_block257").bodies)])
    assert histogram(tmp_path / "out").tolist() == np.bincount(ids).tolist()
    assert made["totals"]["tokens"] == 82_462
    with pytest.raises(TinydataError, match=r"records \(str, str, int\)"):
        plan([str(place / "records")])


@pytest.mark.parametrize("name", ["train", "val"])
def test_nanogpt_fixture(shared: Path, name: str) -> None:
    """The ids are characters of a text that is stored with them."""
    place = shared / "fixtures" / "nanogpt_bin" / "shakespeare_char"
    got = read_all(place / f"{name}.bin", vocab=65)
    itos = json.loads((place / "meta.json").read_text())["itos"]
    text = "".join(itos[str(i)] for b in got.bodies for i in b)
    whole = gzip.decompress((place / "input.txt.gz").read_bytes()).decode()
    cut = int(len(whole) * 0.9)
    assert text == (whole[:cut] if name == "train" else whole[cut:])
    assert got.types == {"ids": "uint16"}


def test_every_format_that_is_written_is_read_and_can_be_chosen() -> None:
    assert set(FORMATS) == set(WRITERS) <= set(READERS)
