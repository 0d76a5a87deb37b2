"""Text and ids in .jsonl, .txt, .parquet, InternEvo and Megatron files: what is read equals what was written,
wherever the split boundaries are, and unusable input is reported.

`read_all` reads as a verb does: plan, then each split independently, in any order.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location
from tinydata.formats import internevo_lines, jsonl, megatron, parquet, text_lines, token_files
from tinydata.formats.base import Wanted
from tinydata.formats.corpus import plan, read
from tinydata.formats.domain import domain_of

WHOLE = 64 << 20  # SPLIT_BYTES as it is: each file here is one split
relaxed = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Row(NamedTuple):
    doc_id: str | None
    domain: str
    position: int
    body: Any


class Got(NamedTuple):
    rows: list[Row]
    bad: list[tuple[int, str, bytes]]
    splits: int

    @property
    def bodies(self) -> list[Any]:
        return [r.body for r in self.rows]


def read_all(path: Path | str, **wanted: str) -> Got:
    found = plan([str(path)], Wanted(**wanted))
    rows: list[Row] = []
    bad: list[tuple[int, str, bytes]] = []
    for split in reversed(found.splits):  # a split must not need its neighbours
        mine = []
        for batch in read(split, lambda p, r, e, **lost: bad.append((p, r, e))):
            batch.validate(full=True)
            assert batch.schema.metadata[b"path"].decode() == split.path
            assert batch.schema.names[-1] == ("text" if found.kind == "text" else "ids")
            columns = [batch.column(i).to_pylist() for i in range(4)]
            mine += [Row(*values) for values in zip(*columns, strict=True)]
        rows = mine + rows
    return Got(rows, bad, len(found.splits))


@pytest.fixture
def pieces_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes splits, chunks and batches of about so many bytes, in every format."""

    def cut(size: int) -> None:
        for module in (text_lines, token_files, parquet):
            monkeypatch.setattr(module, "SPLIT_BYTES", size)
        monkeypatch.setattr(text_lines, "CHUNK", max(size // 3, 1))
        monkeypatch.setattr(token_files, "BATCH", max(size // 3, 1))
        monkeypatch.setattr(parquet, "ROWS", 3)

    return cut


def some_text(n: int, seed: int = 0) -> list[str]:
    """Documents of any length: from empty to longer than what is read at once after the end of a split."""
    rng = random.Random(seed)
    words = ["plain", "naïve", "漢字かな", "🙂", "tab\t", "line\n", '"quoted"', "back\\slash", "\u2028", "\x7f", " "]
    out = [" ".join(rng.choices(words, k=rng.choice((0, 1, 3, 40, 400)))) for _ in range(n)]
    return [*out, "long " * 30_000, "", "last"]


def some_ids(n: int, low: int, high: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randint(low, high) for _ in range(rng.choice((0, 1, 2, 30, 300)))] for _ in range(n)]


def json_lines(rows: list[Any], end: bytes = b"\n") -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=i % 2 == 0).encode() + end for i, row in enumerate(rows))


def zstd(data: bytes) -> bytes:
    """One frame that declares its size; every header length occurs, since it depends on the size."""
    return pa.Codec("zstd").compress(data, asbytes=True)


def zstd_stream(data: bytes) -> bytes:
    """One frame that does not declare its size."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def zstd_frames(data: bytes, cuts: list[int]) -> bytes:
    """The data in frames cut at these bytes, of both kinds."""
    edges = [0, *sorted(cuts), len(data)]
    return b"".join((zstd if i % 2 else zstd_stream)(data[a:b]) for i, (a, b) in enumerate(pairwise(edges)))


# -- lines of a text file, whatever its compression -------------------------------------------


def owned(file: Location, edges: list[int]) -> list[tuple[int, bytes]]:
    """[(position, line)] over the splits between these edges."""
    out = []
    for start, stop in pairwise(edges):
        for piece in text_lines.lines(file, start, stop):
            at = piece.position
            for line in piece.data.splitlines(keepends=True):
                out.append((at, line))
                at += len(line)
    return out


raw_lines = st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b".").replace(b"\r", b".")), max_size=9)
shares = st.lists(st.floats(0, 1), max_size=8)  # where to cut, of the whole


@relaxed
@given(raw_lines, st.booleans(), shares, st.integers(1, 40))
def test_any_byte_ranges_give_every_line_once(
    tmp_path: Path, lines: list[bytes], ends: bool, cuts: list[float], chunk: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    (tmp_path / "x.txt").write_bytes(data)
    edges = sorted({0, len(data), *(int(c * len(data)) for c in cuts)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "CHUNK", chunk)
        got = owned(Location.of(tmp_path / "x.txt"), edges)
    assert b"".join(line for _, line in got) == data
    assert all(data[at : at + len(line)] == line for at, line in got)


@relaxed
@given(raw_lines, st.booleans(), shares, st.sets(st.integers(1, 8)), st.integers(1, 40))
def test_any_runs_of_frames_give_every_line_once(
    tmp_path: Path, lines: list[bytes], ends: bool, where: list[float], breaks: set[int], chunk: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    cuts = sorted(int(c * len(data)) for c in where)
    (tmp_path / "x.zst").write_bytes(zstd_frames(data, cuts))
    file = Location.of(tmp_path / "x.zst")
    assert len(text_lines.zstd_frames(file)) == len(cuts) + 1
    edges = sorted({0, len(cuts) + 1, *(b for b in breaks if b <= len(cuts))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "CHUNK", chunk)
        patch.setattr(text_lines, "DECOMPRESSED", chunk)
        got = owned(file, edges)
    assert b"".join(line for _, line in got) == data
    starts = [0, *cuts]
    for position, line in got:
        at = starts[position >> 40] + (position & ((1 << 40) - 1))
        assert data[at : at + len(line)] == line


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_791, 65_792, 300_000])
def test_frames_are_found_from_their_headers(tmp_path: Path, size: int) -> None:
    """Blocks of random bytes are stored, those of one repeated byte are run lengths; skippable frames do not count."""
    blob = random.Random(size).randbytes(size)
    skippable = b"\x53\x2a\x4d\x18" + struct.pack("<I", 5) + b"\xff" * 5
    frames = [zstd(blob), zstd_stream(blob + bytes(size)), skippable, zstd(bytes(size))]
    (tmp_path / "x.zst").write_bytes(b"".join(frames))
    edges = np.cumsum([0, *map(len, frames)]).tolist()
    assert text_lines.zstd_frames(Location.of(tmp_path / "x.zst")) == [
        (edges[0], edges[1]),
        (edges[1], edges[2]),
        (edges[3], edges[4]),
    ]


def test_remote_frames_are_read_as_one_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store, finding each frame would take a request."""
    data = b"".join(b"line %d\n" % i for i in range(1000))
    (tmp_path / "x.txt.zst").write_bytes(zstd_frames(data, [10, 500, 501, 5000]))
    monkeypatch.setattr(Location, "local", property(lambda self: False))
    file = Location.of(str(tmp_path / "x.txt.zst"))
    assert text_lines.splits(file) == [(0, 1, file.size)]
    assert b"".join(p.data for p in text_lines.lines(file, 0, 1)) == data


# -- JSON lines -------------------------------------------------------------------------------


def jsonl_files(data: bytes) -> dict[str, bytes]:
    """{name: content} of the same lines in every packing."""
    newlines = [i + 1 for i, b in enumerate(data) if b == 10]
    long = max(pairwise(newlines), key=lambda p: p[1] - p[0])
    within = [long[0] + 10, long[0] + (long[1] - long[0]) // 2]  # one line in three frames
    return {
        "a.jsonl": data,
        "a.json": data,
        "a.ndjson": data,
        "a.jsonl.gz": gzip.compress(data),
        "b.jsonl.gz": gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
        "a.jsonl.zst": zstd(data),
        "a.json.zstd": zstd_stream(data),
        "newlines.jsonl.zst": zstd_frames(data, newlines[::7]),
        "middles.jsonl.zst": zstd_frames(data, [n + 5 for n in newlines[2:-3:5]]),
        "three.jsonl.zst": zstd_frames(data, within),
        "empty.jsonl.zst": zstd_frames(data, [0, 0, newlines[4], newlines[4], len(data)]),
    }


TEXTS = some_text(60)


@pytest.mark.parametrize(
    ("name", "size"),
    [("a.jsonl", WHOLE), *((name, 400) for name in jsonl_files(json_lines([{"text": t} for t in TEXTS])))],
)
def test_jsonl_text(tmp_path: Path, pieces_of: Callable[[int], None], name: str, size: int) -> None:
    rows = [{"id": f"d{i}", "text": t, "domain": "ab"[i % 2], "n": {"x": [i]}} for i, t in enumerate(TEXTS)]
    (tmp_path / name).write_bytes(jsonl_files(json_lines(rows))[name])
    pieces_of(size)
    got = read_all(tmp_path / name)
    assert got.bad == []
    assert got.bodies == TEXTS
    assert [r.doc_id for r in got.rows] == [r["id"] for r in rows]
    assert [r.domain for r in got.rows] == [r["domain"] for r in rows]
    one = name in ("a.jsonl.gz", "b.jsonl.gz", "a.jsonl.zst", "a.json.zstd")
    assert (got.splits > 1) == (size < WHOLE and not one)


@pytest.mark.parametrize("size", [1000, WHOLE])
def test_jsonl_ids(tmp_path: Path, pieces_of: Callable[[int], None], size: int) -> None:
    ids = some_ids(80, -(2**40), 2**62)
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"id": i, "input_ids": x} for i, x in enumerate(ids)]))
    pieces_of(size)
    got = read_all(tmp_path)
    assert got.bodies == ids
    assert [r.doc_id for r in got.rows] == [str(i) for i in range(len(ids))]
    assert {r.domain for r in got.rows} == {"a"}


