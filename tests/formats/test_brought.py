"""Corpora as people bring them: labels of any type, JSON layouts, tables, folders with strangers, damaged files."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.feather as pf
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.formats.test_text_and_ids import megatron_pair
from tests.formats.test_token_files import mds
from tinydata.core.errors import TinydataError
from tinydata.core.quarantine import Unusable
from tinydata.formats import parquet
from tinydata.formats.base import Wanted
from tinydata.formats.corpus import CorpusPlan, plan, read

TEXTS = ["The ferry leaves.", "Die Fähre", "渡輪", 'quotes " and \\ and ,', "two\nlines", "", "🙂" * 40]


class Got:
    """What a verb would see of a corpus."""

    def __init__(self, *paths: Path | str, **wanted: str):
        self.plan: CorpusPlan = plan([str(p) for p in paths], Wanted(**wanted))
        self.bodies: list[Any] = []
        self.ids: list[str | None] = []
        self.domains: list[str] = []
        self.bad: list[Unusable] = list(self.plan.unreadable)
        for split in self.plan.splits:

            def note(
                position: int, reason: str, start: bytes, /, *, documents: int = 1, size: int = 0, s=split
            ) -> None:
                self.bad.append(Unusable(s.path, position, reason, "", None, documents, size))

            for batch in read(split, note):
                batch.validate(full=True)
                self.bodies += batch.column(3).to_pylist()
                self.ids += batch.column("doc_id").to_pylist()
                self.domains += batch.column("domain").to_pylist()


def rows(**more: list[Any]) -> list[dict[str, Any]]:
    return [{"text": t, **{k: v[i] for k, v in more.items()}} for i, t in enumerate(TEXTS)]


def lines(objects: list[Any]) -> bytes:
    return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects).encode()


# -- labels never decide over documents ---------------------------------------------------------

ODD = [1.0, 2, "three", 2**63, {"a": 1}, None, True]


def test_an_id_of_any_json_type_becomes_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(rows(id=ODD)))
    got = Got(tmp_path)
    assert got.bodies == TEXTS and not got.bad
    assert got.ids == ["1.0", "2", "three", str(2**63), '{"a": 1}', None, "true"]


def test_a_domain_of_any_json_type_becomes_text_or_the_file_s(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(rows(domain=[["x"], 1, "three", 2.5, {}, None, False])))
    got = Got(tmp_path)
    assert got.bodies == TEXTS and not got.bad
    assert got.domains == ['["x"]', "1", "three", "2.5", "{}", "a", "false"]


@pytest.mark.parametrize(("values", "wanted"), [
    ([{"a": i} for i in range(7)], [f'{{"a": {i}}}' for i in range(7)]),
    ([[i] for i in range(7)], [f"[{i}]" for i in range(7)]),
    ([float(i) for i in range(7)], [f"{i}.0" for i in range(7)]),
    ([bytes([0xFF, i]) for i in range(7)], [f"ff0{i}" for i in range(7)]),
    ([f"é{i}".encode() for i in range(7)], [f"é{i}" for i in range(7)]),
    ([i % 2 == 0 for i in range(7)], ["true", "false"] * 3 + ["true"]),
    ([datetime.date(2026, 11, 29)] * 7, ["2026-11-29"] * 7),
    ([None] * 7, [None] * 7),
], ids=["struct", "list", "float", "bytes", "UTF-8 bytes", "bool", "date", "null"])  # fmt: skip
def test_parquet_labels_of_any_type_become_text(tmp_path: Path, values: list[Any], wanted: list[str | None]) -> None:
    pq.write_table(pa.table({"text": TEXTS, "id": values, "domain": values}), tmp_path / "a.parquet")
    got = Got(tmp_path)
    assert got.bodies == TEXTS and not got.bad
    assert got.ids == wanted
    assert got.domains == [w or "a" for w in wanted]


# -- what is missing is weighed ------------------------------------------------------------------


def test_a_cut_gzip_file_weighs_as_much_as_was_read_of_it(tmp_path: Path) -> None:
    rng = random.Random(0)
    packed = gzip.compress(lines([{"text": rng.randbytes(100).hex()} for _ in range(40_000)]))
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    got = Got(tmp_path)
    assert 19_000 < len(got.bodies) < 21_000
    (lost,) = got.bad
    assert 0.9 < lost.documents / len(got.bodies) < 1.1
    assert "how much is missing is unknown" in lost.reason


def test_a_broken_row_group_weighs_its_rows(tmp_path: Path) -> None:
    rng = random.Random(0)
    table = pa.table({"text": [rng.randbytes(50).hex() for _ in range(3000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000, compression="zstd")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    (tmp_path / "a.parquet").write_bytes(content)
    got = Got(tmp_path)
    assert len(got.bodies) == 2000
    assert [(b.position, b.documents) for b in got.bad] == [(1000, 1000)]
    assert got.bad[0].bytes > 0


def test_parquet_checksums_are_verified(tmp_path: Path) -> None:
    """Uncompressed, so that nothing else finds the changed letter."""
    pq.write_table(
        pa.table({"text": ["aaaaaaaa" * 50] * 10}), tmp_path / "a.parquet",
        compression="none", use_dictionary=False, write_page_checksum=True,
    )  # fmt: skip
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    place = content.index(b"a" * 400 + b"\x90\x01") + 100  # in the page, not in the statistics of its header
    content[place : place + 1] = b"b"
    (tmp_path / "a.parquet").write_bytes(content)
    got = Got(tmp_path)
    assert got.bodies == [] and got.bad[0].documents == 10


# -- JSON that is not one object a line ----------------------------------------------------------


def array(objects: list[Any]) -> bytes:
    return json.dumps(objects, ensure_ascii=False).encode()


def indented(objects: list[Any]) -> bytes:
    return json.dumps(objects, indent=2).encode()


def one_after_another(objects: list[Any]) -> bytes:
    return "\n".join(json.dumps(o, indent=4) for o in objects).encode()


@pytest.mark.parametrize("write", [array, indented, one_after_another, lambda o: b"\xef\xbb\xbf \n" + indented(o)])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
def test_json_layouts(tmp_path: Path, write: Callable[[list[Any]], bytes], name: str) -> None:
    objects = rows(id=[str(i) for i in range(7)])
    content = write(objects)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    got = Got(tmp_path)
    assert got.bodies == TEXTS and not got.bad
    assert got.ids == [str(i) for i in range(7)]


def test_a_large_array_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinydata.formats import json_values, text_lines

    monkeypatch.setattr(text_lines, "CHUNK", 1000)
    monkeypatch.setattr(json_values, "BATCH", 5000)
    texts = ["x" * n for n in (1, 10, 3000, 40_000, 2)] * 20
    (tmp_path / "a.json").write_bytes(array([{"text": t} for t in texts]))
    assert Got(tmp_path).bodies == texts
    (tmp_path / "a.json").write_bytes(array([{"input_ids": [1, 22, 333] * n} for n in range(200)]))
    assert Got(tmp_path).bodies == [[1, 22, 333] * n for n in range(200)]


@pytest.mark.parametrize("content", [
    array(rows())[:-1], array(rows())[:-30], array(rows()) + b"more", b"[1, 2, " + array(rows())[1:],
    array(rows()[:3])[:-1] + b", !!" + array(rows())[60:],
])  # fmt: skip
def test_a_broken_array_is_read_up_to_there_and_the_rest_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    got = Got(tmp_path)
    assert got.bodies == TEXTS[: len(got.bodies)]
    assert got.bad and sum(b.documents for b in got.bad) >= len(TEXTS) - len(got.bodies)


@pytest.mark.parametrize("megabytes", [1, 40])
def test_a_long_line_takes_linear_time(tmp_path: Path, megabytes: int) -> None:
    import time

    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "word " * (200_000 * megabytes)}, {"text": "end"}]))
    begun = time.process_time()
    got = Got(tmp_path)
    assert [len(b) for b in got.bodies] == [10**6 * megabytes, 3]
    assert time.process_time() - begun < 0.5 + 0.15 * megabytes


# -- compression ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl.bz2", "a.jsonl.xz", "a.JSONL.GZ", "a.JSONL", "a.jsonl.zstd"])
def test_compressed_lines(tmp_path: Path, name: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "bz2": bz2.compress, "xz": lzma.compress, "gz": gzip.compress, "jsonl": bytes,
        "zstd": lambda b: bytes(pa.Codec("zstd").compress(b, asbytes=True)),
    }  # fmt: skip
    half = len(lines(rows()[:3]))
    data = lines(rows())
    packer = pack[name.rpartition(".")[2].lower()]
    (tmp_path / name).write_bytes(packer(data[:half]) + packer(data[half:]))  # two streams, one after the other
    assert Got(tmp_path).bodies == TEXTS


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_cut_bz2_and_xz_are_said(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    rng = random.Random(0)
    packed = pack(lines([{"text": rng.randbytes(100).hex()} for _ in range(10_000)]))
    (tmp_path / f"a.jsonl.{'bz2' if pack is bz2.compress else 'xz'}").write_bytes(packed[: len(packed) // 2])
    got = Got(tmp_path)
    assert 0 < len(got.bodies) < 10_000
    assert len(got.bad) == 1 and got.bad[0].documents > 0


def test_zstd_with_a_long_window(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = lines(rows())
    (tmp_path / "a.jsonl.zst").write_bytes(stream.compress(data) + stream.flush())
    assert Got(tmp_path).bodies == TEXTS


# -- tables --------------------------------------------------------------------------------------


def test_csv_and_tsv(tmp_path: Path) -> None:
    table = pa.table({"text": TEXTS, "id": [f"d{i}" for i in range(7)], "domain": ["a", "b"] * 3 + ["a"]})
    pv.write_csv(table, tmp_path / "a.csv")
    pv.write_csv(table, tmp_path / "b.tsv", pv.WriteOptions(delimiter="\t"))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    for name in ("a.csv", "b.tsv", "c.csv.gz"):
        got = Got(tmp_path / name)
        assert [b for b in TEXTS if b] == got.bodies, "an empty value is none"
        assert [b.reason for b in got.bad] == ["no value for 'text'"]
        assert got.domains == ["a", "b", "a", "b", "a", "a"]


def test_csv_rows_of_another_length_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a\n2,b,c\n3,d\n")
    got = Got(tmp_path)
    assert got.bodies == ["a", "d"]
    assert [b.reason for b in got.bad] == ["a row with another number of values than the header"]


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_and_streams(tmp_path: Path, stream: bool) -> None:
    table = pa.table({"text": pa.array(TEXTS, pa.large_string()), "id": list(range(7))})
    writer = pa.ipc.new_stream if stream else pa.ipc.new_file
    with writer(str(tmp_path / "data-00000-of-00001.arrow"), table.schema) as out:
        out.write_table(table, max_chunksize=3)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"builder_name": "text", "features": {}}, indent=2))
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "x"}]}, indent=2))
    got = Got(tmp_path)
    assert got.bodies == TEXTS and not got.bad
    assert got.ids == [str(i) for i in range(7)]
    assert [s.split("/")[-1].split()[0] for s in got.plan.said] == ["dataset_info.json", "state.json"]


def test_feather(tmp_path: Path) -> None:
    pf.write_feather(pa.table({"text": TEXTS}), str(tmp_path / "a.feather"))
    assert Got(tmp_path).bodies == TEXTS


def test_nested_text(tmp_path: Path) -> None:
    nested = [{"data": {"text": t, "meta": {"id": i}}} for i, t in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_bytes(lines(nested))
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        got = Got(tmp_path / name, text="data.text", doc_id="data.meta.id")
        assert got.bodies == TEXTS and not got.bad
        assert got.ids == [str(i) for i in range(7)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.large_string(), pa.string_view()])
def test_text_of_other_arrow_types(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(TEXTS).cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert Got(tmp_path).bodies == TEXTS


def test_large_rows_are_read_in_bounded_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BYTES", 10_000)
    texts = [f"{i}" * 700 for i in range(200)]
    pq.write_table(pa.table({"text": pa.array(texts, pa.large_string())}), tmp_path / "a.parquet")
    (split,) = plan([str(tmp_path)]).splits
    batches = list(read(split, lambda *a, **k: pytest.fail(str(a))))
    assert [t for b in batches for t in b.column("text").to_pylist()] == texts
    assert max(b.nbytes for b in batches) < 20_000


def test_two_columns_of_one_name_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(TEXTS)] * 2, names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(TinydataError, match="two columns are named 'text'"):
        Got(tmp_path)


def test_hive_folders_are_columns(tmp_path: Path) -> None:
    for lang in ("en", "zh%20tw"):
        (tmp_path / f"lang={lang}" / "year=2026").mkdir(parents=True)
        pq.write_table(pa.table({"text": TEXTS}), tmp_path / f"lang={lang}" / "year=2026" / "part-0.parquet")
    assert set(Got(tmp_path, domain="lang").domains) == {"en", "zh tw"}
    assert set(Got(tmp_path, domain="year").domains) == {"2026"}


def test_conversations_are_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"messages": [{"role": "user", "content": "hi"}]}]))
    with pytest.raises(TinydataError, match="no column with text") as e:
        Got(tmp_path)
    assert "apply_chat_template" in e.value.fix


# -- a corpus is judged as a whole ----------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "good.jsonl").write_bytes(lines(rows()) * 20)
    return tmp_path


EMPTY: dict[str, Callable[[Path], object]] = {
    "no rows": lambda d: pq.write_table(pa.table({"text": pa.array([], pa.string())}), d / "e.parquet"),
    "no columns": lambda d: pq.write_table(pa.table({}), d / "e.parquet"),
    "no bytes": lambda d: (d / "e.jsonl").write_bytes(b""),
    "blank lines": lambda d: (d / "e.jsonl").write_bytes(b"\n \n\n"),
    "many blank lines": lambda d: (d / "e.jsonl").write_bytes(b"\n" * 100_000),
    "empty gzip": lambda d: (d / "e.jsonl.gz").write_bytes(gzip.compress(b"")),
    "empty zstd": lambda d: (d / "e.jsonl.zst").write_bytes(pa.Codec("zstd").compress(b"", asbytes=True)),
    "empty array": lambda d: (d / "e.json").write_bytes(b"[]\n"),
    "empty csv": lambda d: (d / "e.csv").write_bytes(b""),
    "csv with a header": lambda d: (d / "e.csv").write_bytes(b"text,id\n"),
}


@pytest.mark.parametrize("what", EMPTY)
def test_a_file_without_documents_does_no_harm(corpus: Path, what: str) -> None:
    EMPTY[what](corpus)
    got = Got(corpus)
    assert got.bodies == TEXTS * 20 and got.bad == []


STRANGERS: dict[str, tuple[str, bytes]] = {
    "dataset_info": ("dataset_info.json", json.dumps({"description": "", "features": {"text": {}}}, indent=2).encode()),
    "one line of statistics": ("stats.json", b'{"documents": 3, "tokens": 4}'),
    "attributes": ("attributes/a.jsonl", lines([{"id": "1", "attributes": {"x": [[0, 1, 0.5]]}}] * 9)),
    "licence": ("LICENSE.txt", b"Permission is hereby granted"),
    "requirements": ("requirements.txt", b"numpy\n"),
    "readme": ("README.md", b"# Read me"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_strangers_are_named_and_do_no_harm(corpus: Path, what: str) -> None:
    name, content = STRANGERS[what]
    (corpus / name).parent.mkdir(exist_ok=True)
    (corpus / name).write_bytes(content)
    got = Got(corpus)
    assert got.bodies == TEXTS * 20 and got.bad == []
    assert any(name in s for s in [*got.plan.said, *got.plan.skipped])


def test_a_first_line_of_another_type_does_not_decide(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": 3}\n{"text": null}\n' + lines(rows()))
    got = Got(tmp_path)
    assert got.bodies == TEXTS
    assert [b.position for b in got.bad] == [0, 12]


def test_a_column_of_nulls_is_quarantined_and_the_others_are_read(corpus: Path) -> None:
    pq.write_table(pa.table({"text": pa.nulls(5), "id": list(range(5))}), corpus / "e.parquet")
    got = Got(corpus)
    assert got.bodies == TEXTS * 20
    assert [b.reason for b in got.bad] == ["no value for 'text'"] * 5


def test_a_file_without_the_column_is_weighed_and_the_others_are_read(corpus: Path) -> None:
    (corpus / "other.jsonl").write_bytes(lines([{"body": "x" * 90, "title": "t"}] * 50))
    got = Got(corpus)
    assert got.bodies == TEXTS * 20
    (bad,) = got.bad
    assert bad.path.endswith("other.jsonl") and bad.bytes == (corpus / "other.jsonl").stat().st_size


def test_a_few_token_ids_among_text_are_named(corpus: Path) -> None:
    (corpus / "ids.jsonl").write_bytes(lines([{"input_ids": [1, 2, 3]}]))
    got = Got(corpus)
    assert got.bodies == TEXTS * 20
    assert "it has token ids, and most files of the corpus have text" in got.bad[0].reason
    (corpus / "ids.jsonl").write_bytes(lines([{"input_ids": [1, 2, 3]}] * 300))
    with pytest.raises(TinydataError, match="mixes text and token ids"):
        Got(corpus)


def test_a_mask_is_not_ids(tmp_path: Path) -> None:
    """The files that open-instruct caches: ids, and labels_mask, a byte for each."""
    ids, mask = np.arange(1, 91, dtype=np.uint32), np.arange(90) % 3 > 0
    (tmp_path / "token_ids_part_0000.npy").write_bytes(ids.tobytes())
    (tmp_path / "labels_mask_part_0000.npy").write_bytes(mask.tobytes())
    (tmp_path / "token_ids_part_0000.csv.gz").write_bytes(gzip.compress(b"0,40\n40,90\n"))
    found = plan([str(tmp_path)], Wanted(vocab=1000, dtype="uint32"))
    (split,) = found.splits
    (batch,) = read(split, lambda *a, **k: pytest.fail(str(a)))
    assert batch.column("ids").to_pylist() == [list(range(1, 41)), list(range(41, 91))]
    assert [x for doc in batch.column("mask").to_pylist() for x in doc] == (~mask).tolist()


# -- beside the data -------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Megatron shards as `encode` writes them: with labels, and with a byte per token that says whether it has loss."""
    where = tmp_path / "shards"
    where.mkdir()
    megatron_pair(where / "x.bin", [[1, 2], [3], [4, 5, 6]])
    (where / "x.loss").write_bytes(bytes([1, 0, 1, 1, 1, 0]))
    labels = pa.table({"doc_id": ["a", "b", "c"], "domain": ["web", "web", "code"]})
    pq.write_table(labels, where / "x.docs.parquet")
    return where


