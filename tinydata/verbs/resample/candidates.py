"""SCORES -> the rows that may be drawn, after the guards.

The parts of SCORES are small files; consecutive ones of GROUP rows or more in all are read together. The columns of a
group that the passes need (9 to 30 bytes per row) are stored next to the unfinished output, uncompressed, and mapped
into memory: reading them again costs a tenth of reading Parquet.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.kernels import compiled
from tinydata.core.location import Location
from tinydata.core.output import read_manifest
from tinydata.verbs.resample.gumbel import unit_losses

GROUP = 1 << 20  # rows
REASONS = (  # why a row is not eligible
    "",
    "no loss",
    "repeats",
    "periodic",
    "short",
    "unknown",
    "prior",
    "no reference",
)
GUARDS = ("periodic", "short", "unknown", "prior")
STEP = 2048  # priors are rounded to 1/2048 nat
_NLL = 65536.0  # losses are rounded to 1/65536 nat, so that their sums do not depend on the order
_FEWEST = 32  # a domain with fewer sequences has no meaningful median
_LEAST = 0.05  # nats: a smaller spread is replaced by this


class ScoresPart(NamedTuple):
    """One Parquet file of SCORES."""

    path: str
    first: int  # sequence number of its first row
    rows: int


class Scores(NamedTuple):
    """Output directory of `tinydata score`."""

    path: str
    manifest: dict[str, Any]
    parts: list[ScoresPart]  # in order


class Source(NamedTuple):
    """What a worker needs to read candidates."""

    groups: list[list[ScoresPart]]
    domains: list[str]
    seq_len: int
    unit: str  # sequence, document, batch
    batch: int  # sequences
    limits: dict[str, float]  # guard -> its value; "repeats" too
    reference: list[ScoresPart]
    cache: str  # directory for the columns that are read again; "": none

    def rows(self, group: int) -> int:
        return sum(p.rows for p in self.groups[group])


class Rows(NamedTuple):
    """The rows of one group, in order."""

    sequence: np.ndarray  # int64
    domain: np.ndarray  # int16: index into Source.domains
    reason: np.ndarray  # uint8: index into REASONS, before the prior guard
    tokens: np.ndarray  # unsigned
    repeats: np.ndarray  # unsigned
    loss: np.ndarray  # float32: mean, minus that of the reference
    prior: np.ndarray  # uint16[n or 0], in units of 1 / STEP nat
    spread: np.ndarray  # uint16[n or 0]: its standard deviation
    nll: np.ndarray  # int64[n or 0], in units of 1 / 65536 nat
    unit: np.ndarray  # int64[n or 0]: documents


def open_scores(path: str) -> Scores:
    """Directory of SCORES -> Scores; raises TinydataError if its parts overlap."""
    manifest = read_manifest(path, "score")
    where = Location.of(Location.of(path).absolute)
    parts = sorted(
        (ScoresPart((where / p["name"]).path, p["first"], p["sequences"]) for p in manifest["parts"]), key=_first
    )
    for a, b in pairwise(parts):
        if b.first < a.first + a.rows:
            raise _disorder(
                b.path, f"it begins at sequence {b.first}, before the last sequence of {Location.of(a.path).name}"
            )
    return Scores(path, manifest, parts)


def _first(part: ScoresPart) -> int:
    return part.first


def groups(parts: list[ScoresPart]) -> list[list[ScoresPart]]:
    """Parts -> groups of consecutive parts with GROUP rows or more each; empty parts are left out."""
    out: list[list[ScoresPart]] = []
    size = GROUP
    for part in parts:
        if not part.rows:
            continue
        if size >= GROUP:
            out.append([])
            size = 0
        out[-1].append(part)
        size += part.rows
    return out


def _disorder(path: str, why: str) -> TinydataError:
    return TinydataError(
        f"the rows are not sorted by sequence: {why}",
        where=path,
        fix="run `tinydata score` again, or sort the scores by sequence",
        code=UNREADABLE,
    )


# -- reading ----------------------------------------------------------------------------------


def read(source: Source, group: int) -> Rows:
    """Group number -> Rows, from the cache if it contains them; otherwise they are added to it."""
    cached = Location.of(source.cache) / f"rows-{group:07d}.arrow" if source.cache else None
    if cached is None or not cached.exists():
        rows = _from_scores(source, source.groups[group])
        if cached is not None:
            cached.write(_packed(rows))
        return rows
    content = pa.memory_map(cached.absolute) if cached.local else pa.BufferReader(cached.open().read_buffer())
    batch = pa.ipc.open_file(content).get_batch(0)
    size, first = int(batch.schema.metadata[b"rows"]), int(batch.schema.metadata[b"first"])
    columns = [batch.column(name).values.to_numpy() for name in Rows._fields]
    whole = [np.full(size, c[0]) if len(c) == 1 else c for c in columns]
    return Rows(*whole)._replace(sequence=whole[0] + np.arange(first, first + size))


def _packed(rows: Rows) -> pa.Buffer:
    """Rows -> Arrow file with one row, in which each column is a list: of one value if all are equal.

    Sequence numbers are stored as differences from consecutive ones.
    """
    first, size = int(rows.sequence[0]), len(rows.sequence)
    slim = rows._replace(sequence=_narrow(rows.sequence - np.arange(first, first + size)))
    short = [c[:1] if len(c) and (c == c[0]).all() else c for c in slim]
    lists = [pa.LargeListArray.from_arrays(pa.array([0, len(c)]), pa.array(c)) for c in short]
    batch = pa.RecordBatch.from_arrays(lists, names=list(Rows._fields))
    batch = batch.replace_schema_metadata({"first": str(first), "rows": str(size)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as out:
        out.write_batch(batch)
    return sink.getvalue()


def _narrow(values: np.ndarray) -> np.ndarray:
    """Non-negative integers -> the same in the smallest dtype that can represent them."""
    top = int(values.max(initial=0))
    return values.astype(next(t for t in (np.uint8, np.uint16, np.uint32, np.int64) if top <= np.iinfo(t).max))


def _from_scores(source: Source, parts: list[ScoresPart]) -> Rows:
    limits = source.limits
    names = ["sequence", "domain", "status", "mean", "tokens", "repeats"]
    names += [n for n in ("periodic", "unknown") if n in limits]
    names += ["prior", "prior_sd"] if "prior" in limits else []
    names += ["nll"] if source.unit != "sequence" else []
    names += ["document"] if source.unit == "document" else []
    columns = _columns(parts, names)
    sequence, tokens = columns["sequence"], columns["tokens"]
    if len(sequence) != sum(p.rows for p in parts) or sequence[0] != parts[0].first or (np.diff(sequence) <= 0).any():
        raise _disorder(parts[0].path, "they do not start at the number in the manifest, or are not ascending")
    loss = columns["mean"].astype(np.float32)
    nll = columns.get("nll", np.empty(0))
    good = _coded(columns["status"], {"ok": 1}) == 1
    reason = np.where(good & np.isfinite(loss) & (tokens > 0), 0, 1).astype(np.uint8)
    if source.reference:
        reference = _reference(source, sequence)
        loss = loss - reference.mean
        nll = nll - reference.nll if len(nll) else nll
        _mark(reason, "no reference", ~reference.known)
    if "periodic" in limits:
        _mark(reason, "periodic", columns["periodic"] >= limits["periodic"])
    if "short" in limits:
        _mark(reason, "short", tokens < limits["short"] * source.seq_len)
    if "unknown" in limits:
        _mark(reason, "unknown", columns["unknown"] > limits["unknown"] * tokens)
    if "repeats" in limits:
        _mark(reason, "repeats", columns["repeats"] >= limits["repeats"])
    codes = {name: k for k, name in enumerate(source.domains)}
    return Rows(
        sequence,
        _coded(columns["domain"], codes, parts[0].path).astype(np.int16),
        reason,
        _narrow(np.maximum(tokens, 0)),
        _narrow(np.maximum(columns["repeats"], 0)),
        np.where(reason == 1, np.float32(0), loss),
        _steps(columns.get("prior", np.empty(0))),
        _steps(columns.get("prior_sd", np.empty(0))),
        np.rint(np.where(reason == 1, 0, nll) * _NLL).astype(np.int64) if len(nll) else np.empty(0, np.int64),
        columns.get("document", np.empty(0, np.int64)),
    )


def _mark(reason: np.ndarray, name: str, which: np.ndarray) -> None:
    reason[which & (reason == 0)] = REASONS.index(name)


def _steps(prior: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(np.nan_to_num(prior) * STEP), 0, 65535).astype(np.uint16)


def _columns(parts: list[ScoresPart], names: list[str]) -> dict[str, Any]:
    """Columns of consecutive parts: numpy arrays, nulls as 0; domain and status as dictionary arrays."""
    tables = []
    for part in parts:
        try:
            with Location.of(part.path).open() as f:
                file = pq.ParquetFile(f, read_dictionary=["domain", "status"])
                tables.append(file.read(columns=names, use_threads=False))
        except (OSError, pa.ArrowException) as e:
            raise TinydataError(
                f"the scores cannot be read: {e}", where=part.path, fix="run `tinydata score --force` again"
            ) from None
    whole = pa.concat_tables(tables)
    labels = ("domain", "status")
    return {n: whole[n] if n in labels else _filled(whole[n]) for n in names}


def _filled(column: pa.ChunkedArray) -> np.ndarray:
    return (column.fill_null(0) if column.null_count else column).to_numpy()


def _coded(column: pa.ChunkedArray, codes: dict[str, int], path: str = "") -> np.ndarray:
    """Labels -> their codes int64, -1 for others; with a path, TinydataError for others."""
    out = []
    for chunk in column.chunks:
        code = np.array([codes.get(name or "", -1) for name in chunk.dictionary.to_pylist()] or [-1])
        index = pc.fill_null(chunk.indices, 0) if chunk.null_count else chunk.indices
        values = code[index.to_numpy()]
        if chunk.null_count:
            values = np.where(chunk.is_null().to_numpy(zero_copy_only=False), codes.get("", -1), values)
        out.append(values)
    values = np.concatenate(out)
    if path and (values < 0).any():
        raise TinydataError(
            "the scores contain a domain that is missing in their manifest",
            where=path,
            fix="run `tinydata score` again",
        )
    return values


class _Reference(NamedTuple):
    """Losses of n sequences under the reference model."""

    known: np.ndarray  # bool[n]
    mean: np.ndarray  # float32[n]; 0 if not known
    nll: np.ndarray  # float64[n]; 0 if not known


def _reference(source: Source, sequence: np.ndarray) -> _Reference:
    """Sequence numbers int64[n], ascending -> _Reference."""
    first, last = int(sequence[0]), int(sequence[-1])
    ends = [p.first for p in source.reference[1:]] + [last + 1]
    parts = [p for p, end in zip(source.reference, ends, strict=True) if p.first <= last and end > first and p.rows]
    if not parts:
        return _Reference(
            np.zeros(len(sequence), np.bool_), np.zeros(len(sequence), np.float32), np.zeros(len(sequence))
        )
    other = _columns(parts, ["sequence", "status", "mean", "nll"])
    at = np.minimum(np.searchsorted(other["sequence"], sequence), len(other["sequence"]) - 1)
    good = (_coded(other["status"], {"ok": 1, "held out": 1}) == 1) & np.isfinite(other["mean"])
    known = (other["sequence"][at] == sequence) & good[at]
    mean, nll = (np.where(known, other[name][at], 0) for name in ("mean", "nll"))
    return _Reference(known, mean.astype(np.float32), nll)


# -- guards -----------------------------------------------------------------------------------


def no_bounds(domains: int) -> np.ndarray:
    """-> bounds int64[domains, 4] within which every prior lies."""
    return np.tile(np.array([0, 65535, 0, 65535]), (domains, 1))


def bounds(counts: np.ndarray, distance: float) -> np.ndarray:
    """counts int64[domains, 2, 65536] of prior and its deviation -> bounds int64[domains, 4] of what is not excluded.

    They are within `distance` robust standard deviations (1.4826 x median absolute deviation) of the domain's
    median; a domain with fewer than 32 sequences has no bounds.
    """
    out = no_bounds(len(counts))
    for d, both in enumerate(counts):
        for k, count in enumerate(both):
            total = int(count.sum())
            if total < _FEWEST:
                continue
            median = int(np.searchsorted(np.cumsum(count), (total + 1) // 2))
            away = np.bincount(np.abs(np.arange(len(count)) - median), weights=count, minlength=1)
            mad = int(np.searchsorted(np.cumsum(away), (total + 1) // 2))
            far = int(np.ceil(distance * max(1.4826 * mad, _LEAST * STEP)))
            out[d, 2 * k : 2 * k + 2] = median - far, median + far
    return out


@compiled()
def tally_priors(prior, spread, reason, domain, counts):
    """uint16[n] each -> counts int64[domains, 2, 65536] of the rows with reason 0."""
    for i in range(len(prior)):
        if reason[i] == 0:
            counts[domain[i], 0, prior[i]] += 1
            counts[domain[i], 1, spread[i]] += 1


@compiled()
def _outliers(prior, spread, domain, bounds, code, reason):
    for i in range(len(prior)):
        b = bounds[domain[i]]
        inside = b[0] <= prior[i] <= b[1] and b[2] <= spread[i] <= b[3]
        if reason[i] == 0 and not inside:
            reason[i] = code


class Candidates(NamedTuple):
    """Rows of a group, with all guards applied and the loss of their unit."""

    rows: Rows
    reason: np.ndarray  # uint8
    loss: np.ndarray  # float32: of the unit
    unit: np.ndarray  # int64
    units: int  # eligible units that begin in this group


def apply_guards(source: Source, group: int, limits: np.ndarray) -> Candidates:
    """Group number, limits int64[domains, 4] from `bounds` -> Candidates."""
    rows = read(source, group)
    reason = _reasons(rows, limits)
    if source.unit == "sequence":
        return Candidates(rows, reason, rows.loss, rows.sequence, int((reason == 0).sum()))
    unit = _units(source, rows)
    before = _beyond(source, group, -1, int(unit[0]), limits)
    after = _beyond(source, group, 1, int(unit[-1]), limits)
    loss = np.empty(len(unit), np.float32)
    begun = unit_losses(unit, rows.nll, rows.tokens, reason, before, after, loss)
    return Candidates(rows, reason, loss, unit, int(begun))


def _reasons(rows: Rows, limits: np.ndarray) -> np.ndarray:
    reason = rows.reason.copy()
    if len(rows.prior):
        _outliers(rows.prior, rows.spread, rows.domain, limits, np.uint8(REASONS.index("prior")), reason)
    return reason


def _units(source: Source, rows: Rows) -> np.ndarray:
    return rows.unit if source.unit == "document" else rows.sequence // source.batch


def _beyond(source: Source, group: int, step: int, unit: int, limits: np.ndarray) -> tuple[int, int]:
    """(nll, tokens) of the eligible rows of this unit in earlier (step -1) or later (1) groups."""
    nll = tokens = 0
    k = group + step
    while 0 <= k < len(source.groups):
        rows = read(source, k)
        same = _units(source, rows) == unit
        mine = same & (_reasons(rows, limits) == 0)
        nll += int(rows.nll[mine].sum())
        tokens += int(rows.tokens[mine].sum(dtype=np.int64))
        if not same.all():
            break
        k += step
    return nll, tokens
