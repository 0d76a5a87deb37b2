"""Attempts at an adapted vocabulary -> the shortest one that makes no domain much longer than pruning alone does.

Learning from the whole corpus can make a domain that is rare in it longer. So the words of such domains get more
weight, and after every second attempt the prior of the old pieces is increased too. If that does not suffice, fewer
merges are learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinydata.tokenizers.base import Tokenizer
from tinydata.verbs.compact.tradeoff import Heldout

# Of a domain's tokens, and twice the 0.5 % that are two standard errors where it has LEAST of them: with half of it,
# ten attempts did not bring OLMo at 33,333 within it, for one domain of English web text.
BOUND = 0.01
LEAST = 10_000  # held-out tokens; domains with fewer are taken together
ATTEMPTS = 6  # with all merges
HALVINGS = 4  # of the number of merges, after that
MERGES = 1 << 40  # without a limit
# Uses of old pieces as if general text had been counted too, this share of the corpus. A quarter learns more (InternLM
# to 48,000: 1.0 points shorter) but Korean that was not counted became 10.8 points longer than by pruning alone; at 1
# it becomes shorter.
PRIOR = 1.0


class Emphasis(NamedTuple):
    """What protects text that is rare in the corpus."""

    weights: np.ndarray  # float64[domains]: of their words
    prior: float  # factor of the prior counts of old pieces


class TracedTokenizer(NamedTuple):
    """A vocabulary, and where its ids come from."""

    small: Tokenizer
    origin: np.ndarray  # int64[ids]: old id; -1: learned


class GuardedVocabulary(NamedTuple):
    """The chosen vocabulary, and what it cost to protect the domains."""

    small: Tokenizer
    origin: np.ndarray  # int64[ids]: old id; -1: learned
    facts: dict[str, Any]  # `adapted.heldout` of the manifest


class _Attempt(NamedTuple):
    """A vocabulary, its tokens of the held-out text, and how far its domains are beyond BOUND."""

    emphasis: Emphasis
    traced: TracedTokenizer
    tokens: np.ndarray  # int64[held-out domains]
    excess: np.ndarray  # float64[groups of domains]

    @property
    def worst(self) -> float:
        return float(self.excess.max())

    @property
    def within_bound(self) -> bool:
        return self.worst <= 0


class _Groups(NamedTuple):
    """The held-out domains, of which those with few tokens are group 0 together."""

    names: list[str]
    of: np.ndarray  # int64[held-out domains]
    big: np.ndarray  # float64[groups]: tokens under the big tokenizer, at least 1
    pruned: np.ndarray  # int64[held-out domains]: tokens after pruning alone

    def change(self, tokens: np.ndarray) -> np.ndarray:
        """tokens int64[held-out domains] -> float64[groups]: how much longer than after pruning alone."""
        return np.bincount(self.of, tokens - self.pruned) / self.big

    def worst(self, tokens: np.ndarray) -> dict[str, Any]:
        """The domain that became longest compared with pruning alone."""
        change = self.change(tokens)
        used = [g for g in range(len(change)) if g or not self.of.all()]
        worst = max(used, key=change.__getitem__)
        return {"domain": self.names[worst], "against_pruned_only": float(change[worst])}


def guarded(
    pruned: TracedTokenizer,
    adapt: Callable[[Emphasis, int], TracedTokenizer],
    weights: np.ndarray,
    heldout: Heldout,
    domains: list[str],
) -> GuardedVocabulary:
    """weights float64[domains]: what a word of each stands for -> the shortest attempt within BOUND, or `pruned`.

    adapt: (emphasis, limit of the number of merges) -> vocabulary. It is called up to ATTEMPTS times, each time with
    more weight for the domains beyond BOUND. Then the attempt that came closest is repeated HALVINGS times with fewer
    merges, by bisection.
    """
    groups = _groups(heldout, pruned.small)

    def attempt(emphasis: Emphasis, most: int = MERGES) -> _Attempt:
        traced = adapt(emphasis, most)
        tokens = heldout.count(traced.small).sum(1)
        return _Attempt(emphasis, traced, tokens, groups.change(tokens) - BOUND)

    place = np.array([domains.index(d) for d in heldout.domains])
    attempts = [attempt(Emphasis(weights, PRIOR))]
    while not attempts[-1].within_bound and len(attempts) < ATTEMPTS:
        attempts.append(attempt(_stronger(attempts[-1], groups, place, len(attempts))))
    closest = attempts[-1]
    fewer_merges = not closest.within_bound
    if fewer_merges:
        closest = min(attempts, key=lambda a: a.worst)
        attempts += _with_fewer_merges(closest, attempt)
    alone = attempts[0]._replace(traced=pruned, tokens=groups.pruned)
    best = min([*(a for a in attempts if a.within_bound), alone], key=lambda a: int(a.tokens.sum()))
    total = max(int(heldout.tokens.sum()), 1)
    raised = closest.emphasis.weights / weights
    facts = {
        "inflation": float(best.tokens.sum() / total - 1),
        "inflation_pruned_only": float(groups.pruned.sum() / total - 1),
        "worst_domain": groups.worst(best.tokens),
        "guard": {
            "attempts": len(attempts),
            "fewer_merges": fewer_merges,
            "cost": float((best.tokens.sum() - attempts[0].tokens.sum()) / total),
            "prior": closest.emphasis.prior,
            "weights": {domains[d]: float(w) for d, w in enumerate(raised) if w > 1},
        },
    }
    return GuardedVocabulary(*best.traced, facts)


def _groups(heldout: Heldout, pruned: Tokenizer) -> _Groups:
    tokens = heldout.tokens.sum(1)
    few = tokens < LEAST
    of = np.where(few, 0, np.cumsum(~few))
    names = ["domains with little held-out text", *(d for d, f in zip(heldout.domains, few, strict=True) if not f)]
    return _Groups(names, of, np.maximum(np.bincount(of, tokens), 1), heldout.count(pruned).sum(1))


def _stronger(last: _Attempt, groups: _Groups, place: np.ndarray, attempts: int) -> Emphasis:
    """More weight for the domains beyond BOUND; place int64[held-out domains]: where they are among all domains."""
    excess = last.excess[groups.of]
    worse = excess > 0
    weights = last.emphasis.weights.copy()
    weights[place[worse]] *= np.clip(1 + excess[worse] / 0.01, 1.3, 4)
    return Emphasis(weights, last.emphasis.prior * (1.0 if attempts % 2 else 1.4))


def _with_fewer_merges(closest: _Attempt, attempt: Callable[[Emphasis, int], _Attempt]) -> list[_Attempt]:
    """HALVINGS attempts, ever closer to the largest number of merges with which all domains are within BOUND."""
    attempts: list[_Attempt] = []
    least, most = 0, int((closest.traced.origin < 0).sum())
    for _ in range(HALVINGS):
        middle = (least + most) // 2
        attempts.append(attempt(closest.emphasis, middle))
        if attempts[-1].within_bound:
            least = middle
        else:
            most = middle
    return attempts
