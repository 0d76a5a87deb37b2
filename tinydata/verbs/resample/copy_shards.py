"""Kept sequences of a round -> shards of their own, in any output format; each worker gathers and writes one shard.

Sequence n of the new shards is the n-th kept one, by number or shuffled: its T input tokens. The very last sequence is
followed by one more token, its last target. Documents keep their boundaries, and the remainder of a document that was
cut starts a new one. Where a sequence does not directly follow the previous one in the original shards, its first token
is not what followed the context, so that token is excluded from the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinydata.core import schema
from tinydata.core.documents import total_by_domain
from tinydata.core.hashing import shuffle_keys
from tinydata.core.kernels import gather
from tinydata.core.location import Location, read_bytes
from tinydata.engines.base import Tell, Unit
from tinydata.formats.dataset import Stream
from tinydata.formats.piece_counter import PieceCounter
from tinydata.formats.registry import WRITERS
from tinydata.formats.writing import FEWEST, PIECE, STEM, Piece

ORDERS = ("concatenated", "shuffled")
UNMASKED = ("llmc",)  # formats without masks
BY_SIGN = ("internevo",)  # formats in which a masked id is negative: id 0 cannot be masked


class ShardLayout(NamedTuple):
    """Format, order and size of the shards that a round is copied to."""

    to: str = "megatron"
    order: str = "concatenated"
    shard_tokens: int = 1 << 27


class Copy(NamedTuple):
    """What a worker needs to know to write shards."""

    stream: Stream
    seq_len: int
    keep: list[tuple[str, int]]  # files of KEEP and their rows
    target: ShardLayout
    seed: int
    place: str

    @property
    def kept(self) -> int:
        return sum(n for _, n in self.keep)

    @property
    def masked(self) -> bool:
        return self.target.to not in UNMASKED


class Bounds(NamedTuple):
    """Documents of several sequences end to end, cut where the sequences are not consecutive."""

    lengths: np.ndarray  # int64[p]: tokens
    document: np.ndarray  # int64[p]: its number in the base
    domain: list[str]
    sequence: np.ndarray  # int64[p]: which of the sequences it begins in


class _Sequences(NamedTuple):
    """Several sequences end to end."""

    ids: np.ndarray  # [n * T]
    mask: np.ndarray | None  # bool[n * T]: tokens without a loss; None: the format has no masks
    bounds: Bounds


def units(copy: Copy) -> list[Unit]:
    """One unit per shard: in order, a range of the kept sequences; shuffled, an equal share of all hashes."""
    each = max(1, copy.target.shard_tokens // copy.seq_len)
    many = -(-copy.kept // each)
    if copy.target.order == "shuffled":
        many = max(1, min(many, copy.kept // FEWEST))
        each = -(-copy.kept // many)
    size = copy.seq_len * copy.stream.dtype.itemsize
    return [Unit(n, (n, many), size * min(each, copy.kept - n * each)) for n in range(many)]


def write_shard(copy: Copy, about: tuple[int, int], number: int, tell: Tell) -> dict[str, Any]:
    """Writes one shard; returns its files and sums."""
    n, many = about
    stem = STEM.get(copy.target.to, "shard-{:05d}").format(number)
    pieces = PieceCounter((_shuffled if copy.target.order == "shuffled" else _in_order)(copy, n, many), tell)
    files = WRITERS[copy.target.to](Location.of(copy.place), stem, copy.stream.dtype, copy.masked, iter(pieces))
    return {
        "name": stem,
        "files": files,
        "domains": pieces.domains,
        "documents": pieces.documents,
        "tokens": pieces.tokens,
        "masked": pieces.masked,
    }


def copy_facts(copy: Copy, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums of all shards -> their part of the manifest."""
    source = copy.stream.source
    same = ("dtype", "bos", "eos", "end_of_text", "unknown", "kind", "rewritten")
    return {
        "totals": {k: sum(d[k] for d in done) for k in ("documents", "tokens", "masked")},
        "domains": dict(sorted(total_by_domain(d["domains"] for d in done).items())),
        "shards": [{k: d[k] for k in ("name", "documents", "tokens")} for d in done],
        **{k: source[k] for k in same if k in source},
    }


def pieces_file(copy: Copy) -> dict[str, bytes]:
    """-> {"pieces.parquet": content}, where the format has this file and the original shards have it."""
    pieces = copy.stream.shards_at / "pieces.parquet"
    return {"pieces.parquet": read_bytes(pieces)} if copy.target.to == "megatron" and pieces.exists() else {}


# -- gathering --------------------------------------------------------------------------------


def _kept(copy: Copy, a: int, b: int) -> np.ndarray:
    """int64: the kept sequences a to b, counted in order."""
    numbers_of_files = [np.empty(0, np.int64)]
    first = 0
    for name, rows in copy.keep:
        if first < b and first + rows > a:
            numbers = _numbers(copy, name)
            numbers_of_files.append(numbers[max(a - first, 0) : b - first])
        first += rows
    return np.concatenate(numbers_of_files)


def _numbers(copy: Copy, name: str) -> np.ndarray:
    with (Location.of(copy.place) / name).open() as f:
        return pq.read_table(f, columns=["sequence"], use_threads=False)["sequence"].to_numpy()