def test_shards_with_companions(shards: Path) -> None:
    got = Got(shards)
    assert got.bodies == [[1, 2], [3], [4, 5, 6]] and got.domains == ["web", "web", "code"]


@pytest.mark.parametrize(("name", "damage"), [
    ("x.loss", lambda b: b[:-1]), ("x.loss", lambda b: b + b"\1"), ("x.docs.parquet", lambda b: b[:-9]),
    ("x.docs.parquet", lambda b: b""), ("x.docs.parquet", lambda b: b"PAR1" * 9),
])  # fmt: skip
def test_damaged_companions_are_said(shards: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (shards / name).write_bytes(damage((shards / name).read_bytes()))
    with pytest.raises(TinydataError, match=name.replace(".", r"\.")):
        Got(shards)


def test_files_without_an_ending_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_bytes(lines(rows()))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "part-00001")
    (tmp_path / "part-00002").write_bytes(b"something else")
    got = Got(tmp_path)
    assert got.bodies == TEXTS * 2
    assert [Path(p).name for p in got.plan.skipped] == ["part-00002"]


def test_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_text("print('é')\n\n\n")
    (tmp_path / "a" / "y.md").write_bytes(b"caf\xe9")
    (tmp_path / "z.MD").write_text("other")
    got = Got(tmp_path, as_text="*.md, *.py")
    assert got.bodies == ["print('é')\n\n\n"]
    assert [b.reason for b in got.bad] == ["not UTF-8"]
    assert [Path(p).name for p in got.plan.skipped] == ["z.MD"]


