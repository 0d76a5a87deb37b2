"""Corpora as other tools write them, and in the layouts of well-known datasets: every document, every id.

    pip install polars duckdb fastparquet datasets datatrove
    pytest -m slow tests/formats/test_other_tools.py

A tool that is not installed is skipped. What is published is imitated here from its documentation, a few rows of it.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

import tinydata as td
from tests.conftest import SENTENCES
from tinydata.core.errors import TinydataError

pytestmark = pytest.mark.slow

Rows = list[dict[str, Any]]  # text, id, lang
Writer = Callable[[Path, Rows], dict[str, Any]]  # writes below a folder; returns arguments of `count` and `encode`

# Texts that a reader may take for something else: missing values, numbers, dates, ends of lines, quotes.
ODD = [
    *("NULL", "null", "NaN", "n/a", "007", "1e5", "-12", "true", "2024-01-31", " both ends ", "\tindented\n", "\n"),
    *(
        'say "yes", or "no"',
        "a,b;c\td",
        "line 1\nline 2\r\nline 3",
        "next\x85line\u2028separator\u2029end",
        "\ufeffmark",
    ),
    *("{'a': 1}", '{"text": "inner"}', "[1, 2]", "\\N", "\\", "end\\", "#hash", "'", '"', "\U0001f469\u200d\U0001f4bb"),
]


@pytest.fixture(scope="module")
def rows(text: list[str]) -> Rows:
    texts = [*ODD, *SENTENCES, *(t[:1_500] for t in text[:60])]
    return [{"text": t, "id": f"doc {n}", "lang": ("en", "de")[n % 2]} for n, t in enumerate(texts)]


@pytest.fixture(scope="module")
def tokenizer(byte_bpe: Path) -> str:
    return str(byte_bpe / "qwen" / "tokenizer.json")


def lines(file: Path, rows: Rows) -> None:
    """JSON lines, compressed if the name says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content) if file.name.endswith(".gz") else content)


def table(file: Path, rows: Rows, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file, **options)


def halves(rows: Rows) -> tuple[Rows, Rows]:
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


# -- tools --------------------------------------------------------------------------------------------


def frame(rows: Rows) -> Any:
    return pytest.importorskip("pandas").DataFrame(rows)


def pandas_parquet(to: Path, rows: Rows) -> None:
    frame(rows).set_index("id").to_parquet(to / "a.parquet", compression="gzip")


def pandas_lines(to: Path, rows: Rows) -> None:
    frame(rows).to_json(to / "a.jsonl.bz2", orient="records", lines=True)


def pandas_records(to: Path, rows: Rows) -> None:
    frame(rows).to_json(to / "a.json", orient="records", indent=2)


def pandas_csv(to: Path, rows: Rows) -> None:
    frame(rows).to_csv(to / "a.csv.gz")


def pandas_tsv(to: Path, rows: Rows) -> None:
    frame(rows).to_csv(to / "a.tsv", sep="\t", index=False)


def fastparquet(to: Path, rows: Rows) -> None:
    pytest.importorskip("fastparquet")
    frame(rows).to_parquet(to / "a.parquet", engine="fastparquet", row_group_offsets=20)


def polars_frame(rows: Rows) -> Any:
    return pytest.importorskip("polars").DataFrame(rows)


def polars_parquet(to: Path, rows: Rows) -> None:
    polars_frame(rows).write_parquet(to / "a.parquet", row_group_size=17)


def polars_lines(to: Path, rows: Rows) -> None:
    polars_frame(rows).write_ndjson(to / "a.ndjson")


def polars_csv(to: Path, rows: Rows) -> None:
    polars_frame(rows).write_csv(to / "a.csv", include_bom=True)


def polars_ipc(to: Path, rows: Rows) -> None:
    polars_frame(rows).write_ipc(to / "a.arrow", compression="zstd")


def polars_partitions(to: Path, rows: Rows) -> dict[str, Any]:
    polars_frame(rows).write_parquet(to / "table", partition_by=["lang"])
    return {"domain_column": "lang"}


def duckdb(to: Path, rows: Rows, how: str) -> None:
    library = pytest.importorskip("duckdb")
    db = library.connect()
    db.register("documents", pa.Table.from_pylist(rows))
    db.sql(f"copy documents to '{to}/{how}")


def duckdb_parquet(to: Path, rows: Rows) -> None:
    duckdb(to, rows, "a.parquet' (format parquet, codec zstd, parquet_version v2)")


def duckdb_lines(to: Path, rows: Rows) -> None:
    duckdb(to, rows, "a.json.gz' (format json, compression gzip)")


def duckdb_array(to: Path, rows: Rows) -> None:
    duckdb(to, rows, "a.json' (format json, array true)")


