"""Options that affect the result of `count`, and the header of its manifest."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinydata import __version__
from tinydata.core.location import fingerprint
from tinydata.formats.base import Wanted
from tinydata.formats.corpus import CorpusPlan
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.open import describe


class Settings(NamedTuple):
    """All options that affect the result, and no others."""

    heldout: float = 0.01  # share of documents set aside
    wanted: Wanted = Wanted()
    max_bad: float = 0.001  # share of documents that may be unusable


DEFAULTS = Settings()
HELD_OUT_BYTES = 400_000  # of a small corpus, about: what is measured on less says little about other text


def heldout_share(corpus_plan: CorpusPlan) -> float:
    """The share of documents to hold out if the user names none: 1 %, and up to 10 % of a corpus below 40 MB."""
    size = sum(split.bytes for split in corpus_plan.splits)
    return min(0.1, max(DEFAULTS.heldout, round(HELD_OUT_BYTES / max(size, 1), 3)))


def header(corpus: list[str], path: str, tok: Tokenizer, corpus_plan: CorpusPlan, settings: Settings) -> dict[str, Any]:
    """The part of the manifest that is known before the run; a run is resumed only if this part is unchanged."""
    return {
        "tinydata": __version__,
        "verb": "count",
        "inputs": {f.path: fingerprint(f) for f in corpus_plan.files},
        "options": {
            "corpus": corpus,
            "heldout": settings.heldout,
            **settings.wanted.given,
        },
        "kind": corpus_plan.kind,
        "tokenizer": describe(path, tok),
    }