@pytest.mark.parametrize("size", [10, WHOLE])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\n  \r\n\t\n"], ids=["lf", "crlf", "blank", "blanks"])
@pytest.mark.parametrize("last", [True, False])
def test_jsonl_line_ends(tmp_path: Path, pieces_of: Callable[[int], None], end: bytes, last: bool, size: int) -> None:
    texts = ["one", "two\r\nthree", "", "four"]
    data = end + json_lines([{"text": t} for t in texts], end)
    data = data if last else data.removesuffix(end)
    (tmp_path / "a.jsonl").write_bytes(data)
    pieces_of(size)
    got = read_all(tmp_path / "a.jsonl")
    assert got.bodies == texts
    assert got.bad == []
    assert [data.index(json.dumps(t).encode()) - len('{"text": ') for t in texts] == [r.position for r in got.rows]


BROKEN = {
    "cut": (b'{"text": "half', "Unterminated string"),
    "no JSON": (b"<html>", "Expecting value"),
    "two in one": (b'{"text": "a"} {"text": "b"}', "Extra data"),
    "no object": (b'["text"]', "not a JSON object"),
    "no text": (b'{"id": "x"}', "no value for 'text'"),
    "null": (b'{"id": "x", "text": null}', "no value for 'text'"),
    "a number": (b'{"text": 5}', "a string is expected, not int"),
    "a list": (b'{"text": ["a"]}', "a string is expected, not list"),
    "not UTF-8": (b'{"text": "caf\xe9"}', "can't decode byte 0xe9"),
    "lone surrogate": (b'{"text": "a\\ud800b"}', "surrogates not allowed"),
    "nested too deep": (b'{"x": ' + b"[" * 200_000 + b"", "nested too deep"),
}