def duckdb_csv(to: Path, rows: Rows) -> None:
    duckdb(to, rows, "a.csv' (format csv, header)")


def duckdb_partitions(to: Path, rows: Rows) -> dict[str, Any]:
    duckdb(to, rows, "table' (format parquet, partition_by (lang))")
    return {"domain_column": "lang"}


def arrow_stream(to: Path, rows: Rows) -> None:
    content = pa.Table.from_pylist(rows)
    with pa.OSFile(str(to / "a.arrow"), "wb") as f, pa.ipc.new_stream(f, content.schema) as out:
        out.write_table(content, max_chunksize=13)


def arrow_feather(to: Path, rows: Rows) -> None:
    pa.feather.write_feather(pa.Table.from_pylist(rows), str(to / "a.feather"), compression="lz4")


def arrow_csv(to: Path, rows: Rows) -> None:
    pa.csv.write_csv(pa.Table.from_pylist(rows), str(to / "a.csv"))


def arrow_parquet(to: Path, rows: Rows) -> None:
    wide = pa.Table.from_pylist(rows)
    types = {"text": pa.large_string(), "id": pa.dictionary(pa.int32(), pa.string()), "lang": pa.string_view()}
    wide = wide.cast(pa.schema(list(types.items())))
    options = {"compression": "brotli", "data_page_version": "2.0", "write_page_checksum": True, "row_group_size": 11}
    pq.write_table(wide, to / "a.parquet", **options)


def dataset(rows: Rows) -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(rows)


def datasets_folder(to: Path, rows: Rows) -> None:
    library = pytest.importorskip("datasets")
    first, second = map(dataset, halves(rows))
    library.DatasetDict({"train": first, "more": second}).save_to_disk(
        str(to / "saved"), num_shards={"train": 3, "more": 1}
    )


def datasets_parquet(to: Path, rows: Rows) -> None:
    dataset(rows).to_parquet(str(to / "train-00000-of-00001.parquet"), batch_size=10)


def datasets_lines(to: Path, rows: Rows) -> None:
    dataset(rows).to_json(str(to / "train.json"))


def datasets_csv(to: Path, rows: Rows) -> None:
    dataset(rows).to_csv(str(to / "train.csv"), index=False)


def datatrove_lines(to: Path, rows: Rows) -> None:
    datatrove(to, rows, "JsonlWriter", "jsonl")


def datatrove_parquet(to: Path, rows: Rows) -> None:
    datatrove(to, rows, "ParquetWriter", "parquet")


def datatrove(to: Path, rows: Rows, writer: str, module: str) -> None:
    pytest.importorskip("datatrove")
    from importlib import import_module

    from datatrove.data import Document

    with getattr(import_module(f"datatrove.pipeline.writers.{module}"), writer)(str(to / "out")) as out:
        for rank, part in enumerate(halves(rows)):
            for row in part:
                out.write(Document(text=row["text"], id=row["id"], metadata={"lang": row["lang"]}), rank=rank)


# -- the layouts of datasets --------------------------------------------------------------------------


def dolma(to: Path, rows: Rows) -> None:
    """documents/ and, for each of its files, one of the same name with attributes."""
    for k, part in enumerate(halves(rows)):
        facts = {"source": "web", "added": "2024-01-01T00:00:00.000Z", "created": "2023-01-01T00:00:00.000Z"}
        full = [{**row, **facts, "version": "v0", "metadata": {"url": "https://x"}} for row in part]
        lines(to / "documents" / f"web-{k:04}.json.gz", full)
        spans = [{"id": row["id"], "attributes": {"toxic__score": [[0, len(row["text"]), 0.1]]}} for row in part]
        lines(to / "attributes" / "toxic" / f"web-{k:04}.json.gz", spans)


def redpajama(to: Path, rows: Rows) -> dict[str, Any]:
    for lang in ("en", "de"):
        meta = [{"text": r["text"], "meta": {"language": lang, "timestamp": "2023"}} for r in rows if r["lang"] == lang]
        lines(to / "wikipedia" / f"{lang}_sample.jsonl", meta)
    return {"domain_column": "meta.language"}


def redpajama_2(to: Path, rows: Rows) -> dict[str, Any]:
    raw = [{"url": "https://x", "digest": "sha1:A", "cc_segment": "s", "raw_content": r["text"], **r} for r in rows]
    for row in raw:
        del row["text"]
    lines(to / "documents" / "2023-06" / "0000" / "en_head.json.gz", raw)
    return {"text_column": "raw_content"}


