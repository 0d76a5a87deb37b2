"""The types of manifest.json, one per verb, and `faults`, which checks a manifest against them.

A manifest records how an output directory was created. It begins with what is known before the work starts (version,
verb, inputs, options); a run may resume an unfinished directory only if these are equal. It ends with `files`: the
size and sha256 of every other file in the directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict


class FileSum(TypedDict):
    """Size and checksum of one output file."""

    bytes: int
    sha256: str


class TokenizerFacts(TypedDict):
    """Identifies a tokenizer: equal fingerprints mean equal ids."""

    path: str
    family: str
    size: int
    fingerprint: str


class Quarantined(TypedDict):
    """What could not be used: documents in total and by reason, and bytes on disk by file."""

    documents: int
    reasons: dict[str, int]
    unread_bytes: dict[str, int]  # path -> bytes that were not read


class Base(TypedDict):
    """The keys that every manifest has."""

    tinydata: str
    verb: str
    inputs: dict[str, Any]  # name -> size and fingerprint, or what that directory's own manifest says
    options: dict[str, Any]
    tokenizer: TokenizerFacts
    files: dict[str, FileSum]


class CountTotals(TypedDict):
    """Sums over all domains of `tinydata count`."""

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
    """Manifest of `tinydata count`."""

    kind: str  # text or ids
    totals: CountTotals
    quarantined: Quarantined
    skipped_files: list[str]
    encoded_whole: list[str]  # files on which word-by-word encoding differed from the tokenizer's own library


class BeforeAfter(TypedDict):
    """A quantity before and after the operation."""

    before: int
    after: int
    removed: NotRequired[int]


class Idle(TypedDict):
    """Special and added tokens that never occur in the corpus and that nothing names."""

    tokens: int
    patterns: dict[str, int]  # the most frequent forms of their texts, with * for numbers


class Tradeoff(TypedDict):
    """What a compact tokenizer saves (ids, parameters) and what it costs (inflation)."""

    ids: BeforeAfter
    dead_pieces: BeforeAfter
    embedding_and_head_parameters: BeforeAfter
    d_model: int
    coverage: float
    predicted_inflation: float | None
    idle: Idle
    heldout: dict[str, Any] | None  # tokens, bytes per token and inflation, in total and by domain


class CurvePoint(TypedDict):
    """The trade-off at one vocabulary size."""

    vocab: int
    inflation: float | None
    coverage: float
    embedding_and_head_parameters: int


class DroppedToken(TypedDict):
    """A removed token, how often it occurred, and the kept pieces that now spell it."""

    id: int
    text: str
    count: int
    parts: list[str]


class CompactManifest(Base):
    """Manifest of `tinydata compact`."""

    vocabulary: TokenizerFacts
    trade: Tradeoff
    dropped: list[DroppedToken]
    curve: NotRequired[list[CurvePoint] | None]
    adapted: NotRequired[dict[str, Any]]


class ShardFacts(TypedDict):
    """One shard: its name without the ending, and its size."""

    name: str
    documents: int
    tokens: int


class EncodeTotals(TypedDict):
    """Sums over all shards of `tinydata encode`."""

    documents: int
    tokens: int
    masked: int
    bytes: NotRequired[int]  # of text
    tokens_before: NotRequired[int]  # of ids


class EncodeManifest(Base):
    """Manifest of `tinydata encode`."""

    kind: str
    dtype: str
    rewritten: bool
    unknown: int  # token id; -1: the tokenizer has no such token (also in the next three keys)
    bos: int
    eos: int
    end_of_text: int
    shards: list[ShardFacts]
    domains: dict[str, dict[str, int]]
    totals: EncodeTotals
    sample: dict[str, int] | None  # check of rewritten ids: a sample was compared with encoding the text itself
    quarantined: Quarantined
    skipped_files: list[str]
    encoded_whole: list[str]


class Rows(TypedDict):
    """Embedding rows of a sliced model, by where they come from."""

    before: int
    after: int
    kept: int
    learned: int
    padding: int
    tensors: dict[str, str]


class SliceManifest(Base):
    """Manifest of `tinydata slice`."""

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
    """How a manifest refers to the shards or the round that its directory was created from."""

    path: str
    absolute: str
    verb: str
    fingerprint: str
    tokens: int


class PartFacts(TypedDict):
    """One scores or keep file: its name, its first sequence, and how many sequences it has."""

    name: str
    first: int
    sequences: int


class ScoreTotals(TypedDict):
    """Sums over all sequences of `tinydata score`; nll in nats."""

    sequences: int
    ok: int
    tokens: int
    nll: float
    loss: float | None
    held_out_loss: float | None


class ScoreManifest(Base):
    """Manifest of `tinydata score`."""

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
    """The sequences a round keeps: their number, the expected number, and the sha256 of the list."""

    sequences: int
    tokens: int
    expected: float
    sha256: str


class ResampleManifest(Base):
    """Manifest of `tinydata resample`."""

    base: DataFacts
    scores: dict[str, str]
    round: int
    seq_len: int
    kept: Kept
    parts: list[PartFacts]
    selection: dict[str, Any]
    # only with --materialize; same meaning as in EncodeManifest
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
    """A manifest read from JSON -> its deviations from the type of its verb, e.g. ["totals.tokens is missing"]."""
    if not isinstance(manifest, dict):
        return ["it is not an object"]
    kind = TYPES.get(manifest["verb"]) if isinstance(manifest.get("verb"), str) else None
    if outside := [name for name in _named_files(manifest) if not _inside(name)]:
        return [f"it names the file {outside[0]!r}, which is not in its directory"]
    return list(_faults(manifest, kind, "")) if kind else [f"{manifest.get('verb')!r} is not a tinydata verb"]


def _named_files(manifest: dict[str, Any]) -> Iterator[Any]:
    """The file names that a manifest supplies: nothing else of it may become a path."""
    files, lists = manifest.get("files"), (manifest.get("shards"), manifest.get("parts"))
    yield from files if isinstance(files, dict) else ()
    for entries in lists:
        yield from (e.get("name", "") for e in (entries if isinstance(entries, list) else ()) if isinstance(e, dict))


def _inside(name: Any) -> bool:
    """Whether a name leads to a file in the directory, or in one below it."""
    return not isinstance(name, str) or not (name.startswith(("/", "~")) or ".." in name.split("/") or "\\" in name)


def _faults(value: Any, kind: Any, where: str) -> list[str]:
    if kind is Any:
        return []
    if isinstance(kind, UnionType):
        by_member = [_faults(value, k, where) for k in get_args(kind)]
        return [] if [] in by_member else by_member[0]
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