@pytest.mark.parametrize(("what", "size"), [("cut", 30), *((what, WHOLE) for what in BROKEN)])
def test_broken_json_lines_are_reported_and_the_others_kept(
    tmp_path: Path, pieces_of: Callable[[int], None], what: str, size: int
) -> None:
    line, reason = BROKEN[what]
    good = json_lines([{"id": str(i), "text": f"text {i}"} for i in range(6)]).splitlines(keepends=True)
    data = b"".join([*good[:3], line, b"\n", *good[3:]])
    (tmp_path / "a.jsonl").write_bytes(data)
    pieces_of(size)
    got = read_all(tmp_path)
    assert got.bodies == [f"text {i}" for i in range(6)]
    ((position, why, start),) = got.bad
    assert data[position:].startswith(line)
    assert reason in why
    assert line.startswith(start[:80].rstrip(b"\n")) and start


BROKEN_IDS = {
    "a float": b'{"ids": [1, 2.0]}',
    "a boolean": b'{"ids": [1, true]}',
    "a hole": b'{"ids": [1, null, 3]}',
    "a string": b'{"ids": [1, "2"]}',
    "nested": b'{"ids": [1, [2]]}',
    "too large": b'{"ids": [9223372036854775808]}',
    "thousands of digits": b'{"ids": [' + b"9" * 5000 + b"]}",
    "no list": b'{"ids": 7}',
    "null": b'{"ids": null}',
    "nothing": b"{}",
}


@pytest.mark.parametrize("what", BROKEN_IDS)
def test_broken_ids_are_reported_and_the_others_kept(tmp_path: Path, what: str) -> None:
    first, last = b'{"ids": [1, -2]}\n', b'{"ids": []}\n{"ids": [3]}'
    (tmp_path / "a.jsonl").write_bytes(first + BROKEN_IDS[what] + b"\n" + last)
    got = read_all(tmp_path)
    assert got.bodies == [[1, -2], [], [3]]
    assert [(p, r.split(":")[0]) for p, r, _ in got.bad] == [(len(first), "broken JSON line")]


@pytest.mark.parametrize("value", ["true", "1.5", str(2**70), '"text"', "[1]"])
def test_a_label_of_any_type_becomes_text(tmp_path: Path, value: str) -> None:
    lines = ['{"id": 1, "text": "a"}', f'{{"id": {value}, "text": "b"}}', '{"id": 3, "text": "c"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    got = read_all(tmp_path)
    assert got.bodies == ["a", "b", "c"] and got.bad == []
    assert [r.doc_id for r in got.rows] == ["1", json.loads(value) if value == '"text"' else value, "3"]


@pytest.mark.parametrize(
    ("first", "pack"),
    [
        (b"garbage\n", bytes),
        (b'{"text": "cut\n', gzip.compress),
        (b'{"text": null}\n', zstd),
        (b"[1, 2]\n" * 3, bytes),
    ],
)
def test_a_broken_first_line_does_not_spoil_the_file(
    tmp_path: Path, first: bytes, pack: Callable[[bytes], bytes]
) -> None:
    name = {bytes: "a.jsonl", zstd: "a.jsonl.zst"}.get(pack, "a.jsonl.gz")
    (tmp_path / name).write_bytes(pack(first + json_lines([{"text": "one"}, {"text": "two"}])))
    got = read_all(tmp_path)
    assert got.bodies == ["one", "two"]
    assert len(got.bad) == first.count(b"\n")


def test_columns_that_only_later_lines_have_are_found(tmp_path: Path) -> None:
    rows = [{"text": "a", "domain": None}, {"text": "b", "domain": "news", "id": 7}]
    (tmp_path / "a.jsonl").write_bytes(json_lines(rows))
    assert [(r.domain, r.doc_id) for r in read_all(tmp_path).rows] == [("a", None), ("news", "7")]


@pytest.mark.parametrize(
    ("pack", "share"), [(gzip.compress, 0.9), (gzip.compress, 0.999), (zstd, 0.5), (zstd, 0.999), (zstd_stream, 0.9)]
)
def test_truncated_compression_keeps_what_came_before(
    tmp_path: Path, pack: Callable[[bytes], bytes], share: float
) -> None:
    rng = random.Random(1)
    texts = [rng.randbytes(300).hex() for _ in range(2000)]
    packed = pack(json_lines([{"text": t} for t in texts]))
    name = "a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst"
    (tmp_path / name).write_bytes(packed[: int(len(packed) * share)])
    got = read_all(tmp_path)
    assert got.bodies == texts[: len(got.bodies)]
    assert len(texts) * share * 0.9 - 500 < len(got.bodies) < len(texts)
    assert len(got.bad) == 1 and "the compressed data ends early" in got.bad[0][1]


def test_garbage_after_the_last_frame_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(zstd(json_lines([{"text": "one"}, {"text": "two"}])) + b"garbage")
    got = read_all(tmp_path)
    assert got.bodies == ["one", "two"]
    assert len(got.bad) == 1 and "the compressed data is broken" in got.bad[0][1]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.txt.gz", "a.txt.zst"])
def test_a_file_that_is_not_compressed_at_all_is_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"text": "plain"}\n' * 100)
    (tmp_path / "good.jsonl").write_bytes(b'{"text": "plain"}\n')
    found = plan([str(tmp_path)])
    bad: list[Any] = []
    rows = [
        b
        for s in found.splits
        for batch in read(s, lambda *a, **lost: bad.append(a))
        for b in batch.column(3).to_pylist()
    ]
    assert rows == ["plain"]
    assert len(bad) + len(found.unreadable) == 1


