"""text -> ids without merges: pieces matched against characters.

Unigram takes the best path through all matches, WordPiece the longest match again and again. There
is no merge tree: what a piece falls back on is found again whenever pieces that spell it are
removed. Sources: Kudo 2018; google/sentencepiece src/unigram_model.cc; huggingface/tokenizers
models/unigram/model.rs, models/wordpiece/mod.rs. Checked against both in tests/tokenizers/.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numba import njit

from tinydata.core.kernels import compiled
from tinydata.tokenizers.kernels.bpe import NONE, Pairs, Symbols, build_pairs, merge_of_pair, spell_unknown

UNK_PENALTY = 10.0  # an unknown character costs this much more than the worst piece: the same in both libraries


class Matcher(NamedTuple):
    """A trie over the characters of the pieces, and how to choose among those that match."""

    edges: Pairs  # (node, character) -> node; 0 is the root
    piece: np.ndarray  # int32[nodes]: the id that ends here, or -1
    score: np.ndarray  # float64[size], the best sum wins; empty: the longest match wins
    unknown: float  # score of a character without a piece
    single: bool  # sums rounded to 32 bits, as sentencepiece has them
    symbols: Symbols  # only byte_ids, unk and size are used


def new_matcher(
    texts: dict[int, str],
    size: int,
    unk: int,
    byte_ids: np.ndarray,
    scores: np.ndarray | None = None,
    worst: float = 0.0,
    single: bool = False,
) -> Matcher:
    """{id: characters} of the pieces, scores float[size] or None (longest match), worst normal score -> Matcher."""
    nodes: dict[int, int] = {}
    ends = [-1]
    for i, text in texts.items():
        node = 0
        for c in text:
            step = (node << 21) | ord(c)
            node = nodes.get(step, 0)
            if not node:
                node = nodes[step] = len(ends)
                ends.append(-1)
        ends[node] = i
    key = np.fromiter(nodes, np.int64, len(nodes))
    child = np.fromiter(nodes.values(), np.int64, len(nodes))
    edges = build_pairs(key >> 21, key & 0x1FFFFF, np.zeros(len(key), np.int64), child)
    none = np.zeros(0, np.int32)
    symbols = Symbols(none, none, none, byte_ids.astype(np.int32), unk, size)
    score = np.zeros(0) if scores is None else scores.astype(np.float64)
    return Matcher(edges, np.array(ends, np.int32), score, worst - UNK_PENALTY, single, symbols)


class _Scratch(NamedTuple):
    best: np.ndarray  # float64[n + 1]
    back: np.ndarray  # int32[n + 1]: where the last piece of the best path to here begins
    token: np.ndarray  # int32[n + 1]
    chars: np.ndarray  # int32[n + 1]
    out: np.ndarray  # int32[4 n + 1]


def scratch_of(offsets: np.ndarray) -> _Scratch:
    n = int(np.diff(offsets).max(initial=0)) + 1
    integers = (np.empty(k, np.int32) for k in (n, n, n, 4 * n))
    return _Scratch(np.empty(n, np.float64), *integers)


@compiled()
def _match(m, chars, a, b, keep, banned, scratch):
    """Characters [a, b) -> ids in scratch.out[:n] of kept pieces other than `banned`; returns n."""
    if len(m.score) == 0:
        n = _longest(m, chars, a, b, keep, banned, scratch.chars)
    else:
        n = _best_path(m, chars, a, b, keep, banned, scratch)
    return spell_unknown(scratch.chars, n, m.symbols, -1, scratch.out)


@compiled()
def _longest(m, chars, a, b, keep, banned, out):
    """Greedy; a place where nothing matches makes the whole word unknown."""
    n = 0
    i = a
    while i < b:
        node, end, token = 0, i, -1
        for j in range(i, b):
            v = merge_of_pair(m.edges, node, chars[j])
            if v == NONE:
                break
            node = v & 0xFFFFFFFF
            t = m.piece[node]
            if t >= 0 and t != banned and keep[t]:
                end, token = j + 1, t
        if token < 0:
            out[0] = m.symbols.unk
            return 1
        out[n] = token
        n += 1
        i = end
    return n


@compiled()
def _best_path(m, chars, a, b, keep, banned, scratch):
    """Viterbi; of equal sums the one found first, which is the one whose last piece is longest."""
    best, back, token = scratch.best, scratch.back, scratch.token
    size = b - a
    for k in range(size + 1):
        back[k] = -1
    best[0] = 0.0
    for k in range(size):
        here = best[k]
        alone = False
        node = 0
        for j in range(k, size):
            v = merge_of_pair(m.edges, node, chars[a + j])
            if v == NONE:
                break
            node = v & 0xFFFFFFFF
            t = m.piece[node]
            if t >= 0 and t != banned and keep[t]:
                _offer(m, best, back, token, j + 1, k, here + m.score[t], t)
                alone |= j == k
        if not alone:
            _offer(m, best, back, token, k + 1, k, here + m.unknown, -1)
    n = 0
    k = size
    while k > 0:  # backwards, then turned round
        t = token[k]
        k = back[k]
        scratch.chars[n] = t if t >= 0 else -1 - chars[a + k]
        n += 1
    for k in range(n // 2):
        scratch.chars[k], scratch.chars[n - 1 - k] = scratch.chars[n - 1 - k], scratch.chars[k]
    return n


@compiled()
def _offer(m, best, back, token, end, start, score, t):
    if back[end] < 0 or score > best[end]:
        best[end] = np.float64(np.float32(score)) if m.single else score
        back[end] = start
        token[end] = t


@njit(cache=True)
def fall_back(m, chars, offsets, keep, scratch, out, ends, reachable):
    at = 0
    for i in range(len(offsets) - 1):
        a, b = offsets[i], offsets[i + 1]
        if a == b:
            reachable[i] = True
            out[at] = i
            at += 1
        else:
            n = _match(m, chars, a, b, keep, -1, scratch)
            reachable[i] = n == 1 and scratch.out[0] == i
            n = _match(m, chars, a, b, keep, i, scratch)
            out[at : at + n] = scratch.out[:n]
            at += n
        ends[i + 1] = at


@njit(cache=True)
def match_all(m, chars, offsets, keep, scratch, out, ends):
    at = 0
    for i in range(len(offsets) - 1):
        n = _match(m, chars, offsets[i], offsets[i + 1], keep, -1, scratch) if offsets[i + 1] > offsets[i] else 0
        out[at : at + n] = scratch.out[:n]
        at += n
        ends[i + 1] = at


@njit(cache=True)
def remove_pieces(m, chars, offsets, count, may, turn, scratch, removed, cost):
    """A heap of (turn, cost, -id). A cost that rose is found out when popped; one that fell is pushed again.

    A cost changes as count flows in (it rises), and as a piece that spells this one goes (any way):
    of each piece the ones that it spells are listed, to look at them again then.
    """
    size = len(count)
    keep = np.ones(size, np.bool_)
    pieces = np.ones(size, np.int64)  # that spell it now
    first = np.full(size, -1, np.int64)  # of each piece the latest entry of its list
    who = [np.int64(0)]
    following = [np.int64(-1)]
    heap = [(np.int64(0), np.int64(0), np.int64(0))]
    heap.pop()
    for i in np.flatnonzero(may):
        if offsets[i + 1] > offsets[i]:
            pieces[i] = _match(m, chars, offsets[i], offsets[i + 1], keep, i, scratch)
            _list(scratch.out, pieces[i], i, may, first, who, following)
        heappush(heap, (turn[i], _price(i, turn, count, pieces), -np.int64(i)))
    n = 0
    while len(heap) > 0:
        t, was, less = heappop(heap)
        i = -less
        if not keep[i]:
            continue
        now = _price(i, turn, count, pieces)
        if was != now:
            if was < now:
                heappush(heap, (t, now, less))
            continue
        keep[i] = False
        removed[n] = i
        cost[n] = now
        n += 1
        if offsets[i + 1] > offsets[i]:
            parts = _match(m, chars, offsets[i], offsets[i + 1], keep, i, scratch)
            for k in range(parts):
                count[scratch.out[k]] += count[i]
        e = first[i]
        while e >= 0:
            k = who[e]
            e = following[e]
            if keep[k]:
                before = pieces[k]
                pieces[k] = _match(m, chars, offsets[k], offsets[k + 1], keep, k, scratch)
                _list(scratch.out, pieces[k], k, may, first, who, following)
                if pieces[k] < before:
                    heappush(heap, (turn[k], _price(k, turn, count, pieces), -np.int64(k)))


@njit(cache=True)
def _price(i, turn, count, pieces):
    return count[i] * (pieces[i] - 1) if turn[i] >= 0 else np.int64(0)


@njit(cache=True)
def _list(parts, n, i, may, first, who, following):
    """Enters piece i into the list of each removable piece that spells it."""
    for k in range(n):
        p = parts[k]
        if may[p]:
            who.append(np.int64(i))
            following.append(first[p])
            first[p] = len(who) - 1
