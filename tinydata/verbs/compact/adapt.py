"""pruned vocabulary + words of the corpus -> vocabulary of the same size, partly learned, that spells them shorter.

Keeping and learning are one optimisation. The cost of an old leaf is that of `removal_order`; the gain
of a learned merge (BPE on the distinct words, starting from the pruned vocabulary) is the count of its
pair. Merges are learned as long as the next one gains more than the next leaf costs; then old and
learned pieces together are pruned back to the size, which also removes old pieces that learning made
superfluous.

Two mechanisms protect text that is rare in the corpus. The count of an old piece is increased by a
prior that falls with its rank, because the training text of the big tokenizer contained it about that
often. And no domain of the held-out text may become much longer than with pruning alone: see domain_guard.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core import schema
from tinydata.core.errors import TinydataError
from tinydata.tokenizers.base import NORMAL, Tokenizer, places
from tinydata.tokenizers.families.merging import build_tree, spell
from tinydata.tokenizers.kernels.merge_tree import Tree
from tinydata.tokenizers.probe import PROBE, agrees
from tinydata.verbs.compact.bpe_training import learn
from tinydata.verbs.compact.corpus_words import corpus_words
from tinydata.verbs.compact.domain_guard import MERGES, PRIOR, Emphasis, TracedTokenizer, guarded
from tinydata.verbs.compact.prune import Order, kept, merge_uses, removal_order
from tinydata.verbs.compact.tradeoff import Heldout
from tinydata.verbs.compact.training_text import Spelling, spelled, symbols_of, tally
from tinydata.verbs.compact.word_collector import Words

SHOWN = 20  # learned tokens in the manifest and on the console


class Adaptation(NamedTuple):
    """An adapted vocabulary and the facts about it for the manifest."""

    small: Tokenizer
    origin: np.ndarray  # int64[ids]: old id; -1: learned
    facts: dict[str, Any]


class StartingPoint(NamedTuple):
    """The vocabulary pruned to the size, and the words of the corpus as it spells them."""

    tokenizer: Any  # base.Extendable
    origin: np.ndarray  # int64[ids]: old id
    tree: Tree
    words: Words
    spelling: Spelling


def adapt(
    big: Tokenizer,
    manifest: dict[str, Any],
    domains: pa.Table,
    order: Order,
    locked: np.ndarray,
    size: int,
    heldout: Heldout,
) -> Adaptation:
    """Manifest and DOMAINS of the counts, removal order, locked bool[old ids] -> Adaptation of `size` ids.

    Raises TinydataError if nothing can be added to the tokenizer, or the corpus cannot be read any more.
    """
    old = np.flatnonzero(kept(big, order, size))
    small = big.subset(old)
    _check(small)
    words, weights = corpus_words(manifest, domains, big, small)
    start = StartingPoint(small, big.order(old), build_tree(small), words, spelled(words, small))
    prior = _zipf(big, start, weights)

    def attempt(emphasis: Emphasis, most: int = MERGES) -> TracedTokenizer:
        return swap(start, emphasis.weights, emphasis.prior * prior, locked, most)

    if heldout.measurable:
        pruned, names = TracedTokenizer(small, start.origin), domains["domain"].to_pylist()
        adapted, origin, guard = guarded(pruned, attempt, weights, heldout, names)
        return Adaptation(adapted, origin, _facts(adapted, origin, words, guard))
    adapted, origin = attempt(Emphasis(weights, PRIOR))
    return Adaptation(adapted, origin, _facts(adapted, origin, words, None))


def swap(
    start: StartingPoint, weights: np.ndarray, prior: np.ndarray, locked: np.ndarray, most: int = MERGES
) -> TracedTokenizer:
    """Replaces old pieces by learned ones; at most `most` merges are learned.

    weights float64[domains] of their words, prior float64[old ids]: assumed uses, locked bool[old ids]: cannot be
    replaced -> a vocabulary of the same size.
    """
    tok, (ids, word), count = start.tokenizer, start.spelling, start.words.weighted(weights)
    ids = ids.copy()
    assumed = np.rint(prior).astype(np.int64)
    uses = tally(ids, word, count, tok.size) + assumed[start.origin]
    order = removal_order(tok, start.tree, uses, locked[start.origin])
    price = np.maximum.accumulate(np.maximum(np.diff(order.cost, prepend=0), 1))
    merges = learn(ids, word, count, symbols_of(tok), price[: min(tok.size // 2, most)], tok.implied)
    m = len(merges.left)
    if not m:
        return TracedTokenizer(tok, start.origin)
    longer = tok.extended(list(zip(merges.left.tolist(), merges.right.tolist(), strict=True)))
    place = places(tok, m)
    origin = np.full(longer.size, -1, np.int64)
    origin[place[: tok.size]] = start.origin
    uses = np.zeros(longer.size, np.int64)
    uses[place] = tally(ids, word, count, len(place))
    old = origin >= 0
    uses[old] += assumed[origin[old]]
    order = removal_order(longer, build_tree(longer), uses, old & locked[origin])
    keep = np.flatnonzero(kept(longer, order, tok.size))
    return TracedTokenizer(longer.subset(keep), origin[longer.order(keep)])


def _check(small: Tokenizer) -> None:
    """Raises TinydataError unless merges can be added to the family and its text can be split into words."""
    why = small.why_not or ("" if agrees(small, PROBE) else "its ids on the built-in probe differ from the library's")
    if not small.family.endswith("-bpe") or not hasattr(small, "extended"):
        why = f"no merges can be added to the family {small.family}"
    if why:
        raise TinydataError(
            f"--adapt cannot add tokens to this tokenizer: {why}",
            fix="omit --adapt: pruning alone works with every tokenizer that `tinydata count` accepts",
        )


def _zipf(big: Tokenizer, start: StartingPoint, weights: np.ndarray) -> np.ndarray:
    """float64[old ids]: uses that a piece's rank alone would give it, if as much general text had been counted.

    By Zipf's law they are proportional to 1 / rank; the rank is the order of the ids, since merges were learned in the
    order of their frequency. Their sum is the number of merges in this corpus.
    """
    count = tally(*start.spelling, start.words.weighted(weights), len(start.origin))
    used = merge_uses(start.tokenizer, start.tree, count)
    merged = np.array([k == NORMAL and len(p) > 1 for k, p in zip(big.kinds.tolist(), big.pieces, strict=True)])
    rank = np.maximum(np.cumsum(merged), 1)
    return np.where(merged, used[merged[start.origin]].sum() / np.log(rank[-1] + 1) / rank, 0.0)


def _facts(small: Tokenizer, origin: np.ndarray, words: Words, guard: dict[str, Any] | None) -> dict[str, Any]:
    learned = np.flatnonzero(origin < 0)
    return {
        "learned": len(learned),
        "pruned_to": small.size - len(learned),
        "words": len(words),
        "top": [small.pieces[i].decode("utf-8", "replace") for i in learned[:SHOWN]],
        "heldout": guard,
    }


def learned_table(big: Tokenizer, adaptation: Adaptation) -> pa.Table:
    """Adaptation -> LEARNED: each learned id, the two ids it is merged from, and the old ids that spell it."""
    small = adaptation.small
    tree, new = build_tree(small), np.flatnonzero(adaptation.origin < 0)
    parts = [tree.parts[tree.offsets[i] : tree.offsets[i + 1]] for i in new]
    left, right = np.array([[p[0], p[1]] for p in parts], np.int32).reshape(-1, 2).T
    old = [p.tolist() for p in spell(big, [small.pieces[i] for i in new])]
    return pa.table([new.astype(np.int32), left, right, old], schema=schema.LEARNED)
