"""Tables of text: .csv and .tsv with a header line, plain or compressed. A file is one split.

Values may contain line breaks inside quotes. All columns are read as text; an empty value is null.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pv

from tinydata.core.location import Location
from tinydata.formats import parquet, text_lines
from tinydata.formats.base import Bad, Columns, NoDocuments, Split, SplitRange, Wanted

BLOCK = 16 << 20  # bytes parsed at once; a row must fit


def matches(file: Location) -> bool:
    """.csv and .tsv, but not the document boundaries that dolma writes next to its ids."""
    name = text_lines.plain_name(file.name)
    if file.name.endswith(".csv.gz") and (file.parent / (file.name.removesuffix(".csv.gz") + ".npy")).exists():
        return False
    return name.endswith((".csv", ".tsv"))


def columns(file: Location, wanted: Wanted) -> Columns:
    try:
        rows = _rows(file, text_lines.Consumed())
        schema = pa.schema([(name, pa.string()) for name in rows.schema.names])
        if next((True for batch in rows if batch.num_rows), False):
            return parquet.columns_of(schema, wanted, file)
    except pa.ArrowInvalid as e:
        if "Empty CSV" in str(e):
            raise NoDocuments from None
        raise
    raise NoDocuments


def splits(file: Location) -> list[SplitRange]:
    return [SplitRange(0, 1, file.size)]


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Rows with the wrong number of values go to `bad`; after damage that hides where rows end, the rest does."""
    row, consumed = 0, text_lines.Consumed()
    odd: list[str] = []
    try:
        for part in _rows(Location.of(split.path), consumed, [n for n, _ in split.columns.types], odd):
            for small in parquet.bounded(part):
                yield from parquet.batch_of(split, small, row, bad)
                row += len(small)
    except (pa.ArrowInvalid, OSError, EOFError) as e:
        left = max(split.bytes - consumed.bytes, 1)
        lost = max(round(row * left / max(consumed.bytes, 1)), 1)
        bad(row, f"the table cannot be read: {' '.join(str(e).split())[:200]}", b"", documents=lost, size=left)
    for text in odd:
        bad(row, "a row with another number of values than the header", text.encode("utf-8", "replace")[:320])


def _rows(
    file: Location, consumed: text_lines.Consumed, names: list[str] | None = None, odd: list[str] | None = None
) -> pv.CSVStreamingReader:
    """The table as a stream of batches; `names`: only these columns, as text. `odd` gets rows that do not fit."""

    def handle(row: pv.InvalidRow) -> str:
        if odd is not None:
            odd.append(row.text or "")
        return "skip"

    tab = text_lines.plain_name(file.name).endswith(".tsv")
    types = None if names is None else {name: pa.string() for name in names}
    return pv.open_csv(
        pa.PythonFile(text_lines.Stream(text_lines.decompressed(file, consumed)), "r"),
        pv.ReadOptions(use_threads=False, block_size=BLOCK),
        pv.ParseOptions(delimiter="\t" if tab else ",", newlines_in_values=True, invalid_row_handler=handle),
        pv.ConvertOptions(column_types=types, include_columns=names, strings_can_be_null=True, null_values=[""]),
    )
