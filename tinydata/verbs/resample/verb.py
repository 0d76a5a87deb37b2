"""scores -> the next round: exactly the requested number of sequences, drawn without replacement."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tinydata import __version__
from tinydata.core.errors import TinydataError
from tinydata.core.location import Location, read_bytes, table_bytes
from tinydata.core.output import MANIFEST, Output
from tinydata.engines.base import Engine, Stage, silent
from tinydata.formats.dataset import Stream, open_base
from tinydata.verbs.resample.candidates import Scores, open_scores
from tinydata.verbs.resample.copy_shards import Copy, ShardLayout, copy_facts, pieces_file, units, write_shard
from tinydata.verbs.resample.examples import examples
from tinydata.verbs.resample.passes import Passes, units_of_groups
from tinydata.verbs.resample.plan import Settings
from tinydata.verbs.resample.predict import predict
from tinydata.verbs.resample.selection import PredictedDraw
from tinydata.verbs.resample.threshold import Thresholds, search
from tinydata.verbs.resample.worker import write_group


def resample(
    scores: str,
    out: str,
    engine: Engine,
    settings: Settings,
    *,
    reference: str = "",
    data: str = "",
    target: ShardLayout | None = None,
    force: bool = False,
    partitions: int = 0,
    stage: Stage = silent,
) -> dict[str, Any]:
    """SCORES -> ROUND in `out`; returns its manifest. The same command again continues an interrupted one.

    data: the shards that were scored, if they have moved. target: also copy the kept sequences to new shards.

    Raises TinydataError for unusable scores or shards, and if the output already exists.
    """
    opened = open_scores(scores)
    stream = _base(opened, data, needed=target is not None)
    output = Output(out, header(opened, reference, settings, target), force=force)
    output.place.make_dir()
    place = output.place.absolute
    passes = Passes(engine, partitions, stage, f"tinydata resample {scores}")
    predicted = predict(opened, passes, settings, reference, cache=output.parts.absolute)
    thresholds = search(predicted, passes)
    draw = thresholds.draw
    done = passes.map("keep", output, units_of_groups(draw.source), partial(write_group, draw, place))
    facts = summary(predicted, thresholds, done, output.place)
    if data and stream:
        facts["base"] = stream.facts
    table = examples([d["hardest"] for d in done], draw.source.domains, stream, draw.source.seq_len)
    files, streamed = {"examples.parquet": table_bytes(table)}, {d["name"]: d["file"] for d in done}
    if target and stream:
        keep = [(d["name"], d["sequences"]) for d in done]
        copy = Copy(stream, draw.source.seq_len, keep, target, settings.seed, place)
        shards = passes.map("shard", output, units(copy), partial(write_shard, copy))
        facts |= copy_facts(copy, shards)
        files |= pieces_file(copy)
        streamed |= {n: s for shard in shards for n, s in shard["files"].items()}
    return output.publish(facts, files, streamed)


def _base(opened: Scores, data: str, needed: bool) -> Stream | None:
    """The shards that were scored; None if they no longer exist and are not needed."""
    try:
        return open_base(opened.manifest["base"], opened.path, data, "scores were", "--data")
    except TinydataError:
        if needed or data:
            raise
        return None


def header(scores: Scores, reference: str, settings: Settings, target: ShardLayout | None = None) -> dict[str, Any]:
    """The part of the manifest that is known before the run; a run is resumed only if this part is unchanged."""
    options = settings._asdict() | {"exclude": dict(settings.exclude)} | (target._asdict() if target else {})
    return {
        "tinydata": __version__,
        "verb": "resample",
        "inputs": {p: _sha256(p) for p in filter(None, [scores.path, reference])},
        "options": {**options, **({"reference": reference} if reference else {})},
    }


def _sha256(path: str) -> str:
    """Directory -> SHA-256 of its manifest."""
    return hashlib.sha256(read_bytes(Location.of(path) / MANIFEST)).hexdigest()


def summary(
    predicted: PredictedDraw, thresholds: Thresholds, done: list[dict[str, Any]], place: Location
) -> dict[str, Any]:
    """Prediction, thresholds and sums of all groups -> the part of the manifest that describes the result."""
    scores, facts = predicted.scores, predicted.facts
    kept = sum(d["sequences"] for d in done)
    deciles, domains, bars = (np.sum([d[k] for d in done], axis=0).tolist() for k in ("deciles", "domains", "bars"))
    selected = hashlib.sha256()
    for d in done:
        with (place / d["name"]).open() as f:
            selected.update(pq.read_table(f, columns=["sequence"], use_threads=False)["sequence"].to_numpy())
    return {
        "round": scores.manifest["round"] + 1,
        "seq_len": scores.manifest["seq_len"],
        "base": scores.manifest["base"],
        "scores": {"path": scores.path, "manifest": _sha256(scores.path)},
        "tokenizer": scores.manifest["tokenizer"],
        "kept": {
            "sequences": kept,
            "tokens": sum(d["tokens"] for d in done),
            "expected": sum(d["expected"] for d in facts["domains"].values()),
            "sha256": selected.hexdigest(),
        },
        "selection": {
            **facts,
            "loss": {**facts["loss"], "kept": sum(d["loss"] for d in done) / max(kept, 1)},
            "deciles": [
                {**fact, "kept": n / max(fact["sequences"], 1)}
                for fact, n in zip(facts["deciles"], deciles, strict=True)
            ],
            "domains": {
                name: {**facts["domains"][name], "kept": n}
                for name, n in zip(predicted.draw.source.domains, domains, strict=True)
            },
            "strata": [_stratum(fact, thresholds, s) for s, fact in enumerate(facts["strata"])],
            "histogram": {**facts["histogram"], "kept": bars},
        },
        "parts": [{k: d[k] for k in ("name", "first", "sequences")} for d in done],
    }


def _stratum(fact: dict[str, Any], thresholds: Thresholds, s: int) -> dict[str, Any]:
    """Prediction for a stratum -> the same with its threshold, and how much of the last unit is kept."""
    draw, last_units = thresholds
    last = {"last_unit": last_units[s]} if s in last_units else {}
    return {**fact, **last, "threshold": {"key": int(draw.threshold[s]), "sequence": int(draw.last[s])}}
