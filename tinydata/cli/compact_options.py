"""The options of `tinydata compact` that decide which tokens stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tinydata.cli.options import gathered

if TYPE_CHECKING:
    from tinydata.verbs.compact.plan import Goal


@dataclass(frozen=True)
class GoalOptions:
    """How large the vocabulary is, and how its tokens are chosen."""

    vocab: int | None
    coverage: float | None
    max_inflation: float | None
    multiple_of: int
    keep_tokens: str
    drop_tokens: str
    min_per_domain: int
    method: str
    adapt: bool

    @property
    def sized(self) -> int:
        """How many of the three options that set the size were given."""
        return [v is not None for v in (self.vocab, self.coverage, self.max_inflation)].count(True)

    def goal(self, curve: bool) -> Goal:
        """The goal of the verb; a usage error if the options contradict one another."""
        from tinydata.verbs.compact.plan import Goal, read_drop_tokens, read_keep_tokens

        if self.sized > 1 or not (self.sized or curve):
            raise click.UsageError(
                "set the size with exactly one of --vocab, --coverage and --max-inflation (--curve compares sizes)"
            )
        if self.adapt and (not self.vocab or self.method != "leaf"):
            raise click.UsageError("--adapt needs --vocab, and does not work with --method frequency")
        return Goal(
            self.vocab or (0 if self.sized else -1),
            self.coverage or 0.0,
            self.max_inflation if self.max_inflation is not None else -1.0,
            self.multiple_of,
            self.method,
            self.min_per_domain,
            read_keep_tokens(self.keep_tokens),
            self.adapt,
            read_drop_tokens(self.drop_tokens),
        )


goal_options = gathered(
    "goal",
    GoalOptions,
    vocab=click.option(
        "--vocab", type=click.IntRange(1), default=None, help="Number of ids in the compact vocabulary."
    ),
    coverage=click.option(
        "--coverage",
        type=click.FloatRange(0, 1, min_open=True),
        default=None,
        help="Instead of --vocab: share of the corpus's tokens that must stay unchanged.",
    ),
    max_inflation=click.option(
        "--max-inflation",
        type=click.FloatRange(0),
        default=None,
        help="Instead of --vocab: how many more tokens the held-out text may need (0.02 means 2% more).",
    ),
    multiple_of=click.option(
        "--multiple-of", type=click.IntRange(1), default=1, help="Round the number of ids up to a multiple of this."
    ),
    keep_tokens=click.option(
        "--keep-tokens",
        type=click.Path(),
        default="",
        help="File of tokens that are never removed, one per line, each as its text or as #ID.",
    ),
    drop_tokens=click.option(
        "--drop-tokens",
        default="",
        help="Special or added tokens to remove: patterns such as '<unused*>', separated by commas, or a file of them,"
        " one per line. Tokens that occur in the corpus, or that the tokenizer's files name, are refused.",
    ),
    min_per_domain=click.option(
        "--min-per-domain",
        type=click.IntRange(0),
        default=0,
        help="Keep at least this many of the most frequent ids of each domain.",
    ),
    method=click.option(
        "--method",
        type=click.Choice(["leaf", "frequency"]),
        default="leaf",
        show_default=True,
        help="How tokens are chosen. Use frequency, the method of the paper, only for comparisons.",
    ),
    adapt=click.option(
        "--adapt",
        is_flag=True,
        help="Replace some ids by new merges learned from the corpus, which is read again. Needs --vocab.",
    ),
)