# -- plain text -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5_000, WHOLE])
@pytest.mark.parametrize(
    ("name", "end"), [("a.txt", ""), ("a.txt", "\n"), ("a.txt.gz", ""), ("a.txt.zst", "\n"), ("frames.txt.zst", "")]
)
def test_txt(tmp_path: Path, pieces_of: Callable[[int], None], name: str, size: int, end: str) -> None:
    whole = "".join(f"line {i} é {'x' * (i * 7 % 90)}\r\n\n" for i in range(4000)) + "ß" * 70_000 + "\nend" + end
    data = whole.encode()
    packed = {"a.txt": data, "a.txt.gz": gzip.compress(data), "a.txt.zst": zstd(data)}
    (tmp_path / name).write_bytes(packed.get(name) or zstd_frames(data, [1000, 1001, 99_999, 200_000]))
    pieces_of(size)
    got = read_all(tmp_path)
    assert "".join(got.bodies) == whole
    assert all(body.endswith("\n") for body in got.bodies[:-1])
    assert max(len(b) for b in got.bodies) <= 2 * 70_000
    if name == "a.txt":
        assert all(data[r.position :].startswith(r.body.encode()) for r in got.rows)


def test_txt_that_is_not_utf8(tmp_path: Path) -> None:
    lines = [b"good\n" * 20_000, b"caf\xe9\n", b"good again\n" * 20_000]
    data = b"".join(lines)
    (tmp_path / "a.txt").write_bytes(data)
    got = read_all(tmp_path)
    ((position, reason, start),) = got.bad
    assert data[position:].startswith(b"\xe9") and start.startswith(b"\xe9") and "UTF-8" in reason
    assert len(data) - sum(map(len, got.bodies)) < (1 << 16) + 12


# -- Parquet ----------------------------------------------------------------------------------

TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
IDS_TYPES = [
    pa.list_(pa.int32()),
    pa.list_(pa.int64()),
    pa.large_list(pa.int32()),
    pa.list_(pa.uint16()),
    pa.list_(pa.uint8()),
    pa.list_(pa.int16()),
]


@pytest.mark.parametrize(("kind", "size"), [(pa.string(), WHOLE), *((kind, 1) for kind in TEXT_TYPES)], ids=str)
def test_parquet_text(tmp_path: Path, pieces_of: Callable[[int], None], kind: pa.DataType, size: int) -> None:
    n = len(TEXTS)
    label = kind if pa.types.is_dictionary(kind) else pa.string()
    columns = {
        "content": pa.array(TEXTS, pa.string()).cast(kind),
        "doc_id": pa.array(range(n), pa.int64()),
        "domain": pa.array(["web" if i % 3 else None for i in range(n)], label),
        "other": pa.array([[i] for i in range(n)]),
    }
    (tmp_path / "sub").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "sub" / "x.parquet", row_group_size=10)
    pieces_of(size)
    got = read_all(tmp_path)
    assert got.bodies == TEXTS
    assert got.bad == []
    assert [r.position for r in got.rows] == list(range(n))
    assert [r.doc_id for r in got.rows] == [str(i) for i in range(n)]
    assert [r.domain for r in got.rows] == ["web" if i % 3 else "sub" for i in range(n)]
    assert got.splits == {1: 7, WHOLE: 1}[size]


@pytest.mark.parametrize(("kind", "size"), [(IDS_TYPES[0], WHOLE), *((kind, 1) for kind in IDS_TYPES)], ids=str)
def test_parquet_ids(tmp_path: Path, pieces_of: Callable[[int], None], kind: pa.DataType, size: int) -> None:
    ids = some_ids(50, 0, 127)
    if str(kind.value_type).startswith("int"):
        ids[3] = [-x for x in ids[3]]
    pq.write_table(pa.table({"tokens": pa.array(ids, kind)}), tmp_path / "x.parquet", row_group_size=8)
    pieces_of(size)
    got = read_all(tmp_path)
    assert got.bodies == ids
    assert [r.position for r in got.rows] == list(range(len(ids)))


def test_parquet_fixed_size_lists(tmp_path: Path) -> None:
    ids = [[i, i + 1, i + 2] for i in range(40)]
    holed: list[Any] = [*ids[:5], None, *ids[5:]]
    table = pa.table({"input_ids": pa.array(holed, pa.list_(pa.int32(), 3)), "id": [f"d{i}" for i in range(41)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=16)
    got = read_all(tmp_path)
    assert got.bodies == ids
    assert [r.doc_id for r in got.rows] == [f"d{i}" for i in range(41) if i != 5]
    assert [(p, r) for p, r, _ in got.bad] == [(5, "no value for 'input_ids'")]


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_parquet_nulls_and_holes_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(parquet, "ROWS", rows)
    ids = [[1, 2], None, [3, None, 4], [], [5]]
    pq.write_table(pa.table({"ids": pa.array(ids, pa.list_(pa.int32()))}), tmp_path / "x.parquet")
    got = read_all(tmp_path)
    assert [(r.position, r.body) for r in got.rows] == [(0, [1, 2]), (3, []), (4, [5])]
    assert [p for p, _, _ in got.bad] == [1, 2]
    pq.write_table(pa.table({"text": ["a", None, "", "b"]}), tmp_path / "x.parquet")
    got = read_all(tmp_path)
    assert [(r.position, r.body) for r in got.rows] == [(0, "a"), (2, ""), (3, "b")]
    assert [p for p, _, _ in got.bad] == [1]


def test_parquet_that_is_not_utf8_is_reported_and_the_rest_kept(tmp_path: Path) -> None:
    rows = [b"one", b"caf\xe9", b"three", "vier: ß".encode()]
    raw = pa.array(rows, pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(rows), raw.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "x.parquet", row_group_size=3)
    got = read_all(tmp_path)
    assert got.bodies == ["one", "three", "vier: ß"]
    assert got.bad == [(1, "not UTF-8", rows[1])]


def test_truncated_parquet_is_unreadable_and_the_rest_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 1000}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-20])
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    found = plan([str(tmp_path)])
    assert [Path(u.path).name for u in found.unreadable] == ["b.parquet", "c.parquet"]
    assert all(u.bytes == Path(u.path).stat().st_size and u.reason for u in found.unreadable)
    assert [Path(s.path).name for s in found.splits] == ["a.parquet"]
    with pytest.raises(TinydataError, match="nothing to read: 1 of 1 files unreadable") as e:
        plan([str(tmp_path / "b.parquet")])
    assert e.value.code == UNREADABLE


