"""shards or a round -> what is scored: the loss of every sequence under a frozen model, and features without a model.

There are two passes: how often each id occurs (for `prior`), then the units, runs of consecutive sequences that depend
on the data alone. A unit is scored by one worker and written as one file, so the table does not depend on the workers,
and an interrupted run continues with the next unit. With `losses`, the losses are those of a training log.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import uuid4

from tinydata import __version__
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, fingerprint
from tinydata.core.output import MANIFEST, Output
from tinydata.engines.base import Unit
from tinydata.formats.dataset import Stream
from tinydata.verbs.score import run_log
from tinydata.verbs.score.scorer import new
from tinydata.verbs.score.worker import Job

UNIT_TOKENS = (1 << 18, 1 << 26)  # a thousandth of the data, between these: the least that is done again after a kill


class Settings(NamedTuple):
    """All options that affect the result, and `device`, where it is computed."""

    model: str = ""  # a run, one of its checkpoints, or a Hugging Face directory
    losses: str = ""  # or a run whose logged losses are used
    scorer: str = "trainer.scorer:load"
    seq_len: int = 0  # 0: as the model was trained
    rows: int = 0  # sequences per forward pass; 0: the scorer's default
    base: str = ""  # the shards of a round, if they have moved
    device: str = "auto"


class ScoringInputs(NamedTuple):
    """The data to score, the scorer, and the units of work."""

    stream: Stream
    scorer: Any  # on this machine, for its facts; None with `losses`
    log: str  # directory of losses that a run logged on these sequences; "": none
    seq_len: int
    units: list[Unit]  # about: (a, b), sequences of the dataset

    @property
    def tokens(self) -> int:
        return sum(u.bytes for u in self.units)


class ScoringResult(NamedTuple):
    """The manifest of SCORES, and what differs between runs."""

    manifest: dict[str, Any]
    workers: list[dict[str, Any]]  # host, pid, device, loads of the model: for .run.json


def prepare(data: str, settings: Settings) -> ScoringInputs:
    """Data and settings -> ScoringInputs; the scorer reads no weights yet.

    Raises TinydataError for missing or empty shards, a model of another tokenizer, or a log about other shards.
    """
    stream = Stream.open(data, settings.base)
    scorer = None
    if settings.losses:
        run = Location.of(settings.losses)
        T = settings.seq_len or run_log.recipe(run)["model"]["seq_len"]
        why = run_log.why_not(run, stream, T)
        if why:
            raise TinydataError(why, where=settings.losses, fix="name the run that was trained on these shards")
        log = (run / "losses").absolute
    else:
        scorer = new(settings.scorer, absolute_path(settings.model), settings.device, settings.seq_len, settings.rows)
        T = scorer.seq_len
        _check_tokenizer(stream, scorer, settings)
        log = scorer.losses if scorer.losses and not _why_not_logged(scorer.losses, stream, T) else ""
    size = stream.size(T)
    if not size:
        raise TinydataError(
            f"{stream.tokens:,} tokens are too few for one sequence of {T}",
            where=data,
            fix="encode more text, or use a smaller --seq-len",
            code=UNREADABLE,
        )
    return ScoringInputs(stream, scorer, log, T, units(size, T))


def units(size: int, seq_len: int) -> list[Unit]:
    """Number of sequences -> units of consecutive ones; the `bytes` of a unit are its tokens."""
    low, high = UNIT_TOKENS
    step = -(-min(max(size * seq_len // 1024, low), high) // seq_len)
    spans = [(a, min(a + step, size)) for a in range(0, size, step)]
    return [Unit(k, (a, b), (b - a) * seq_len) for k, (a, b) in enumerate(spans)]


def _why_not_logged(log: str, stream: Stream, seq_len: int) -> str:
    try:
        return run_log.why_not(Location.of(log).parent, stream, seq_len)
    except TinydataError as e:  # a log without the recipe of its run: the shards are unknown
        return e.what


def _trained_here(model: str, stream: Stream) -> bool:
    """Whether a model is a run, or a checkpoint of a run, that was trained on these shards."""
    where = Location.of(absolute_path(model))
    runs = [r for r in (where, where.parent.parent) if (r / run_log.RECIPE).exists()]
    return any(run_log.recipe(r)["data"]["fingerprint"] == stream.fingerprint for r in runs)


def absolute_path(model: str) -> str:
    """A path as another process needs it; anything else is returned unchanged."""
    return Location.of(model).absolute if Location.of(model).exists() else model


def _check_tokenizer(stream: Stream, scorer: Any, settings: Settings) -> None:
    own, theirs = scorer.tokenizer or {}, stream.tokenizer
    if own.get("fingerprint", theirs["fingerprint"]) != theirs["fingerprint"]:
        raise TinydataError(
            f"the model has a different tokenizer than the shards: {own.get('path', '?')} ({own.get('size', 0):,} ids)"
            f" and {theirs['path']} ({theirs['size']:,} ids)",
            where=f"{settings.model}, {stream.path}",
            fix="encode the corpus with the model's tokenizer, or name a model that was trained on these shards",
        )


def header(data: str, scoring: ScoringInputs, settings: Settings) -> dict[str, Any]:
    """The part of the manifest that is known before the run; a run is resumed only if this part is unchanged."""
    stream = scoring.stream
    where = Location.of(data) / MANIFEST
    options = {k: v for k, v in settings._asdict().items() if v and k != "device"}
    own: dict[str, Any] = {}
    if stream.listed:
        kept = stream.manifest["kept"]
        own = {"fingerprint": kept["sha256"], "tokens": kept["tokens"], "verb": stream.manifest["verb"]}
    return {
        "tinydata": __version__,
        "verb": "score",
        "inputs": {where.path: fingerprint(where)},
        "options": {"data": data, **options},
        "data": {**stream.facts, "path": data, "absolute": Location.of(data).absolute, **own},
        "base": stream.facts,
        "seq_len": scoring.seq_len,
        "tokenizer": stream.tokenizer,
        "round": stream.round,
        "model": _model(scoring, settings),
    }


def _model(scoring: ScoringInputs, settings: Settings) -> dict[str, Any]:
    """Facts about the model that are the same on every machine."""
    if scoring.scorer is None:
        return {"path": settings.losses}
    return {k: v for k, v in scoring.scorer.facts.items() if k not in ("device", "precision")} | {
        "path": settings.model
    }


def step_of_model(scoring: ScoringInputs) -> int:
    """Training step of the model; 0 if it does not belong to a run."""
    return (scoring.scorer.facts.get("step") or 0) if scoring.scorer else 0


def job_of(scoring: ScoringInputs, settings: Settings, output: Output) -> Job:
    stream = scoring.stream
    return Job(
        run=uuid4().hex,
        data=Location.of(stream.path).absolute,
        base=stream.shards_at.path if stream.listed else "",
        place=output.place.absolute,
        parts=output.parts.absolute,
        scorer=settings.scorer,
        model="" if settings.losses else absolute_path(settings.model),
        device=settings.device,
        seq_len=scoring.seq_len,
        rows=settings.rows,
        unknown=stream.source.get("unknown", -1),
        logged=bool(scoring.log),
        trained=step_of_model(scoring) > 0 and _trained_here(settings.model, stream),
        step=step_of_model(scoring),
    )


def ends_of_units(scoring: ScoringInputs) -> list[tuple[int, int]]:
    """First and last sequence of each unit, by their numbers in the shards."""
    spans = [u.about for u in scoring.units]
    return [(int(scoring.stream.numbers(a, a + 1)[0]), int(scoring.stream.numbers(b - 1, b)[0])) for a, b in spans]
