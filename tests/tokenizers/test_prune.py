"""The order of removal: cheapest first, and never a piece that others are made of."""

from __future__ import annotations

import heapq
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tokenizers.helpers import Cut, counted, library, matched, remade, segmented, set_piece
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.families.matching import Matching
from tinydata.tokenizers.families.merging import dead_pieces
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.compact.prune import kept, protected, removal_order


@pytest.mark.parametrize("name", ["unigram", "unigram_bytes", "wordpiece"])
def test_matched_pieces_go_cheapest_first(matching: Path, text: list[str], name: str) -> None:
    """As one would do it: look at all that is left, take off the cheapest, again."""
    big: Any = open_tokenizer(str(matching / name))
    train = library(big, text)[0]
    locked = protected(big, big.tree(), train[None])
    used = np.flatnonzero(~locked)
    rest = used[np.argsort(-train[used], kind="stable")][200:]  # to have it done in time: only some are there
    tok: Any = big.subset(np.setdiff1d(np.arange(big.size), rest))
    count = library(tok, text)[0]
    locked = protected(tok, tok.tree(), count[None])
    order = removal_order(tok, tok.tree(), count, locked)
    turn, kept_ids = tok.tree().reachable, set(np.flatnonzero(~locked).tolist())
    texts, pieces = tok.characters(), dict(matched(tok))
    flowing, cost = count.tolist(), []
    for gone in order.removed.tolist()[:80]:
        prices = {}
        for i in kept_ids:
            matched(tok).pop(texts[i])
            parts = segmented(tok, texts[i]) or list(range(1 + len(texts[i].encode())))
            prices[i] = (turn[i], flowing[i] * (len(parts) - 1) * turn[i], -i, parts)
            matched(tok)[texts[i]] = i
        best = min(prices, key=lambda i: prices[i][:3])
        assert best == gone
        cost.append(int(prices[best][1]))
        for p in prices[best][3]:
            flowing[p] += flowing[best]
        kept_ids.remove(best)
        del matched(tok)[texts[best]]
    assert order.cost[: len(cost)].tolist() == np.cumsum(cost).tolist()
    assert pieces


def leaf_removal(tok: Tokenizer, cut: Cut) -> list[int]:
    """Cumulative cost of taking off, again and again, the leaf that costs least; its count flows to its parts.

    Pieces that are never produced go first, for nothing.
    """
    tree, count = cut.tree, cut.train.tolist()
    parts = [tree.parts[a:b].tolist() for a, b in pairwise(tree.offsets)]
    users = [0] * tok.size  # kept pieces that are made of this one
    for i in range(tok.size):
        for p in set(parts[i]) - {i}:
            users[p] += 1

    def price(i: int) -> tuple[bool, int, int]:
        return bool(tree.reachable[i]), count[i] * (len(parts[i]) - 1), i

    heap = [price(i) for i in range(tok.size) if not cut.locked[i] and not users[i]]
    heapq.heapify(heap)
    total = [0]
    while heap:
        produced, cost, i = heapq.heappop(heap)
        total.append(total[-1] + cost * produced)
        for p in parts[i]:
            if p != i:
                count[p] += count[i]
        for p in set(parts[i]) - {i}:
            users[p] -= 1
            if not users[p] and not cut.locked[p]:
                heapq.heappush(heap, price(p))
    return total[1:]


def test_the_order_costs_what_leaf_removal_costs(merging: Tokenizer, cut: Cut) -> None:
    assert cut.order.cost.tolist() == leaf_removal(merging, cut)


def test_every_prefix_of_the_order_is_closed(tok: Tokenizer, cut: Cut) -> None:
    """A piece goes only when all that is made of it is gone; protected ones never."""
    place = np.full(tok.size, tok.size)
    place[cut.order.removed] = np.arange(len(cut.order.removed))
    assert not cut.locked[cut.order.removed].any()
    assert len(set(cut.order.removed.tolist())) == len(cut.order.removed) == (~cut.locked).sum()
    for i in np.flatnonzero(cut.tree.reachable & ~cut.locked & (not isinstance(tok, Matching))):
        for p in cut.tree.parts[cut.tree.offsets[i] : cut.tree.offsets[i + 1]]:
            assert p == i or place[p] > place[i], (tok.pieces[i], tok.pieces[p])


def test_no_piece_dies_where_its_characters_are_no_pieces(spm: Path, text: list[str]) -> None:
    """Such a piece costs more than its parts: without it, its character is four bytes."""
    tok = remade(spm / "plain", lambda p: [set_piece(p, "éж", 1, -1.0), set_piece(p, "𐍈éж", 1, -2.0)])
    tree = tok.tree()
    train = counted(tok, ["𐍈éж" * 50, *text])[0]
    order = removal_order(tok, tree, train, protected(tok, tree, train[None]))
    place = {tok.pieces[i].decode("utf-8", "replace"): at for at, i in enumerate(order.removed)}
    assert place["𐍈éж"] < place["éж"] < place["é"]
    for size in range(tok.size - len(order.removed), tok.size, 50):
        assert dead_pieces(tok.subset(np.flatnonzero(kept(tok, order, size)))).tolist() == []
