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
from tinydata.count import describe
from tinydata.errors import TinydataError
from tinydata.store import Location, Output, read_bytes, read_manifest, read_table, table_bytes
from tinydata.tokenizers.base import ADDED, BYTE, CONTROL, NORMAL, Tokenizer, Tree, load, read_tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.count import TextCounter, agrees
from tinydata.tokenizers.tree import build_tree, spell

SAMPLE = (256, 2 << 20)  # documents and bytes of held-out text checked with the native library


class Goal(NamedTuple):
    """How far to go: exactly one of the first three; vocab -1 stands for all."""

    vocab: int = 0
    coverage: float = 0.0
    max_inflation: float = -1.0
    multiple_of: int = 1
    method: str = "leaf"  # or "frequency"
    min_per_domain: int = 0
    keep_tokens: tuple[str, ...] = ()


class Counts(NamedTuple):
    """What `tinydata count` wrote, as arrays."""

    manifest: dict[str, Any]
    domains: list[str]
    train: np.ndarray  # int64[domains, ids], held-out slice taken off
    heldout: pa.Table  # HELDOUT
    table: pa.Table  # DOMAINS


class Order(NamedTuple):
    """Pieces in the order of their removal; `cost[k]` tokens are added by taking off the first k + 1."""

    removed: np.ndarray  # int32[removable]
    cost: np.ndarray  # int64[removable], cumulative


