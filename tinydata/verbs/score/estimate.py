"""ScoringInputs -> estimated speed, measured by scoring a few batches."""

from __future__ import annotations

import time

import numpy as np

from tinydata.verbs.score.plan import ScoringInputs, Settings, absolute_path
from tinydata.verbs.score.scorer import device_of, new
from tinydata.verbs.score.worker import AHEAD, score_rows

SAMPLE_SECONDS = 3.0  # of scoring, for the estimate of --dry-run


def speed(scoring: ScoringInputs, settings: Settings) -> float:
    """Tokens per second of one device, measured by scoring a few batches from all over the data."""
    if scoring.scorer is None:
        return 0.0
    stream, T = scoring.stream, scoring.seq_len
    device = device_of(settings.scorer, settings.device)
    scorer = new(settings.scorer, absolute_path(settings.model), device, T, settings.rows)
    rows = scorer.rows * AHEAD
    size, done, began = stream.size(T), 0, 0.0
    for k, a in enumerate(np.linspace(0, max(size - rows, 0), 17).astype(int).tolist()):
        if k == 1:  # the first one loads and compiles
            began = time.monotonic()
        numbers = stream.numbers(a, min(a + rows, size))
        documents = stream.documents(int(numbers[0]) * T, (int(numbers[-1]) + 1) * T + 1)
        bears = stream.targets_bear_loss(numbers, T)
        score_rows(scorer, numbers, stream.rows(numbers, T), bears, documents, lambda n: None)
        done += len(numbers) * T * (k > 0)
        if k and time.monotonic() - began > SAMPLE_SECONDS:
            break
    return done / max(time.monotonic() - began, 1e-9)
