"""Counts the documents that a writer takes: of all and by domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tinydata.core.documents import Sums, sums_by_domain, total_by_domain
from tinydata.formats.writing import Piece


class PieceCounter:
    """Passes pieces on, once, and counts them; `progress` is called with the bytes of the ids of each."""

    def __init__(self, pieces: Iterable[Piece], progress: Callable[[int], None]):
        self._pieces, self._progress = pieces, progress
        self.documents = self.tokens = self.masked = 0
        self.domains: Sums = {}

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._pieces:
            self.documents += len(piece.lengths)
            self.tokens += len(piece.ids)
            self.masked += 0 if piece.mask is None else int(piece.mask.sum())
            labels = piece.documents["domain"].combine_chunks().dictionary_encode()
            ones = np.ones(len(piece.lengths), np.int64)
            sums = sums_by_domain(labels, documents=ones, tokens=piece.lengths)
            self.domains = total_by_domain([self.domains, sums])
            self._progress(piece.ids.nbytes)
            yield piece
