"""File name -> domain, for documents that have no domain of their own."""

from __future__ import annotations

import re

# Parts of a file name that are not its domain: endings, what Spark and `datasets` append, shard numbers.
_ENDINGS = re.compile(
    r"(\.(jsonl?|ndjson|csv|tsv|parquet|pq|arrow|feather|ipc|txt|bin|idx|meta|gz|zst|zstd|bz2|xz|snappy|npy|mds)"
    r"|(_unshuffled|_(doc|chunk)_shuffled)?\.ds)+$",
    re.IGNORECASE,
)
_HASH = re.compile(r"-([0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}([-.]c\d+)?)$")
_NUMBER = re.compile(r"((^|[-_.]+)(part|shard|chunk)?[-_.]*\d+([-_.]?of[-_.]?\d+)?|\d{3,})+$")


def domain_of(name: str, folder: str = "") -> str:
    """Path relative to the corpus -> domain: its first directory, or the file name without endings and shard numbers.

    `en/part-00000.bin` -> `en`; `c4-train.00001-of-01024.json.gz` -> `c4-train`. If the name is
    only a shard number, the domain is `folder`, the name of the file's directory.
    """
    first, _, rest = name.partition("/")
    if rest:
        return first
    stem = _HASH.sub("", _ENDINGS.sub("", name))
    if name.endswith(".ds"):  # datatrove puts the number of a merged file in front
        stem = re.sub(r"^\d{3}_", "", stem)
    return _NUMBER.sub("", stem) or folder or stem
