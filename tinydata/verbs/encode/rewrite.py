"""old ids -> new ids, without the text: every removed id becomes the kept pieces that spell it.

The lists of the map have different lengths. The number of parts and up to three parts of an id are packed in one
64-bit word, which is written as a whole at the current end of the output; the next id overwrites the excess. So a
typical id costs one load and one store, and no branch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinydata.core.kernels import cached, compiled, inlined
from tinydata.tokenizers.kernels.bpe import SHORT, Pairs, build_pairs, merge_long, merge_short
from tinydata.tokenizers.kernels.neighbors import contains, put

STRETCH = 1 << 13  # ids processed together: they stay in the first-level cache between the two passes
_FREE, _LOW, _HALF = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0xFFFFFFFF), np.uint64(32)
ROOM = 1 << 26  # output elements reserved without counting; above that they are counted first
SPARE = 4  # elements behind the output that may be overwritten


class IdMap(NamedTuple):
    """parts[offsets[i]:offsets[i + 1]] = new ids of old id i."""

    offsets: np.ndarray  # int64[old ids + 1]
    parts: np.ndarray  # int32[...]
    packed: np.ndarray  # uint64[old ids]: three parts of 16 bits, how many there are on top (above 3: look it up)
    size: int  # new ids
    most: int  # parts of one id


def id_map(table: pa.Table, size: int) -> IdMap:
    """IDMAP, sorted by old id, and the number of new ids -> IdMap; raises ValueError if it is incomplete."""
    if table["old_id"].to_pylist() != list(range(len(table))):
        raise ValueError("its old ids are not 0, 1, 2, ...")
    lists = table["parts"].combine_chunks()
    offsets, parts = lists.offsets.to_numpy().astype(np.int64), lists.values.to_numpy()
    if len(parts) and (parts.min() < 0 or parts.max() >= size):
        raise ValueError(f"its new ids are not all below {size}")
    return IdMap(offsets, parts, _packed(offsets, parts), size, int(np.diff(offsets).max(initial=1)))


def identity(size: int) -> IdMap:
    """The map that leaves every id as it is."""
    offsets, parts = np.arange(size + 1, dtype=np.int64), np.arange(size, dtype=np.int32)
    return IdMap(offsets, parts, _packed(offsets, parts), size, 1)


def _packed(offsets: np.ndarray, parts: np.ndarray) -> np.ndarray:
    count = np.diff(offsets)
    packed = np.minimum(count, 4).astype(np.uint64) << np.uint64(48)
    for k in range(3):
        has = (count > k) & (count <= 3)
        packed[has] |= (parts[offsets[:-1][has] + k].astype(np.uint64) & np.uint64(0xFFFF)) << np.uint64(16 * k)
    return packed


class LearnedMerges(NamedTuple):
    """Merges that `compact --adapt` learned; they are applied to the new ids."""

    pairs: Pairs  # only those whose result is a learned piece
    joints: np.ndarray  # uint8[2**k], hashed bit set of adjacent ids that may become part of one learned piece


def learned_merges(table: pa.Table, pairs: Pairs) -> LearnedMerges:
    """LEARNED and the pairs of the tokenizer -> LearnedMerges."""
    new_ids = set(table["new_id"].to_pylist())
    keys, values = pairs.table[::2], pairs.table[1::2]
    used = values != _FREE
    rows = np.stack([keys[used] >> _HALF, keys[used] & _LOW, values[used] >> _HALF, values[used] & _LOW], axis=1)
    rows = rows[np.isin(rows[:, 3], np.array(sorted(new_ids), np.uint64))].astype(np.int64)
    ends: dict[int, set[int]] = {}  # id -> ids that may be its last part when it is merged
    begins: dict[int, set[int]] = {}  # the same for the first part
    for left, right, _, whole in rows[np.argsort(rows[:, 2], kind="stable")].tolist():
        ends.setdefault(whole, {whole}).update(ends.get(right, {right}))
        begins.setdefault(whole, {whole}).update(begins.get(left, {left}))
    joints = {
        (a, b)
        for left, right, _, _ in rows.tolist()
        for a in ends.get(left, {left})
        for b in begins.get(right, {right})
    }
    bits = np.zeros(1 << max(10, (16 * len(joints)).bit_length() - 3), np.uint8)
    first, second = np.array(sorted(joints), np.int32).reshape(-1, 2).T
    _add_joints(bits, first.copy(), second.copy())
    return LearnedMerges(build_pairs(*rows.T), bits)


class RewrittenBatch(NamedTuple):
    """Documents under the new ids, end to end."""

    ids: np.ndarray
    ends: np.ndarray  # int64[docs + 1]
    mask: np.ndarray | None  # bool[n]; None: nothing is masked
    wrong: np.ndarray  # int64[docs]: index of an old id outside the map, or -1; such a document is empty


class Rewriter:
    """Applies one map to document after document. `dtype`: of the new ids; uint16 is the fastest."""

    def __init__(self, ids: IdMap, dtype: Any, merges: LearnedMerges | None = None):
        self.map = ids
        self.merges = merges
        self.dtype = np.dtype(dtype)
        self._out = np.empty(0, self.dtype)
        self._mask = np.empty(0, np.bool_)

    def rewrite(self, values: np.ndarray, offsets: np.ndarray, mask: np.ndarray | None = None) -> RewrittenBatch:
        """ids int[n] (negative: masked), offsets int[docs + 1], mask bool[n] -> RewrittenBatch.

        The next call overwrites what is returned.
        """
        docs = len(offsets) - 1
        ids = np.minimum(values, np.uint64(2**63 - 1)).view(np.int64) if values.dtype == np.uint64 else values
        first, last = int(offsets[0]), int(offsets[-1])
        room = (last - first) * self.map.most + SPARE
        if room > ROOM:
            room = length(ids, first, last, self.map) + SPARE
        if len(self._out) < room:
            self._out = np.empty(room, self.dtype)  # untouched pages cost nothing
        ends, wrong = np.zeros(docs + 1, np.int64), np.full(docs, -1, np.int64)
        raw = ids.view(f"u{ids.itemsize}")
        if mask is None and rewrite_plain(raw, offsets, self.map, self._out, ends):
            return RewrittenBatch(self._merged(self._out[: ends[-1]], ends, None), ends, None, wrong)
        if len(self._mask) < room:
            self._mask = np.empty(room, np.bool_)
        none = mask is None
        given = np.zeros(0, np.bool_) if mask is None else mask
        rewrite_checked(ids, offsets, given, none, self.map, self._out, self._mask, ends, wrong)
        flags = self._mask[: ends[-1]]
        out = self._merged(self._out[: ends[-1]], ends, flags)
        flags = flags[: len(out)]
        return RewrittenBatch(out, ends, flags if flags.any() else None, wrong)

    def _merged(self, ids: np.ndarray, ends: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Applies the learned merges in place, also to `ends` and `mask`; returns the ids that remain."""
        if self.merges is None:
            return ids
        flags = np.zeros(0, np.bool_) if mask is None else mask
        return ids[: merge_learned(ids, ends, flags, self.merges.pairs, self.merges.joints)]