def test_a_flat_directory_of_texts_is_one_domain(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    for n in range(1500):
        (tmp_path / "books" / f"title {n}.txt").write_text("word")
    assert set(Got(tmp_path / "books").domains) == {"books"}
    assert set(Got(tmp_path / "books" / "title 7.txt").domains) == {"title 7"}


# -- weighed once, and in linear time ----------------------------------------------------------------


def test_a_broken_compressed_shard_weighs_its_samples_once(tmp_path: Path) -> None:
    rng = random.Random(0)
    samples = [{"text": rng.randbytes(2000).hex().encode()} for _ in range(3000)]  # several batches
    mds(tmp_path, {"text": "str"}, samples, "zstd")
    file = tmp_path / "shard.00000.mds.zstd"
    content = bytearray(file.read_bytes())
    content[-5000:-4000] = bytes(1000)
    file.write_bytes(content)
    got = Got(tmp_path)
    assert len(got.bodies) + sum(b.documents for b in got.bad) == len(samples)
    assert sum(b.bytes for b in got.bad) <= file.stat().st_size


def test_a_broken_row_group_weighs_its_bytes_in_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["word " * 1000] * 2000}), tmp_path / "a.parquet", compression="zstd")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[40:60] = bytes(20)
    (tmp_path / "a.parquet").write_bytes(content)
    (bad,) = Got(tmp_path).bad
    assert 0 < bad.bytes <= len(content)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_large_value_in_an_array_takes_linear_time(tmp_path: Path, name: str) -> None:
    import time

    content = array([{"text": "w" * 30_000_000}, {"text": "end"}])
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    begun = time.process_time()
    assert [len(b) for b in Got(tmp_path).bodies] == [30_000_000, 3]
    assert time.process_time() - begun < 4


def test_indented_json_that_begins_with_a_long_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps({"text": "w" * 200_000, "id": "x"}, indent=2).encode())
    assert [len(b) for b in Got(tmp_path).bodies] == [200_000]


def test_objects_with_text_inside_are_no_strangers(corpus: Path) -> None:
    """What has text in a nested column is weighed, not left out."""
    (corpus / "nested.jsonl").write_bytes(lines([{"data": {"text": "x" * 50}, "id": "1"}] * 50))
    got = Got(corpus)
    (bad,) = got.bad
    assert bad.path.endswith("nested.jsonl") and bad.bytes > 0
    with pytest.raises(TinydataError) as e:
        Got(corpus / "nested.jsonl")
    assert "data.text (text)" in e.value.fix