def slimpajama(to: Path, rows: Rows) -> dict[str, Any]:
    zstandard = pytest.importorskip("zstandard")
    lines(to / "chunk1" / "example_0.jsonl", [{**r, "meta": {"redpajama_set_name": "Red" + r["lang"]}} for r in rows])
    plain = to / "chunk1" / "example_0.jsonl"
    plain.with_name("example_0.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    plain.unlink()
    return {"domain_column": "meta.redpajama_set_name"}


def fineweb(to: Path, rows: Rows) -> dict[str, Any]:
    facts = {
        "dump": "CC-MAIN-2013-20",
        "url": "https://x",
        "date": "2013-05-18T05:42:42Z",
        "file_path": "s3://x.warc.gz",
    }
    facts |= {"language": "en", "language_score": 0.93, "token_count": 7}
    full = [{"text": r["text"], "id": f"<urn:uuid:{uuid.UUID(int=n)}>", **facts} for n, r in enumerate(rows)]
    table(to / "data" / "CC-MAIN-2013-20" / "000_00000.parquet", full, row_group_size=10, compression="snappy")
    return {"domain_column": "dump"}


def the_stack(to: Path, rows: Rows) -> dict[str, Any]:
    for lang in ("en", "de"):
        full = [{"hexsha": r["id"], "size": 1, "content": r["text"], **r} for r in rows if r["lang"] == lang]
        for row in full:
            del row["text"]
        table(to / "data" / lang / "train-00000-of-00206.parquet", full)
    return {"domain_column": "lang", "id_column": "hexsha"}


def c4(to: Path, rows: Rows) -> None:
    for k, part in enumerate(halves(rows)):
        full = [{"text": r["text"], "timestamp": "2019-04-25T12:57:54Z", "url": "https://x"} for r in part]
        lines(to / "en" / f"c4-train.{k:05}-of-01024.json.gz", full)


def wikipedia(to: Path, rows: Rows) -> None:
    full = [{"id": str(n), "url": "https://x", "title": "T", "text": r["text"]} for n, r in enumerate(rows)]
    table(to / "20231101.simple" / "train-00000-of-00001.parquet", full)
    (to / "README.md").write_text("---\nconfigs: []\n---\n# A card\n")


def oscar(to: Path, rows: Rows) -> dict[str, Any]:
    full = [
        {
            "content": r["text"],
            "warc_headers": {"warc-record-id": r["id"]},
            "metadata": {"identification": {"lang": r["lang"]}},
        }
        for r in rows
    ]
    lines(to / "en_meta" / "en_part_1.jsonl.gz", full)
    return {"id_column": "warc_headers.warc-record-id", "domain_column": "metadata.identification.lang"}


def hadoop(to: Path, rows: Rows) -> None:
    """Without an ending, and with the files that a job leaves beside them."""
    for k, part in enumerate(halves(rows)):
        lines(to / f"part-{k:05}", part)
        (to / f".part-{k:05}.crc").write_bytes(b"crc\0\0\0\2\0")
    (to / "_SUCCESS").write_bytes(b"")


WRITERS: list[Writer] = [
    pandas_parquet, pandas_lines, pandas_records, pandas_csv, pandas_tsv, fastparquet, polars_parquet, polars_lines,
    polars_csv, polars_ipc, polars_partitions, duckdb_parquet, duckdb_lines, duckdb_array, duckdb_csv,
    duckdb_partitions, arrow_stream, arrow_feather, arrow_csv, arrow_parquet, datasets_folder, datasets_parquet,
    datasets_lines, datasets_csv, datatrove_lines, datatrove_parquet, dolma, redpajama, redpajama_2, slimpajama,
    fineweb, the_stack, c4, wikipedia, oscar, hadoop,
]  # fmt: skip
SPARK = ("parquet", "json", "csv", "text", "orc")


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_document_and_every_id(write: Writer, rows: Rows, tokenizer: str, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    options = write(tmp_path / "corpus", rows) or {}
    check(tmp_path, rows, tokenizer, options)


def check(where: Path, rows: Rows, tokenizer: str, options: dict[str, Any]) -> None:
    """`count` and `encode` of where/corpus have the documents, domains and ids that the tokenizer's library has."""
    tok = td.open_tokenizer(tokenizer)
    ids = tok.encode([row["text"] for row in rows])
    counts = td.count(where / "corpus", tokenizer, where / "counts", **options, max_bad=0)
    assert counts.manifest["totals"]["documents"] == len(rows)
    total = counts.counts.group_by("token_id").aggregate([("count", "sum")]).to_pydict()
    assert dict(zip(*total.values(), strict=True)) == Counter(i for row in ids for i in row)
    if "domain_column" in options and options["domain_column"] != "dump":
        per_domain = Counter(row["lang"] for row in rows)
        named = dict(zip(counts.domains["domain"].to_pylist(), counts.domains["documents"].to_pylist(), strict=True))
        assert sorted(named.values()) == sorted(per_domain.values()), named
    shards = td.encode(where / "corpus", tokenizer, where / "shards", to="parquet", **options, max_bad=0)
    files = sorted(Path(shards).glob("*.parquet"))
    found = [i for file in files for i in pq.read_table(file)["input_ids"].to_pylist()]
    end = tok.pieces.index(b"<|endoftext|>")
    assert Counter(map(tuple, found)) == Counter((*i, end) for i in ids)


@pytest.mark.spark
@pytest.mark.parametrize("kind", SPARK)
def test_of_spark(kind: str, spark: Any, rows: Rows, tokenizer: str, tmp_path: Path) -> None:
    plain = [r for r in rows if kind != "text" or not {"\n", "\r", "\x85", "\u2028", "\u2029"} & set(r["text"])]
    made = spark._session.createDataFrame(plain, "text string, id string, lang string").repartition(3)
    writer = (made.select("text") if kind == "text" else made).write.option("compression", "gzip")
    if kind in ("parquet", "json"):
        writer = writer.partitionBy("lang")
    if kind == "orc":
        made.write.orc(str(tmp_path / "corpus"))
        refused(tmp_path, tokenizer, "no file of a known format", "write the table as Parquet")
        return
    if kind == "csv":  # Spark's own default escapes quotes with backslashes, which is no CSV
        writer = writer.option("header", True).option("escape", '"').option("ignoreLeadingWhiteSpace", False)
        writer = writer.option("ignoreTrailingWhiteSpace", False)
    getattr(writer, kind)(str(tmp_path / "corpus"))
    if kind == "text":  # a file is a document
        texts = [gzip.decompress(p.read_bytes()).decode() for p in (tmp_path / "corpus").glob("part-*")]
        plain = [{"text": text, "lang": ""} for text in texts]
    check(tmp_path, plain, tokenizer, {"domain_column": "lang"} if kind in ("parquet", "json") else {})


# -- what is refused, with advice ---------------------------------------------------------------------


def refused(where: Path, tokenizer: str, what: str, advice: str) -> None:
    with pytest.raises(TinydataError) as caught:
        td.count(where / "corpus", tokenizer, where / "counts")
    assert what in str(caught.value) and advice in caught.value.fix, str(caught.value)


def test_chats_are_refused_and_the_advice_works(rows: Rows, tokenizer: str, tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "user", "content": r["text"]}, {"role": "assistant", "content": "Yes."}]} for r in rows
    ]
    lines(tmp_path / "corpus" / "train.jsonl", chats)
    refused(tmp_path, tokenizer, "messages", "chat template")
    flat = [{"text": "\n".join(m["content"] for m in row["messages"])} for row in chats]
    lines(tmp_path / "corpus" / "train.jsonl", flat)
    check(tmp_path, flat, tokenizer, {})