def test_a_damaged_row_group_is_reported_and_the_others_read(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [rng.randbytes(50).hex() for _ in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=10, compression="zstd")
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(0)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    at = column.dictionary_page_offset or column.data_page_offset
    data[at : at + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    (tmp_path / "a.parquet").write_bytes(data)
    got = read_all(tmp_path)
    assert [(r.position, r.body) for r in got.rows] == [(i, texts[i]) for i in range(40) if not 10 <= i < 20]
    assert len(got.bad) == 1 and got.bad[0][0] == 10 and "row group 1" in got.bad[0][1]


# -- InternEvo --------------------------------------------------------------------------------


def internevo_file(where: Path, lines: list[bytes]) -> Path:
    """x.bin of these lines, and its .meta: (byte, tokens) of each."""
    where.write_bytes(b"".join(lines))
    starts = np.cumsum([0, *(len(line) for line in b"".join(lines).splitlines(keepends=True))])[:-1]
    with Path(f"{where}.meta").open("wb") as f:
        np.save(f, np.array([starts, np.ones(len(starts))], np.int32).T)
    return where


def test_internevo_as_its_own_tool_writes_it(shared: Path, pieces_of: Callable[[int], None]) -> None:
    folder = shared / "fixtures" / "internevo_bin_meta"
    pieces_of(30_000)
    got = read_all(folder / "*" / "*.bin")
    files = sorted(folder.glob("*/*.bin"))
    assert got.bodies == [json.loads(line)["tokens"] for f in files for line in f.read_bytes().splitlines()]
    assert {r.domain for r in got.rows} == {"cn", "en"}
    assert got.bad == []
    metas = [np.load(f"{f}.meta") for f in files]
    assert [r.position for r in got.rows] == [int(x) for meta in metas for x in meta[:, 0]]
    assert [len(b) for b in got.bodies] == [int(x) for meta in metas for x in meta[:, 1]]


@pytest.mark.parametrize(("meta", "size"), [(True, 40), (False, 40), (True, WHOLE)])
def test_internevo_negative_ids_and_odd_spacing(
    tmp_path: Path, pieces_of: Callable[[int], None], meta: bool, size: int
) -> None:
    lines = [
        b'{"tokens": [1, -2, 0, -0]}\n',
        b'{"tokens":[2147483647,-2147483647,-2147483648]}\n',
        b'{"tokens": []}\n',
        b' { "tokens" : [ 5 , 6 ] } \r\n',
        b"\n",
        b'{"tokens": [\t7]}\n',
        b'{"type": "en", "tokens": [8]}\n',
        b'{"tokens": [9]}',
    ]
    ids = [[1, -2, 0, 0], [2**31 - 1, 1 - 2**31, -(2**31)], [], [5, 6], [7], [8], [9]]
    internevo_file(tmp_path / "x.bin", lines)
    if not meta:
        (tmp_path / "x.bin.meta").unlink()
    pieces_of(size)
    got = read_all(tmp_path)
    assert got.bodies == ids
    assert got.bad == []


def test_internevo_lines_as_json_reads_them(tmp_path: Path) -> None:
    """Ids of every size, with any spaces between them."""
    rng = random.Random(0)
    ids = [[rng.choice((-1, 1)) * rng.randrange(2 ** rng.randint(0, 31)) for _ in range(k % 7)] for k in range(2_000)]
    blank = lambda: " " * rng.choice((0, 0, 1, 2))  # noqa: E731
    rows = ["[" + ",".join(f"{blank()}{i}{blank()}" for i in row) + f"{blank()}]" for row in ids]
    lines = [f'{blank()}{{"tokens"{blank()}:{blank()}{row}{blank()}}}{blank()}\n'.encode() for row in rows]
    assert parsed(b"".join(lines)) == (ids, [True] * len(ids))
    internevo_file(tmp_path / "x.bin", lines)
    assert read_all(tmp_path).bodies == ids


def parsed(data: bytes) -> tuple[list[list[int]], list[bool]]:
    """What the compiled parser makes of each line, without json's help."""
    starts = jsonl.line_starts(data)
    ids, ends, ok = np.empty(len(data), np.int32), np.empty(len(starts), np.int64), np.empty(len(starts), np.bool_)
    total = internevo_lines.parse_lines(np.frombuffer(data, np.uint8), starts, ids, ends, ok)
    assert total == ends[-1]
    return [ids[a:b].tolist() for a, b in pairwise([0, *ends.tolist()])], ok.tolist()


BROKEN_TOKENS = [
    b'{"tokens": [1, 2}',
    b'{"tokens": [1, 2',
    b'{"tokens": [1,, 2]}',
    b'{"tokens": [1,]}',
    b'{"tokens": [,1]}',
    b'{"tokens": [1 2]}',
    b'{"tokens": [01]}',
    b'{"tokens": [- 1]}',
    b'{"tokens": [1.5]}',
    b'{"tokens": [true]}',
    b'{"tokens": [null]}',
    b'{"tokens": [[1]]}',
    b'{"tokens": [2147483648]}',
    b'{"tokens": [99999999999999999999999999]}',
    b'{"tokens": [1]}]',
    b'{"tokens": [1]} {"tokens": [2]}',
    b'{"tokens": 5}',
    b'{"tokens": null}',
    b'{"token": [1]}',
    b'{"tok ens": [1]}',
    b"[1, 2]",
    b"5",
    b"\xff\xfe",
    b'{"tokens": ' + b"[" * 200_000,
]


def test_internevo_broken_lines_are_reported_and_the_others_kept(tmp_path: Path) -> None:
    good = [[i, i + 1] for i in range(len(BROKEN_TOKENS) + 1)]
    lines = [b'{"tokens": [%d, %d]}\n' % (i, i + 1) for i in range(len(good))]
    data = b"".join(a + b + b"\n" for a, b in zip(lines, BROKEN_TOKENS, strict=False)) + lines[-1]
    internevo_file(tmp_path / "x.bin", [data])
    got = read_all(tmp_path)
    assert got.bodies == good
    for (position, _, start), line in zip(got.bad, BROKEN_TOKENS, strict=True):
        assert data[position:].startswith(line + b"\n")
        assert line.startswith(start.rstrip(b"\n"))
    assert parsed(data)[1] == [True, False] * len(BROKEN_TOKENS) + [True], "the compiled parser decides the same"


def test_internevo_file_with_nothing_but_broken_lines(tmp_path: Path) -> None:
    internevo_file(tmp_path / "x.bin", [b'{"tokens": [x]}\n', b'{"tokens": [y]}\n'])
    got = read_all(tmp_path)
    assert got.rows == [] and [p for p, _, _ in got.bad] == [0, 16]


def unreadable(path: Path) -> str:
    """The reason for which `plan` does not read a file; a good file in the same directory is read."""
    internevo_file(path.parent / "good.bin", [b'{"tokens": [1]}\n'])
    found = plan([str(path.parent)])
    assert [Path(s.path).name for s in found.splits] == ["good.bin"]
    ((where, _, reason, *_),) = found.unreadable
    assert Path(where).name == path.name
    return reason


def test_internevo_written_twice_is_unreadable(tmp_path: Path) -> None:
    lines = [b'{"tokens": [1, 2]}\n', b'{"tokens": [3]}\n']
    file = internevo_file(tmp_path / "x.bin", lines)
    file.write_bytes(b"".join(lines + lines))
    assert "written twice" in unreadable(file)


def test_internevo_cut_at_a_line_end_is_unreadable(tmp_path: Path) -> None:
    lines = [b'{"tokens": [1, 2]}\n', b'{"tokens": [3]}\n', b'{"tokens": [4]}\n']
    file = internevo_file(tmp_path / "x.bin", lines)
    file.write_bytes(lines[0])
    assert "ends before" in unreadable(file)


@pytest.mark.parametrize("content", [b"", b"no numpy", b"\x93NUMPY\x01\x00"])
def test_internevo_with_a_broken_meta_is_unreadable(tmp_path: Path, content: bytes) -> None:
    file = internevo_file(tmp_path / "x.bin", [b'{"tokens": [1, 2]}\n'])
    (tmp_path / "x.bin.meta").write_bytes(content)
    assert ".meta" in unreadable(file)


# -- Megatron ---------------------------------------------------------------------------------


def megatron_index(code: int, lengths: list[int], bounds: list[int], size: int) -> bytes:
    """.idx as Megatron writes it, by hand."""
    pointers = np.cumsum([0, *lengths])[:-1] * size
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(lengths), len(bounds))
    body = [np.array(lengths, np.int32), pointers.astype(np.int64), np.array(bounds, np.int64)]
    return head + b"".join(b.tobytes() for b in body)


def megatron_pair(where: Path, ids: list[list[int]], code: int = 4, bounds: list[int] | None = None) -> Path:
    dtype = megatron.DTYPES[code]
    where.write_bytes(np.array([x for row in ids for x in row], dtype).tobytes())
    lengths = [len(row) for row in ids]
    edges = list(range(len(ids) + 1)) if bounds is None else bounds
    where.with_suffix(".idx").write_bytes(megatron_index(code, lengths, edges, np.dtype(dtype).itemsize))
    return where


def joined(sequences: list[list[int]], bounds: list[int]) -> list[list[int]]:
    """Documents of the sequences between these bounds."""
    return [[token for row in sequences[a:b] for token in row] for a, b in pairwise(bounds)]


def test_megatron_bounds_whose_difference_overflows(tmp_path: Path) -> None:
    megatron_pair(tmp_path / "x.bin", [[1], [2], [3]], bounds=[0, 1 << 62, -(1 << 62) - (1 << 61), 3])
    with pytest.raises(TinydataError, match="boundaries that do not fit its sequences"):
        read_all(tmp_path)


@pytest.mark.parametrize(("code", "size"), [(4, WHOLE), (4, 2), *((code, 200) for code in (1, 2, 3, 4, 5, 8))])
def test_megatron_of_every_integer_type(tmp_path: Path, pieces_of: Callable[[int], None], code: int, size: int) -> None:
    info = np.iinfo(megatron.DTYPES[code])
    ids = [[], [], *some_ids(30, int(info.min), int(info.max)), [int(info.min), int(info.max)], [], []]
    megatron_pair(tmp_path / "x.bin", ids, code)
    pieces_of(size)
    got = read_all(tmp_path)
    assert got.bodies == ids
    assert [r.position for r in got.rows] == list(range(len(ids)))
    assert (got.splits > 1) == (size < WHOLE)
    bounds = [0, 0, 2, 9, 20, len(ids)]
    megatron_pair(tmp_path / "x.bin", ids, code, bounds)
    assert read_all(tmp_path).bodies == joined(ids, bounds)


def test_megatron_pointers_are_not_trusted(tmp_path: Path) -> None:
    """Some versions overflowed them."""
    ids = some_ids(9, 0, 500)
    file = megatron_pair(tmp_path / "x.bin", ids)
    index = bytearray(file.with_suffix(".idx").read_bytes())
    index[34 + 4 * 9 : 34 + 12 * 9] = b"\xff" * 72
    file.with_suffix(".idx").write_bytes(index)
    assert read_all(tmp_path).bodies == ids


def broken_megatron() -> Iterator[tuple[str, Callable[[bytes, bytes], tuple[bytes, bytes]], str]]:
    yield "short .bin", lambda b, i: (b[:-4], i), "bytes, its index says"
    yield "long .bin", lambda b, i: (b + b"\0\0\0\0", i), "bytes, its index says"
    yield "short .idx", lambda b, i: (b, i[:-1]), "ends early"
    yield "no .idx", lambda b, i: (b, b""), "not a Megatron index"
    yield "half a head", lambda b, i: (b, i[:20]), "not a Megatron index"
    yield "float", lambda b, i: (b, i[:17] + b"\x07" + i[18:]), "not an integer type"
    yield "bounds", lambda b, i: (b, i[:-8] + struct.pack("<q", 99)), "do not fit"
    yield "falling bounds", lambda b, i: (b, i[:-16] + struct.pack("<qq", 2, 1)), "do not fit"
    yield "huge count", lambda b, i: (b, i[:18] + b"\xff" * 8 + i[26:]), "ends early"
    yield "no documents", lambda b, i: (b, i[:26] + struct.pack("<Q", 0) + i[34:]), "document boundaries"
    yield "negative length", lambda b, i: (b, i[:34] + struct.pack("<ii", -1, 4) + i[42:]), "negative"


@pytest.mark.parametrize("what, damage, reason", list(broken_megatron()), ids=[w for w, _, _ in broken_megatron()])
def test_broken_megatron_is_unreadable(
    tmp_path: Path, what: str, damage: Callable[[bytes, bytes], tuple[bytes, bytes]], reason: str
) -> None:
    file = megatron_pair(tmp_path / "x.bin", [[1], [2, 3]])
    index = file.with_suffix(".idx")
    ids, head = damage(file.read_bytes(), index.read_bytes())
    file.write_bytes(ids)
    index.write_bytes(head)
    assert reason in unreadable(file)


def test_the_legacy_index_is_refused(tmp_path: Path) -> None:
    file = megatron_pair(tmp_path / "x.bin", [[1], [2, 3]])
    file.with_suffix(".idx").write_bytes(b"TNTIDX\x00\x00" + bytes(40))
    with pytest.raises(TinydataError, match="TNTIDX") as e:
        plan([str(tmp_path)])
    assert e.value.code == UNREADABLE and "MMIDIDX" in e.value.fix


# -- columns ----------------------------------------------------------------------------------


@pytest.fixture(params=["x.jsonl", "x.parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same three rows as JSON lines and as Parquet."""
    rows = [{"body": f"t{i}", "toks": [i], "lang": "en", "key": f"k{i}", "score": i / 2} for i in range(3)]
    if request.param == "x.jsonl":
        (tmp_path / "x.jsonl").write_bytes(json_lines(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    return tmp_path / request.param


def test_the_given_columns_are_read(table: Path) -> None:
    got = read_all(table, text="body", domain="lang", doc_id="key")
    assert [(r.doc_id, r.domain, r.body) for r in got.rows] == [(f"k{i}", "en", f"t{i}") for i in range(3)]
    assert read_all(table, ids="toks").bodies == [[0], [1], [2]]


def test_text_is_preferred_unless_an_ids_column_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"tokens": [1], "text": "t"}]))
    assert read_all(tmp_path).bodies == ["t"]
    assert read_all(tmp_path, ids="tokens").bodies == [[1]]
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"tokens": [1], "text": 5}]))
    assert read_all(tmp_path).bodies == [[1]]


