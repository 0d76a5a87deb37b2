"""InternLM's 103,168 ids to 48,000, once counted: the whole command. Goal: 5 seconds."""

from __future__ import annotations

import shutil

from benchmarks import process
from benchmarks.place import SHARED, Place
from benchmarks.table import Peak, Row, alone

MODEL = SHARED / "tokenizers/sp_bpe/internlm_103168/tokenizer.model"


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    if not SHARED.exists():
        return [Row("compact 103,168 to 48,000", note="skipped: no ../shared/data with real text and tokenizers")], []
    counts, vocab = f"{place.folder}/counts", f"{place.folder}/vocab"
    process.tinydata("count", str(SHARED / "corpora"), "--tokenizer", str(MODEL), "-o", counts)
    runs = []
    for _ in range(place.rounds):
        runs.append(process.tinydata("compact", counts, "--vocab", "48000", "-o", vocab))
        shutil.rmtree(vocab)
    seconds = [r.wall for r in runs]
    note = f"{max(seconds):.1f} at most"
    return [alone("compact 103,168 to 48,000", "s", seconds, "<= 5", note)], [
        Peak("compact", max(r.peak for r in runs))
    ]
