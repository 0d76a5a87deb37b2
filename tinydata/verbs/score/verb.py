"""shards + frozen model -> SCORES: the loss of every sequence, in manifest order."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinydata.core.documents import total_by_domain
from tinydata.core.location import Location
from tinydata.core.output import Output
from tinydata.engines.base import Engine, Stage, Tell, Unit, grouped, map, silent
from tinydata.formats.dataset import Stream
from tinydata.verbs.score import run_log
from tinydata.verbs.score.features import count, rarity
from tinydata.verbs.score.plan import (
    ScoringInputs,
    ScoringResult,
    Settings,
    ends_of_units,
    header,
    job_of,
    prepare,
    step_of_model,
)
from tinydata.verbs.score.worker import BLOCK, OK, RARITY, score_unit

SPAN = 1 << 24  # tokens that are counted together


def score(
    data: str,
    out: str,
    engine: Engine,
    settings: Settings,
    *,
    force: bool = False,
    partitions: int = 0,
    prepared: ScoringInputs | None = None,
    stage: Stage = silent,
) -> ScoringResult:
    """Shards + model -> SCORES in `out`. The same command again continues an interrupted one.

    stage: shows progress in tokens.
    """
    scoring = prepared or prepare(data, settings)
    output = Output(out, header(data, scoring, settings), force=force)
    output.place.make_dir()
    job = job_of(scoring, settings, output)
    with stage("count", scoring.stream.tokens) as progress:
        _count(scoring.stream, engine, output.parts, progress)
    last = (
        run_log.sort(Location.of(scoring.log), output.parts, ends_of_units(scoring), step_of_model(scoring))
        if scoring.log
        else 0
    )
    with stage("score", scoring.tokens) as progress:
        done = map(
            engine,
            scoring.units,
            partial(score_unit, job),
            kind="scores",
            parts=output.parts,
            progress=progress,
            partitions=partitions or len(scoring.units),
            label=f"tinydata score {data}",
        )
    result = summary(scoring, done, last)
    manifest = output.publish(result, {}, {n: s for d in done for n, s in d["files"].items()})
    return ScoringResult(manifest, _workers(done))


class _Spans(NamedTuple):
    """Ranges of the stream, counted one after another."""

    stream: Stream
    spans: list[Unit]

    @property
    def bytes(self) -> int:
        return sum(s.bytes for s in self.spans)


def _count(stream: Stream, engine: Engine, parts: Location, progress: Tell) -> None:
    """Writes the rarity of each id, of all shards, to `parts`, unless it exists."""
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


def summary(scoring: ScoringInputs, done: list[dict[str, Any]], last: int) -> dict[str, Any]:
    """Sums of all units -> the part of the manifest that describes the result.

    Sums are added in the order of units, so they are the same in every run.
    """
    statuses: Counter[str] = Counter()
    for d in done:
        statuses.update(d["statuses"])
    domains = total_by_domain(d["domains"] for d in done)
    tokens, nll = (sum(sums[k] for sums in domains.values()) for k in ("tokens", "nll"))
    held_out = {k: sum(d["held_out"][k] for d in done) for k in ("tokens", "nll")}
    result: dict[str, Any] = {
        "totals": {
            "sequences": sum(d["sequences"] for d in done),
            "ok": statuses[OK],
            "tokens": tokens,
            "nll": nll,
            "loss": nll / tokens if tokens else None,
            "held_out_loss": held_out["nll"] / held_out["tokens"] if held_out["tokens"] else None,
        },
        "statuses": dict(sorted(statuses.items())),
        "domains": dict(sorted(domains.items())),
        "parts": [{k: d[k] for k in ("name", "first", "sequences")} for d in done],
        "precision": sorted({d["precision"] for d in done} - {""}),
    }
    if scoring.log:
        result["logged_until"] = last
    if scoring.log and scoring.scorer is not None:
        result["forgetting"] = forgetting(done)
    return result


def forgetting(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Loss, nats/token, when trained and now, of the sequences by the tenth of the run they were last trained in."""
    columns = ("sequences", "tokens", "when_trained", "now")
    rows = np.transpose([np.sum([d["forgetting"][c] for d in done], axis=0) for c in columns])
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
    workers: dict[tuple[Any, ...], dict[str, Any]] = {}
    for w in (d["worker"] for d in done if d["worker"]):
        seen = workers.setdefault((w["host"], w["pid"]), {**w, "devices": [], "units": 0})
        seen["loads"] = max(seen["loads"], w["loads"])
        seen["units"] += 1
        seen["devices"] = sorted({*seen["devices"], w["device"]})
        seen.pop("device", None)
    return [workers[k] for k in sorted(workers)]