@pytest.mark.parametrize(
    "wanted, what",
    [
        ({}, "no column with text or token ids"),
        ({"text": "nope"}, "no column 'nope'"),
        ({"ids": "nope"}, "no column 'nope'"),
        ({"text": "body", "domain": "nope"}, "no column 'nope'"),
        ({"text": "body", "doc_id": "nope"}, "no column 'nope'"),
        ({"text": "toks"}, "column 'toks' contains ids, not text"),
        ({"text": "score"}, "column 'score' contains"),
        ({"ids": "body"}, "column 'body' contains text, not lists of integers"),
    ],
)
def test_an_error_about_columns_lists_those_available(table: Path, wanted: dict[str, str], what: str) -> None:
    with pytest.raises(TinydataError, match=what) as e:
        plan([str(table)], Wanted(**wanted))
    assert e.value.code == UNREADABLE and str(table) in e.value.where
    assert all(name in e.value.fix for name in ("body", "toks", "lang", "key", "score"))


# -- plan -------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A corpus with folders, hidden files, an empty file, a README and a manifest."""
    files = [
        "en/a-000.jsonl",
        "en/b.txt",
        "fr/part-1.jsonl.gz",
        "top.jsonl",
        ".hidden.jsonl",
        "_SUCCESS",
        "en/_x.jsonl",
    ]
    for name in [*files, ".git/x.jsonl", "README.rst", "empty.jsonl"]:
        where = tmp_path / "corpus" / name
        where.parent.mkdir(parents=True, exist_ok=True)
        line = b'{"text": "%s"}\n' % name.encode()
        where.write_bytes(b"" if "empty" in name else gzip.compress(line) if name.endswith(".gz") else line)
    (tmp_path / "corpus" / "manifest.json").write_text('{\n "verb": "encode"\n}\n')
    return tmp_path / "corpus"


