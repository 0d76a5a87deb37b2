"""Output of `tinydata compact` as arrays, and whether it belongs to a model."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_table
from tinydata.core.output import read_manifest
from tinydata.tokenizers.base import fingerprint as tokenizer_fingerprint
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.slice.hf_config import Ids
from tinydata.verbs.slice.hf_model import Model

TOKENIZER_FILE = re.compile(
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|(vocab|encoder|tekken)\.json|merges\.txt"
    r"|vocab\.(txt|bpe)|(tokenizer|spiece|sentencepiece\.bpe)\.model|.*\.tiktoken"
)


class Vocabulary(NamedTuple):
    """Output of `tinydata compact` as arrays."""

    path: str
    manifest: dict[str, Any]
    source: np.ndarray  # int64[new ids]: the old id; -1: learned
    learned: dict[int, np.ndarray]  # new id -> old ids that spell it
    ids: Ids


def open_vocabulary(path: str) -> Vocabulary:
    """VOCAB directory -> Vocabulary; raises TinydataError for anything else, or an id map that does not fit."""
    manifest = read_manifest(path, "compact")
    where = Location.of(path)
    table = read_table(where / "idmap.parquet")
    new = np.full(len(table), -1, np.int64)
    kept = table.filter(table["kept"])
    alone = pc.all(pc.equal(pc.list_value_length(kept["parts"]), 1)).as_py()
    source = np.full(manifest["vocabulary"]["size"], -1, np.int64)
    learned: dict[int, np.ndarray] = {}
    if (where / "learned.parquet").exists():
        learned_rows = read_table(where / "learned.parquet")
        parts = zip(learned_rows["new_id"].to_pylist(), learned_rows["old_parts"].to_pylist(), strict=True)
        learned = {i: np.array(p, np.int64) for i, p in parts}
    if alone is not False:
        old, ids = kept["old_id"].to_numpy(), pc.list_flatten(kept["parts"]).to_numpy()
        if len(ids) and 0 <= ids.min() <= ids.max() < len(source):
            new[old], source[ids] = ids, old
    unknown = sorted(set(np.flatnonzero(source < 0).tolist()) ^ learned.keys())
    spelled = all(len(p) and 0 <= p.min() <= p.max() < len(table) for p in learned.values())
    if unknown or not spelled or len(kept) + len(learned) != len(source):
        raise TinydataError(
            f"the id map does not fit the vocabulary of {len(source):,} ids",
            where=path,
            fix="create the vocabulary again with `tinydata compact --force`",
            code=UNREADABLE,
        )
    return Vocabulary(path, manifest, source, learned, Ids(new, lambda i: _text(path, table, i)))


def _text(path: str, table: pa.Table, old: int) -> str:
    """Old id -> its text."""
    small = open_tokenizer(path)
    return b"".join(small.pieces[p] for p in table["parts"][old].as_py()).decode("utf-8", "replace")


def check_tokenizer(model: Model, vocabulary: Vocabulary) -> str:
    """-> a note if the tokenizers could not be compared, else ""; raises TinydataError if they differ."""
    original = vocabulary.manifest["tokenizer"]
    other, why = "", "the model directory has no tokenizer"
    # a directory may contain it in several forms; the vocabulary was derived from one of them
    for name in ("", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"):
        if name and name not in model.files:
            continue
        path = str(model.files[name]) if name else model.path
        try:
            own = open_tokenizer(path)
        except TinydataError as e:
            why = e.what if any(TOKENIZER_FILE.fullmatch(n) for n in model.files) else why
            continue
        if tokenizer_fingerprint(own) == original["fingerprint"]:
            return ""
        other = other or f"{path} ({own.family}, {own.size:,} ids, fingerprint {tokenizer_fingerprint(own)[:8]})"
    if other:
        raise TinydataError(
            f"the vocabulary was derived from a different tokenizer: {original['path']}"
            f" ({original['family']}, {original['size']:,} ids,"
            f" fingerprint {original['fingerprint'][:8]})",
            where=other,
            fix="count and compact with this model's tokenizer, or pass the model that the vocabulary was derived for",
        )
    return f"the model's own tokenizer was not compared with the vocabulary's: {why}"
