"""Arrow IPC files (.arrow, .feather) and streams, as `datasets.save_to_disk` writes them. A file is one split."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats import parquet
from tinydata.formats.base import Bad, Columns, NoDocuments, Split, SplitRange, Wanted

_FILE = b"ARROW1"


def matches(file: Location) -> bool:
    return file.name.lower().endswith((".arrow", ".feather", ".ipc"))


def columns(file: Location, wanted: Wanted) -> Columns:
    with file.open() as f:
        source = _open(f)
        if not any(batch.num_rows for batch in _batches(source)):
            raise NoDocuments
        return parquet.columns_of(source.schema, wanted, file)


def splits(file: Location) -> list[SplitRange]:
    return [SplitRange(0, 1, file.size)]


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    row = 0
    with Location.of(split.path).open() as f:
        try:
            for part in _batches(_open(f)):
                part.validate()
                for start in range(0, len(part), parquet.ROWS):
                    for small in parquet.bounded(part.slice(start, parquet.ROWS)):
                        yield from parquet.batch_of(split, small, row, bad)
                        row += len(small)
        except (pa.ArrowInvalid, OSError) as e:
            left = max(split.bytes - f.tell(), 1)
            lost = max(round(row * left / max(f.tell(), 1)), 1)
            bad(row, f"the Arrow file cannot be read: {' '.join(str(e).split())[:200]}", b"", documents=lost, size=left)


def _open(f: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """A file or a stream, decided by the first bytes."""
    head = f.read(len(_FILE))
    f.seek(0)
    return pa.ipc.open_file(f) if head == _FILE else pa.ipc.open_stream(f)


def _batches(source: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(source, pa.RecordBatchFileReader):
        yield from (source.get_batch(i) for i in range(source.num_record_batches))
    else:
        yield from source
