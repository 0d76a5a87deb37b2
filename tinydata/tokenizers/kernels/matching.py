"""text -> ids without merges: pieces matched against characters.

Unigram takes the best path through all matches, WordPiece always the longest match. There is no merge
tree: what spells a piece without itself is computed again when one of those pieces is removed.
Sources: Kudo 2018; google/sentencepiece src/unigram_model.cc; huggingface/tokenizers
models/unigram/model.rs, models/wordpiece/mod.rs. Checked against both in tests/tokenizers/.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from tinydata.core.kernels import cached, compiled
from tinydata.tokenizers.kernels.bpe import NONE, Pairs, Symbols, build_pairs, merge_of_pair, spell_unknown

UNK_PENALTY = 10.0  # what an unknown character costs more than the worst piece, in both libraries


class Matcher(NamedTuple):
    """A trie over the characters of the pieces, and how to choose among those that match."""

    edges: Pairs  # (node, character) -> node; 0 is the root
    piece: np.ndarray  # int32[nodes]: the id that ends here, or -1
    score: np.ndarray  # float64[size], the best sum wins; empty: the longest match wins
    unknown: float  # score of a character without a piece
    single: bool  # sums are rounded to 32 bits, as in sentencepiece
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
    empty = np.zeros(0, np.int32)
    symbols = Symbols(empty, empty, empty, byte_ids.astype(np.int32), unk, size)
    score = np.zeros(0) if scores is None else scores.astype(np.float64)
    return Matcher(edges, np.array(ends, np.int32), score, worst - UNK_PENALTY, single, symbols)


class _Scratch(NamedTuple):
    best: np.ndarray  # float64[n + 1]
    back: np.ndarray  # int32[n + 1]: where the last piece of the best path up to here begins
    token: np.ndarray  # int32[n + 1]
    chars: np.ndarray  # int32[n + 1]
    out: np.ndarray  # int32[4 n + 1]


def scratch_of(offsets: np.ndarray) -> _Scratch:
    """offsets int64[n + 1] of texts -> room for the longest."""
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
    """Greedy; where nothing matches, the whole word is unknown."""
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
    """Viterbi; of equal sums the first that was found, the one whose last piece is longest."""
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
    while k > 0:  # from the end, then reversed
        t = token[k]
        k = back[k]
        scratch.chars[n] = t if t >= 0 else -1 - chars[a + k]
        n += 1
    for k in range(n // 2):
        scratch.chars[k], scratch.chars[n - 1 - k] = scratch.chars[n - 1 - k], scratch.chars[k]
    return n


@compiled()
def _offer(m, best, back, token, end, start, score, t):
    """Takes the path over piece t, [start, end), if it is the best one up to `end`."""
    if back[end] < 0 or score > best[end]:
        best[end] = np.float64(np.float32(score)) if m.single else score
        back[end] = start
        token[end] = t


@compiled()
def _append(ids, n, out, at):
    """ids[:n] -> out[at:]; returns the end. As a slice, numba compiles the message of its shape error: 1.4 s."""
    for k in range(n):
        out[at + k] = ids[k]
    return at + n


@cached()
def spell_without(m, texts, scratch, out, ends, reachable):
    """The text that each id matches -> the ids that spell it without itself: out int32[n], ends int64[ids + 1].

    reachable bool[ids]: encoding the text gives this id. An id without text is spelled by itself.
    """
    chars, offsets = texts
    keep = np.ones(m.symbols.size, np.bool_)
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
            at = _append(scratch.out, n, out, at)
        ends[i + 1] = at


@cached()
def match_all(m, texts, scratch, out, ends):
    """Each text -> its ids: out int32[n], ends int64[texts + 1]."""
    chars, offsets = texts
    keep = np.ones(m.symbols.size, np.bool_)
    at = 0
    for i in range(len(offsets) - 1):
        n = _match(m, chars, offsets[i], offsets[i + 1], keep, -1, scratch) if offsets[i + 1] > offsets[i] else 0
        at = _append(scratch.out, n, out, at)
        ends[i + 1] = at


@cached()
def remove_pieces(m, texts, count, removable, turn, scratch, removed, cost):
    """As `cheapest_first`, with a heap of (turn, cost, -id).

    A cost changes when counts are added to a piece (it rises) and when a piece that spells it is removed (it rises
    or falls). A risen cost is noticed when its entry is popped; a fallen one is pushed again. To find the
    latter, each piece has a list of the pieces that it spells.
    """
    chars, offsets = texts
    size = len(count)
    keep = np.ones(size, np.bool_)
    pieces = np.ones(size, np.int64)  # number of pieces that spell it now
    first = np.full(size, -1, np.int64)  # the latest entry of each piece's list
    spelled = [np.int64(0)]  # of an entry: the piece
    following = [np.int64(-1)]  # of an entry: the one before it in the same list
    heap = [(np.int64(0), np.int64(0), np.int64(0))]
    heap.pop()
    for p in range(size):
        if not removable[p]:
            continue
        if offsets[p + 1] > offsets[p]:
            pieces[p] = _match(m, chars, offsets[p], offsets[p + 1], keep, p, scratch)
            _list(scratch.out, pieces[p], p, removable, first, spelled, following)
        heappush(heap, (turn[p], _price(p, turn, count, pieces), -np.int64(p)))
    n = 0
    while len(heap) > 0:
        t, entered, negative_id = heappop(heap)
        i = -negative_id
        if not keep[i]:
            continue
        now = _price(i, turn, count, pieces)
        if entered != now:
            if entered < now:
                heappush(heap, (t, now, negative_id))
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
            k = spelled[e]
            e = following[e]
            if keep[k]:
                before = pieces[k]
                pieces[k] = _match(m, chars, offsets[k], offsets[k + 1], keep, k, scratch)
                _list(scratch.out, pieces[k], k, removable, first, spelled, following)
                if pieces[k] < before:
                    heappush(heap, (turn[k], _price(k, turn, count, pieces), -np.int64(k)))


@cached()
def _price(i, turn, count, pieces):
    """Tokens that removing piece i adds."""
    return count[i] * (pieces[i] - 1) if turn[i] >= 0 else np.int64(0)


@cached()
def _list(parts, n, i, removable, first, spelled, following):
    """Adds piece i to the list of each removable piece that spells it."""
    for k in range(n):
        p = parts[k]
        if removable[p]:
            spelled.append(np.int64(i))
            following.append(first[p])
            first[p] = len(spelled) - 1