def _in_order(copy: Copy, n: int, many: int) -> Iterator[Piece]:
    each = max(1, copy.target.shard_tokens // copy.seq_len)
    a, b = n * each, min((n + 1) * each, copy.kept)
    mine = _kept(copy, max(a - 1, 0), b)
    before = int(mine[0]) if a else -2
    mine = mine[1:] if a else mine
    step = max(1, PIECE // copy.seq_len)
    for at in range(0, len(mine), step):
        some = mine[at : at + step]
        last = b == copy.kept and at + step >= len(mine)
        follows = np.diff(some, prepend=before) == 1
        yield _piece(copy, some, follows, last)
        before = int(some[-1])


def _shuffled(copy: Copy, n: int, many: int) -> Iterator[Piece]:
    """The sequences whose hash falls into this shard's share of all hashes, by hash; all of them in memory."""
    numbers_of_files, hashes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for name, _ in copy.keep:
        numbers = _numbers(copy, name)
        key = shuffle_keys(numbers.view(np.uint64), np.uint64(copy.seed))
        mine = ((key >> np.uint64(32)) * np.uint64(many)) >> np.uint64(32) == n
        numbers_of_files.append(numbers[mine])
        hashes.append(key[mine])
    numbers, order = np.concatenate(numbers_of_files), np.argsort(np.concatenate(hashes), kind="stable")
    if not len(numbers):
        return
    ids, mask, bounds = _gathered(copy, numbers, np.zeros(len(numbers), np.bool_))
    T, per = copy.seq_len, np.bincount(bounds.sequence, minlength=len(numbers))
    lengths = gather(bounds.lengths, per, order)
    document, domain = gather(bounds.document, per, order), pa.array(bounds.domain, pa.string())
    rows = gather(np.arange(len(bounds.lengths)), per, order)
    ids, mask = ids.reshape(-1, T)[order].ravel(), None if mask is None else mask.reshape(-1, T)[order].ravel()
    piece = Piece(ids, mask, lengths, _documents(document, domain.take(pa.array(rows))))
    yield _with_last_target(copy, int(numbers[order[-1]]), piece) if n == many - 1 else piece


def _piece(copy: Copy, numbers: np.ndarray, follows: np.ndarray, last: bool) -> Piece:
    """Sequence numbers int64[n], follows bool[n] as in _gathered; last: they are the last ones of all."""
    ids, mask, bounds = _gathered(copy, numbers, follows)
    piece = Piece(ids, mask, bounds.lengths, _documents(bounds.document, pa.array(bounds.domain, pa.string())))
    return _with_last_target(copy, int(numbers[-1]), piece) if last else piece


def _documents(number: np.ndarray, domain: pa.Array) -> pa.Table:
    """-> DOCUMENTS; the id of a document is its number in the base."""
    return pa.table([pa.array(number).cast(pa.string()), domain], schema=schema.DOCUMENTS)


def _gathered(copy: Copy, numbers: np.ndarray, follows: np.ndarray) -> _Sequences:
    """numbers int64[n], ascending; follows bool[n]: the sequence directly follows the one that is written before it."""
    T, stream = copy.seq_len, copy.stream
    ids = np.ascontiguousarray(stream.rows(numbers, T)[:, :T]).ravel()
    seams = ~follows & (ids[::T] != 0) if copy.target.to in BY_SIGN else ~follows
    mask = _mask(copy, numbers, seams) if copy.masked else None
    return _Sequences(ids, mask, _bounds(stream, T, numbers, follows))


def _mask(copy: Copy, numbers: np.ndarray, seams: np.ndarray) -> np.ndarray:
    """bool[n * T]: tokens without a loss, including the first tokens of the sequences at `seams` bool[n]."""
    T, stream = copy.seq_len, copy.stream
    flags = np.zeros((len(numbers), T), np.bool_)
    if stream.masked:
        for row, i in zip(flags, numbers.tolist(), strict=True):
            bears = stream.bears_loss(i * T, (i + 1) * T)
            assert bears is not None
            row[:] = ~bears
    flags[seams, 0] = True
    return flags.ravel()


def _bounds(stream: Stream, T: int, numbers: np.ndarray, follows: np.ndarray) -> Bounds:
    """Sequence numbers int64[n] -> Bounds of the documents in them."""
    documents = stream.documents(int(numbers[0]) * T, (int(numbers[-1]) + 1) * T)
    at = np.minimum(np.searchsorted(numbers, documents.starts // T), len(numbers) - 1)
    inside = numbers[at] == documents.starts // T
    begins = (at * T + documents.starts % T)[inside]
    cuts = np.flatnonzero(~follows) * T
    begins = np.union1d(np.union1d(begins, cuts), [0])
    place = begins // T
    which = documents.at(numbers[place] * T + begins % T)
    lengths = np.diff(begins, append=len(numbers) * T)
    names = np.array(documents.domains, object)[documents.domain[which]].tolist()
    return Bounds(lengths, documents.first + which, names, place)


def _with_last_target(copy: Copy, number: int, piece: Piece) -> Piece:
    """Appends the last target of sequence `number`, the last one of the piece."""
    end = (number + 1) * copy.seq_len
    ids = np.concatenate([piece.ids, copy.stream.read(end, end + 1)])
    lengths = np.append(piece.lengths[:-1], piece.lengths[-1] + 1)
    if piece.mask is None:
        return piece._replace(ids=ids, lengths=lengths)
    bears = copy.stream.bears_loss(end, end + 1)
    mask = np.append(piece.mask, False if bears is None else not bears[0])
    return piece._replace(ids=ids, lengths=lengths, mask=mask)
