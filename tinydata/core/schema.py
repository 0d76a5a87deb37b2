"""The tables between the verbs: names, types, units. Parquet, int32/int64 only (Spark has no unsigned).

Readers yield batches of TEXT or TOKENS; the other tables are files. A document's `position` is its
byte offset (lines, text), row (Parquet) or index (shards) in the file that the `path` of the batch's
schema metadata names; `doc_id` is null if the corpus has no id column.
"""

from __future__ import annotations

import pyarrow as pa

_LABEL = pa.dictionary(pa.int32(), pa.string())

TEXT = pa.schema([("doc_id", pa.string()), ("domain", _LABEL), ("position", pa.int64()), ("text", pa.string())])

# ids: a list of the integer type that the file has; a negative id is the same token with a masked label
TOKENS = pa.schema(
    [("doc_id", pa.string()), ("domain", _LABEL), ("position", pa.int64()), ("ids", pa.list_(pa.int32()))]
)

# fifth column of TOKENS if the corpus has loss masks: as long as ids; true: the token carries no loss
MASK = pa.field("mask", pa.list_(pa.bool_()))

# counts.parquet: one row per (domain, token) that occurs, sorted by both
COUNTS = pa.schema(
    [
        ("domain", pa.string()),
        ("token_id", pa.int32()),
        ("count", pa.int64()),  # occurrences, held-out ones included
        ("heldout", pa.int64()),  # of these, in held-out documents
    ]
)

# domains.parquet: one row per domain
DOMAINS = pa.schema(
    [
        ("domain", pa.string()),
        ("documents", pa.int64()),
        ("tokens", pa.int64()),
        ("bytes", pa.int64()),  # UTF-8 bytes of text; for token ids, of the text they decode to
        ("masked", pa.int64()),  # tokens that carry no loss: their ids were negative, or masked
        ("heldout_documents", pa.int64()),
        ("heldout_tokens", pa.int64()),
        ("heldout_bytes", pa.int64()),
    ]
)

# heldout.parquet: text of held-out documents, lowest hash first, at most 64 MB
HELDOUT = pa.schema([("hash", pa.int64()), ("doc_id", pa.string()), ("domain", pa.string()), ("text", pa.string())])

# quarantine.parquet: input that could not be used
QUARANTINE = pa.schema(
    [
        ("path", pa.string()),
        ("position", pa.int64()),
        ("doc_id", pa.string()),
        ("reason", pa.string()),
        ("excerpt", pa.string()),  # first 80 characters
        (
            "documents",
            pa.int64(),
        ),  # that the row stands for, known or estimated by the reader; 0: unknown
        ("bytes", pa.int64()),  # bytes on disk that were not read; 0 for a document among others that were
    ]
)

# idmap.parquet: one row per old id; parts: the new id if the token was kept, else the new ids that spell it
IDMAP = pa.schema([("old_id", pa.int32()), ("kept", pa.bool_()), ("parts", pa.list_(pa.int32()))])

# learned.parquet, only with `compact --adapt`: one row per token learned from the corpus, ordered by id
LEARNED = pa.schema(
    [
        ("new_id", pa.int32()),
        ("left", pa.int32()),  # left and right: the new ids whose merge produces it
        ("right", pa.int32()),
        ("old_parts", pa.list_(pa.int32())),  # old ids that spell it: its embedding is initialized to their mean
    ]
)

# *.docs.parquet, one per shard: one row per document, in order
DOCUMENTS = pa.schema([("doc_id", pa.string()), ("domain", pa.string())])

# pieces.parquet, in a directory of shards: one row per token id, in order
PIECES = pa.schema(
    [
        ("token_id", pa.int32()),
        ("bytes", pa.int32()),  # UTF-8 bytes of the token's text; 0 if it is special
        ("special", pa.bool_()),  # has no text: begin, end, padding, unknown, or an id without a token
    ]
)

# scores-*.parquet: one row per sequence, in order. Sequence i of length T is tokens [iT, (i+1)T + 1) of all shards
SCORES = pa.schema(
    [
        ("sequence", pa.int64()),  # its number over all shards, in the manifest's order
        ("document", pa.int64()),  # number of the document it begins in
        ("domain", pa.string()),  # the domain of most of its targets
        ("tokens", pa.int32()),  # targets that carry loss
        ("nll", pa.float64()),  # sum over them, nats
        ("mean", pa.float32()),  # nll / tokens
        ("max", pa.float32()),  # largest loss of a single target, nats
        ("status", pa.string()),  # "ok", or why it has no loss: then nll, mean and max are null
        ("repeats", pa.int32()),  # how often it has been trained on so far
        ("periodic", pa.int32()),  # tokens of the longest run that repeats a pattern of at most 13 tokens
        ("unknown", pa.int32()),  # unknown tokens among its targets
        ("prior", pa.float32()),  # mean over its targets of -ln(share of that id in the shards), nats
        ("prior_sd", pa.float32()),  # standard deviation of the same
    ]
)

# keep-*.parquet of a round: the kept sequences, in order
KEEP = pa.schema(
    [
        ("sequence", pa.int64()),
        ("inclusion", pa.float32()),  # the probability with which it was kept
        ("repeats", pa.int32()),  # how often it was trained on in earlier rounds
    ]
)

# examples.parquet of a round: some sequences as text, for inspection
EXAMPLES = pa.schema(
    [
        ("kind", pa.string()),  # hardest kept, or excluded
        ("sequence", pa.int64()),
        ("domain", pa.string()),
        ("mean", pa.float32()),
        ("reason", pa.string()),  # the guard that excluded it
        ("text", pa.string()),  # its first characters
    ]
)

# The partial result of a count task: rows of four of the tables above in one schema, since mapInArrow allows only one.
PARTIAL = pa.unify_schemas([pa.schema([("part", pa.string())]), COUNTS, DOMAINS, HELDOUT, QUARANTINE])