class Choice(NamedTuple):
    """A vocabulary that is decided but not written: what `--dry-run` prints."""

    big: Tokenizer
    small: Tokenizer
    keep: np.ndarray  # bool[ids]
    trade: dict[str, Any]
    order: Order


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
    tree = build_tree(big)
    locked = protected(big, tree, counts, goal)
    order = removal_order(big, tree, counts.train.sum(0), locked)
    held = Heldout(counts.heldout, big)
    size = wanted_size(big, counts, order, goal, held)
    keep = kept(big, order, size) if goal.method == "leaf" else most_frequent(big, counts, size)
    small = big.subset(np.flatnonzero(keep))
    trade = measure(big, small, keep, counts, held, d_model)
    trade["predicted_inflation"] = _predicted(order, keep, counts) if goal.method == "leaf" else None
    return Choice(big, small, keep, trade, order)


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
    """Writes VOCAB to `out`: tokenizer files, idmap.parquet, card, manifest; returns the manifest."""
    counts = open_counts(counts_path)
    choice = choice or choose(counts, tokenizer, goal, d_model=d_model)
    output = Output(out, header(counts_path, counts, tokenizer, choice.big, goal, d_model), force=force)
    files = dict(choice.small.files)
    files["idmap.parquet"] = table_bytes(idmap(choice.big, choice.small, choice.keep))
    result = {
        "vocabulary": describe(".", choice.small),
        "trade": choice.trade,
        "dropped": dropped(choice, counts),
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


# -- what may go, and in which order ----------------------------------------------------------


def protected(big: Tokenizer, tree: Tree, counts: Counts, goal: Goal) -> np.ndarray:
    """bool[ids]: what no goal may remove, with all that it is merged from."""
    lock = ~big.removable()
    if goal.keep_tokens:
        lock[_named(big, goal.keep_tokens)] = True
    if goal.min_per_domain:
        for row in counts.train:
            best = np.argsort(-row, kind="stable")[: goal.min_per_domain]
            lock[best[row[best] > 0]] = True
    lock &= tree.reachable | ~big.removable()
    stack = list(np.flatnonzero(lock))
    while stack:
        i = stack.pop()
        for p in tree.parts[tree.offsets[i] : tree.offsets[i + 1]]:
            if not lock[p]:
                lock[p] = True
                stack.append(p)
    return lock


def _named(big: Tokenizer, tokens: tuple[str, ...]) -> list[int]:
    """Lines of --keep-tokens -> ids; a token is its text, or #ID."""
    by_piece: dict[bytes, int] = {}
    for i, piece in enumerate(big.pieces):
        by_piece.setdefault(piece, i)
    out = []
    for token in tokens:
        i = int(token[1:]) if token[:1] == "#" and token[1:].isdigit() else by_piece.get(token.encode(), -1)
        if not 0 <= i < big.size:
            raise TinydataError(
                f"--keep-tokens: no token {token!r} in the big tokenizer",
                fix="one token a line, blanks as they are in text, or #ID",
            )
        out.append(i)
    return out


def removal_order(big: Tokenizer, tree: Tree, count: np.ndarray, locked: np.ndarray) -> Order:
    """Leaf removal to the end, by sorting: tree, count int64[ids] -> Order.

    What a leaf costs when it goes is its count and all that flowed to it from the pieces made of
    it: how often the tokenizer performs this merge at all. That number does not depend on the
    order of removal, and no piece has less than what is made of it; so the cheapest pieces are
    always leaves, and taking them in order of cost is leaf removal, and optimal for this cost.
    Pieces that encoding never produces cost nothing.
    """
    used = merge_uses(big, tree, count)
    each = np.diff(tree.offsets) - 1
    cost = np.where(tree.reachable, used * each, 0)
    size = np.array([len(p) for p in big.pieces])
    late = np.arange(big.size)  # highest id among a piece and all it is made of
    for i in np.argsort(size, kind="stable"):
        late[i] = max(i, late[tree.parts[tree.offsets[i] : tree.offsets[i + 1]]].max(initial=0))
    may = np.flatnonzero(~locked)
    # equal cost: the later id first, but never a piece before what is made of it
    order = may[np.lexsort((-size[may], -late[may], cost[may], tree.reachable[may]))]
    return Order(order.astype(np.int32), np.cumsum(cost[order]))


def merge_uses(big: Tokenizer, tree: Tree, count: np.ndarray) -> np.ndarray:
    """count int64[ids] of final tokens -> int64[ids]: how often each piece is made, inside others too."""
    used = count.tolist()
    parts, offsets = tree.parts.tolist(), tree.offsets.tolist()
    for i in sorted(range(big.size), key=lambda i: (tree.reachable[i], -len(big.pieces[i]))):
        a, b = offsets[i], offsets[i + 1]
        if b - a > 1 and used[i]:
            for p in parts[a:b]:
                used[p] += used[i]
    return np.array(used, np.int64)


def real_size(big: Tokenizer) -> int:
    """Ids that stand for something; gaps in the id space do not."""
    return big.size - int(big.gap.sum())


def kept(big: Tokenizer, order: Order, size: int) -> np.ndarray:
    """Order, number of ids to keep -> bool[ids]."""
    keep = np.ones(big.size, np.bool_)
    keep[order.removed[: max(big.size - size, 0)]] = False
    return keep


def most_frequent(big: Tokenizer, counts: Counts, size: int) -> np.ndarray:
    """The paper's selection: what is special or a byte, then the most frequent ids, whatever they are merged from."""
    keep = big.kinds != NORMAL
    keep &= ~big.gap
    rest = np.flatnonzero(~keep)
    best = rest[np.argsort(-counts.train.sum(0)[rest], kind="stable")]
    keep[best[: size - int(keep.sum())]] = True
    return keep


def wanted_size(big: Tokenizer, counts: Counts, order: Order, goal: Goal, held: Heldout) -> int:
    """Goal -> number of ids, a multiple of `multiple_of` (rounded up, never beyond the big tokenizer)."""
    floor, top = big.size - len(order.removed), real_size(big)
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


# -- the trade, measured ----------------------------------------------------------------------


class Heldout:
    """Held-out text by domain, and its tokens under the big tokenizer or any part of it."""

    def __init__(self, texts: pa.Table, big: Tokenizer):
        self.big = big
        self.domains = sorted(set(texts["domain"].to_pylist()))
        self.texts = texts["text"].combine_chunks() if len(texts) else pa.array([], pa.string())
        if isinstance(self.texts, pa.ChunkedArray):
            self.texts = self.texts.chunk(0)
        at = {d: i for i, d in enumerate(self.domains)}
        self.groups = np.array([at[d] for d in texts["domain"].to_pylist()], np.int32)
        self.bytes = np.bincount(
            self.groups, pc.binary_length(self.texts).to_numpy(zero_copy_only=False), len(self.domains)
        ).astype(np.int64)
        self.measurable = len(self.texts) > 0
        self.tokens = self.count(big) if self.measurable else np.zeros((0, big.size), np.int64)

    def count(self, tokenizer: Any) -> np.ndarray:
        """-> int64[domains, ids]."""
        counter = TextCounter(tokenizer, words_first=bool(agrees(tokenizer, self._probe())))
        counter.grow(len(self.domains))
        counter.add(self.texts, self.groups)
        return counter.finish()

    def _probe(self) -> list[str]:
        return [t.as_py() for t in self.texts[:8] if len(t.as_py()) < 1 << 16]

    def sample(self) -> list[str]:
        """The first documents, as many as the native library is asked about."""
        size = np.cumsum(pc.binary_length(self.texts).to_numpy(zero_copy_only=False))
        n = min(SAMPLE[0], max(1, int(np.searchsorted(size, SAMPLE[1]))), len(self.texts))
        return self.texts[:n].to_pylist()

    def inflation(self, keep: np.ndarray) -> float:
        """Tokens with only the kept pieces / with all, - 1."""
        return float(self.count(self.big.subset(np.flatnonzero(keep))).sum() / max(self.tokens.sum(), 1) - 1)


def measure(
    big: Tokenizer, small: Tokenizer, keep: np.ndarray, counts: Counts, held: Heldout, d_model: int
) -> dict[str, Any]:
    """Both tokenizers on the held-out text, by domain -> the trade as JSON."""
    train = counts.train.sum(0)
    dead = int((~build_tree(small).reachable).sum())
    trade: dict[str, Any] = {
        "ids": {"before": real_size(big), "after": small.size, "removed": real_size(big) - small.size},
        "coverage": float(train[keep].sum() / max(train.sum(), 1)),
        "dead_pieces": {"before": int((~build_tree(big).reachable).sum()), "after": dead},
        "d_model": d_model,
        "embedding_and_head_parameters": {
            "before": 2 * real_size(big) * d_model,
            "after": 2 * small.size * d_model,
        },
        "heldout": None,
    }
    if not held.measurable:
        return trade
    after = held.count(small)
    rows = []
    for d, name in enumerate(held.domains):
        rows.append({"domain": name, **_lengths(held.tokens[d], after[d], int(held.bytes[d]), big, small)})
    total = _lengths(held.tokens.sum(0), after.sum(0), int(held.bytes.sum()), big, small)
    texts = held.sample()
    before_ids, after_ids = big.encode(texts), small.encode(texts)
    trade["heldout"] = {
        **total,
        "documents": len(held.texts),
        "domains": sorted(rows, key=lambda r: -r["inflation"]),
        "round_trip": {
            "documents": len(texts),
            "before": sum(big.decode(i) == t for i, t in zip(before_ids, texts, strict=True)),
            "after": sum(small.decode(i) == t for i, t in zip(after_ids, texts, strict=True)),
            "same_text": sum(big.decode(a) == small.decode(b) for a, b in zip(before_ids, after_ids, strict=True)),
        },
    }
    return trade


def _lengths(before: np.ndarray, after: np.ndarray, size: int, big: Tokenizer, small: Tokenizer) -> dict[str, Any]:
    a, b = int(before.sum()), int(after.sum())
    return {
        "bytes": size,
        "tokens_before": a,
        "tokens_after": b,
        "inflation": b / a - 1 if a else 0.0,
        "bytes_per_token_before": size / a if a else 0.0,
        "bytes_per_token_after": size / b if b else 0.0,
        "byte_tokens_before": float(before[_byte_ids(big)].sum() / a) if a else 0.0,
        "byte_tokens_after": float(after[_byte_ids(small)].sum() / b) if b else 0.0,
    }


def _byte_ids(tok: Tokenizer) -> np.ndarray:
    """bool[ids]: single bytes that are no characters by themselves."""
    return (tok.kinds == BYTE) & np.array([len(p) == 1 and p[0] >= 0x80 for p in tok.pieces])


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


def idmap(big: Tokenizer, small: Tokenizer, keep: np.ndarray) -> pa.Table:
    """IDMAP: a removed id becomes what the compact tokenizer makes of its text."""
    new_of = np.full(big.size, -1, np.int32)
    new_of[big.order(np.flatnonzero(keep))] = np.arange(small.size, dtype=np.int32)
    parts = spell(small, [b"" if keep[i] else big.pieces[i] for i in range(big.size)])
    lists = [[int(new_of[i])] if keep[i] else parts[i].tolist() for i in range(big.size)]
    return pa.table([np.arange(big.size, dtype=np.int32), keep, lists], schema=schema.IDMAP)


def dropped(choice: Choice, counts: Counts, top: int = 200) -> list[dict[str, Any]]:
    """The removed tokens whose going adds most tokens, and what spells them now."""
    train = counts.train.sum(0)
    gone = np.flatnonzero(~choice.keep)
    spelled = spell(choice.small, [choice.big.pieces[i] for i in gone])
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
    lines += ["", "`idmap.parquet` gives for each old id its new id, or the kept tokens that spell it.", ""]
    return "\n".join(lines)
