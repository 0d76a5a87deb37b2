"""`tinydata compact`: a vocabulary from counts that are there, 103,168 ids to 48,000. Goal: five seconds."""

from __future__ import annotations

from benchmarks import ours, process
from benchmarks.place import SHARED, Place
from benchmarks.table import Peak, Row, alone


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    if not (SHARED / "corpora").is_dir():
        return [Row("compact", note=f"skipped: no {SHARED.parent.name}/data/corpora beside the project")], []
    tok = str(SHARED / "tokenizers/sp_bpe/internlm_103168/tokenizer.model")
    text = process.call("benchmarks.text:unpack", place.folder, "", place.scale).value["whole"]
    counts = f"{place.folder}/internlm"
    ours.Whole(place, text, tok, keep=counts)
    runs = [
        process.tinydata("compact", counts, "--tokenizer", tok, "--vocab", "48000", "-o", f"{place.folder}/vocab-{k}")
        for k in range(min(place.rounds, 3))
    ]
    note = f"{min(r.cpu for r in runs):.1f} CPU-s"
    return [alone("compact 103,168 ids to 48,000", "s", [r.wall for r in runs], "<= 5", note)], [
        Peak("compact", max(r.peak for r in runs))
    ]
