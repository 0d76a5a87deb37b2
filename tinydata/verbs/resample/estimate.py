"""SCORES -> what `resample` would keep: the same prediction as in a real run, and nothing is written."""

from __future__ import annotations

from typing import Any

from tinydata.engines.base import Engine, Stage, silent
from tinydata.verbs.resample.candidates import open_scores
from tinydata.verbs.resample.passes import Passes
from tinydata.verbs.resample.plan import Settings
from tinydata.verbs.resample.predict import predict


def estimate(
    scores: str,
    engine: Engine,
    settings: Settings,
    *,
    reference: str = "",
    partitions: int = 0,
    stage: Stage = silent,
) -> dict[str, Any]:
    """SCORES -> what `resample` would keep, as `selection` of its manifest."""
    passes = Passes(engine, partitions, stage, f"tinydata resample {scores}")
    return predict(open_scores(scores), passes, settings, reference).facts
