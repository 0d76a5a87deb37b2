"""counts + big tokenizer -> vocabulary: the compact tokenizer, the id map, and the measured trade.

Leaf removal along the merge tree: among the kept pieces that no kept piece is merged from, the
one whose removal costs least goes (its count x the tokens it becomes, less one), and its count
flows to its parts. That is: the merges performed least often go (see removal_order). A kept piece
always keeps what it is merged from, so none is dead. Keeping the most frequent ids instead (the
paper's way, `--method frequency`) leaves thousands that can never be produced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core.errors import TinydataError
from tinydata.core.location import Location, read_bytes, read_table
from tinydata.core.output import read_manifest
from tinydata.tokenizers.base import ADDED, BYTE, CONTROL, Tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.open import load, read_tokenizer
from tinydata.verbs.compact.adapt import Adapted, adapt
from tinydata.verbs.compact.prune import Order, kept, most_frequent, protected, real_size, removal_order
from tinydata.verbs.compact.tradeoff import Heldout, measure


class Goal(NamedTuple):
    """How far to go: exactly one of the first three; vocab -1 stands for all."""

    vocab: int = 0
    coverage: float = 0.0
    max_inflation: float = -1.0
    multiple_of: int = 1
    method: str = "leaf"  # or "frequency"
    min_per_domain: int = 0
    keep_tokens: tuple[str, ...] = ()
    adapt: bool = False


class Counts(NamedTuple):
    """What `tinydata count` wrote, as arrays."""

    manifest: dict[str, Any]
    domains: list[str]
    train: np.ndarray  # int64[domains, ids], held-out slice taken off
    heldout: pa.Table  # HELDOUT
    table: pa.Table  # DOMAINS


class Choice(NamedTuple):
    """A vocabulary that is decided but not written: what `--dry-run` prints."""

    big: Tokenizer
    small: Tokenizer
    keep: np.ndarray  # bool[ids]
    trade: dict[str, Any]
    order: Order
    adapted: Adapted | None = None


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
    return Counts(manifest, domains, train, read_table(where / "heldout.parquet"), table)


def choose(counts: Counts, tokenizer: str, goal: Goal, *, d_model: int = 2048) -> Choice:
    """Counts + path of the big tokenizer -> Choice, measured on the held-out text; writes nothing."""
    big = load(read_tokenizer(tokenizer), tokenizer)
    _same_tokenizer(counts, big, tokenizer)
    tree = big.tree()
    locked = protected(big, tree, counts.train, goal.keep_tokens, goal.min_per_domain)
    order = removal_order(big, tree, counts.train.sum(0), locked)
    held = Heldout(counts.heldout, big)
    size = wanted_size(big, counts, order, goal, held)
    keep = kept(big, order, size) if goal.method == "leaf" else most_frequent(big, counts.train.sum(0), size)
    adapted = adapt(big, counts.manifest, counts.table, order, locked, size, held) if goal.adapt else None
    if adapted:
        keep = np.zeros(big.size, np.bool_)
        keep[adapted.origin[adapted.origin >= 0]] = True
    small = adapted.small if adapted else big.subset(np.flatnonzero(keep))
    trade = measure(big, small, keep, counts.train.sum(0), held, d_model)
    trade["predicted_inflation"] = _predicted(order, keep, counts) if goal.method == "leaf" and not adapted else None
    return Choice(big, small, keep, trade, order, adapted)


def read_keep_tokens(path: str) -> tuple[str, ...]:
    """File of --keep-tokens, one token a line -> the tokens."""
    return tuple(t for t in read_bytes(Location.of(path)).decode().split("\n") if t) if path else ()


def _same_tokenizer(counts: Counts, big: Tokenizer, path: str) -> None:
    made = counts.manifest["tokenizer"]
    if made["fingerprint"] != tokenizer_fingerprint(big):
        raise TinydataError(
            f"the counts are of another tokenizer: {made['path']} ({made['family']}, {made['size']:,} ids,"
            f" fingerprint {made['fingerprint'][:8]})",
            where=f"{path} ({big.family}, {big.size:,} ids, fingerprint {tokenizer_fingerprint(big)[:8]})",
            fix="pass the tokenizer that was counted with, or count again with this one",
        )


# -- how far to go ----------------------------------------------------------------------------


def wanted_size(big: Tokenizer, counts: Counts, order: Order, goal: Goal, held: Heldout) -> int:
    """Goal -> number of ids, a multiple of `multiple_of` (rounded up, never beyond the big tokenizer)."""
    floor, top = big.size - len(order.removed), real_size(big)
    if goal.method == "frequency" and not goal.vocab:
        raise TinydataError(
            "--method frequency goes with --vocab: the other goals are searched along the order of leaf removal",
            fix="pass --vocab, with the size that the other method came to",
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
        size = _within_inflation(big, order, goal.max_inflation, floor, top, held)
    return min(-(-size // goal.multiple_of) * goal.multiple_of, top)


def _check_size(size: int, floor: int, top: int, big: Tokenizer) -> None:
    if size > top:
        raise TinydataError(
            f"--vocab {size:,} is more than the big tokenizer has: {top:,}",
            fix=f"pass a size below {top:,}, or look at `--curve`",
        )
    if size < floor:
        special = int((big.kinds == CONTROL).sum())
        raise TinydataError(
            f"--vocab {size:,} is less than what must stay: {floor:,} ids ({special} special,"
            f" {int((big.kinds == BYTE).sum())} bytes, {int((big.kinds == ADDED).sum())} added, the rest characters"
            " and what --keep-tokens or --min-per-domain protect, with their parts)",
            fix=f"pass --vocab {floor:,} or more",
        )


def _within_inflation(big: Tokenizer, order: Order, limit: float, floor: int, top: int, held: Heldout) -> int:
    """The smallest size whose inflation, measured on the held-out text, is within the limit."""
    if not held.measurable:
        raise TinydataError(
            "--max-inflation needs held-out text to measure on, and the counts have none",
            fix="count more text or a larger --heldout share, or say --vocab",
        )
    low, high = floor, top  # high is always within the limit
    while high - low > 64:
        middle = (low + high) // 2
        if held.inflation(kept(big, order, middle)) <= limit:
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
    """Vocabulary sizes from the smallest legal one up -> inflation (held-out), coverage, parameters of each."""
    big, order = choice.big, choice.order
    held = Heldout(counts.heldout, big)
    floor, top = big.size - len(order.removed), real_size(big)
    train = counts.train.sum(0)
    grid = {round(top * k / 16) for k in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)} | {choice.small.size, top}
    points = []
    for size in sorted(s for s in grid if floor <= s <= top):
        keep = kept(big, order, size)
        points.append(
            {
                "vocab": size,
                "inflation": held.inflation(keep) if held.measurable else None,
                "coverage": float(train[keep].sum() / max(train.sum(), 1)),
                "embedding_and_head_parameters": 2 * size * d_model,
            }
        )
        progress(1)
    return points