def names(paths: list[str | Path]) -> list[str]:
    return [s.name for s in plan([str(p) for p in paths]).splits]


def test_plan_of_a_directory(tree: Path) -> None:
    found = plan([str(tree)])
    assert [s.name for s in found.splits] == ["en/a-000.jsonl", "en/b.txt", "fr/part-1.jsonl.gz", "top.jsonl"]
    assert [s.domain for s in found.splits] == ["en", "en", "fr", "top"]
    assert [Path(p).name for p in found.skipped] == ["README.rst"]
    assert found.kind == "text" and found.unreadable == []
    assert all(Path(s.path).is_absolute() and s.bytes > 0 for s in found.splits)


def test_plan_of_globs_and_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names([tree / "*" / "*.jsonl"]) == ["en/a-000.jsonl"]
    assert names([tree / "t?p.js*"]) == ["top.jsonl"]
    assert names([tree / "en" / "[a-b]*"]) == ["a-000.jsonl", "b.txt"]
    assert names([tree / "top.jsonl", tree / "en"]) == ["top.jsonl", "a-000.jsonl", "b.txt"]
    monkeypatch.chdir(tree)
    assert names(["."]) == names([tree])
    assert names(["fr/*"]) == names(["./fr/*"]) == ["part-1.jsonl.gz"]


