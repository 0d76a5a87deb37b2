"""scores -> the next round: an exact number of sequences, drawn without replacement in proportion to exp(loss / T).

Passes over the groups of SCORES, each with a small result that merges in any order: priors (where that guard is on),
losses in bins, keys near the threshold that these predict, and then what is kept is written. Nothing is sorted but
the few keys next to the threshold, and engine, workers and partitions change nothing.
"""

from __future__ import annotations

import hashlib
import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinydata import __version__, curves, schema
from tinydata.candidates import (
    GUARDS,
    REASONS,
    Judged,
    Part,
    Scores,
    Source,
    bounds,
    groups,
    judged,
    open_scores,
    read,
    tally_priors,
    unjudged,
)
from tinydata.engines.base import Engine, Stage, Tell, Unit, Units, grouped, map, silent
from tinydata.errors import TinydataError
from tinydata.hardest import HARDEST, examples
from tinydata.materialize import Copy, Target, result, units, write_shard
from tinydata.sampling import (
    BINS,
    LIMIT,
    STEPS,
    Scale,
    allocate,
    bins,
    chances,
    keys,
    log_weights,
    middles,
    quantile,
    sift,
    table,
    taken,
    tally,
    tally_parts,
)
from tinydata.sequences import Stream, open_base
from tinydata.store import MANIFEST, Location, Output, read_bytes, table_bytes

BARS = 50  # of the histogram in the manifest
ROW = 24  # bytes of a row, for progress and for the size of tasks
COLLECTED = 1 << 21  # keys of a window that one task hands back
SPREAD = 1.349  # quartiles of a normal distribution lie so many standard deviations apart
_FAR = 8  # standard deviations of a sample's size, between the predicted threshold and the ends of the window
DEFAULTS = {"periodic": 416.0, "short": 0.1, "unknown": 0.1, "prior": 6.0}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"unit": "batch", "clip": (), "stratify": "none", "exclude": ()},
    "guarded": {"unit": "sequence", "clip": (0.01, 0.99), "stratify": "domain", "exclude": GUARDS},
}


class Settings(NamedTuple):
    """What decides the result, and nothing else."""

    keep: float = 0.5  # share of the sequences with a loss; or
    tokens: int = 0  # as many sequences as make so many tokens
    preset: str = "guarded"
    unit: str = "sequence"
    batch_tokens: int = 1 << 21
    temperature: float = 1.0
    clip: tuple[float, ...] = (0.01, 0.99)  # quantiles of the stratum
    zscore: bool = False
    floor: float = 0.0
    stratify: str = "domain"
    exclude: tuple[tuple[str, float], ...] = tuple(DEFAULTS.items())
    max_repeats: int = 0
    seed: int = 0


def settings(preset: str = "guarded", exclude: tuple[str, ...] = (), **told: Any) -> Settings:
    """A preset and what was told beside it (None: not told) -> Settings. exclude: GUARD or GUARD=VALUE, or none."""
    chosen = {**PRESETS[preset], **{k: v for k, v in told.items() if v is not None}}
    named = exclude or chosen["exclude"]
    chosen["exclude"] = tuple(_guard(text) for text in named if text != "none")
    if chosen["unit"] == "batch" and chosen["stratify"] == "domain":
        raise TinydataError(
            "a batch holds sequences of many domains, so it belongs to no stratum",
            where="--unit batch with --stratify domain",
            fix="pass --stratify none, or another --unit",
        )
    return Settings(preset=preset, **chosen)


def _guard(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value) if value else DEFAULTS[name]
    except (KeyError, ValueError):
        raise TinydataError(
            f"there is no guard {text!r}", where="--exclude", fix=f"pass {', '.join(GUARDS)} or none; or NAME=NUMBER"
        ) from None