def test_the_stack_2_has_no_text(tokenizer: str, tmp_path: Path) -> None:
    table(tmp_path / "corpus" / "data" / "Ada" / "train-0000.parquet", [{"blob_id": "a", "src_encoding": "UTF-8"}] * 3)
    refused(tmp_path, tokenizer, "no column", "--text-column")


def test_ids_of_open_instruct(tokenizer: str, tmp_path: Path) -> None:
    """token_ids_part_0000.npy without a header, the mask of its labels and the documents' bounds beside it."""
    tok = td.open_tokenizer(tokenizer)
    end = tok.pieces.index(b"<|endoftext|>")
    documents = [[*ids, end] for ids in tok.encode(SENTENCES)]
    flat = np.array([i for ids in documents for i in ids], np.uint16)
    (tmp_path / "corpus").mkdir()
    flat.tofile(tmp_path / "corpus" / "token_ids_part_0000.npy")
    np.ones(len(flat), np.bool_).tofile(tmp_path / "corpus" / "labels_mask_part_0000.npy")
    ends = np.cumsum([len(d) for d in documents]).tolist()
    bounds = "".join(f"{a},{b}\n" for a, b in zip([0, *ends[:-1]], ends, strict=True))
    (tmp_path / "corpus" / "token_ids_part_0000.csv.gz").write_bytes(gzip.compress(bounds.encode()))
    counts = td.count(tmp_path / "corpus", tokenizer, tmp_path / "counts")
    assert counts.manifest["totals"]["documents"] == len(documents)
    total = counts.counts.group_by("token_id").aggregate([("count", "sum")]).to_pydict()
    assert dict(zip(*total.values(), strict=True)) == Counter(flat.tolist())