@compiled()
def length(values, first, last, ids):
    """Number of new ids of values[first:last]; ids outside the map have none."""
    n = np.int64(0)
    for k in range(first, last):
        v = np.uint64(abs(np.int64(values[k])))
        if v < np.uint64(len(ids.packed)):
            n += ids.offsets[v + np.uint64(1)] - ids.offsets[v]
    return n


@intrinsic
def _store(typingctx, out, i, word):
    """out uint16[n]: out[i : i + 4] = the 64 bits of word, unaligned, unchecked."""

    def codegen(context, builder, signature, args):
        at = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        store = builder.store(args[2], builder.bitcast(at, ir.IntType(64).as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return types.void(out, types.intp, types.uint64), codegen


_store64: Any = _store


@compiled()
def rewrite_plain(raw, offsets, ids, out, ends):
    """raw uint[n] -> out; False as soon as an id is outside the map, as a negative one is: then `out` is invalid."""
    n = np.int64(0)
    i = np.int64(offsets[0])
    doc = 0
    while doc < len(ends) - 1:
        stop = np.int64(offsets[doc + 1])
        while i < stop:
            upto = min(i + STRETCH, stop)
            if not _inside(raw, i, upto, len(ids.packed)):
                return False
            n = _stretch(raw, i, upto, ids, out, n)
            i = upto
        ends[doc + 1] = n
        doc += 1
    return True


@inlined()
def _inside(raw, i, stop, size):
    top = raw[i]
    for k in range(i, stop):
        top = max(top, raw[k])
    return np.uint64(top) < np.uint64(size)


@inlined()
def _stretch(raw, i, stop, ids, out, n):
    """raw[i:stop] -> out[n:]; returns the new n."""
    for k in range(i, stop):
        v = np.uint64(raw[k])
        word = ids.packed[v]
        count = np.int64(word >> np.uint64(48))
        if out.itemsize == 2 and count <= 3:
            _store64(out, n, word)
            n += count
        else:
            a = ids.offsets[v]
            b = ids.offsets[v + np.uint64(1)]
            for p in range(a, b):
                out[n] = ids.parts[p]
                n += 1
    return n


@compiled()
def rewrite_checked(values, offsets, given, none, ids, out, mask, ends, wrong):
    """As rewrite_plain, with masks and one id at a time: a negative id is masked, and so are all its parts."""
    n = np.int64(0)
    for doc in range(len(wrong)):
        first = n
        for k in range(np.int64(offsets[doc]), np.int64(offsets[doc + 1])):
            v = np.int64(values[k])
            masked = v < 0 or (not none and given[k])
            v = abs(v)
            if np.uint64(v) >= np.uint64(len(ids.packed)):
                wrong[doc] = k
                n = first
                break
            for p in range(ids.offsets[v], ids.offsets[v + 1]):
                out[n] = ids.parts[p]
                mask[n] = masked
                n += 1
        ends[doc + 1] = n


@cached()
def merge_learned(ids, ends, mask, pairs, joints):
    """ids uint16 or int32 [n], ends int64[docs + 1], mask bool[n] or bool[0], in place -> new n.

    BPE is applied to runs in which each two adjacent ids may become part of one learned piece. Tokens with a loss and
    tokens without one are never merged with each other.
    """
    sym, value = np.empty(SHORT, np.int32), np.empty(SHORT, np.int64)
    n, a = 0, ends[0]
    for doc in range(len(ends) - 1):
        stop = ends[doc + 1]
        i = a
        while i < stop:
            j = i + 1
            while j < stop and _joint(ids[j - 1], ids[j], joints) and (len(mask) == 0 or mask[j - 1] == mask[j]):
                j += 1
            count = j - i
            flag = len(mask) > 0 and mask[i]
            if count == 1:
                ids[n] = ids[i]
            else:
                if count > len(sym):
                    sym, value = np.empty(2 * count, np.int32), np.empty(2 * count, np.int64)
                for k in range(count):
                    sym[k] = ids[i + k]
                if count <= SHORT:
                    count = merge_short(sym, count, value, pairs, -1)
                else:
                    count = merge_long(sym, count, pairs, -1)
                for k in range(count):
                    ids[n + k] = sym[k]
            if len(mask):
                mask[n : n + count] = flag
            n += count
            i = j
        a = stop
        ends[doc + 1] = n
    return n


@inlined()
def _joint(a, b, bits):
    return contains(np.uint64(a), np.uint64(b), bits)


@cached()
def _add_joints(bits, first, second):
    """Adds pairs of ids, int32[n] each, to the bit set uint8[2**k]."""
    for i in range(len(first)):
        put(np.uint64(first[i]), np.uint64(second[i]), bits)
