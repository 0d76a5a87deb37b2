"""documents of ids -> files: what every format that is written must give.

A format that is written has

    write(place, stem, dtype, masked, pieces) -> {file name: Sink.sum}

which writes the documents of `pieces`, in order, to files in `place` whose names begin with `stem`.
`masked`: some document of this corpus has masked tokens. Each file appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinydata.core.location import Location
from tinydata.core.schema import DOCUMENTS

WRITTEN = ("megatron", "parquet", "internevo", "llmc")
DOCUMENTS_ENDING = ".docs.parquet"  # ending of the table of documents beside a file that has no place for it

Sums = dict[str, dict[str, Any]]


class Piece(NamedTuple):
    """Some documents, end to end."""

    ids: np.ndarray  # uint16 or int32 [n]
    mask: np.ndarray | None  # bool[n]: tokens that bear no loss; None: all do
    lengths: np.ndarray  # int64[docs]: tokens of each
    documents: pa.Table  # DOCUMENTS, a row each

    @property
    def flags(self) -> np.ndarray:
        """bool[n]: the mask, whether there is one or not."""
        return np.zeros(len(self.ids), np.bool_) if self.mask is None else self.mask


Write = Callable[[Location, str, np.dtype, bool, Iterator[Piece]], Sums]


def writer(name: str) -> Write:
    """Name in WRITTEN -> its write function."""
    return import_module(f"tinydata.formats.{name}").write


class DocumentTable:
    """The table of documents of one file, written row group by row group."""

    def __init__(self, place: Location, stem: str):
        self.name = stem + DOCUMENTS_ENDING
        self._stream = (place / self.name).stream()

    def __enter__(self) -> DocumentTable:
        self._sink = self._stream.__enter__()
        self._out = pq.ParquetWriter(self._sink, DOCUMENTS, compression="zstd")
        return self

    def add(self, documents: pa.Table) -> None:
        """documents: DOCUMENTS."""
        self._out.write_table(documents)

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._out.close()
        self._out.is_open = False  # or it writes its end when it is forgotten
        self._stream.__exit__(*error)

    @property
    def sums(self) -> Sums:
        return {self.name: self._sink.sum}


PIECE = 1 << 22  # tokens moved at once
FEWEST = 64  # documents per shuffled shard, on average: so that none is empty
STEM = {"llmc": "train_{:06d}"}  # what llm.c and modded-nanogpt look for
