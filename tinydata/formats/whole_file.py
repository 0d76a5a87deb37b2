"""A file of any ending that the user asked to read as text: one document."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats import text_lines
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted, batch


def matches(file: Location) -> bool:
    """Never by itself: `corpus.plan` chooses this format for the files that --read-as-text names."""
    return False


def columns(file: Location, wanted: Wanted) -> Columns:
    return Columns(text="text", types=(("text", "text"),))


def splits(file: Location) -> list[SplitRange]:
    return [SplitRange(0, 1, file.size)]


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    try:
        content = b"".join(text_lines.decompressed(Location.of(split.path)))
        text = content.decode()
    except UnicodeDecodeError as e:
        bad(e.start, "not UTF-8", e.object[e.start : e.start + 320], size=split.bytes)
    except (OSError, EOFError) as e:
        bad(0, f"the compressed data is broken: {' '.join(str(e).split())}", b"", size=split.bytes)
    else:
        yield batch(split, pa.array([text], pa.string()), pa.array([0], pa.int64()), None, None)
