"""Merge tree + counts -> the pieces to remove and their order. See docs/how-it-works.md, "Compacting"."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinydata.core.errors import TinydataError
from tinydata.tokenizers.base import NORMAL, Tokenizer
from tinydata.tokenizers.families.matching import Matching, cheapest_first
from tinydata.tokenizers.kernels.merge_tree import Tree


class Order(NamedTuple):
    """Pieces in the order of their removal; `cost[k]` tokens are added by removing the first k + 1."""

    removed: np.ndarray  # int32[removable]
    cost: np.ndarray  # int64[removable], cumulative


def protected(
    big: Tokenizer, tree: Tree, counts: np.ndarray, keep_tokens: tuple[str, ...] = (), min_per_domain: int = 0
) -> np.ndarray:
    """counts int64[domains, ids] -> bool[ids]: pieces that must be kept, including all pieces they are merged from.

    keep_tokens: see _named; min_per_domain: the most frequent ids of each domain, this many.
    """
    lock = ~big.removable()
    if keep_tokens:
        lock[_named(big, keep_tokens)] = True
    if min_per_domain:
        for row in counts:
            best = np.argsort(-row, kind="stable")[:min_per_domain]
            lock[best[row[best] > 0]] = True
    lock &= tree.reachable | ~big.removable()
    if isinstance(big, Matching):  # its pieces have no parts
        return lock
    stack = list(np.flatnonzero(lock))
    while stack:
        i = stack.pop()
        for p in tree.parts[tree.offsets[i] : tree.offsets[i + 1]]:
            if not lock[p]:
                lock[p] = True
                stack.append(p)
    return lock


def _named(big: Tokenizer, tokens: tuple[str, ...]) -> list[int]:
    """Lines of --keep-tokens -> ids; a line is the text of a token, or #ID."""
    by_piece: dict[bytes, int] = {}
    for i, piece in enumerate(big.pieces):
        by_piece.setdefault(piece, i)
    out = []
    for token in tokens:
        i = int(token[1:]) if token[:1] == "#" and token[1:].isdigit() else by_piece.get(token.encode(), -1)
        if not 0 <= i < big.size:
            raise TinydataError(
                f"--keep-tokens: the original tokenizer has no token {token!r}",
                fix="write one token per line, with spaces as in text, or #ID",
            )
        out.append(i)
    return out


def removal_order(
    big: Tokenizer, tree: Tree, count: np.ndarray, locked: np.ndarray, dropped: np.ndarray | None = None
) -> Order:
    """Tree, count int64[ids], locked bool[ids] -> Order: leaf removal until only locked pieces remain.

    For a family that merges, which has one tree, the order is found by sorting. A family that matches spells a removed
    piece with the pieces that remain (see matching.cheapest_first). Gaps and the tokens of `dropped`, bool[ids], are
    removed first, then pieces that are never produced.
    """
    first = big.gap if dropped is None else big.gap | dropped
    if isinstance(big, Matching):
        turn = np.where(first, -2, np.where(tree.reachable, 0, -1))
        removed, cost = cheapest_first(big, count, ~locked, turn)
        return Order(removed, np.cumsum(cost))
    return _by_tree(big, tree, count, locked, first)


def _by_tree(big: Tokenizer, tree: Tree, count: np.ndarray, locked: np.ndarray, first: np.ndarray) -> Order:
    """The order of leaf removal, by sorting.

    The cost of removing a leaf is its count plus the counts of the pieces merged from it: how often the tokenizer
    performs this merge at all. That number does not depend on the order of removal, and no piece has a smaller one than
    the pieces merged from it. So the cheapest pieces are always leaves: removal in the order of cost is leaf removal,
    and optimal for this cost. Pieces that encoding never produces cost nothing.
    """
    used = merge_uses(big, tree, count)
    each = np.diff(tree.offsets) - 1
    cost = np.where(tree.reachable, used * each, 0)
    size = np.array([len(p) for p in big.pieces])
    highest = np.arange(big.size)  # id among a piece and all that it is merged from
    for i in np.argsort(size, kind="stable"):
        highest[i] = max(i, highest[tree.parts[tree.offsets[i] : tree.offsets[i + 1]]].max(initial=0))
    may = np.flatnonzero(~locked)
    turn = _not_before_users(cost, size, tree)
    # `first`, then pieces that are never produced; of equal cost the higher id, but not before pieces merged from it
    order = may[np.lexsort((-size[may], -highest[may], turn[may], tree.reachable[may], ~first[may]))]
    return Order(order.astype(np.int32), np.cumsum(cost[order]))


def _not_before_users(cost: np.ndarray, size: np.ndarray, tree: Tree) -> np.ndarray:
    """cost int64[ids] -> the same, but for no part less than for the pieces that are merged from it.

    It would be less only for parts of a piece with a character that is not a piece: without the piece, that character
    is three or four bytes, each a part.
    """
    turn = cost.tolist()
    parts, offsets = tree.parts.tolist(), tree.offsets.tolist()
    for i in np.argsort(-size, kind="stable").tolist():
        if tree.reachable[i]:
            for p in parts[offsets[i] : offsets[i + 1]]:
                turn[p] = max(turn[p], turn[i])
    return np.array(turn, np.int64)


def merge_uses(big: Tokenizer, tree: Tree, count: np.ndarray) -> np.ndarray:
    """count int64[ids] of tokens -> int64[ids]: how often each piece is produced, including as a part of others."""
    used = count.tolist()
    parts, offsets = tree.parts.tolist(), tree.offsets.tolist()
    for i in sorted(range(big.size), key=lambda i: (tree.reachable[i], -len(big.pieces[i]))):
        a, b = offsets[i], offsets[i + 1]
        if b - a > 1 and used[i]:
            for p in parts[a:b]:
                used[p] += used[i]
    return np.array(used, np.int64)


def real_size(big: Tokenizer) -> int:
    """Number of ids that have a piece, without the gaps."""
    return big.size - int(big.gap.sum())


def kept(big: Tokenizer, order: Order, size: int) -> np.ndarray:
    """Order, number of ids to keep -> bool[ids]."""
    keep = np.ones(big.size, np.bool_)
    keep[order.removed[: max(big.size - size, 0)]] = False
    return keep


def most_frequent(big: Tokenizer, count: np.ndarray, size: int) -> np.ndarray:
    """count int64[ids] -> bool[ids]: the paper's selection: special tokens and bytes, then the most frequent ids,

    whatever they are merged from.
    """
    keep = big.kinds != NORMAL
    keep &= ~big.gap
    rest = np.flatnonzero(~keep & ~big.gap)
    best = rest[np.argsort(-count[rest], kind="stable")]
    keep[best[: size - int(keep.sum())]] = True
    return keep
