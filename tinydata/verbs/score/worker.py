"""Consecutive sequences -> their rows of SCORES: the part of `score` that runs on an engine; the model is loaded once.

The scorer comes from any module's `load(model, device, seq_len)`; this package does not import torch. A scorer has:

    seq_len, vocab, tokenizer {fingerprint, …}, facts, rows, masks_documents
    scorer(ids int64 [n, T + 1], bears bool [n, T] | None, documents int32 [n, T] | None) -> nll float32 [n, T], nats
    held_out(fingerprint, total) -> numbers of the sequences that its own run never trained on
    losses: directory of the losses its run logged, or ""; loads: how often weights were loaded in this process

and its module may have devices() -> ["cuda:0", …].
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinydata.core import schema
from tinydata.core.documents import sums_by_domain
from tinydata.core.errors import TinydataError
from tinydata.core.kernels import cached
from tinydata.core.location import Location, read_bytes
from tinydata.engines.base import Result, Tell
from tinydata.formats.dataset import Documents, Stream
from tinydata.verbs.score.features import features
from tinydata.verbs.score.run_log import TENTHS, LoggedLosses, logged_losses
from tinydata.verbs.score.scorer import device_of, loads_before, scorer_of_run, translated_errors

BLOCK = 1 << 20  # tokens read at once
AHEAD = 8  # forward passes per call of the scorer, which waits for the GPU once for all of them
OK, NAN, OUTSIDE, NO_TARGETS, HELD_OUT, NOT_TRAINED = (
    "ok", "nan", "id out of range", "no targets", "held out", "not trained",
)  # fmt: skip
HAVE_LOSS = (OK, HELD_OUT)
_WRITTEN: dict[str, Any] = {  # 25 bytes a row, read at 38 M rows per CPU-second; with zstd and no more 20, at 15 M
    "compression": "none",
    "use_dictionary": ["domain", "tokens", "status", "repeats", "periodic", "unknown"],
    "column_encoding": {"sequence": "DELTA_BINARY_PACKED", "document": "DELTA_BINARY_PACKED"},
}


class Job(NamedTuple):
    """Everything a worker needs, with absolute paths."""

    run: str  # a unique name: what a process caches is used for this run only
    data: str
    base: str
    place: str  # of the result
    parts: str
    scorer: str  # module:function
    model: str  # "": no model, the losses are those of the log
    device: str
    seq_len: int
    rows: int  # sequences at once; 0: the scorer's own
    unknown: int  # id of the unknown token; -1: the tokenizer has none
    logged: bool  # losses that the run logged are in `parts`
    trained: bool  # the model's run was trained on these shards; without a log: on all sequences but those held out
    step: int  # of the checkpoint; a worker must not use a later one


# -- a unit -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _stream(run: str, data: str, base: str) -> Stream:
    return Stream.open(data, base)


@lru_cache(maxsize=1)
def _rarity(file: Location, changed: int) -> np.ndarray:
    return np.frombuffer(read_bytes(file), np.float64)


RARITY = "rarity.f64"


def score_unit(job: Job, span: tuple[int, int], number: int, tell: Tell) -> Result:
    """Sequences a to b of the dataset -> scores-NUMBER.parquet, and its sums."""
    stream = _stream(job.run, job.data, job.base)
    numbers, before = stream.numbers(*span), stream.repeats(*span)
    logged = logged_losses(Location.of(job.parts), number, numbers) if job.logged else None
    source = _Model(job, stream, numbers, logged) if job.model else _Log(job, logged)
    step = source.rows * max(1, BLOCK // (source.rows * job.seq_len))  # so that memory does not grow with the unit
    blocks = [slice(a, a + step) for a in range(0, len(numbers), step)]
    tables = [_block(job, stream, numbers[s], before[s], partial(source, s, tell)) for s in blocks]
    table = pa.concat_tables(tables)
    name = f"scores-{number:07d}.parquet"
    with (Location.of(job.place) / name).stream() as out:
        pq.write_table(table, out, **_WRITTEN)
    facts = {"name": name, "first": int(numbers[0]), "sequences": len(table), "files": {name: out.sum}, **sums(table)}
    return {**facts, "forgetting": source.forgetting(table), **source.facts}


class Losses(NamedTuple):
    """Losses of the n sequences of a block."""

    nll: np.ndarray  # float64[n]
    largest: np.ndarray  # float32[n]: of one token
    status: np.ndarray  # object[n]
    times: np.ndarray  # int32[n]: how often it was trained on in this round


def _block(
    job: Job, stream: Stream, numbers: np.ndarray, before: np.ndarray, losses: Callable[..., Losses]
) -> pa.Table:
    """losses(ids, bears, documents) -> rows of SCORES of some sequences."""
    T = job.seq_len
    ids, bears = stream.rows(numbers, T), stream.targets_bear_loss(numbers, T)
    documents = stream.documents(int(numbers[0]) * T, (int(numbers[-1]) + 1) * T + 1)
    targets = np.full(len(numbers), T) if bears is None else bears.sum(axis=1)
    block = losses(ids, bears, documents)
    without = ~np.isin(block.status, HAVE_LOSS)
    columns = {
        "tokens": targets,
        "nll": pa.array(block.nll, mask=without),
        "mean": pa.array(block.nll / np.maximum(targets, 1), mask=without),
        "max": pa.array(block.largest, mask=without),
        "status": pa.array(block.status, pa.string()),
        "repeats": before + block.times,
        **_described(job, numbers, ids, documents),
    }
    return pa.table([columns[n] for n in schema.SCORES.names], names=schema.SCORES.names).cast(schema.SCORES)


class _Model:
    """Computes losses with the model, which is loaded once per process."""

    def __init__(self, job: Job, stream: Stream, numbers: np.ndarray, logged: LoggedLosses | None):
        self._device = device_of(job.scorer, job.device)
        self._scorer = scorer_of_run(job.run, job.scorer, job.model, self._device, job.seq_len, job.rows)
        self._before = loads_before[job.run]
        if (self._scorer.facts.get("step") or 0) != job.step:
            fix = "name the checkpoint itself: --model RUN/checkpoints/step-…"
            raise TinydataError("the run has written a newer checkpoint since scoring began", where=job.model, fix=fix)
        self._numbers, self._logged = numbers, logged
        self._held_out = np.isin(numbers, self._scorer.held_out(stream.fingerprint, stream.total(job.seq_len)))
        self._times = logged.times if logged else (~self._held_out & job.trained).astype(np.int32)
        self.rows: int = self._scorer.rows

    def __call__(self, some: slice, tell: Tell, ids: np.ndarray, bears: Any, documents: Documents) -> Losses:
        block = score_rows(self._scorer, self._numbers[some], ids, bears, documents, tell)
        block.status[(block.status == OK) & self._held_out[some]] = HELD_OUT
        return block._replace(times=self._times[some])

    def forgetting(self, table: pa.Table) -> dict[str, list[float]] | None:
        """Sequences, tokens, nll when trained and nll now, each for the tenths of the run; None without a log."""
        then = self._logged
        if then is None:
            return None
        tokens, nll = table["tokens"].to_numpy(), table["nll"].fill_null(np.nan).to_numpy()
        both = np.isfinite(nll) & np.isfinite(then.nll) & (then.times > 0) & (then.tokens == tokens)
        columns = {"sequences": np.ones(len(nll)), "tokens": tokens, "when_trained": then.nll, "now": nll}
        return {name: np.bincount(then.tenth[both], c[both], TENTHS).tolist() for name, c in columns.items()}

    @property
    def facts(self) -> Result:
        worker: Result = {"host": socket.gethostname(), "pid": os.getpid(), "device": self._device}
        worker["loads"] = self._scorer.loads - self._before
        return {"worker": worker, "precision": self._scorer.facts.get("precision", "")}


class _Log:
    """Reads the losses that the run logged."""

    rows = 1
    facts: ClassVar[Result] = {"worker": None, "precision": ""}

    def __init__(self, job: Job, logged: LoggedLosses | None):
        assert logged is not None
        self._seq_len, self._logged = job.seq_len, logged

    def __call__(self, some: slice, tell: Tell, ids: np.ndarray, bears: Any, documents: Documents) -> Losses:
        log = self._logged
        tell(len(ids) * self._seq_len)
        status = np.where(np.isfinite(log.nll[some]), OK, NAN).astype(object)
        status[log.tokens[some] == 0] = NO_TARGETS
        status[log.times[some] == 0] = NOT_TRAINED
        return Losses(log.nll[some], log.largest[some], status, log.times[some])

    def forgetting(self, table: pa.Table) -> None:
        return None


def score_rows(
    scorer: Any, numbers: np.ndarray, ids: np.ndarray, bears: Any, documents: Documents, tell: Tell
) -> Losses:
    """Sequences `numbers` int64[n], ids [n, T + 1], bears as in Stream -> Losses, as if none had been trained on.

    Sequences with an id outside the vocabulary are not passed to the model; a loss that is not finite affects no other.
    """
    n, T = len(ids), ids.shape[1] - 1
    status = np.full(n, OK, object)
    nll, largest = np.zeros(n), np.zeros(n, np.float32)
    if bears is not None:
        status[~bears.any(axis=1)] = NO_TARGETS
    status[(ids.max(axis=1) >= scorer.vocab) | (ids.min(axis=1) < 0)] = OUTSIDE
    good = np.flatnonzero(status == OK)
    tell((n - len(good)) * T)
    step = scorer.rows * AHEAD
    for a in range(0, len(good), step):
        batch = good[a : a + step]
        which = None
        if scorer.masks_documents:
            which = documents.at(numbers[batch, None] * T + np.arange(T)).astype(np.int32)
        with translated_errors():
            losses = scorer(ids[batch].astype(np.int64), None if bears is None else bears[batch], which)
        nll[batch] = losses.sum(axis=1, dtype=np.float64)
        largest[batch] = losses.max(axis=1)
        tell(len(batch) * T)
    status[good[~np.isfinite(nll[good])]] = NAN
    return Losses(nll, largest, status, np.zeros(n, np.int32))


def _described(job: Job, numbers: np.ndarray, ids: np.ndarray, documents: Documents) -> dict[str, Any]:
    """Columns of SCORES that need no model."""
    names = pa.array(documents.domains, pa.string())
    sizes = np.zeros(max(len(names), 1), np.int64)
    domain = np.zeros(len(numbers), np.int32)
    _main_domain(documents.starts, documents.domain, numbers, job.seq_len, sizes, domain)
    file = Location.of(job.parts) / RARITY
    return {
        "sequence": numbers,
        "document": documents.first + documents.at(numbers * job.seq_len),
        "domain": names.take(pa.array(domain)),
        **features(ids, _rarity(file, file.changed), job.unknown)._asdict(),
    }


@cached(nogil=True)
def _main_domain(starts, domain, numbers, length, sizes, out):
    """-> out int32[n]: the domain with most targets of each sequence; if equal, the first. sizes: zeros[domains]."""
    documents = len(starts)
    for r in range(len(numbers)):
        begin = numbers[r] * length + 1
        end = begin + length
        first = np.searchsorted(starts, begin, side="right") - 1
        last = first
        while last < documents and starts[last] < end:
            stop = min(end, starts[last + 1]) if last + 1 < documents else end
            sizes[domain[last]] += stop - max(begin, starts[last])
            last += 1
        best = domain[first]
        for d in range(first, last):
            if sizes[domain[d]] > sizes[best]:
                best = domain[d]
        out[r] = best
        for d in range(first, last):
            sizes[domain[d]] = 0


# -- sums -------------------------------------------------------------------------------------


def sums(table: pa.Table) -> Result:
    """Rows of SCORES -> {statuses, held_out, domains}; domains: sums over what is OK, added in the table's order."""
    status = table["status"].to_numpy()
    statuses, counts = np.unique(status.astype(str), return_counts=True)
    nll, tokens = table["nll"].fill_null(0.0).to_numpy(), table["tokens"].to_numpy()
    ok, held_out = status == OK, status == HELD_OUT
    coded = table["domain"].combine_chunks().dictionary_encode()
    ones = np.ones(int(ok.sum()), np.int64)
    return {
        "statuses": dict(zip(statuses.tolist(), counts.tolist(), strict=True)),
        "held_out": {"tokens": int(tokens[held_out].sum()), "nll": float(nll[held_out].sum())},
        "domains": sums_by_domain(coded.filter(pa.array(ok)), sequences=ones, tokens=tokens[ok], nll=nll[ok]),
    }
