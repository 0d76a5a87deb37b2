"""Parts -> shards of about equal numbers of tokens, in corpus order or shuffled: the second step of `encode`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core import schema
from tinydata.core.kernels import gather
from tinydata.core.location import Location, read_table
from tinydata.engines.base import Tell
from tinydata.formats.piece_counter import PieceCounter
from tinydata.formats.registry import WRITERS
from tinydata.formats.writing import FEWEST, PIECE, STEM, Piece
from tinydata.verbs.encode.worker import ENDINGS, Job


class PartStart(NamedTuple):
    """A part, and where its tokens begin in the corpus."""

    part: int
    start: int


class Shard(NamedTuple):
    """Shard `number` of `many`: in corpus order, the documents that begin in its `size` tokens; shuffled, those whose
    keys are in its equal share of the key space."""

    number: int
    many: int
    size: int  # 0: shuffled
    parts: list[PartStart]
    tokens: int  # about


def arrange(done: list[dict[str, Any]], size: int, seed: int) -> list[Shard]:
    """Sums of all parts, tokens per shard -> shards, none of them empty."""
    tokens = [d["tokens"] for d in done]
    starts = [0, *np.cumsum(tokens).tolist()]
    documents = sum(d["documents"] for d in done)
    if seed >= 0:
        many = max(1, min(-(-starts[-1] // size), documents // FEWEST))
        every = [PartStart(k, starts[k]) for k, d in enumerate(done) if d["documents"]]
        return [Shard(n, many, 0, every, starts[-1] // many) for n in range(many)]
    size = max(size, *(d["longest"] for d in done), 1)  # so that some document begins in each
    last = max((starts[k] + d["last"] for k, d in enumerate(done) if d["last"] >= 0), default=0)
    many = last // size + 1
    shards = []
    for n in range(many):
        first, stop = bisect_left(starts, n * size, 1) - 1, bisect_right(starts, (n + 1) * size, 0, len(done))
        inside = [PartStart(k, starts[k]) for k in range(first, stop) if done[k]["documents"]]
        shards.append(Shard(n, many, size, inside, min(size, starts[-1] - n * size)))
    return shards


class PartCleanup:
    """Deletes each part as soon as no unfinished shard needs it, so that the disk stores the tokens once, not twice.

    With shuffling every shard needs every part, so nothing can be deleted before the end.
    """

    def __init__(self, parts: Location, shards: list[Shard]):
        self._parts = parts
        self._parts_of = {s.number: [p.part for p in s.parts] for s in shards if s.size}
        self._waiting = Counter(part for parts in self._parts_of.values() for part in parts)

    def __call__(self, done: set[int]) -> None:
        """done: numbers of finished shards, each reported once."""
        for number in done:
            for part in self._parts_of.get(number, ()):
                self._waiting[part] -= 1
                if not self._waiting[part]:
                    for ending in ENDINGS:
                        (self._parts / f"{part:07d}{ending}").delete()


def write_shard(job: Job, masked: bool, shard: Shard, number: int, tell: Tell) -> dict[str, Any]:
    """Parts -> one shard; returns its files and sums."""
    stem = STEM.get(job.to, "shard-{:05d}").format(number)
    pieces = PieceCounter((_shuffled if job.shuffled else _in_order)(job, masked, shard), tell)
    files = WRITERS[job.to](Location.of(job.place), stem, job.dtype, masked, iter(pieces))
    return {"name": stem, "files": files, "documents": pieces.documents, "tokens": pieces.tokens}


def _in_order(job: Job, masked: bool, shard: Shard) -> Iterator[Piece]:
    """The documents of the shard in corpus order, in pieces of about PIECE tokens."""
    for part, start in shard.parts:
        table = _table(job, part)
        lengths = table["length"].to_numpy()
        ends = np.cumsum(lengths)
        begins = start + ends - np.maximum(lengths, 1)  # an empty document belongs to the token before it
        which = np.clip(begins // shard.size, 0, shard.many - 1)
        a, b = np.searchsorted(which, [shard.number, shard.number + 1]).tolist()
        while a < b:
            first = int(ends[a] - lengths[a])
            c = max(a + 1, int(np.searchsorted(ends[:b], first + PIECE, side="right")))
            yield Piece(*_tokens(job, part, masked, first, int(ends[c - 1])), lengths[a:c], _documents(table, a, c))
            a = c


def _shuffled(job: Job, masked: bool, shard: Shard) -> Iterator[Piece]:
    """All documents of the shard as one piece, in the order of their keys."""
    pieces, keys = [], []
    for part, _ in shard.parts:
        table = _table(job, part)
        lengths, key = table["length"].to_numpy(), table["key"].to_numpy()
        ends = np.cumsum(lengths)
        which = ((key >> np.uint64(32)) * np.uint64(shard.many)) >> np.uint64(32)
        a, b = np.searchsorted(which, [shard.number, shard.number + 1]).tolist()
        if a < b:
            span = _tokens(job, part, masked, int(ends[a] - lengths[a]), int(ends[b - 1]))
            pieces.append(Piece(*span, lengths[a:b], _documents(table, a, b)))
            keys.append(key[a:b])
    order = np.argsort(np.concatenate(keys), kind="stable")
    lengths = np.concatenate([p.lengths for p in pieces])
    ids = gather(np.concatenate([p.ids for p in pieces]), lengths, order)
    mask = gather(np.concatenate([p.flags for p in pieces]), lengths, order) if masked else None
    documents = pa.concat_tables([p.documents for p in pieces]).take(pa.array(order))
    yield Piece(ids, mask, lengths[order], documents)


def _table(job: Job, part: int) -> pa.Table:
    """Part -> its documents, with lengths int64 and keys uint64."""
    return read_table(Location.of(job.parts) / f"{part:07d}.docs")


def _documents(table: pa.Table, a: int, b: int) -> pa.Table:
    """Rows [a, b) of the table of a part -> DOCUMENTS."""
    return table.select(schema.DOCUMENTS.names).slice(a, b - a)


def _tokens(job: Job, part: int, masked: bool, a: int, b: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Tokens [a, b) of a part, and their mask."""
    where = Location.of(job.parts)
    size = job.dtype.itemsize
    with (where / f"{part:07d}.ids").open() as f:
        f.seek(a * size)
        ids = np.frombuffer(f.read_buffer((b - a) * size), job.dtype)
    mask_file = where / f"{part:07d}.mask"
    if not masked or not mask_file.exists():
        return ids, None
    with mask_file.open() as f:
        f.seek(a)
        return ids, np.frombuffer(f.read_buffer(b - a), np.bool_)
