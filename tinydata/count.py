"""corpus -> counts: how often each token id occurs, per domain, and in the held-out slice.

splits -> batches of TEXT or TOKENS -> one sparse partial result per task -> merged in a tree ->
counts.parquet, domains.parquet, heldout.parquet, quarantine.parquet. Exact int64 throughout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from tinydata import __version__, schema
from tinydata.engines.base import Engine, Unusable, excerpt, partial_rows, quarantined, reduce
from tinydata.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.formats.base import Plan, Wanted, plan
from tinydata.formats.streams import show as in_text
from tinydata.heldout import Slice, lowest, text_share
from tinydata.store import Location, Output, fingerprint, table_bytes
from tinydata.tokenizers.base import Tokenizer, load, read_tokenizer
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.bpe import compiled, inlined
from tinydata.tokenizers.count import PROBE, TextCounter, agrees, buffers
from tinydata.tokenizers.edges import end_of_text

MAX_DOMAINS = 1024
STRETCH = 1 << 13  # ids looked at together: they stay in the first-level cache between the two looks
CHECKED = (8, 1 << 14)  # documents and bytes per split on which words first is compared with the library


class Settings(NamedTuple):
    """What decides the result, and nothing else."""

    heldout: float = 0.01  # share of documents set aside
    wanted: Wanted = Wanted()
    max_bad: float = 0.001  # share of documents that may be unusable


DEFAULTS = Settings()


def count(
    corpus: list[str],
    tokenizer: str,
    out: str,
    engine: Engine,
    settings: Settings = DEFAULTS,
    *,
    force: bool = False,
    json_freq: bool = False,
    partitions: int = 0,
    found: Plan | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Writes COUNTS to `out`; returns its manifest. The same command again continues a killed one.

    Raises TinydataError: nothing to read, too much of it broken, output that exists.
    """
    files = read_tokenizer(tokenizer)
    tok = loaded(files, tokenizer)
    found = found or plan(corpus, informed(settings.wanted, tok))
    output = Output(out, header(corpus, tokenizer, tok, found, settings), force=force)
    partials = reduce(
        engine,
        found.splits,
        partial(count_batches, files=files, settings=settings, text_share=text_share(found.splits)),
        merge=merge,
        parts=output.parts,
        progress=progress,
        partitions=partitions,
        label=f"tinydata count {', '.join(corpus)}",
    )
    partials = pa.concat_tables([partials, quarantined([Unusable(p, 0, r) for p, r in found.unreadable])])
    tables = split_parts(partials)
    whole = sorted(set(partials.filter(pc.equal(partials["part"], "check"))["path"].to_pylist()))
    _check(tables, settings, found)
    result = {**summary(tables, found), "encoded_whole": whole}
    contents = {f"{name}.parquet": table_bytes(t) for name, t in tables.items() if name != "quarantine" or len(t)}
    if json_freq:
        contents["total_token_freq.json"] = paper_json(tables["counts"])
    return output.publish(result, contents)


def informed(wanted: Wanted, tok: Tokenizer) -> Wanted:
    """With what the tokenizer tells of token ids whose files declare nothing."""
    return wanted._replace(vocab=tok.size, eos=end_of_text(tok))


def header(corpus: list[str], path: str, tok: Tokenizer, found: Plan, settings: Settings) -> dict[str, Any]:
    """The part of the manifest that is known beforehand: it decides whether a run may be resumed."""
    return {
        "tinydata": __version__,
        "verb": "count",
        "inputs": {f.path: fingerprint(f) for f in found.files},
        "options": {
            "corpus": corpus,
            "heldout": settings.heldout,
            **settings.wanted.told,
        },
        "kind": found.kind,
        "tokenizer": describe(path, tok),
    }


def describe(path: str, tok: Tokenizer) -> dict[str, Any]:
    return {"path": path, "family": tok.family, "size": tok.size, "fingerprint": tokenizer_fingerprint(tok)}


# -- in a worker ------------------------------------------------------------------------------


_LOADED: dict[tuple[tuple[str, bytes], ...], Tokenizer] = {}


def loaded(files: dict[str, bytes], path: str = "") -> Tokenizer:
    """The tokenizer, loaded once per process."""
    key = tuple(files.items())
    if key not in _LOADED:
        _LOADED[key] = load(files, path)
    return _LOADED[key]


