"""shards or a round -> SCORES: the loss of every sequence under a frozen model, and what it looks like without one.

Two passes: how often each id occurs (for `prior`), then the units, runs of consecutive sequences that depend on the
data alone. A unit is scored by one worker and written as one file, so the table is the same whatever ran where, and a
killed run goes on at the next unit. `losses`: the same table from what the trainer logged, without a model.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from tinydata import __version__, losses
from tinydata.engines.base import Engine, Stage, Tell, Unit, grouped, map, silent
from tinydata.errors import UNREADABLE, TinydataError
from tinydata.guards import count, rarity
from tinydata.scoring import AHEAD, BLOCK, OK, RARITY, Job, device_of, new, score_rows, score_unit
from tinydata.sequences import Stream
from tinydata.store import MANIFEST, Location, Output, fingerprint

UNIT_TOKENS = (1 << 18, 1 << 26)  # a thousandth of the data, between these: the least that is done again after a kill
SPAN = 1 << 24  # tokens that are counted as one
SAMPLE_SECONDS = 3.0  # of scoring, for the estimate of --dry-run


class Settings(NamedTuple):
    """What decides the result; `device` only says where."""

    model: str = ""  # a run, one of its checkpoints, or a Hugging Face directory
    losses: str = ""  # or a run, whose logged losses are taken
    scorer: str = "trainer.scorer:load"
    seq_len: int = 0  # 0: as the model was trained
    rows: int = 0  # sequences at once; 0: as many as the scorer likes
    base: str = ""  # the shards of a round, if they are not where they were
    device: str = "auto"


class Plan(NamedTuple):
    """What is scored, by what, in which pieces."""

    stream: Stream
    scorer: Any  # on this machine, for its facts; None with `losses`
    log: str  # directory of a run that logged its losses on these sequences; ""
    seq_len: int
    units: list[Unit]  # about: (a, b), sequences of the dataset

    @property
    def tokens(self) -> int:
        return sum(u.bytes for u in self.units)


class Scored(NamedTuple):
    manifest: dict[str, Any]
    workers: list[dict[str, Any]]  # host, pid, device, loads of the model: for .run.json, since runs differ in it


def plan(data: str, settings: Settings) -> Plan:
    """Raises TinydataError: no shards, nothing in them, a model of another tokenizer, a log of other shards."""
    stream = Stream.open(data, settings.base)
    scorer = None
    if settings.losses:
        run = Location.of(settings.losses)
        T = settings.seq_len or losses.recipe(run)["model"]["seq_len"]
        why = losses.matches(run, stream, T)
        if why:
            raise TinydataError(f"{why}", where=settings.losses, fix="name the run that was trained on these shards")
        log = (run / "losses").absolute
    else:
        scorer = new(settings.scorer, _absolute(settings.model), settings.device, settings.seq_len, settings.rows)
        T = scorer.seq_len
        _check_tokenizer(stream, scorer, settings)
        log = scorer.losses if scorer.losses and not _why_not(scorer.losses, stream, T) else ""
    size = stream.size(T)
    if not size:
        raise TinydataError(
            f"{stream.tokens:,} tokens make no sequence of {T}",
            where=data,
            fix="encode more, or use a smaller --seq-len",
            code=UNREADABLE,
        )
    return Plan(stream, scorer, log, T, units(size, T))


def units(size: int, seq_len: int) -> list[Unit]:
    """Sequences in the dataset -> runs of them; a unit's `bytes` are tokens."""
    low, high = UNIT_TOKENS
    step = -(-min(max(size * seq_len // 1024, low), high) // seq_len)
    spans = [(a, min(a + step, size)) for a in range(0, size, step)]
    return [Unit(k, (a, b), (b - a) * seq_len) for k, (a, b) in enumerate(spans)]


def _why_not(log: str, stream: Stream, seq_len: int) -> str:
    try:
        return losses.matches(Location.of(log).parent, stream, seq_len)
    except TinydataError as e:  # a log alone, without the run's recipe: nothing is known of it
        return e.what


def _trained_here(model: str, stream: Stream) -> bool:
    """Whether a model is of a run, or a checkpoint of one, that was trained on these shards."""
    where = Location.of(_absolute(model))
    runs = [r for r in (where, where.parent.parent) if (r / losses.RECIPE).exists()]
    return any(losses.recipe(r)["data"]["fingerprint"] == stream.fingerprint for r in runs)


def _absolute(model: str) -> str:
    """A path as another process needs it; what is no path here stays as it is."""
    return Location.of(model).absolute if Location.of(model).exists() else model


def _check_tokenizer(stream: Stream, scorer: Any, settings: Settings) -> None:
    own, theirs = scorer.tokenizer or {}, stream.tokenizer
    if own.get("fingerprint", theirs["fingerprint"]) != theirs["fingerprint"]:
        raise TinydataError(
            f"the model is of another tokenizer than the shards: {own.get('path', '?')} ({own.get('size', 0):,} ids)"
            f" and {theirs['path']} ({theirs['size']:,} ids)",
            where=f"{settings.model}, {stream.path}",
            fix="encode the corpus with the model's tokenizer, or name a model that was trained on these shards",
        )


def score(
    data: str,
    out: str,
    engine: Engine,
    settings: Settings,
    *,
    force: bool = False,
    partitions: int = 0,
    planned: Plan | None = None,
    stage: Stage = silent,
) -> Scored:
    """Writes SCORES to `out`. The same command again continues a killed one. stage: shows progress in tokens."""
    found = planned or plan(data, settings)
    output = Output(out, header(data, found, settings), force=force)
    output.place.make_dir()
    job = job_of(found, settings, output)
    with stage("count", found.stream.tokens) as progress:
        _count(found.stream, engine, output.parts, progress)
    last = losses.sort(Location.of(found.log), output.parts, _ends(found), _step(found)) if found.log else 0
    with stage("score", found.tokens) as progress:
        done = map(
            engine,
            found.units,
            partial(score_unit, job),
            kind="scores",
            parts=output.parts,
            progress=progress,
            partitions=partitions or len(found.units),
            label=f"tinydata score {data}",
        )
    result = summary(found, done, last)
    return Scored(output.publish(result, {}, {n: s for d in done for n, s in d["files"].items()}), _workers(done))


def header(data: str, found: Plan, settings: Settings) -> dict[str, Any]:
    """The part of the manifest that is known beforehand: it decides whether a run may be resumed."""
    stream = found.stream
    where = Location.of(data) / MANIFEST
    told = {k: v for k, v in settings._asdict().items() if v and k != "device"}
    own: dict[str, Any] = {}
    if stream.listed:
        kept = stream.manifest["kept"]
        own = {"fingerprint": kept["sha256"], "tokens": kept["tokens"], "verb": stream.manifest["verb"]}
    return {
        "tinydata": __version__,
        "verb": "score",
        "inputs": {where.path: fingerprint(where)},
        "options": {"data": data, **told},
        "data": {**stream.facts, "path": data, "absolute": Location.of(data).absolute, **own},
        "base": stream.facts,
        "seq_len": found.seq_len,
        "tokenizer": stream.tokenizer,
        "round": stream.round,
        "model": _model(found, settings),
    }


def _model(found: Plan, settings: Settings) -> dict[str, Any]:
    """Facts about the model that hold on any machine."""
    if found.scorer is None:
        return {"path": settings.losses}
    return {k: v for k, v in found.scorer.facts.items() if k not in ("device", "precision")} | {"path": settings.model}


def _step(found: Plan) -> int:
    """Of the model; 0 if it is no run's."""
    return (found.scorer.facts.get("step") or 0) if found.scorer else 0


def job_of(found: Plan, settings: Settings, output: Output) -> Job:
    stream = found.stream
    return Job(
        run=uuid4().hex,
        data=Location.of(stream.path).absolute,
        base=stream.shards_at.path if stream.listed else "",
        place=output.place.absolute,
        parts=output.parts.absolute,
        scorer=settings.scorer,
        model="" if settings.losses else _absolute(settings.model),
        device=settings.device,
        seq_len=found.seq_len,
        rows=settings.rows,
        unknown=stream.source.get("unknown", -1),
        logged=bool(found.log),
        trained=_step(found) > 0 and _trained_here(settings.model, stream),
        step=_step(found),
    )


def _ends(found: Plan) -> list[tuple[int, int]]:
    """First and last sequence of each unit, by their numbers in the shards."""
    spans = [u.about for u in found.units]
    return [(int(found.stream.numbers(a, a + 1)[0]), int(found.stream.numbers(b - 1, b)[0])) for a, b in spans]


# -- how often each id occurs -----------------------------------------------------------------


class _Spans(NamedTuple):
    """Ranges of the stream, counted one after another."""

    stream: Stream
    spans: list[Unit]

    @property
    def bytes(self) -> int:
        return sum(s.bytes for s in self.spans)


def _count(stream: Stream, engine: Engine, parts: Location, progress: Tell) -> None:
    """Writes the rarity of each id, of all shards, to `parts`, unless it is there."""
    if (parts / RARITY).exists():
        progress(stream.tokens)
        return
    starts = range(0, stream.tokens, SPAN)
    spans = [Unit(k, (a, min(a + SPAN, stream.tokens)), min(SPAN, stream.tokens - a)) for k, a in enumerate(starts)]
    tasks = [_Spans(stream, group) for group in grouped(spans, engine.slots)]
    counts = np.zeros(stream.tokenizer["size"], np.int64)
    for _, some in engine.run(tasks, partial(_counted, len(counts)), progress=progress, label="count ids"):
        counts += some
    (parts / RARITY).write(rarity(counts).tobytes())


def _counted(size: int, task: _Spans, tell: Tell) -> np.ndarray:
    """-> counts int64[size]"""
    counts = np.zeros(size, np.int64)
    for span in task.spans:
        first, stop = span.about
        for a in range(first, stop, BLOCK):
            count(task.stream.read(a, min(a + BLOCK, stop)), counts)
        tell(span.bytes)
    return counts


# -- the result -------------------------------------------------------------------------------


def summary(found: Plan, done: list[dict[str, Any]], last: int) -> dict[str, Any]:
    """What the manifest says of the result. Sums go from unit to unit, so they are the same in every run."""
    statuses: Counter[str] = Counter()
    domains: dict[str, list[Any]] = {}
    for d in done:
        statuses.update(d["statuses"])
        for name, row in d["domains"].items():
            domains[name] = [a + b for a, b in zip(domains.get(name, [0, 0, 0.0]), row, strict=True)]
    tokens, nll = (sum(row[k] for row in domains.values()) for k in (1, 2))
    held = [sum(d["held"][k] for d in done) for k in (0, 1)]
    result: dict[str, Any] = {
        "totals": {
            "sequences": sum(d["sequences"] for d in done),
            "ok": statuses[OK],
            "tokens": tokens,
            "nll": nll,
            "loss": nll / tokens if tokens else None,
            "held_out_loss": held[1] / held[0] if held[0] else None,
        },
        "statuses": dict(sorted(statuses.items())),
        "domains": {n: {"sequences": r[0], "tokens": r[1], "nll": r[2]} for n, r in sorted(domains.items())},
        "parts": [{k: d[k] for k in ("name", "first", "sequences")} for d in done],
        "precision": sorted({d["precision"] for d in done} - {""}),
    }
    if found.log:
        result["logged_until"] = last
    if found.log and found.scorer is not None:
        result["forgetting"] = forgetting(done)
    return result


def forgetting(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Loss, nats/token, when trained and now, of the sequences by the tenth of the run they were last trained in."""
    rows = np.sum([d["forgetting"] for d in done], axis=0)
    return [
        {
            "tenth": k + 1,
            "sequences": int(n),
            "when_trained": then / tokens if tokens else None,
            "now": now / tokens if tokens else None,
        }
        for k, (n, tokens, then, now) in enumerate(rows.tolist())
    ]


def _workers(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each process that scored, with the number of times it loaded the model, and its units."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for w in (d["worker"] for d in done if d["worker"]):
        seen = found.setdefault((w["host"], w["pid"]), {**w, "devices": [], "units": 0})
        seen["loads"] = max(seen["loads"], w["loads"])
        seen["units"] += 1
        seen["devices"] = sorted({*seen["devices"], w["device"]})
        seen.pop("device", None)
    return [found[k] for k in sorted(found)]


# -- before -----------------------------------------------------------------------------------


def speed(found: Plan, settings: Settings) -> float:
    """Tokens a second of one device: a few batches from all over the data, really scored."""
    if found.scorer is None:
        return 0.0
    stream, T = found.stream, found.seq_len
    device = device_of(settings.scorer, settings.device)
    scorer = new(settings.scorer, _absolute(settings.model), device, T, settings.rows)
    rows = scorer.rows * AHEAD
    size, done, began = stream.size(T), 0, 0.0
    for k, a in enumerate(np.linspace(0, max(size - rows, 0), 17).astype(int).tolist()):
        if k == 1:  # the first one loads and compiles
            began = time.monotonic()
        numbers = stream.numbers(a, min(a + rows, size))
        documents = stream.documents(int(numbers[0]) * T, (int(numbers[-1]) + 1) * T + 1)
        bears = stream.bearing(numbers, T)
        score_rows(scorer, numbers, stream.rows(numbers, T), bears, documents, lambda n: None)
        done += len(numbers) * T * (k > 0)
        if k and time.monotonic() - began > SAMPLE_SECONDS:
            break
    return done / max(time.monotonic() - began, 1e-9)
