"""manifest.json: what made a directory, from what, with which result. A type per verb; `faults` compares with them.

Each manifest begins with what is known before the work (version, verb, inputs, options), which decides whether an
unfinished directory may be continued, and ends with `files`: size and sha256 of every file beside it.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict


class FileSum(TypedDict):
    bytes: int
    sha256: str


class TokenizerFacts(TypedDict):
    path: str
    family: str
    size: int
    fingerprint: str


class Quarantined(TypedDict):
    documents: int
    reasons: dict[str, int]


class Base(TypedDict):
    """What all have."""

    tinydata: str
    verb: str
    inputs: dict[str, Any]  # name -> size and fingerprint, or what that directory's own manifest says
    options: dict[str, Any]
    tokenizer: TokenizerFacts
    files: dict[str, FileSum]


class CountTotals(TypedDict):
    documents: int
    bytes: int
    tokens: int
    masked: int
    domains: int
    distinct_tokens: int
    heldout_documents: int
    heldout_bytes: int
    heldout_tokens: int


class CountManifest(Base):
    kind: str  # text or ids
    totals: CountTotals
    quarantined: Quarantined
    skipped_files: list[str]
    encoded_whole: list[str]  # files on which words first differed from the tokenizer's library


class BeforeAfter(TypedDict):
    before: int
    after: int
    removed: NotRequired[int]


class Tradeoff(TypedDict):
    ids: BeforeAfter
    dead_pieces: BeforeAfter
    embedding_and_head_parameters: BeforeAfter
    d_model: int
    coverage: float
    predicted_inflation: float | None
    heldout: dict[str, Any] | None  # tokens, bytes per token and inflation, in all and by domain


class CurvePoint(TypedDict):
    vocab: int
    inflation: float | None
    coverage: float
    embedding_and_head_parameters: int


class DroppedToken(TypedDict):
    id: int
    text: str
    count: int
    parts: list[str]


class CompactManifest(Base):
    vocabulary: TokenizerFacts
    trade: Tradeoff
    dropped: list[DroppedToken]
    curve: NotRequired[list[CurvePoint] | None]
    adapted: NotRequired[dict[str, Any]]


class ShardFacts(TypedDict):
    name: str
    documents: int
    tokens: int


class EncodeTotals(TypedDict):
    documents: int
    tokens: int
    masked: int
    bytes: NotRequired[int]  # of text
    tokens_before: NotRequired[int]  # of ids


class EncodeManifest(Base):
    kind: str
    dtype: str
    rewritten: bool
    unknown: int  # -1: no such token, as with the three below
    bos: int
    eos: int
    end_of_text: int
    shards: list[ShardFacts]
    domains: dict[str, dict[str, int]]
    totals: EncodeTotals
    sample: dict[str, int] | None  # rewritten documents compared with encoding their text
    quarantined: Quarantined
    skipped_files: list[str]
    encoded_whole: list[str]


class Rows(TypedDict):
    before: int
    after: int
    kept: int
    learned: int
    padding: int
    tensors: dict[str, str]


class SliceManifest(Base):
    vocabulary: TokenizerFacts
    rows: Rows
    parameters: BeforeAfter
    bytes: BeforeAfter
    ids: dict[str, Any]
    dropped_ids: dict[str, list[int]]
    copied: list[str]
    left_out: list[str]
    untouched: list[str]
    notes: list[str]


class DataFacts(TypedDict):
    """Shards or a round, as another directory names them."""

    path: str
    absolute: str
    verb: str
    fingerprint: str
    tokens: int


class PartFacts(TypedDict):
    name: str
    first: int
    sequences: int


class ScoreTotals(TypedDict):
    sequences: int
    ok: int
    tokens: int
    nll: float
    loss: float | None
    held_out_loss: float | None


class ScoreManifest(Base):
    data: DataFacts
    base: DataFacts
    round: int
    model: dict[str, Any]
    seq_len: int
    precision: list[str]
    parts: list[PartFacts]
    statuses: dict[str, int]
    domains: dict[str, dict[str, Any]]
    totals: ScoreTotals
    logged_until: NotRequired[int]
    forgetting: NotRequired[list[dict[str, Any]]]


class Kept(TypedDict):
    sequences: int
    tokens: int
    expected: float
    sha256: str


class ResampleManifest(Base):
    base: DataFacts
    scores: dict[str, str]
    round: int
    seq_len: int
    kept: Kept
    parts: list[PartFacts]
    selection: dict[str, Any]
    # of --materialize, as in the manifest of encode
    kind: NotRequired[str]
    dtype: NotRequired[str]
    shards: NotRequired[list[ShardFacts]]
    totals: NotRequired[EncodeTotals]


TYPES: dict[str, type] = {
    "count": CountManifest,
    "compact": CompactManifest,
    "encode": EncodeManifest,
    "slice": SliceManifest,
    "score": ScoreManifest,
    "resample": ResampleManifest,
}


def faults(manifest: Any) -> list[str]:
    """Where a manifest, as read from JSON, is not what its verb writes: ["totals.tokens is missing", ...]; none: []."""
    if not isinstance(manifest, dict):
        return ["it is not an object"]
    kind = TYPES.get(manifest["verb"]) if isinstance(manifest.get("verb"), str) else None
    return list(_faults(manifest, kind, "")) if kind else [f"{manifest.get('verb')!r} is no verb"]


def _faults(value: Any, kind: Any, where: str) -> list[str]:
    if kind is Any:
        return []
    if isinstance(kind, UnionType):
        found = [_faults(value, k, where) for k in get_args(kind)]
        return [] if [] in found else found[0]
    if is_typeddict(kind):
        return _faults_of_object(value, kind, where)
    name, of = get_origin(kind) or kind, get_args(kind)
    right = isinstance(value, (int, float) if name is float else name) and (name is bool or not isinstance(value, bool))
    if not right:
        return [f"{where} is {type(value).__name__}, not {'null' if name is NoneType else name.__name__}"]
    if name is list:
        return [fault for k, v in enumerate(value) for fault in _faults(v, of[0], f"{where}[{k}]")]
    if name is dict:
        return [fault for k, v in value.items() for fault in _faults(v, of[1], f"{where}.{k}")]
    return [f"{where} is negative"] if where.endswith(_COUNTS) and value < 0 else []


_COUNTS = (".tokens", ".documents", ".bytes", ".sequences", ".size")


def _faults_of_object(value: Any, kind: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where or 'it'} is {type(value).__name__}, not an object"]
    before = f"{where}." if where else ""
    out = []
    for key, hint in get_type_hints(kind, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        if key in value:
            out += _faults(value[key], get_args(hint)[0] if optional else hint, f"{before}{key}")
        elif not optional:
            out.append(f"{before}{key} is missing")
    return out
