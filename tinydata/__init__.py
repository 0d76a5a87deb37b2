"""tinydata: compact tokenizers, and the data and models that go with them, for tiny language models.

    import tinydata as td

    counts = td.count("corpus.jsonl", "tokenizer.json", "counts")        how often each token id occurs
    vocabulary = td.compact(counts, "vocab", vocab=16_384)               the compact tokenizer, and what it costs
    shards = td.encode("corpus.jsonl", vocabulary, "shards")             what a trainer reads
    td.slice("MODEL", vocabulary, "sliced")                              a model with the rows of the kept tokens
    scores = td.score(shards, "run", "scores")                           the loss of every sequence
    td.resample(scores, "round-1", keep=0.5)                             the next round
    td.report(counts, vocabulary, shards)                                one offline page
    td.open_tokenizer(PATH), td.read_counts(PATH), td.lineage(PATH)      open what exists, and ask what made it

Each function is the command of the same name, with the same defaults: `tinydata count --help`. Whatever a caller can
cause raises `td.TinydataError`, which says what, where, and how to fix it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinydata.core.errors import TinydataError
    from tinydata.library import (
        compact,
        count,
        encode,
        lineage,
        open_tokenizer,
        read_counts,
        report,
        resample,
        score,
        slice,
    )

__version__ = "0.1.0"
__all__ = [
    "TinydataError",
    "compact",
    "count",
    "encode",
    "lineage",
    "open_tokenizer",
    "read_counts",
    "report",
    "resample",
    "score",
    "slice",
]


def __getattr__(name: str) -> Any:
    """Loads the library when the first of its functions is asked for, so that importing tinydata takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'tinydata' has no attribute {name!r}")
    value = getattr(import_module("tinydata.core.errors" if name == "TinydataError" else "tinydata.library"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