@cache
def words_first(tok: Tokenizer) -> tuple[bool, str]:
    """Whether text is counted words first with this tokenizer, and why not."""
    if tok.cutter is None:
        return False, tok.why_not
    if not agrees(tok, PROBE):
        return False, "its ids on the built-in probe differ from the library's"
    return True, ""


def count_batches(
    batches: Iterator[pa.RecordBatch],
    *,
    files: dict[str, bytes],
    settings: Settings,
    text_share: float = 1.0,
) -> Iterator[pa.RecordBatch]:
    """TEXT or TOKENS -> rows of PARTIAL: sparse counts, domain totals, held-out texts, bad documents."""
    tally = _Tally(loaded(files), settings, text_share)
    for batch in batches:
        tally.add(batch)
    yield from tally.rows().to_batches()


class _Tally:
    """Running counts of one task. Group 2 d: domain d; 2 d + 1: its held-out documents."""

    def __init__(self, tok: Tokenizer, settings: Settings, text_share: float):
        self.tok, self.settings = tok, settings
        self.text_below = _hash_below(text_share)
        self.domains: dict[str, int] = {}
        self.totals = np.zeros((2, 4), np.int64)  # per group: documents, tokens, bytes, masked
        self.counters: dict[bool, TextCounter] = {}  # True: words first; False: ids, and text encoded whole
        self.checked = ("", 0, 0)  # split, documents and bytes compared in it
        self.from_ids = False
        self.heldout = Slice(tok)
        self.bad: list[Unusable] = []
        self.failed: dict[str, str] = {}  # split -> its path

    def add(self, batch: pa.RecordBatch) -> None:
        groups, hashes = self._groups(batch)
        if "text" in batch.schema.names:
            self._add_text(batch, groups)
        else:
            batch, groups, hashes = self._add_ids(batch, groups, hashes)
        keep = np.flatnonzero((groups & 1) & (hashes < self.text_below))
        if len(keep):
            self.heldout.add(batch, keep, hashes[keep])

    def _groups(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """-> (group int32[docs], hash uint64[docs]); makes room for new domains."""
        labels = batch.column("domain")
        index = []
        for name in labels.dictionary.to_pylist():
            index.append(self.domains.setdefault(name, len(self.domains)))
        if len(self.domains) > MAX_DOMAINS:
            raise _many_domains(batch.schema.metadata[b"path"].decode())
        rows = 2 * len(self.domains)
        if rows > len(self.totals):
            self.totals = _taller(self.totals, 2 * rows)
        hashes = document_hashes(batch)
        held = hashes < _hash_below(self.settings.heldout)
        domain = np.array(index, np.int32)[labels.indices.to_numpy()]
        return (2 * domain + held).astype(np.int32), hashes

    def _add_text(self, batch: pa.RecordBatch, groups: np.ndarray) -> None:
        texts = batch.column("text")
        sizes = np.diff(buffers(texts)[0])
        np.add.at(self.totals[:, 0], groups, 1)
        np.add.at(self.totals[:, 2], groups, sizes)
        path = batch.schema.metadata[b"path"].decode()
        split = f"{path} {batch.schema.metadata[b'start'].decode()}"
        first = words_first(self.tok)[0] and self._agrees(split, path, texts, sizes)
        self._counter(first).add(texts, groups)

    def _counter(self, words: bool) -> TextCounter:
        """The counter of one kind, with room for all groups; made when first needed: ids want no table of words."""
        if words not in self.counters:
            self.counters[words] = TextCounter(self.tok, words_first=words)
        self.counters[words].grow(len(self.totals))
        return self.counters[words]

    def _agrees(self, split: str, path: str, texts: pa.StringArray, sizes: np.ndarray) -> bool:
        """Compares the first documents of a split with the library; where they differ, it is encoded whole."""
        last, documents, size = self.checked
        if last != split:
            documents, size = 0, 0
        sample = []
        for i in range(len(texts)):
            if documents >= CHECKED[0] or size >= CHECKED[1]:
                break
            documents += 1
            size += int(sizes[i])
            if sizes[i] <= 4 * CHECKED[1]:
                sample.append(texts[i].as_py())
        self.checked = (split, documents, size)
        if not agrees(self.tok, sample):
            self.failed[split] = path
        return split not in self.failed

    def _add_ids(
        self, batch: pa.RecordBatch, groups: np.ndarray, hashes: np.ndarray
    ) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
        """Counts what is inside the vocabulary; a document with an id outside is left out and quarantined."""
        self.from_ids = True
        body = batch.column("ids")
        offsets = body.offsets.to_numpy()
        values = body.values.to_numpy()
        wrong = np.full(len(body), -1, np.int64)
        counts = self._counter(False).counts
        # an id beyond int64 must not become a small negative one
        ids = values if values.dtype != np.uint64 else np.minimum(values, np.uint64(2**63 - 1)).view(np.int64)
        count_ids(ids, ids.view(f"u{ids.itemsize}"), offsets, groups, counts, self.totals, wrong)
        if (wrong >= 0).any():
            path = batch.schema.metadata[b"path"].decode()
            for i in map(int, np.flatnonzero(wrong >= 0)):
                reason = f"token id {abs(int(values[wrong[i]]))} is outside the vocabulary of {self.tok.size}"
                near = excerpt(str(values[offsets[i] : min(offsets[i] + 16, offsets[i + 1])].tolist()).encode())
                doc_id, place = batch.column("doc_id")[i].as_py(), batch.column("position")[i].as_py()
                self.bad.append(Unusable(path, place, reason, near, doc_id))
            good = wrong < 0
            batch = batch.filter(pa.array(good))
            groups, hashes = groups[good], hashes[good]
        if "mask" in batch.schema.names:
            mask = batch.column("mask")
            before = np.concatenate([[0], np.cumsum(mask.values.to_numpy(zero_copy_only=False))])
            np.add.at(self.totals[:, 3], groups, np.diff(before[mask.offsets.to_numpy()]))
        return batch, groups, hashes

    def rows(self) -> pa.Table:
        """-> rows of PARTIAL."""
        counts, *more = [self._counter(kind).finish() for kind in list(self.counters) or [False]]
        for other in more:
            counts += other
        self.totals[:, 1] = counts.sum(1)
        if self.from_ids:
            self.totals[:, 2] = counts @ np.fromiter(map(len, self.tok.pieces), np.int64, self.tok.size)
        names = sorted(self.domains)
        out = [quarantined(self.bad)]
        failed = sorted(set(self.failed.values()))
        out.append(partial_rows("check", path=failed, position=[0] * len(failed)))
        for name in names:
            d = 2 * self.domains[name]
            both = counts[d] + counts[d + 1]
            token = np.flatnonzero(both)
            label = pa.repeat(pa.scalar(name), len(token))
            fields = {"token_id": token.astype(np.int32), "count": both[token], "heldout": counts[d + 1][token]}
            out.append(partial_rows("counts", domain=label, **fields))
        pick = np.array([2 * self.domains[n] for n in names], np.int64)
        rest, held = self.totals[pick], self.totals[pick + 1]
        both = rest + held
        out.append(
            partial_rows(
                "domains",
                domain=names,
                **{c: both[:, i] for i, c in enumerate(("documents", "tokens", "bytes", "masked"))},
                **{f"heldout_{c}": held[:, i] for i, c in enumerate(("documents", "tokens", "bytes"))},
            )
        )
        kept = self.heldout.table()
        out.append(partial_rows("heldout", **{c: kept[c].combine_chunks() for c in schema.HELDOUT.names}))
        return pa.concat_tables(out)


def _many_domains(where: str) -> TinydataError:
    return TinydataError(
        f"more than {MAX_DOMAINS} domains",
        where=where,
        fix="a domain is a source or language, not an id: name another column with --domain-column",
    )


def _hash_below(share: float) -> np.uint64:
    """The bound below which lies this share of all hashes."""
    return np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def _taller(table: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([table, np.zeros((max(rows - len(table), 0), table.shape[1]), table.dtype)])


@compiled()
def count_ids(values, raw, offsets, groups, counts, totals, wrong):
    """values int[ids], offsets int[docs + 1] -> counts int64[groups, size], totals[:, documents | masked].

    `raw`: the same ids as unsigned integers. Documents of one group are taken together, STRETCH ids
    at a time: the largest is sought first (a negative id is a large one), and the histogram then
    needs no test. Per core 2,350 M int32 ids/s; with the tests inside the loop 1,000.
    """
    size = counts.shape[1]
    doc = 0
    while doc < len(groups):
        g = groups[doc]
        first = np.int64(offsets[doc])
        end = doc + 1
        while end < len(groups) and groups[end] == g and np.int64(offsets[end]) - first < STRETCH:
            end += 1
        ids = raw[first : np.int64(offsets[end])]
        if _inside(ids, size):
            row = counts[g]
            for i in range(len(ids)):
                row[ids[i]] += 1
            totals[g, 0] += end - doc
        else:
            for d in range(doc, end):
                _count_document(values, np.int64(offsets[d]), np.int64(offsets[d + 1]), d, g, counts[g], totals, wrong)
        doc = end


@inlined()
def _inside(ids, size):
    """Whether all of ids uint[n] are below size."""
    if len(ids) == 0:
        return True
    top = ids[0]
    for i in range(len(ids)):
        top = max(top, ids[i])
    return np.uint64(top) < np.uint64(size)


@compiled()
def _count_document(values, first, stop, doc, group, row, totals, wrong):
    """A negative id is a masked label: the same token, counted as its absolute value. A document
    with an id outside the vocabulary leaves no trace but wrong[doc] = index of that id.
    """
    masked = 0
    for i in range(first, stop):
        v = np.int64(values[i])
        if v < 0:
            v = -v
            masked += 1
        if np.uint64(v) >= np.uint64(len(row)):
            for k in range(first, i):
                row[abs(np.int64(values[k]))] -= 1
            wrong[doc] = i
            return
        row[v] += 1
    totals[group, 0] += 1
    totals[group, 3] += masked


def document_hashes(batch: pa.RecordBatch) -> np.ndarray:
    """uint64[docs]: of doc_id where there is one, else of (name, position). Same on every engine."""
    ids = batch.column("doc_id")
    name = np.frombuffer(batch.schema.metadata[b"name"], np.uint8)
    out = np.empty(len(batch), np.uint64)
    _hash_positions(name, batch.column("position").to_numpy(), out)
    if ids.null_count < len(ids):
        offsets, data = buffers(ids)
        _hash_strings(data, offsets, ids.is_valid().to_numpy(zero_copy_only=False), out)
    return out


def held_out(batch: pa.RecordBatch, share: float) -> np.ndarray:
    """bool[docs]: documents that are set aside at this --heldout share."""
    return document_hashes(batch) < _hash_below(share)


@njit(cache=True)
def _fnv(data, start, stop):
    """FNV-1a, 64 bits."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return h


@njit(cache=True)
def _finish(h):
    """The finalizer of splitmix64: every bit depends on every bit."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit(cache=True)
def _hash_positions(name, positions, out):
    base = _fnv(name, 0, len(name))
    for i in range(len(out)):
        out[i] = _finish(base + np.uint64(positions[i]) * np.uint64(0x9E3779B97F4A7C15))


@njit(cache=True)
def _hash_strings(data, offsets, valid, out):
    for i in range(len(out)):
        if valid[i]:
            out[i] = _finish(_fnv(data, offsets[i], offsets[i + 1]))


# -- merging ----------------------------------------------------------------------------------


def merge(partials: list[pa.Table]) -> pa.Table:
    """Tables of PARTIAL -> one: sums for counts and domains, the lowest hashes, all that was bad, in order."""
    rows = pa.concat_tables([schema.PARTIAL.empty_table(), *partials])
    tables = split_parts(rows)
    failed = sorted(set(rows.filter(pc.equal(rows["part"], "check"))["path"].to_pylist()))
    out = [partial_rows("check", path=failed, position=[0] * len(failed))]
    for part, table in tables.items():
        out.append(partial_rows(part, **{c: table[c].combine_chunks() for c in table.column_names}))
    return pa.concat_tables(out)


def split_parts(rows: pa.Table) -> dict[str, pa.Table]:
    """Rows of PARTIAL -> {"counts", "domains", "heldout", "quarantine"}, each summed and sorted."""

    def part(name: str, like: pa.Schema) -> pa.Table:
        return rows.select(like.names).filter(pc.equal(rows["part"], name)).cast(like)

    domains = part("domains", schema.DOMAINS)
    sums = [(c, "sum") for c in schema.DOMAINS.names[1:]]
    domains = domains.group_by(["domain"], use_threads=False).aggregate(sums)
    domains = domains.rename_columns(schema.DOMAINS.names).sort_by("domain")
    bad = part("quarantine", schema.QUARANTINE).sort_by([("path", "ascending"), ("position", "ascending")])
    return {
        "counts": _summed(part("counts", schema.COUNTS)),
        "domains": domains.combine_chunks(),
        "heldout": lowest(part("heldout", schema.HELDOUT)),
        "quarantine": bad,
    }


def _summed(rows: pa.Table) -> pa.Table:
    """Rows of COUNTS -> one a domain and token, sorted by both.

    Each task's rows are sorted already, which a stable sort of numbers makes use of: a fifth of the
    time of grouping and sorting by the domains' names.
    """
    if not len(rows):
        return rows
    labels = rows["domain"].combine_chunks().dictionary_encode()
    names = labels.dictionary.to_pylist()
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    key = rank[labels.indices.to_numpy()] << 32 | rows["token_id"].to_numpy()
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    domain = pa.DictionaryArray.from_arrays((key[first] >> 32).astype(np.int32), pa.array(sorted(names), pa.string()))
    sums = [np.add.reduceat(rows[c].to_numpy()[order], first) for c in ("count", "heldout")]
    token = (key[first] & 0xFFFFFFFF).astype(np.int32)
    return pa.table([domain.cast(pa.string()), token, *sums], schema=schema.COUNTS)


# -- the result -------------------------------------------------------------------------------


def _check(tables: dict[str, pa.Table], settings: Settings, found: Plan) -> None:
    """Raises TinydataError if nothing was read or too much was bad."""
    good = pc.sum(tables["domains"]["documents"]).as_py() or 0
    if len(tables["domains"]) > MAX_DOMAINS:  # of all tasks together
        raise _many_domains(", ".join(f.path for f in found.files[:3]))
    check_bad(tables["quarantine"], good, settings.max_bad, found)


def check_bad(bad: pa.Table, good: int, max_bad: float, found: Plan) -> None:
    """QUARANTINE and the number of documents that could be used -> TinydataError if there are too few of these."""
    if len(bad) and len(bad) > max_bad * (good + len(bad)):
        first = bad.slice(0, 1).to_pylist()[0]
        outside = "outside the vocabulary" in first["reason"]
        raise TinydataError(
            f"{len(bad)} of {good + len(bad)} documents cannot be used, more than --max-bad {max_bad:g};"
            f" the first: {first['reason']}",
            where=_place(first, found),
            fix=(
                "the corpus was tokenized with another tokenizer; pass its own with --tokenizer"
                if outside
                else "repair or remove the file, or allow more with --max-bad"
            ),
            code=FIXABLE if good else UNREADABLE,
        )
    if not good:
        raise TinydataError(
            "the corpus is empty: no document in it",
            where=", ".join(f.path for f in found.files[:3]),
            fix="check that the files were written or downloaded whole",
            code=UNREADABLE,
        )


def reasons(bad: pa.Table) -> dict[str, Any]:
    """QUARANTINE -> {documents, reasons: {reason: documents}} for the manifest."""
    found: dict[str, int] = {}
    for reason in bad["reason"].to_pylist():
        found[reason.split(":")[0]] = found.get(reason.split(":")[0], 0) + 1
    return {"documents": len(bad), "reasons": found}


def _place(bad: dict[str, Any], found: Plan) -> str:
    """A row of QUARANTINE -> where a reader of the file finds it: path, row or byte, document, first characters."""
    form = next((s.format for s in found.splits if s.path == bad["path"]), "")
    parts = [bad["path"]]
    if form in ("parquet", "megatron"):
        parts.append(f"{'row' if form == 'parquet' else 'document'} {bad['position']}")
    elif form:
        parts.append(in_text(Location.of(bad["path"]), bad["position"]))
    if bad["doc_id"]:
        parts.append(f"document {bad['doc_id']}")
    return ", ".join(parts) + (f": {bad['excerpt']}" if bad["excerpt"] else "")


def summary(tables: dict[str, pa.Table], found: Plan) -> dict[str, Any]:
    """What the manifest says of the result."""
    domains = tables["domains"]
    total = {c: pc.sum(domains[c]).as_py() for c in schema.DOMAINS.names[1:]}
    return {
        "totals": {
            **total,
            "domains": len(domains),
            "distinct_tokens": pc.count_distinct(tables["counts"]["token_id"]).as_py(),
        },
        "quarantined": reasons(tables["quarantine"]),
        "skipped_files": found.skipped,
    }


def paper_json(counts: pa.Table) -> bytes:
    """COUNTS -> `total_token_freq.json` as the paper's scripts exchange it: {"token id": count}."""
    total = counts.group_by("token_id").aggregate([("count", "sum")]).sort_by("token_id")
    return json.dumps(
        dict(zip(map(str, total["token_id"].to_pylist()), total["count_sum"].to_pylist(), strict=True))
    ).encode()