def test_plan_does_not_depend_on_the_order_of_the_file_system(tree: Path) -> None:
    for name in ("z.jsonl", "A.jsonl", "m.jsonl"):
        (tree / name).write_bytes(b'{"text": "x"}\n')
    assert names([tree]) == sorted(names([tree]))


@pytest.mark.parametrize("asked, near", [("nope.jsonl", "corpus"), ("en/nope/*.jsonl", "en"), ("no/where/x", "corpus")])
def test_a_missing_path_names_the_nearest_existing_directory(tree: Path, asked: str, near: str) -> None:
    with pytest.raises(TinydataError, match="no such file") as e:
        plan([str(tree / asked)])
    assert e.value.code == UNREADABLE
    assert f"/{near};" in e.value.fix and ("b.txt" if near == "en" else "README.rst") in e.value.fix


def test_an_unknown_format_is_refused(tree: Path) -> None:
    with pytest.raises(TinydataError, match="no file of a known format") as e:
        plan([str(tree / "README.rst")])
    assert e.value.code == UNREADABLE and ".parquet" in e.value.fix


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TinydataError, match="contains no files"):
        plan([str(tmp_path)])
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(TinydataError, match="the corpus is empty") as e:
        plan([str(tmp_path)])
    assert e.value.code == UNREADABLE
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    with pytest.raises(TinydataError, match="the corpus is empty"):
        plan([str(tmp_path)])


def test_text_and_ids_do_not_mix(tree: Path) -> None:
    (tree / "ids.jsonl").write_bytes(b'{"ids": [1]}\n')
    with pytest.raises(TinydataError, match="mixes text and token ids") as e:
        plan([str(tree)])
    assert "ids.jsonl" in e.value.where and e.value.code == UNREADABLE


def test_a_file_without_any_json_object_is_unreadable(tree: Path) -> None:
    (tree / "bad.jsonl").write_bytes(b"1\n2\n3\n")
    (bad,) = plan([str(tree)]).unreadable
    assert (bad.path, bad.reason) == (str(tree / "bad.jsonl"), "no line here is a JSON object")


@pytest.mark.parametrize(
    "name, domain",
    [
        ("en/part-00000.bin", "en"),
        ("c4-train.00001-of-01024.json.gz", "c4-train"),
        ("wiki.jsonl.zst", "wiki"),
        ("a/b/c.parquet", "a"),
        ("books_0007.parquet", "books"),
        ("stack.part3.jsonl", "stack"),
        ("code-shard-12.txt", "code"),
        ("en_chunk_4_of_9.jsonl", "en"),
        ("data0012.jsonl", "data"),
        ("gpt2.bin", "gpt2"),
        ("c4.jsonl", "c4"),
        ("train-00000-of-00002-6e587552aa3c8ac8.parquet", "train"),
        ("part-00000-9c5d9a4e-6d7f-4f0e-8a4b-0123456789ab-c000.snappy.parquet", "folder"),
        ("part-00017.jsonl.gz", "folder"),
        ("000_00012.parquet", "folder"),
        ("0000.parquet", "folder"),
        ("notes.tsv", "notes"),
        ("web.JSONL.bz2", "web"),
        ("data-00001-of-00003.arrow", "data"),
        ("table_0.csv.gz", "table"),
    ],
)
def test_domain_of(name: str, domain: str) -> None:
    assert domain_of(name, "folder") == domain


def test_shards_of_a_folder_are_one_domain(tmp_path: Path) -> None:
    (tmp_path / "wiki").mkdir()
    for i in range(3):
        (tmp_path / "wiki" / f"part-{i:05}.txt").write_text("text\n")
    assert {s.domain for s in plan([str(tmp_path / "wiki")]).splits} == {"wiki"}
    assert {s.domain for s in plan([str(tmp_path / "wiki" / "part-*")]).splits} == {"wiki"}
