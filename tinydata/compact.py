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

from tinydata import __version__, schema
from tinydata.adapt import Adapted, adapt, learned_table, said
from tinydata.count import describe
from tinydata.errors import TinydataError
from tinydata.store import Location, Output, read_bytes, read_manifest, read_table, table_bytes
from tinydata.tokenizers.base import ADDED, BYTE, CONTROL, Tokenizer, load, read_tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.prune import Order, kept, most_frequent, protected, real_size, removal_order
from tinydata.trade import Heldout, measure


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


def compact(
    counts_path: str,
    tokenizer: str,
    out: str,
    goal: Goal,
    *,
    d_model: int = 2048,
    force: bool = False,
    choice: Choice | None = None,
    points: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Writes VOCAB to `out`: tokenizer files, idmap.parquet (learned.parquet), card, manifest; returns the manifest."""
    counts = open_counts(counts_path)
    choice = choice or choose(counts, tokenizer, goal, d_model=d_model)
    output = Output(out, header(counts_path, counts, tokenizer, choice.big, goal, d_model), force=force)
    files = dict(choice.small.files)
    files["idmap.parquet"] = table_bytes(idmap(choice))
    if choice.adapted:
        files["learned.parquet"] = table_bytes(learned_table(choice.big, choice.adapted))
    result = {
        "vocabulary": describe(".", choice.small),
        "trade": choice.trade,
        "dropped": dropped(choice, counts),
        **({"adapted": choice.adapted.facts} if choice.adapted else {}),
        **({"curve": points} if points else {}),
    }
    files["README.md"] = card(output.header, result).encode()
    return output.publish(result, files)


def header(
    counts_path: str, counts: Counts, tokenizer: str, big: Tokenizer, goal: Goal, d_model: int
) -> dict[str, Any]:
    return {
        "tinydata": __version__,
        "verb": "compact",
        "inputs": {counts_path: {"files": counts.manifest["files"]}},
        "options": {**_said(goal), "d_model": d_model},
        "tokenizer": describe(tokenizer, big),
    }


def _said(goal: Goal) -> dict[str, Any]:
    """The goal without what was not asked for."""
    return {k: v for k, v in goal._asdict().items() if v != Goal._field_defaults[k] or k == "method"}


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


# -- what is written --------------------------------------------------------------------------


def idmap(choice: Choice) -> pa.Table:
    """IDMAP: a removed id becomes what the compact tokenizer makes of its text."""
    big, small, keep = choice.big, choice.small, choice.keep
    origin = choice.adapted.origin if choice.adapted else big.order(np.flatnonzero(keep))
    new_of = np.full(big.size, -1, np.int32)
    new_of[origin[origin >= 0]] = np.flatnonzero(origin >= 0)
    parts = small.spell([b"" if keep[i] else big.pieces[i] for i in range(big.size)])
    lists = [[int(new_of[i])] if keep[i] else parts[i].tolist() for i in range(big.size)]
    return pa.table([np.arange(big.size, dtype=np.int32), keep, lists], schema=schema.IDMAP)


def dropped(choice: Choice, counts: Counts, top: int = 200) -> list[dict[str, Any]]:
    """The removed tokens whose going adds most tokens, and what spells them now."""
    train = counts.train.sum(0)
    gone = np.flatnonzero(~choice.keep)
    spelled = choice.small.spell([choice.big.pieces[i] for i in gone])
    added = train[gone] * (np.array([len(p) for p in spelled], np.int64) - 1)
    order = np.argsort(-added, kind="stable")[:top]
    best, parts = gone[order], [spelled[k] for k in order]
    return [
        {
            "id": int(i),
            "text": _shown(choice.big.pieces[i]),
            "count": int(train[i]),
            "parts": [_shown(choice.small.pieces[p]) for p in ps],
        }
        for i, ps in zip(best, parts, strict=True)
        if train[i] > 0
    ]


def _shown(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "".join(f"<{b:02X}>" for b in piece)


def card(head: dict[str, Any], result: dict[str, Any]) -> str:
    """README.md of the vocabulary."""
    trade = result["trade"]
    made = head["tokenizer"]
    lines = [
        f"# {trade['ids']['after']:,} of {trade['ids']['before']:,} tokens",
        "",
        f"A compact version of `{Location.of(made['path']).name}` ({made['family']}), made by tinydata"
        f" {head['tinydata']} from token counts of a corpus. Options: `{head['options']}`.",
        "",
        "| | before | after |",
        "|---|---|---|",
        f"| ids | {trade['ids']['before']:,} | {trade['ids']['after']:,} |",
        f"| embedding + head, d_model {trade['d_model']} (untied) |"
        f" {trade['embedding_and_head_parameters']['before']:,} |"
        f" {trade['embedding_and_head_parameters']['after']:,} |",
        f"| dead pieces | {trade['dead_pieces']['before']} | {trade['dead_pieces']['after']} |",
    ]
    held = trade["heldout"]
    if held:
        lines += [
            f"| bytes per token | {held['bytes_per_token_before']:.3f} | {held['bytes_per_token_after']:.3f} |",
            f"| single-byte tokens | {held['byte_tokens_before']:.2%} | {held['byte_tokens_after']:.2%} |",
            f"| unknown tokens | {held['unknown_before']:,} | {held['unknown_after']:,} |",
            "",
            f"Inflation on held-out text ({held['documents']} documents, {held['bytes']:,} bytes):"
            f" **{held['inflation']:+.2%}**. By domain, worst first:",
            "",
            "| domain | inflation | bytes per token |",
            "|---|---|---|",
            *(
                f"| {r['domain']} | {r['inflation']:+.2%} | {r['bytes_per_token_after']:.3f} |"
                for r in held["domains"][:20]
            ),
        ]
    if "adapted" in result:
        lines += ["", said(result["adapted"])]
    lines += ["", "`idmap.parquet` gives for each old id its new id, or the kept tokens that spell it.", ""]
    return "\n".join(lines)
