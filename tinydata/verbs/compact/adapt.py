"""pruned vocabulary + words of the corpus -> vocabulary of the same size, partly learned, that spells them shorter.

Keeping and learning are one optimisation. The cost of an old leaf is that of `removal_order`; the gain
of a learned merge (BPE on the distinct words, starting from the pruned vocabulary) is the count of its
pair. Merges are learned as long as the next one gains more than the next leaf costs; then old and
learned pieces together are pruned back to the size, which also removes old pieces that learning made
superfluous.

Two mechanisms protect text that is rare in the corpus. The count of an old piece is increased by a
prior that falls with its rank, because the training text of the big tokenizer contained it about that
often. And no domain of the held-out text may become more than BOUND longer than with pruning alone:
the weights of its words, and the prior, are increased until that holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core import schema
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.hashing import held_out
from tinydata.core.kernels import buffers
from tinydata.formats.base import Split, Wanted
from tinydata.formats.corpus import plan, read
from tinydata.tokenizers.base import NORMAL, Tokenizer, places
from tinydata.tokenizers.decoder import decoder
from tinydata.tokenizers.families.merging import build_tree, spell
from tinydata.tokenizers.kernels.merge_tree import Tree
from tinydata.tokenizers.probe import PROBE, agrees
from tinydata.tokenizers.special_tokens import id_facts
from tinydata.verbs.compact.bpe_training import learn, merges_are_implied, spelled, symbols_of, tally
from tinydata.verbs.compact.prune import Order, kept, merge_uses, removal_order
from tinydata.verbs.compact.tradeoff import Heldout
from tinydata.verbs.compact.word_collector import Collected, WordCollector

SAMPLE_BYTES = 256 << 20  # of text that is learned from
STRETCH_BYTES = 4 << 20  # least that is read of a split
# Uses of old pieces as if general text had been counted too, this share of the corpus. A quarter learns more (InternLM
# to 48,000: 1.0 points shorter) but Korean that was not counted became 10.8 points longer than by pruning alone; at 1
# it becomes shorter.
PRIOR = 1.0
# Of a domain's tokens, and twice the 0.5 % that are two standard errors where it has LEAST of them: with half of it,
# ten attempts did not get OLMo at 33,333 within it, for one domain of English web text.
BOUND = 0.01
LEAST = 10_000  # held-out tokens; domains with fewer are taken together
ATTEMPTS = 6  # at keeping every domain within BOUND by weighing
HALVINGS = 4  # and then of the number of merges
MERGES = 1 << 40  # without a limit
SHOWN = 20  # learned tokens in the manifest and on the console


class Adapted(NamedTuple):
    """An adapted vocabulary and the facts about it for the manifest."""

    small: Tokenizer
    origin: np.ndarray  # int64[ids]: old id, -1 of a learned piece
    facts: dict[str, Any]


class Pruned(NamedTuple):
    """The starting point: the vocabulary pruned to the size, and the words of the corpus as it spells them."""

    tokenizer: Any  # base.Extendable
    origin: np.ndarray  # int64[ids]: old id
    tree: Tree
    words: Collected
    ids: np.ndarray  # these two: as learn.spelled
    word: np.ndarray


def adapt(
    big: Tokenizer,
    manifest: dict[str, Any],
    domains: pa.Table,
    order: Order,
    locked: np.ndarray,
    size: int,
    heldout: Heldout,
) -> Adapted:
    """Manifest and DOMAINS of the counts, removal order, locked bool[old ids] -> Adapted of `size` ids.

    Raises TinydataError if nothing can be added to the tokenizer, or the corpus cannot be read any more.
    """
    old = np.flatnonzero(kept(big, order, size))
    small = big.subset(old)
    _check(small)
    words, weights = corpus_words(manifest, domains, big, small)
    start = Pruned(small, big.order(old), build_tree(small), words, *spelled(words, small))
    prior = _zipf(big, start, weights)
    if heldout.measurable:
        small, origin, guard = _guarded(start, weights, prior, locked, heldout, domains["domain"].to_pylist())
    else:
        small, origin = swap(start, weights, PRIOR * prior, locked)
        guard = None
    return Adapted(small, origin, _facts(small, origin, words, guard))


def swap(
    start: Pruned, weights: np.ndarray, prior: np.ndarray, locked: np.ndarray, most: int = MERGES
) -> tuple[Tokenizer, np.ndarray]:
    """weights float64[domains], prior float64[old ids], locked bool[old ids] -> (vocabulary of that size, origin).

    At most `most` merges are learned.
    """
    tok, count = start.tokenizer, start.words.weighted(weights)
    ids = start.ids.copy()
    believed = np.rint(prior).astype(np.int64)
    seen = tally(ids, start.word, count, tok.size)
    order = removal_order(tok, start.tree, seen + believed[start.origin], locked[start.origin])
    price = np.maximum.accumulate(np.maximum(np.diff(order.cost, prepend=0), 1))
    merges = learn(ids, start.word, count, symbols_of(tok), price[: min(tok.size // 2, most)], merges_are_implied(tok))
    m = len(merges.left)
    if not m:
        return tok, start.origin
    longer = tok.extended(list(zip(merges.left.tolist(), merges.right.tolist(), strict=True)))
    place = places(tok, m)
    origin = np.full(longer.size, -1, np.int64)
    origin[place[: tok.size]] = start.origin
    seen = np.zeros(longer.size, np.int64)
    seen[place] = tally(ids, start.word, count, len(place))
    was = origin >= 0
    seen[was] += believed[origin[was]]
    order = removal_order(longer, build_tree(longer), seen, was & locked[origin])
    keep = np.flatnonzero(kept(longer, order, tok.size))
    return longer.subset(keep), origin[longer.order(keep)]


def _check(small: Tokenizer) -> None:
    """Raises TinydataError unless merges can be added to the family and text splits into words reliably."""
    why = small.why_not or ("" if agrees(small, PROBE) else "its ids on the built-in probe differ from the library's")
    if not small.family.endswith("-bpe") or not hasattr(small, "extended"):
        why = f"no merges can be added to the family {small.family}"
    if why:
        raise TinydataError(
            f"--adapt cannot add tokens to this tokenizer: {why}",
            fix="omit --adapt: pruning alone works with every tokenizer that `tinydata count` accepts",
        )


def _zipf(big: Tokenizer, start: Pruned, weights: np.ndarray) -> np.ndarray:
    """float64[old ids]: uses that a piece's rank alone would give it, if as much general text had been counted.

    Zipf's law: as 1 / rank; in all, what merging is done here. Earlier ids are merges that were more frequent.
    """
    count = tally(start.ids, start.word, start.words.weighted(weights), len(start.origin))
    used = merge_uses(start.tokenizer, start.tree, count)
    merged = np.array([k == NORMAL and len(p) > 1 for k, p in zip(big.kinds.tolist(), big.pieces, strict=True)])
    rank = np.maximum(np.cumsum(merged), 1)
    return np.where(merged, used[merged[start.origin]].sum() / np.log(rank[-1] + 1) / rank, 0.0)


class _Try(NamedTuple):
    """A vocabulary, the held-out text under it, and how far the worst domain is beyond BOUND."""

    small: Tokenizer
    origin: np.ndarray
    tokens: np.ndarray  # int64[held-out domains]
    excess: np.ndarray  # float64[groups of domains]


def _guarded(
    start: Pruned, weights: np.ndarray, prior: np.ndarray, locked: np.ndarray, heldout: Heldout, domains: list[str]
) -> tuple[Tokenizer, np.ndarray, dict[str, Any]]:
    """-> (vocabulary, origin, what the guard did): no domain of the held-out text beyond BOUND.

    Domains beyond it get more weight, ATTEMPTS times. Then the attempt that came closest is made again
    with fewer merges, their number bisected HALVINGS times. The shortest of those within BOUND is
    taken; pruning alone is one of them.
    """
    tokens, pruned = heldout.tokens.sum(1), heldout.count(start.tokenizer).sum(1)
    few = tokens < LEAST
    group = np.where(few, 0, np.cumsum(~few))
    whole = np.maximum(np.bincount(group, tokens), 1)
    where = np.array([domains.index(d) for d in heldout.domains])
    tries: list[_Try] = []

    def attempt(weights: np.ndarray, strength: float, most: int = MERGES) -> _Try:
        small, origin = swap(start, weights, strength * prior, locked, most)
        after = heldout.count(small).sum(1)
        tries.append(_Try(small, origin, after, np.bincount(group, after - pruned) / whole - BOUND))
        return tries[-1]

    raised, strength = [weights.copy()], [PRIOR]
    while (latest := attempt(raised[-1], strength[-1])).excess.max() > 0 and len(tries) < ATTEMPTS:
        worse = latest.excess[group] > 0
        more = raised[-1].copy()
        more[where[worse]] *= np.clip(1 + latest.excess[group[worse]] / 0.01, 1.3, 4)
        raised.append(more)
        strength.append(strength[-1] * (1.0 if len(tries) % 2 else 1.4))
    used = len(tries) - 1
    if latest.excess.max() > 0:
        used = min(range(len(tries)), key=lambda k: float(tries[k].excess.max()))
        merges = int((tries[used].origin < 0).sum())
        _bisect(merges, lambda most: attempt(raised[used], strength[used], most).excess.max() <= 0)
    alone = _Try(start.tokenizer, start.origin, pruned, np.zeros(len(whole)))
    best = min([*(t for t in tries if t.excess.max() <= 0), alone], key=lambda t: int(t.tokens.sum()))
    change = np.bincount(group, best.tokens - pruned) / whole
    names = ["domains with little held-out text", *(d for d, f in zip(heldout.domains, few, strict=True) if not f)]
    worst = max(range(int(not few.any()), len(change)), key=change.__getitem__)
    total = max(int(tokens.sum()), 1)
    return (
        best.small,
        best.origin,
        {
            "inflation": float(best.tokens.sum() / total - 1),
            "inflation_pruned_only": float(pruned.sum() / total - 1),
            "worst_domain": {"domain": names[worst], "against_pruned_only": float(change[worst])},
            "guard": {
                "attempts": len(tries),
                "fewer_merges": bool(latest.excess.max() > 0),
                "cost": float((best.tokens.sum() - tries[0].tokens.sum()) / total),
                "prior": strength[used],
                "weights": {domains[d]: float(w) for d, w in enumerate(raised[used] / weights) if w > 1},
            },
        },
    )


def _bisect(most: int, within: Callable[[int], bool]) -> None:
    """Asks `within` HALVINGS times, ever closer to the largest number below `most` for which it is true."""
    least = 0
    for _ in range(HALVINGS):
        middle = (least + most) // 2
        if within(middle):
            least = middle
        else:
            most = middle


def _facts(small: Tokenizer, origin: np.ndarray, words: Collected, guard: dict[str, Any] | None) -> dict[str, Any]:
    learned = np.flatnonzero(origin < 0)
    return {
        "learned": len(learned),
        "pruned_to": small.size - len(learned),
        "words": len(words),
        "top": [small.pieces[i].decode("utf-8", "replace") for i in learned[:SHOWN]],
        "heldout": guard,
    }


def learned_table(big: Tokenizer, adapted: Adapted) -> pa.Table:
    """LEARNED."""
    small = adapted.small
    tree, new = build_tree(small), np.flatnonzero(adapted.origin < 0)
    parts = [tree.parts[tree.offsets[i] : tree.offsets[i + 1]] for i in new]
    left, right = np.array([[p[0], p[1]] for p in parts], np.int32).reshape(-1, 2).T
    old = [p.tolist() for p in spell(big, [small.pieces[i] for i in new])]
    return pa.table([new.astype(np.int32), left, right, old], schema=schema.LEARNED)


# -- the corpus again -------------------------------------------------------------------------


def corpus_words(
    manifest: dict[str, Any], domains: pa.Table, big: Tokenizer, small: Tokenizer
) -> tuple[Collected, np.ndarray]:
    """-> (words of a sample of the counted corpus by domain, float64[domains]: what each stands for).

    If the corpus is larger than SAMPLE_BYTES, only the beginning of each split is used. Held-out documents are skipped.
    """
    options = manifest["options"]
    columns = {n: options[f"{n}_column"] for n in ("text", "ids", "domain", "doc_id") if f"{n}_column" in options}
    wanted = Wanted(**columns, dtype=options.get("dtype", ""), **id_facts(big))
    try:
        splits = plan(options["corpus"], wanted).splits
    except TinydataError as e:
        raise _unreadable_corpus(options["corpus"], e.what) from None
    names = {d: i for i, d in enumerate(domains["domain"].to_pylist())}
    collector = WordCollector(small)
    collector.grow(len(names))
    size = np.zeros(len(names), np.int64)
    for k, split in enumerate(sorted(splits, key=_shuffled)):
        share = max((SAMPLE_BYTES - int(size.sum())) // (len(splits) - k), STRETCH_BYTES)
        if size.sum() < SAMPLE_BYTES:
            _collect(split, share, options["heldout"], big, names, collector, size)
    train = domains["bytes"].to_numpy() - domains["heldout_bytes"].to_numpy()
    words = collector.collected()
    if not len(words):
        raise _unreadable_corpus(options["corpus"], "it contains no text outside the held-out documents")
    return words, np.maximum(train, 1) / np.maximum(size, 1)


def _shuffled(split: Split) -> bytes:
    return hashlib.blake2b(f"{split.name} {split.start}".encode(), digest_size=8).digest()


def _unreadable_corpus(corpus: list[str], why: str) -> TinydataError:
    return TinydataError(
        f"--adapt learns from the counted corpus, which cannot be read: {why}",
        where=", ".join(corpus),
        fix="run this where the corpus is available under the path it was counted from, or omit --adapt",
        code=UNREADABLE,
    )


def _collect(
    split: Split,
    share: int,
    heldout: float,
    big: Tokenizer,
    names: dict[str, int],
    collector: WordCollector,
    size: np.ndarray,
) -> None:
    """Adds the words of a split's first `share` bytes of text; size int64[domains] grows by what was read."""
    before = int(size.sum())
    for batch in read(split, lambda position, reason, excerpt: None):
        rows = np.flatnonzero(~held_out(batch, heldout))
        labels = batch.column("domain")
        known = np.array([names.get(d, -1) for d in labels.dictionary.to_pylist()], np.int32)
        groups = known[labels.indices.to_numpy()]
        rows = rows[groups[rows] >= 0]
        texts, rows = _texts(batch, rows, big)
        lengths = np.diff(buffers(texts)[0])
        size += np.bincount(groups[rows], lengths, len(size)).astype(np.int64)
        if len(rows):
            collector.add(texts, groups[rows])
        if size.sum() - before >= share:
            return


def _texts(batch: pa.RecordBatch, rows: np.ndarray, big: Tokenizer) -> tuple[pa.StringArray, np.ndarray]:
    """Documents `rows` of TEXT or TOKENS -> (string[m], which rows they are): those with ids outside are left out."""
    body = batch.column(3)
    if batch.schema.names[3] == "text":
        return body.take(pa.array(rows)), rows
    offsets, values = body.offsets.to_numpy().astype(np.int64), body.values.to_numpy()
    wrong = np.concatenate([[0], np.cumsum(np.abs(values.astype(np.int64)) >= big.size)])
    rows = rows[wrong[offsets[rows + 1]] == wrong[offsets[rows]]]
    return decoder(big).texts(values, offsets, rows), rows
