"""documents of ids -> files: `Write`, the function that every format that is written provides, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinydata.core.location import Location
from tinydata.core.schema import DOCUMENTS

DOCUMENTS_ENDING = ".docs.parquet"  # of the table of documents, for formats that have no place for doc_id and domain

Sums = dict[str, dict[str, Any]]  # file name -> Sink.sum


class Piece(NamedTuple):
    """Some documents, stored end to end."""

    ids: np.ndarray  # uint16 or int32 [n]
    mask: np.ndarray | None  # bool[n]: true for tokens that carry no loss; None: all carry loss
    lengths: np.ndarray  # int64[docs]: tokens of each
    documents: pa.Table  # DOCUMENTS, one row each

    @property
    def flags(self) -> np.ndarray:
        """bool[n]: the mask; false everywhere if there is none."""
        return np.zeros(len(self.ids), np.bool_) if self.mask is None else self.mask


class Write(Protocol):
    """Writes documents of ids in one format; the formats that have such a function are listed in `formats.registry`."""

    def __call__(self, place: Location, stem: str, dtype: np.dtype, masked: bool, pieces: Iterator[Piece]) -> Sums:
        """Writes the documents of `pieces`, in order, to files in `place` whose names begin with `stem`.

        `masked`: some document of the corpus has masked tokens. A file appears only once it is complete.
        """


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
        self._out.is_open = False  # otherwise it writes its footer when it is garbage-collected
        self._stream.__exit__(*error)

    @property
    def sums(self) -> Sums:
        return {self.name: self._sink.sum}


PIECE = 1 << 22  # tokens moved at once
FEWEST = 64  # documents per shuffled shard, on average, so that none is empty
STEM = {"llmc": "train_{:06d}"}  # the name that llm.c and modded-nanogpt look for
