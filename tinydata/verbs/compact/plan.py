"""counts + big tokenizer -> the choice of a vocabulary: which pieces are kept, and the measured trade-off.

Leaf removal along the merge tree: among the kept pieces that no other kept piece is merged from, the one that is
cheapest to remove is removed, and its count is added to its parts. The cost is its count times the number of tokens
that it becomes, minus one. In effect, the merges that are performed least often are removed (see removal_order). The
parts of a kept piece are always kept, so no piece is dead. Keeping the most frequent ids instead (the paper's method,
`--method frequency`) leaves thousands of ids that can never be produced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core.errors import USAGE, TinydataError
from tinydata.core.location import Location, read_bytes, read_table
from tinydata.core.output import read_manifest
from tinydata.tokenizers.base import ADDED, BYTE, CONTROL, Tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.open import load, read_tokenizer
from tinydata.verbs.compact.adapt import Adaptation, adapt
from tinydata.verbs.compact.drop_tokens import dropped, idle
from tinydata.verbs.compact.prune import Order, kept, most_frequent, protected, real_size, removal_order
from tinydata.verbs.compact.tradeoff import Heldout, measure


class Goal(NamedTuple):
    """The target size, as exactly one of the first three fields (vocab -1: all ids), and how it is reached."""

    vocab: int = 0
    coverage: float = 0.0
    max_inflation: float = -1.0
    multiple_of: int = 1
    method: str = "leaf"  # or "frequency"
    min_per_domain: int = 0
    keep_tokens: tuple[str, ...] = ()
    adapt: bool = False
    drop_tokens: tuple[str, ...] = ()


class Counts(NamedTuple):
    """Output of `tinydata count` as arrays."""

    manifest: dict[str, Any]
    domains: list[str]
    train: np.ndarray  # int64[domains, ids], without held-out documents
    heldout: pa.Table  # HELDOUT
    domain_table: pa.Table  # DOMAINS
    occurs: np.ndarray  # bool[ids], in all documents


class Choice(NamedTuple):
    """A vocabulary that has been chosen but not written: what `--dry-run` prints."""

    big: Tokenizer
    small: Tokenizer
    keep: np.ndarray  # bool[ids]
    tradeoff: dict[str, Any]  # `trade` of the manifest
    order: Order
    top: int  # the most ids that it could have: without gaps and dropped tokens
    adapted: Adaptation | None = None


def open_counts(path: str) -> Counts:
    """COUNTS directory -> Counts; raises TinydataError for anything else."""
    manifest = read_manifest(path, "count")
    where = Location.of(path)
    rows = read_table(where / "counts.parquet")
    table = read_table(where / "domains.parquet")
    domains = table["domain"].to_pylist()
    train = np.zeros((len(domains), manifest["tokenizer"]["size"]), np.int64)
    which = pc.index_in(rows["domain"], pa.array(domains)).to_numpy()
    train[which, rows["token_id"].to_numpy()] = rows["count"].to_numpy() - rows["heldout"].to_numpy()
    occurs = np.zeros(train.shape[1], np.bool_)
    occurs[rows["token_id"].to_numpy()] = True
    return Counts(manifest, domains, train, read_table(where / "heldout.parquet"), table, occurs)


def choose(counts: Counts, tokenizer: str, goal: Goal, *, d_model: int = 2048) -> Choice:
    """Counts + path of the big tokenizer -> Choice, measured on the held-out text; writes nothing."""
    big = load(read_tokenizer(tokenizer), tokenizer)
    _same_tokenizer(counts, big, tokenizer)
    tree = big.tree()
    if goal.drop_tokens and goal.method != "leaf":
        raise TinydataError(
            f"--drop-tokens does not work with --method {goal.method}, which keeps all special tokens",
            fix="omit one of the two",
            code=USAGE,
        )
    drop = dropped(big, goal.drop_tokens, counts.occurs)
    top = real_size(big) - int(drop.sum())
    locked = protected(big, tree, counts.train, goal.keep_tokens, goal.min_per_domain) & ~drop
    order = removal_order(big, tree, counts.train.sum(0), locked, drop)
    heldout = Heldout(counts.heldout, big)
    size = target_size(big, counts, order, goal, heldout, top)
    keep = kept(big, order, size) if goal.method == "leaf" else most_frequent(big, counts.train.sum(0), size)
    adapted = adapt(big, counts.manifest, counts.domain_table, order, locked, size, heldout) if goal.adapt else None
    if adapted:
        keep = np.zeros(big.size, np.bool_)
        keep[adapted.origin[adapted.origin >= 0]] = True
    small = adapted.small if adapted else big.subset(np.flatnonzero(keep))
    tradeoff = measure(big, small, keep, counts.train.sum(0), heldout, d_model)
    tradeoff["predicted_inflation"] = _predicted(order, keep, counts) if goal.method == "leaf" and not adapted else None
    tradeoff["idle"] = idle(big, counts.occurs | drop)
    return Choice(big, small, keep, tradeoff, order, top, adapted)


def read_drop_tokens(given: str) -> tuple[str, ...]:
    """Value of --drop-tokens -> its lines: of a file, or, if there is no such file, patterns separated by commas."""
    if given and not Location.of(given).exists():
        return tuple(filter(None, given.split(",")))
    return read_keep_tokens(given)


def read_keep_tokens(path: str) -> tuple[str, ...]:
    """File of --keep-tokens, one token per line -> the tokens."""
    return tuple(t for t in read_bytes(Location.of(path)).decode().split("\n") if t) if path else ()


def _same_tokenizer(counts: Counts, big: Tokenizer, path: str) -> None:
    counted = counts.manifest["tokenizer"]
    if counted["fingerprint"] != tokenizer_fingerprint(big):
        raise TinydataError(
            f"the counts were computed with a different tokenizer: {counted['path']}"
            f" ({counted['family']}, {counted['size']:,} ids,"
            f" fingerprint {counted['fingerprint'][:8]})",
            where=f"{path} ({big.family}, {big.size:,} ids, fingerprint {tokenizer_fingerprint(big)[:8]})",
            fix="pass the tokenizer that the counts were computed with, or count again with this one",
        )


# -- target size ------------------------------------------------------------------------------


def target_size(big: Tokenizer, counts: Counts, order: Order, goal: Goal, heldout: Heldout, top: int) -> int:
    """Goal -> number of ids, a multiple of `multiple_of` (rounded up, never beyond the `top` that there are)."""
    floor = big.size - len(order.removed)
    if goal.method == "frequency" and not goal.vocab:
        raise TinydataError(
            "--method frequency works only with --vocab: the other targets are found in the order of leaf removal",
            fix="pass --vocab, for example with the size that leaf removal found",
        )
    if goal.vocab:
        size = goal.vocab if goal.vocab > 0 else top
        _check_size(size, floor, top, big)
    elif goal.coverage:
        train = counts.train.sum(0)
        lost = np.cumsum(train[order.removed])
        steps = int(np.searchsorted(lost, (1 - goal.coverage) * train.sum(), side="right"))
        size = big.size - steps
    else:
        size = _within_inflation(big, order, goal.max_inflation, floor, top, heldout)
    return min(-(-size // goal.multiple_of) * goal.multiple_of, top)


def _check_size(size: int, floor: int, top: int, big: Tokenizer) -> None:
    if size > top:
        raise TinydataError(
            f"--vocab {size:,} is more than the {top:,} ids of the original tokenizer"
            + (" without --drop-tokens" if top < real_size(big) else ""),
            fix=f"pass a size below {top:,}, or look at `--curve`",
        )
    if size < floor:
        special = int((big.kinds == CONTROL).sum())
        raise TinydataError(
            f"--vocab {size:,} is less than the {floor:,} ids that must be kept ({special} special,"
            f" {int((big.kinds == BYTE).sum())} bytes, {int((big.kinds == ADDED).sum())} added, the rest characters"
            " and the tokens that --keep-tokens or --min-per-domain protect, with their parts)",
            fix=f"pass --vocab {floor:,} or more",
        )


def _within_inflation(big: Tokenizer, order: Order, limit: float, floor: int, top: int, heldout: Heldout) -> int:
    """The smallest size whose inflation, measured on the held-out text, is within the limit."""
    if not heldout.measurable:
        raise TinydataError(
            "--max-inflation needs held-out text to measure inflation, and the counts contain none",
            fix="count more text or a larger --heldout share, or pass --vocab",
        )
    low, high = floor, top  # high is always within the limit
    while high - low > 64:
        middle = (low + high) // 2
        if heldout.inflation(kept(big, order, middle)) <= limit:
            high = middle
        else:
            low = middle
    return high


def _predicted(order: Order, keep: np.ndarray, counts: Counts) -> float:
    steps = int((~keep).sum())
    total = int(counts.train.sum())
    return float(order.cost[steps - 1] / total) if steps and total else 0.0


def curve(
    choice: Choice, counts: Counts, d_model: int, progress: Callable[[int], None] = lambda n: None
) -> list[dict[str, Any]]:
    """Choice and counts -> inflation on held-out text, coverage and parameters at a range of vocabulary sizes."""
    big, order = choice.big, choice.order
    heldout = Heldout(counts.heldout, big)
    floor, top = big.size - len(order.removed), choice.top
    train = counts.train.sum(0)
    grid = {round(top * k / 16) for k in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)} | {choice.small.size, top}
    points = []
    for size in sorted(s for s in grid if floor <= s <= top):
        keep = kept(big, order, size)
        points.append(
            {
                "vocab": size,
                "inflation": heldout.inflation(keep) if heldout.measurable else None,
                "coverage": float(train[keep].sum() / max(train.sum(), 1)),
                "embedding_and_head_parameters": 2 * size * d_model,
            }
        )
        progress(1)
    return points
