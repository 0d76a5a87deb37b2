"""Plain text: .txt, plain, .gz or .zst. A file is divided into documents of about 64 KiB at line ends.

Newlines are kept in the text, so counts are those of the whole file; where documents begin only
matters for the held-out slice.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tinydata.core.location import Location
from tinydata.formats import text_lines
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted, batch

DOCUMENT = 1 << 16


def matches(file: Location) -> bool:
    return text_lines.plain_name(file.name).endswith(".txt")


def columns(file: Location, wanted: Wanted) -> Columns:
    return Columns(text="text", types=(("text", "text"),))


def splits(file: Location) -> list[SplitRange]:
    return text_lines.splits(file)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    for piece in text_lines.readable_lines(split, bad, lambda data: len(data) / DOCUMENT):
        starts, texts = [], []
        for a, b in documents(piece):
            try:
                texts.append(piece.data[a:b].decode())
                starts.append(piece.position + a)
            except UnicodeDecodeError as e:
                bad(piece.position + a + e.start, "not UTF-8", piece.data[a + e.start : a + e.start + 320])
        if texts:
            yield batch(split, pa.array(texts, pa.string()), pa.array(np.array(starts, np.int64)), None, None)


def documents(piece: text_lines.Piece) -> Iterator[tuple[int, int]]:
    """(start, stop) in the piece: a document begins at the first line after each multiple of 64 KiB in the file."""
    a = 0
    while a < len(piece.data):
        edge = (piece.position + a) // DOCUMENT * DOCUMENT + DOCUMENT - piece.position
        b = piece.data.find(b"\n", edge - 1) + 1 if edge <= len(piece.data) else 0
        b = b or len(piece.data)
        yield a, b
        a = b
