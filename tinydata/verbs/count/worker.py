"""Batches of TEXT or TOKENS -> one sparse table of counts per task: the part of `count` that runs on an engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core import schema
from tinydata.core.documents import masks_by_sign, outside_vocabulary
from tinydata.core.errors import TinydataError
from tinydata.core.hashing import document_hashes, hash_below
from tinydata.core.kernels import buffers, compiled, inlined
from tinydata.core.quarantine import Unusable, partial_rows, quarantined
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.open import loaded
from tinydata.tokenizers.probe import agrees, words_first
from tinydata.tokenizers.text_counter import TextCounter
from tinydata.verbs.count.heldout import HeldoutTexts
from tinydata.verbs.count.plan import Settings

MAX_DOMAINS = 1024
TOTALS = ("documents", "tokens", "bytes", "masked")
DOCUMENTS, TOKENS, BYTES, MASKED = range(4)  # columns of totals
STRETCH = 1 << 13  # ids processed together: they stay in the first-level cache between the two passes
CHECKED = (8, 1 << 14)  # documents and bytes per split on which words first is compared with the library


def count_batches(
    batches: Iterator[pa.RecordBatch],
    *,
    files: dict[str, bytes],
    settings: Settings,
    text_share: float = 1.0,
) -> Iterator[pa.RecordBatch]:
    """TEXT or TOKENS -> rows of PARTIAL: sparse counts, domain totals, held-out texts, bad documents."""
    counts = _TaskCounts(loaded(files), settings, text_share)
    for batch in batches:
        counts.add(batch)
    yield from counts.rows().to_batches()


class _Checked(NamedTuple):
    """How much of a split was compared with the library."""

    split: str
    documents: int
    bytes: int


class _TaskCounts:
    """Running counts of one task. Group 2 d: domain d; 2 d + 1: its held-out documents."""

    def __init__(self, tok: Tokenizer, settings: Settings, text_share: float):
        self.tok, self.settings = tok, settings
        self.text_below = hash_below(text_share)
        self.domains: dict[str, int] = {}
        self.totals = np.zeros((2, len(TOTALS)), np.int64)  # [groups, TOTALS]
        self.counters: dict[bool, TextCounter] = {}  # True: words first; False: ids, and text encoded whole
        self.checked = _Checked("", 0, 0)
        self.from_ids = False
        self.heldout = HeldoutTexts(tok)
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
            raise many_domains(batch.schema.metadata[b"path"].decode())
        rows = 2 * len(self.domains)
        if rows > len(self.totals):
            self.totals = _taller(self.totals, 2 * rows)
        hashes = document_hashes(batch)
        heldout = hashes < hash_below(self.settings.heldout)
        domain = np.array(index, np.int32)[labels.indices.to_numpy()]
        return (2 * domain + heldout).astype(np.int32), hashes

    def _add_text(self, batch: pa.RecordBatch, groups: np.ndarray) -> None:
        texts = batch.column("text")
        sizes = np.diff(buffers(texts)[0])
        np.add.at(self.totals[:, DOCUMENTS], groups, 1)
        np.add.at(self.totals[:, BYTES], groups, sizes)
        path = batch.schema.metadata[b"path"].decode()
        split = f"{path} {batch.schema.metadata[b'start'].decode()}"
        first = words_first(self.tok)[0] and self._agrees(split, path, texts, sizes)
        self._counter(first).add(texts, groups)

    def _counter(self, words: bool) -> TextCounter:
        """The counter of one kind, with room for all groups; created when first needed."""
        if words not in self.counters:
            self.counters[words] = TextCounter(self.tok, words_first=words)
        self.counters[words].grow(len(self.totals))
        return self.counters[words]

    def _agrees(self, split: str, path: str, texts: pa.StringArray, sizes: np.ndarray) -> bool:
        """Compares the first documents of a split with the library; False if the split must be encoded whole."""
        _, documents, size = self.checked if self.checked.split == split else _Checked(split, 0, 0)
        sample = []
        for i in range(len(texts)):
            if documents >= CHECKED[0] or size >= CHECKED[1]:
                break
            documents += 1
            size += int(sizes[i])
            if sizes[i] <= 4 * CHECKED[1]:
                sample.append(texts[i].as_py())
        self.checked = _Checked(split, documents, size)
        if not agrees(self.tok, sample):
            self.failed[split] = path
        return split not in self.failed

    def _add_ids(
        self, batch: pa.RecordBatch, groups: np.ndarray, hashes: np.ndarray
    ) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
        """Counts; documents with an id outside the vocabulary are quarantined and removed from what is returned."""
        self.from_ids = True
        body = batch.column("ids")
        offsets = body.offsets.to_numpy()
        values = body.values.to_numpy()
        wrong = np.full(len(body), -1, np.int64)
        counts = self._counter(False).counts
        # an id beyond int64 must not become a small negative one
        ids = values if values.dtype != np.uint64 else np.minimum(values, np.uint64(2**63 - 1)).view(np.int64)
        masked = self.totals[:, MASKED].sum()
        count_ids(ids, ids.view(f"u{ids.itemsize}"), offsets, groups, counts, self.totals, wrong)
        if self.totals[:, MASKED].sum() > masked and not masks_by_sign(batch):
            self._take_back_negative(ids, offsets, groups, counts, wrong)
        if (wrong >= 0).any():
            self.bad += outside_vocabulary(batch, values, offsets, wrong, self.tok.size)
            good = wrong < 0
            batch = batch.filter(pa.array(good))
            groups, hashes = groups[good], hashes[good]
        if "mask" in batch.schema.names:
            mask = batch.column("mask")
            before = np.concatenate([[0], np.cumsum(mask.values.to_numpy(zero_copy_only=False))])
            np.add.at(self.totals[:, MASKED], groups, np.diff(before[mask.offsets.to_numpy()]))
        return batch, groups, hashes

    def _take_back_negative(
        self, ids: np.ndarray, offsets: np.ndarray, groups: np.ndarray, counts: np.ndarray, wrong: np.ndarray
    ) -> None:
        """Subtracts the documents with negative ids, and sets wrong[doc] to the first of these. They are rare."""
        for i in range(len(groups)):
            document = ids[offsets[i] : offsets[i + 1]]
            negative = np.flatnonzero(document < 0)
            if len(negative) and wrong[i] < 0:
                np.subtract.at(counts[groups[i]], np.abs(document), 1)
                self.totals[groups[i], 0] -= 1
                self.totals[groups[i], MASKED] -= len(negative)
                wrong[i] = offsets[i] + negative[0]

    def rows(self) -> pa.Table:
        """-> rows of PARTIAL."""
        counts, *more = [self._counter(kind).finish() for kind in list(self.counters) or [False]]
        for other in more:
            counts += other
        self.totals[:, TOKENS] = counts.sum(1)
        if self.from_ids:
            self.totals[:, BYTES] = counts @ np.fromiter(map(len, self.tok.pieces), np.int64, self.tok.size)
        failed, texts = sorted(set(self.failed.values())), self.heldout.table()
        return pa.concat_tables(
            [
                quarantined(self.bad),
                partial_rows("check", path=failed, position=[0] * len(failed)),
                *(_count_rows(n, *counts[2 * self.domains[n] :][:2]) for n in sorted(self.domains)),
                self._domain_rows(),
                partial_rows("heldout", **{c: texts[c].combine_chunks() for c in schema.HELDOUT.names}),
            ]
        )

    def _domain_rows(self) -> pa.Table:
        """Totals of each domain -> rows of PARTIAL."""
        names = sorted(self.domains)
        first = np.array([2 * self.domains[n] for n in names], np.int64)
        heldout = self.totals[first + 1]
        both = self.totals[first] + heldout
        columns = {c: both[:, i] for i, c in enumerate(TOTALS)}
        columns |= {f"heldout_{c}": heldout[:, i] for i, c in enumerate(TOTALS) if i != MASKED}
        return partial_rows("domains", domain=names, **columns)


def _count_rows(domain: str, rest: np.ndarray, heldout: np.ndarray) -> pa.Table:
    """Counts int64[ids] of a domain -> rows of PARTIAL for the ids that occur."""
    both = rest + heldout
    token = np.flatnonzero(both)
    label = pa.repeat(pa.scalar(domain), len(token))
    fields = {"token_id": token.astype(np.int32), "count": both[token], "heldout": heldout[token]}
    return partial_rows("counts", domain=label, **fields)


def many_domains(where: str) -> TinydataError:
    """Location -> the error that there are more than MAX_DOMAINS domains."""
    return TinydataError(
        f"more than {MAX_DOMAINS} domains",
        where=where,
        fix="a domain is a source or a language, not an id; choose another column with --domain-column",
    )


def _taller(table: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([table, np.zeros((max(rows - len(table), 0), table.shape[1]), table.dtype)])


@compiled()
def count_ids(values, raw, offsets, groups, counts, totals, wrong):
    """values int[ids], offsets int[docs + 1] -> counts int64[groups, size].

    totals int64[groups, TOTALS]: documents and masked tokens are added; wrong int64[docs]: see _count_document.

    raw: the same ids as unsigned integers. Consecutive documents of one group are processed together, about STRETCH
    ids at a time: first their maximum is compared with the size (a negative id is a large one), so that the histogram
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
            totals[g, DOCUMENTS] += end - doc
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
    """A negative id is a masked label: the same token, counted as its absolute value.

    A document with an id outside the vocabulary counts nothing; wrong[doc] is the index of that id.
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
    totals[group, DOCUMENTS] += 1
    totals[group, MASKED] += masked