def quantiles(text: str) -> tuple[float, ...]:
    """LO,HI of --clip-quantile, or none -> the two, or nothing."""
    if text == "none":
        return ()
    try:
        low, high = (float(v) for v in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise TinydataError(f"no pair of quantiles: {text}", where="--clip-quantile", fix="pass LO,HI, as 0.01,0.99")
    return low, high


class Draw(NamedTuple):
    """Everything that decides which rows are kept, for a worker."""

    source: Source
    limits: np.ndarray  # int64 [domains, 4]: of priors
    stratum_of: np.ndarray  # int64 [domains]
    scales: np.ndarray  # float64 [strata, 6]
    seed: int
    expected: np.ndarray  # float64 [strata]: the threshold the losses predict, in nats
    threshold: np.ndarray  # int64 [strata]: the key of the last row kept
    last: np.ndarray  # int64 [strata]: and its sequence number
    deciles: np.ndarray  # int64 [9]: bins of losses at which they end
    bars: np.ndarray  # int64 [BARS - 1]: bins at which the bars of the histogram end


class Losses(NamedTuple):
    """What the losses of all candidates are."""

    counts: np.ndarray  # int64 [domains, bins]
    middles: np.ndarray  # float64 [bins]: nats
    bins: np.ndarray  # int64 [bins]: their numbers
    reasons: np.ndarray  # int64 [domains, REASONS]: rows that can be drawn, and those that cannot
    units: int


class Plan(NamedTuple):
    """A draw that has been predicted, and not been made."""

    scores: Scores
    draw: Draw
    losses: Losses
    keep: list[int]  # of each stratum
    facts: dict[str, Any]  # `selection`


class Passes(NamedTuple):
    """How passes over the groups are run."""

    engine: Engine
    partitions: int
    stage: Stage
    label: str

    def run(self, name: str, source: Source, work: Any) -> list[Any]:
        """work(groups, tell) -> what it returned for each task, in any order."""
        units = _units(source)
        tasks = [Units(g, "", "") for g in grouped(units, self.engine.slots, self.partitions)]
        with self.stage(name, sum(u.bytes for u in units)) as progress:
            return [found for _, found in self.engine.run(tasks, work, progress=progress, label=self.label)]

    def map(self, kind: str, output: Output, units: list[Unit], do: Any) -> list[dict[str, Any]]:
        """Does each unit once, also if the run is killed -> what each returned, in order."""
        with self.stage(kind, sum(u.bytes for u in units)) as progress:
            ways: dict[str, Any] = {"partitions": self.partitions, "label": self.label}
            return map(self.engine, units, do, kind=kind, parts=output.parts, progress=progress, **ways)


def _units(source: Source) -> list[Unit]:
    return [Unit(k, k, source.rows(k) * ROW) for k in range(len(source.groups))]


def resample(
    scores: str,
    out: str,
    engine: Engine,
    settings: Settings,
    *,
    reference: str = "",
    data: str = "",
    target: Target | None = None,
    force: bool = False,
    partitions: int = 0,
    stage: Stage = silent,
) -> dict[str, Any]:
    """Writes a ROUND to `out`; returns its manifest. The same command again continues a killed one.

    data: the shards that were scored, if they have moved. target: the kept sequences are copied to shards, too.

    Raises TinydataError: scores or shards that cannot be used, output that exists.
    """
    opened = open_scores(scores)
    stream = _base(opened, data, needed=target is not None)
    output = Output(out, header(opened, reference, settings, target), force=force)
    output.place.make_dir()
    place = output.place.absolute
    passes = Passes(engine, partitions, stage, f"tinydata resample {scores}")
    plan = predict(opened, passes, settings, reference, cache=output.parts.absolute)
    draw = search(plan, passes)
    done = passes.map("keep", output, _units(draw.source), partial(write_group, draw, place))
    facts = summary(plan, draw, done, output.place)
    if data and stream:
        facts["base"] = stream.facts
    table = examples([d["hardest"] for d in done], draw.source.domains, stream, draw.source.seq_len)
    files, streamed = {"examples.parquet": table_bytes(table)}, {d["name"]: d["file"] for d in done}
    if target and stream:
        keep = [(d["name"], d["sequences"]) for d in done]
        copy = Copy(stream, draw.source.seq_len, keep, target, settings.seed, place)
        made = passes.map("shard", output, units(copy), partial(write_shard, copy))
        more, beside = result(copy, made)
        facts, files = {**facts, **more}, {**files, **beside}
        streamed |= {n: s for m in made for n, s in m["files"].items()}
    return output.publish(facts, files, streamed)


def _base(opened: Scores, data: str, needed: bool) -> Stream | None:
    """The shards that were scored; None if they are gone and need not be there."""
    try:
        return open_base(opened.manifest["base"], opened.path, data, "scores were", "--data")
    except TinydataError:
        if needed or data:
            raise
        return None


def foresee(
    scores: str,
    engine: Engine,
    settings: Settings,
    *,
    reference: str = "",
    partitions: int = 0,
    stage: Stage = silent,
) -> dict[str, Any]:
    """What `resample` would keep, as its manifest's `selection` says it; nothing is written."""
    passes = Passes(engine, partitions, stage, f"tinydata resample {scores}")
    return predict(open_scores(scores), passes, settings, reference).facts


def header(scores: Scores, reference: str, settings: Settings, target: Target | None = None) -> dict[str, Any]:
    """The part of the manifest that is known beforehand: it decides whether a run may be resumed."""
    told = settings._asdict() | {"exclude": dict(settings.exclude)} | (target._asdict() if target else {})
    return {
        "tinydata": __version__,
        "verb": "resample",
        "inputs": {p: _sha256(p) for p in filter(None, [scores.path, reference])},
        "options": {**told, **({"reference": reference} if reference else {})},
    }


def _sha256(path: str) -> str:
    """Of the manifest of a directory."""
    return hashlib.sha256(read_bytes(Location.of(path) / MANIFEST)).hexdigest()


# -- what will be kept ------------------------------------------------------------------------


def predict(opened: Scores, passes: Passes, settings: Settings, reference: str = "", *, cache: str = "") -> Plan:
    """Two passes at most -> what will be kept of each decile and domain, before any key is drawn."""
    source = _source(opened, settings, reference, cache)
    limits = unjudged(len(source.domains))
    if "prior" in source.limits:
        found = passes.run("priors", source, partial(count_priors, source))
        limits = bounds(_added(found, (len(source.domains), 2, 65536)), source.limits["prior"])
    losses = _losses(passes.run("losses", source, partial(count_losses, source, limits)), len(source.domains))
    stratify = settings.stratify == "domain"
    stratum_of = np.arange(len(source.domains)) if stratify else np.zeros(len(source.domains), np.int64)
    strata = len(source.domains) if stratify else 1
    by = np.zeros((strata, losses.counts.shape[1]), np.int64)
    np.add.at(by, stratum_of, losses.counts)
    with_loss = _with_loss(losses.reasons)
    sizes = with_loss.tolist() if stratify else [int(with_loss.sum())]
    wanted = settings.tokens // source.seq_len if settings.tokens else math.floor(settings.keep * sum(sizes) + 0.5)
    keep = allocate(sizes, by.sum(1).tolist(), wanted)
    if not sum(keep):
        raise TinydataError(
            f"nothing would be kept: {int(by.sum()):,} of {sum(sizes):,} sequences can be, {wanted:,} were asked for",
            where=opened.path,
            fix="raise --keep, or loosen the guards with --exclude",
        )
    scales = table([_scale(settings, losses, row) for row in by])
    weights = np.array([_log_weights(losses.middles, scale) for scale in scales]).reshape(by.shape)
    expected = np.array([curves.threshold(w, n, k) for w, n, k in zip(weights, by, keep, strict=True)])
    every = losses.counts.sum(0)
    ends = [int(losses.bins[quantile(every, d / 10)]) if every.any() else 0 for d in range(1, 10)]
    nobody = np.zeros(strata, np.int64)
    edges = _edges(losses.middles, every)
    bars = bins(edges[1:-1].astype(np.float32))
    draw = Draw(source, limits, stratum_of, scales, settings.seed, expected, nobody, nobody, np.array(ends), bars)
    before = np.bincount(np.searchsorted(bars, losses.bins), weights=every, minlength=BARS).astype(int).tolist()
    facts = _facts(settings, draw, losses, keep, wanted, weights, by)
    return Plan(opened, draw, losses, keep, {**facts, "histogram": {"edges": edges.tolist(), "before": before}})


def _edges(middles: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64[BARS + 1], nats: where nearly all losses are, rounded so that it can be read."""
    low, high = (middles[quantile(counts, q)] if counts.any() else q for q in (0.001, 0.999))
    if high - low < 1e-3:
        low, high = low - 0.5, high + 0.5
    return np.round(np.linspace(low, high, BARS + 1), 6)


def _source(opened: Scores, settings: Settings, reference: str, cache: str) -> Source:
    manifest = opened.manifest
    limits = dict(settings.exclude) | ({"repeats": settings.max_repeats} if settings.max_repeats else {})
    if "periodic" in limits:  # a short sequence is nothing else when half of it is
        limits["periodic"] = min(limits["periodic"], manifest["seq_len"] / 2)
    others: list[Part] = []
    if reference:
        other = open_scores(reference)
        for what in (("base", "fingerprint"), ("seq_len",)):
            if _at(manifest, what) != _at(other.manifest, what):
                raise TinydataError(
                    "these scores are of other sequences: " + " ".join(what) + " differs",
                    where=reference,
                    fix="score the same shards with the reference model, and the same --seq-len",
                )
        others = other.parts
    found = groups(opened.parts)
    if not found:
        raise TinydataError("the scores are empty", where=opened.path, fix="score some shards first")
    batch = max(1, settings.batch_tokens // manifest["seq_len"])
    names = sorted(manifest["domains"])
    return Source(found, names, manifest["seq_len"], settings.unit, batch, limits, others, cache)


def _at(manifest: dict[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = manifest
    for key in keys:
        value = value[key]
    return value


def _with_loss(reasons: np.ndarray) -> np.ndarray:
    """int64[domains]: sequences that have a loss, whether they can be drawn or not."""
    return reasons.sum(1) - reasons[:, REASONS.index("no loss")]


def _scale(settings: Settings, losses: Losses, counts: np.ndarray) -> Scale:
    """counts int64[bins] of a stratum -> what makes its log-weights of its losses."""
    if not counts.any():
        return Scale()

    def at(share: float) -> float:
        return float(losses.middles[quantile(counts, share)])

    low, high = (at(q) for q in settings.clip) if settings.clip else (-np.inf, np.inf)
    centre, spread = 0.0, 1.0
    if settings.zscore:
        centre, spread = at(0.5), max((at(0.75) - at(0.25)) / SPREAD, 1e-6)
    scale = Scale(low, high, centre, 1.0 / (settings.temperature * spread))
    if not settings.floor:
        return scale
    weights = _log_weights(losses.middles, np.array(scale))
    top = float(weights[counts > 0].max())
    mean = top + math.log(float(counts @ np.exp(weights - top)) / float(counts.sum()))
    return scale._replace(share=math.log1p(-settings.floor), uniform=math.log(settings.floor) + mean)


def _log_weights(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    out = np.empty(len(values))
    log_weights(values, scale, out)
    return out


def _facts(
    settings: Settings,
    draw: Draw,
    losses: Losses,
    keep: list[int],
    wanted: int,
    weights: np.ndarray,
    by: np.ndarray,
) -> dict[str, Any]:
    """What the manifest says of the draw before it is made."""
    source, counts = draw.source, losses.counts
    chance = np.array([curves.inclusion(w, t) for w, t in zip(weights, draw.expected, strict=True)]).reshape(by.shape)
    kept = counts * chance[draw.stratum_of]
    decile = np.searchsorted(draw.deciles, losses.bins)
    total, eligible = int(counts.sum()), by.sum(1)
    effective = [curves.effective_share(w, n) * float(n.sum()) for w, n in zip(weights, by, strict=True) if n.any()]
    mean = float(counts.sum(0) @ losses.middles) / max(total, 1)
    variance = float(counts.sum(0) @ (losses.middles - mean) ** 2) / max(total, 1)
    after = float(kept.sum(0) @ losses.middles) / max(sum(keep), 1)
    drawn = max(1.0, losses.units * sum(keep) / max(total, 1))
    error = math.sqrt(variance * (1 - sum(keep) / max(total, 1)) / drawn)
    with_loss = _with_loss(losses.reasons)
    facts: dict[str, Any] = {
        "sequences": int(with_loss.sum()),
        "eligible": total,
        "units": losses.units,
        "wanted": wanted,
        "expected": sum(keep),
        "effective_size": sum(effective) / max(total, 1),
        "loss": {"before": mean, "expected": after, "standard_error_of_random": error},
        "deciles": [
            {
                "sequences": int(counts[:, decile == d].sum()),
                "expected": float(kept[:, decile == d].sum()) / max(int(counts[:, decile == d].sum()), 1),
            }
            for d in range(10)
        ],
        "domains": {
            name: {"sequences": int(with_loss[d]), "eligible": int(counts[d].sum()), "expected": float(kept[d].sum())}
            for d, name in enumerate(source.domains)
        },
        "excluded": {r: int(n) for r, n in zip(REASONS, losses.reasons.sum(0), strict=True) if r and n},
        "limits": source.limits,
        "strata": [
            {
                "domain": source.domains[s] if len(keep) > 1 else "",
                "eligible": int(eligible[s]),
                "keep": keep[s],
                "clip": [_finite(v) for v in draw.scales[s][:2]],
                "expected_threshold": _finite(draw.expected[s]),
            }
            for s in range(len(keep))
        ],
    }
    return {**facts, "notes": _notes(settings, facts)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _notes(settings: Settings, facts: dict[str, Any]) -> list[str]:
    """What a user must hear of it."""
    out = []
    if facts["eligible"] <= facts["wanted"]:
        out.append(
            f"all {facts['eligible']:,} sequences that can be kept are kept: {facts['wanted']:,} were asked for;"
            " a smaller --keep chooses among them, and a looser --exclude leaves more"
        )
        return out
    loss = facts["loss"]
    shift = abs(loss["expected"] - loss["before"])
    if facts["effective_size"] > 0.99 or shift < 3 * loss["standard_error_of_random"]:
        change = [] if settings.unit == "sequence" else ["--unit sequence"]
        change += ["a lower --temperature"] + ([] if settings.zscore else ["--zscore"])
        out.append(
            f"this is hardly more than a random choice: the effective size is {facts['effective_size']:.4f} of all, and"
            f" the mean loss goes from {loss['before']:.4f} to {loss['expected']:.4f}, where chance alone moves it by"
            f" {loss['standard_error_of_random']:.4f}; {' or '.join(change)} makes more of the losses"
        )
    return out


# -- passes -----------------------------------------------------------------------------------


Sparse = tuple[np.ndarray, np.ndarray]  # places in a flat array, and what stands there


def _sparse(counts: np.ndarray) -> Sparse:
    at = np.flatnonzero(counts)
    return at, counts.ravel()[at]


def _added(found: list[Sparse], shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, np.int64)
    for at, counts in found:
        out.ravel()[at] += counts
    return out


def count_priors(source: Source, task: Units, tell: Tell) -> Sparse:
    """-> counts of priors and their deviations [domains, 2, 65536]."""
    counts = np.zeros((len(source.domains), 2, 65536), np.int64)
    for unit in task.units:
        rows = read(source, unit.about)
        tally_priors(rows.prior, rows.spread, rows.reason, rows.domain, counts)
        tell(unit.bytes)
    return _sparse(counts)


def count_losses(source: Source, limits: np.ndarray, task: Units, tell: Tell) -> tuple[Sparse, np.ndarray, int]:
    """-> counts of losses [domains, BINS], of reasons [domains, REASONS], number of units."""
    counts = np.zeros((len(source.domains), BINS), np.int64)
    reasons = np.zeros(len(source.domains) * len(REASONS), np.int64)
    units = 0
    for unit in task.units:
        found = judged(source, unit.about, limits)
        tally(found.loss.view(np.uint32), found.reason, found.rows.domain, counts)
        code = found.rows.domain.astype(np.int64) * len(REASONS) + found.reason
        reasons += np.bincount(code, minlength=len(reasons))
        units += found.units
        tell(unit.bytes)
    return _sparse(counts), reasons.reshape(-1, len(REASONS)), units


def _losses(found: list[tuple[Sparse, np.ndarray, int]], domains: int) -> Losses:
    index = np.unique(np.concatenate([at % BINS for (at, _), _, _ in found]))
    if not len(index):
        index = np.zeros(1, np.int64)
    counts = np.zeros((domains, len(index)), np.int64)
    for (at, n), _, _ in found:
        counts[at // BINS, np.searchsorted(index, at % BINS)] += n
    reasons = np.sum([r for _, r, _ in found], axis=0)
    return Losses(counts, middles(index), index, reasons, sum(u for _, _, u in found))


class Near(NamedTuple):
    """Keys around a threshold: how many are above the window, and those in it, in steps and, if few, themselves."""

    above: np.ndarray  # int64 [strata]
    counts: np.ndarray  # int64 [strata, STEPS]
    keys: np.ndarray | None  # int64 [n, 3]: stratum, key, sequence


def _drawn(draw: Draw, group: int) -> tuple[Judged, np.ndarray]:
    """-> the rows of a group, and their keys."""
    found = judged(draw.source, group, draw.limits)
    out = np.empty(len(found.reason), np.int64)
    seed = np.uint64(draw.seed)
    keys(found.loss, found.reason, found.rows.domain, found.unit, draw.stratum_of, draw.scales, seed, out)
    return found, out


def count_keys(draw: Draw, low: np.ndarray, high: np.ndarray, step: np.ndarray, task: Units, tell: Tell) -> Near:
    """One pass: keys against a window low..high int64[strata] of each stratum."""
    above, counts = np.zeros(len(low), np.int64), np.zeros((len(low), STEPS), np.int64)
    inside: list[np.ndarray] | None = [np.empty((0, 3), np.int64)]
    size = 0
    for unit in task.units:
        found, key = _drawn(draw, unit.about)
        at = np.empty(len(key), np.int64)
        n = sift(key, found.rows.domain, draw.stratum_of, low, high, step, above, counts, at)
        size += n
        at = at[:n]
        if size > COLLECTED:
            inside = None
        elif inside is not None:
            stratum = draw.stratum_of[found.rows.domain[at]]
            inside.append(np.stack([stratum, key[at], found.rows.sequence[at]], axis=1))
        tell(unit.bytes)
    return Near(above, counts, None if inside is None else np.concatenate(inside))


def search(plan: Plan, passes: Passes) -> Draw:
    """Finds each stratum's threshold: the key, and among equal keys the sequence, of the last row that is kept.

    The losses predict it, so one pass over a narrow window nearly always does; where the window misses, or holds
    too many keys, it moves, or narrows to a step. In the end the number kept is exact, whatever was predicted.
    """
    draw, strata = plan.draw, len(plan.keep)
    threshold, last = np.full(strata, LIMIT + 1), np.full(strata, -1)  # nothing
    eligible = np.zeros(strata, np.int64)
    np.add.at(eligible, draw.stratum_of, plan.losses.counts.sum(1))
    whole = np.array(plan.keep) >= eligible
    threshold[whole], last[whole] = -LIMIT, np.iinfo(np.int64).max
    low, high = _windows(plan)
    todo = [s for s in range(strata) if 0 < plan.keep[s] < eligible[s]]
    while todo:
        closed = np.ones(strata, np.bool_)
        closed[todo] = False
        low[closed] = high[closed] = LIMIT + 2
        step = np.maximum(1, -(-(high - low) // STEPS))
        found = passes.run("keys", draw.source, partial(count_keys, draw, low, high, step))
        above = sum(n.above for n in found)
        counts = sum(n.counts for n in found)
        told = [n.keys for n in found if n.keys is not None]
        everything = np.concatenate(told) if len(told) == len(found) else None
        for s in list(todo):
            rank = plan.keep[s] - int(above[s])  # among the keys inside
            if rank <= 0:
                low[s], high[s] = high[s], LIMIT + 1
            elif rank > counts[s].sum():
                low[s], high[s] = -LIMIT, low[s]
            elif everything is not None:
                mine = everything[everything[:, 0] == s]
                at = np.lexsort((mine[:, 2], -mine[:, 1]))[rank - 1]
                threshold[s], last[s] = mine[at, 1:]
                same = mine[mine[:, 1] == threshold[s]]
                cut = {"kept": int((same[:, 2] <= last[s]).sum()), "of": len(same)}
                plan.facts["strata"][s]["last_unit"] = cut
                todo.remove(s)
            else:
                from_top = np.cumsum(counts[s][::-1])
                k = STEPS - 1 - int(np.searchsorted(from_top, rank))
                low[s], high[s] = low[s] + k * step[s], min(low[s] + (k + 1) * step[s], high[s])
    return draw._replace(threshold=threshold, last=last)


def _windows(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """-> low, high int64[strata]: keys between which the threshold is expected, by the counts of losses."""
    draw, losses = plan.draw, plan.losses
    low, high = np.full(len(plan.keep), -LIMIT), np.full(len(plan.keep), LIMIT + 1)
    for s, k in enumerate(plan.keep):
        counts = losses.counts[draw.stratum_of == s].sum(0)
        total = int(counts.sum())
        if not 0 < k < total:
            continue
        together = max(1.0, total / max(losses.units, 1)) if draw.source.unit != "sequence" else 1.0
        far = _FAR * math.sqrt(together * k * (1 - k / total)) + 16 * together + 100
        weights = _log_weights(losses.middles, draw.scales[s])
        for ends, rank in ((low, k + far), (high, k - far)):
            t = curves.threshold(weights, counts, rank)
            if math.isfinite(t):
                ends[s] = int(min(max(t * 2.0**32, -LIMIT), LIMIT))
    return low, np.maximum(high, low + 1)


# -- what is kept -----------------------------------------------------------------------------


_KEEP_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["repeats"],
    "column_encoding": {"sequence": "DELTA_BINARY_PACKED", "inclusion": "BYTE_STREAM_SPLIT"},
    "write_statistics": ["sequence"],
}


def write_group(draw: Draw, place: str, group: int, number: int, tell: Tell) -> dict[str, Any]:
    """One group -> its KEEP file; returns sums, and the hardest of what was kept and of what was not."""
    found, key = _drawn(draw, group)
    rows = found.rows
    kept = np.empty(len(key), np.bool_)
    taken(key, rows.sequence, rows.domain, draw.stratum_of, draw.threshold, draw.last, kept)
    at = np.flatnonzero(kept)
    chance = np.empty(len(at), np.float32)
    chances(found.loss, at, rows.domain, draw.stratum_of, draw.scales, draw.expected, chance)
    columns = [rows.sequence[at], chance, rows.repeats[at].astype(np.int32)]
    name = f"keep-{number:07d}.parquet"
    with (Location.of(place) / name).stream() as sink:
        pq.write_table(pa.table(columns, schema=schema.KEEP), sink, **_KEEP_OPTIONS)
    domains = len(draw.source.domains)
    raw = found.loss.view(np.uint32)
    sums = {
        "name": name,
        "file": sink.sum,
        "first": int(rows.sequence[0]),
        "sequences": len(at),
        "tokens": int(rows.tokens[at].sum(dtype=np.int64)),
        "loss": float(found.loss[at].astype(np.float64).sum()),
        "domains": np.bincount(rows.domain[at], minlength=domains).tolist(),
        "deciles": _parts(raw, at, draw.deciles),
        "bars": _parts(raw, at, draw.bars),
        "hardest": _hardest(found, kept),
    }
    tell(len(key) * ROW)
    return sums


def _parts(raw: np.ndarray, at: np.ndarray, ends: np.ndarray) -> list[int]:
    """raw uint32[n]: bits of losses, at int64[k]: which, ends int64[m - 1]: bins -> how many there are in each of m."""
    counts = np.zeros(len(ends) + 1, np.int64)
    tally_parts(raw, at, np.searchsorted(ends, np.arange(BINS)).astype(np.uint8), counts)
    return counts.tolist()


def _hardest(found: Judged, kept: np.ndarray) -> dict[str, list[list[Any]]]:
    """{"" for kept, or the reason: [[sequence, domain, loss]] of the hardest}."""
    rows = found.rows
    out = {}
    for code, reason in enumerate(REASONS):
        at = np.flatnonzero(kept if not code else found.reason == code)
        if reason == "no loss" or not len(at):
            continue
        loss = rows.loss[at]
        if len(at) > HARDEST:
            worst = np.flatnonzero(loss >= np.partition(loss, len(at) - HARDEST)[-HARDEST])
            at, loss = at[worst], loss[worst]
        best = at[np.argsort(-loss, kind="stable")[:HARDEST]].tolist()
        out[reason] = [[int(rows.sequence[i]), int(rows.domain[i]), float(rows.loss[i])] for i in best]
    return out


def summary(plan: Plan, draw: Draw, done: list[dict[str, Any]], place: Location) -> dict[str, Any]:
    """What the manifest says of the result."""
    manifest, facts = plan.scores.manifest, plan.facts
    kept = sum(d["sequences"] for d in done)
    deciles, domains = (np.sum([d[k] for d in done], axis=0).tolist() for k in ("deciles", "domains"))
    for fact, n in zip(facts["deciles"], deciles, strict=True):
        fact["kept"] = n / max(fact["sequences"], 1)
    for name, n in zip(draw.source.domains, domains, strict=True):
        facts["domains"][name]["kept"] = n
    for s, fact in enumerate(facts["strata"]):
        fact["threshold"] = {"key": int(draw.threshold[s]), "sequence": int(draw.last[s])}
    facts["histogram"]["kept"] = np.sum([d["bars"] for d in done], axis=0).tolist()
    facts["loss"]["kept"] = sum(d["loss"] for d in done) / max(kept, 1)
    selected = hashlib.sha256()
    for d in done:
        with (place / d["name"]).open() as f:
            selected.update(pq.read_table(f, columns=["sequence"], use_threads=False)["sequence"].to_numpy())
    return {
        "round": manifest["round"] + 1,
        "seq_len": manifest["seq_len"],
        "base": manifest["base"],
        "scores": {"path": plan.scores.path, "manifest": _sha256(plan.scores.path)},
        "tokenizer": manifest["tokenizer"],
        "kept": {
            "sequences": kept,
            "tokens": sum(d["tokens"] for d in done),
            "expected": sum(d["expected"] for d in facts["domains"].values()),
            "sha256": selected.hexdigest(),
        },
        "selection": facts,
        "parts": [{k: d[k] for k in ("name", "first", "sequences")} for d in done],
    }
