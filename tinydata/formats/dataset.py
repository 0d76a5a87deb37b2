"""Shards, or a round of them, as one stream of tokens and as numbered sequences: what `score` and `resample` read.

Sequence i of length T is tokens [iT, (i+1)T + 1) of all shards in the manifest's order: T inputs and, shifted by one, T
targets; `trainer.data.order.Sequences` counts them the same way. A round that was not copied is a list of the sequences
that it keeps of its base, with the base's numbers. Only the manifest is read until a range is requested, and then only
the shards that the range touches; a copy sent to another process is opened again from its path.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes, read_table
from tinydata.core.output import MANIFEST
from tinydata.formats.megatron import read_index
from tinydata.formats.writing import DOCUMENTS_ENDING

OPEN = 4  # shards that are open at once: ranges are read one after another
NEAR = 8  # sequences at most so far apart are read together with those between them


class Documents(NamedTuple):
    """Consecutive documents of the stream."""

    first: int  # number of the first
    starts: np.ndarray  # int64[docs]: first token of each; an empty document starts where the next one does
    domains: list[str]
    domain: np.ndarray  # int32[docs]: index in `domains`

    def at(self, tokens: np.ndarray) -> np.ndarray:
        """tokens int64[n], positions in the stream -> int64[n]: index of the document that each is in."""
        return np.searchsorted(self.starts, tokens, side="right") - 1


class Stream:
    """Shards, or a round of them: its `path` as it was given and its `manifest`.

    `shards_at` and `source` are the directory and the manifest of the shards; of a round that was not copied, those of
    its base.
    """

    def __init__(self, path: str, manifest: dict[str, Any], shards_at: Location, source: dict[str, Any]):
        self.path, self.manifest, self.shards_at, self.source = path, manifest, shards_at, source
        self.dtype = np.dtype(source["dtype"])
        self.bounds = np.cumsum([0] + [s["tokens"] for s in source["shards"]])  # int64: first token of each shard
        self._first = np.cumsum([0] + [s["documents"] for s in source["shards"]])  # document of each shard
        self._tokens: dict[int, Any] = {}
        self._loss: dict[int, Any] = {}
        self._documents: dict[int, tuple[np.ndarray, pa.Array]] = {}
        self._lists: dict[int, pa.Table] = {}

    @classmethod
    def open(cls, path: str, base: str = "") -> Stream:
        """Directory that `encode` or `resample` wrote -> Stream. base: the shards of a round, if they were moved.

        Raises TinydataError (exit 3) for any other directory, and if the base is missing or has other tokens.
        """
        manifest = _manifest(path)
        if "shards" in manifest:
            where = Location.of(Location.of(path).absolute)
            return cls(path, manifest, where, _native(manifest, path))
        shards = open_base(manifest["base"], path, base)
        return cls(path, manifest, shards.shards_at, shards.source)

    def __reduce__(self) -> tuple[Any, ...]:
        return Stream.open, (Location.of(self.path).absolute, self.shards_at.path if self.listed else "")

    @property
    def listed(self) -> bool:
        """Whether it is a round that was not copied."""
        return self.source is not self.manifest

    @property
    def round(self) -> int:
        return self.manifest.get("round", 0)

    @property
    def tokens(self) -> int:
        """Number of tokens of all shards."""
        return int(self.bounds[-1])

    @property
    def tokenizer(self) -> dict[str, Any]:
        """TokenizerFacts of the shards."""
        return self.source["tokenizer"]

    @property
    def masked(self) -> bool:
        """Whether some tokens carry no loss."""
        return any(f"{s['name']}.loss" in self.source["files"] for s in self.source["shards"])

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the tokens: a hash over the sha256 of the token files, which the trainer computes too."""
        names = [f"{s['name']}.{end}" for s in self.source["shards"] for end in ("bin", "loss")]
        hashes = [self.source["files"][n]["sha256"] for n in names if n in self.source["files"]]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]

    @property
    def facts(self) -> dict[str, Any]:
        """DataFacts of the shards, as `base` of a manifest contains them."""
        return {
            "path": self.manifest["base"]["path"] if self.listed else self.path,
            "absolute": self.shards_at.absolute,
            "fingerprint": self.fingerprint,
            "tokens": self.tokens,
            "verb": self.source["verb"],
        }

    # -- sequences ----------------------------------------------------------------------------

    def total(self, length: int) -> int:
        """Number of sequences of this length in the shards, kept or not."""
        return max(0, (self.tokens - 1) // length)

    def size(self, length: int) -> int:
        """Number of sequences in this dataset: all, or those that the round keeps.

        Raises TinydataError for a length other than that of the round.
        """
        if not self.listed:
            return self.total(length)
        if length != self.manifest["seq_len"]:
            raise TinydataError(
                f"the round keeps sequences of {self.manifest['seq_len']} tokens, not of {length}",
                where=self.path,
                fix=f"use --seq-len {self.manifest['seq_len']}, or create the round with --materialize",
            )
        return self.manifest["kept"]["sequences"]

    def numbers(self, a: int, b: int) -> np.ndarray:
        """int64[b - a]: the numbers of sequences [a, b) of this dataset, in ascending order."""
        if not self.listed:
            return np.arange(a, b)
        return self._kept(a, b)["sequence"].to_numpy()

    def repeats(self, a: int, b: int) -> np.ndarray:
        """int32[b - a]: how often each of them was trained on in the rounds before this one."""
        if not self.listed:
            return np.full(b - a, self.round, np.int32)
        return self._kept(a, b)["repeats"].to_numpy()

    def _kept(self, a: int, b: int) -> pa.Table:
        """Rows [a, b) of the KEEP tables of the round."""
        parts = self.manifest["parts"]
        bounds = np.cumsum([0] + [p["sequences"] for p in parts])
        tables = []
        for k in range(int(np.searchsorted(bounds, a, side="right")) - 1, int(np.searchsorted(bounds, b))):
            table = _cached(self._lists, k, partial(read_table, Location.of(self.path) / parts[k]["name"]))
            start = max(a - int(bounds[k]), 0)
            tables.append(table.slice(start, max(min(b - int(bounds[k]), len(table)) - start, 0)))
        return pa.concat_tables(tables).combine_chunks()

    def rows(self, numbers: np.ndarray, length: int) -> np.ndarray:
        """numbers int64[n], ascending -> ids [n, length + 1] in the type of the shards: inputs, and the last target."""
        return self._rows(self.read, self.dtype, numbers, length, 0)

    def targets_bear_loss(self, numbers: np.ndarray, length: int) -> np.ndarray | None:
        """numbers int64[n], ascending -> bool[n, length]: whether each target carries loss; None: all tokens do."""
        if not self.masked:
            return None
        return self._rows(self.bears_loss, np.dtype(bool), numbers, length, 1)

    def _rows(
        self, read: Callable[[int, int], Any], dtype: np.dtype, numbers: np.ndarray, length: int, skip: int
    ) -> np.ndarray:
        """Tokens [iT + skip, iT + T + 1) of each sequence i."""
        width = length + 1 - skip
        out = np.empty((len(numbers), width), dtype)
        cuts = [0, *(np.flatnonzero(np.diff(numbers) > NEAR) + 1).tolist(), len(numbers)]
        for a, b in pairwise(cuts):
            if a == b:
                continue
            first, last = int(numbers[a]), int(numbers[b - 1])
            span = read(first * length + skip, (last + 1) * length + 1)
            windows = np.lib.stride_tricks.sliding_window_view(span, width)[::length]
            out[a:b] = windows[numbers[a:b] - first]
        return out

    # -- tokens -------------------------------------------------------------------------------

    def read(self, a: int, b: int) -> np.ndarray:
        """ids of tokens [a, b) of the stream, in the type of the shards; the array may be read-only."""
        return _joined(self._span(k, start, stop) for k, start, stop in self._touched(a, b))

    def bears_loss(self, a: int, b: int) -> np.ndarray | None:
        """bool[b - a]: whether each of tokens [a, b) carries loss; None: all tokens of the dataset do."""
        if not self.masked:
            return None
        return _joined(self._flags(k, start, stop) for k, start, stop in self._touched(a, b))

    def documents(self, a: int, b: int) -> Documents:
        """The documents that tokens [a, b) are in; an unknown domain is ""."""
        first, starts, labels = -1, [], []
        for k, start, stop in self._touched(a, b):
            begins, domain = _cached(self._documents, k, partial(self._documents_of, k))
            lo = max(int(np.searchsorted(begins, start, side="right")) - 1, 0)
            hi = int(np.searchsorted(begins, stop))
            first = int(self._first[k]) + lo if first < 0 else first
            starts.append(begins[lo:hi] + self.bounds[k])
            labels.append(domain.slice(lo, hi - lo))
        if not labels:
            return Documents(0, np.empty(0, np.int64), [], np.empty(0, np.int32))
        coded = pa.concat_arrays(labels).dictionary_encode()
        return Documents(first, np.concatenate(starts), coded.dictionary.to_pylist(), coded.indices.to_numpy())

    def _touched(self, a: int, b: int) -> Iterator[tuple[int, int, int]]:
        """(shard, first token, last + 1) of each shard that has some of tokens [a, b); counted within the shard."""
        for k in range(int(np.searchsorted(self.bounds, a, side="right")) - 1, len(self.bounds) - 1):
            low, high = int(self.bounds[k]), int(self.bounds[k + 1])
            if low >= b:
                return
            if low < high:
                yield k, max(a, low) - low, min(b, high) - low

    def _file(self, shard: int, ending: str) -> Location:
        return self.shards_at / f"{self.source['shards'][shard]['name']}{ending}"

    def _span(self, shard: int, a: int, b: int) -> np.ndarray:
        return _cached(self._tokens, shard, partial(self._opened, shard, ".bin", self.dtype))(a, b)

    def _flags(self, shard: int, a: int, b: int) -> np.ndarray:
        if f"{self.source['shards'][shard]['name']}.loss" not in self.source["files"]:
            return np.ones(b - a, bool)
        return _cached(self._loss, shard, partial(self._opened, shard, ".loss", np.dtype(bool)))(a, b)

    def _opened(self, shard: int, ending: str, dtype: np.dtype) -> Callable[[int, int], np.ndarray]:
        """A file of one element per token -> a function (a, b) -> its elements [a, b); a local file is mapped."""
        file, expected = self._file(shard, ending), self.source["shards"][shard]["tokens"]
        if not file.exists() or file.size != expected * dtype.itemsize:
            actual = f"has {file.size:,} bytes" if file.exists() else "is missing"
            raise _damaged(file, f"it {actual}; the manifest says {expected:,} tokens of {dtype.name}")
        if file.local:
            mapped = np.memmap(file.absolute, dtype, "r")
            return lambda a, b: mapped[a:b]
        handle = file.open()
        return lambda a, b: np.frombuffer(handle.read_at((b - a) * dtype.itemsize, a * dtype.itemsize), dtype)

    def _documents_of(self, shard: int) -> tuple[np.ndarray, pa.Array]:
        """(first token of each document within the shard int64[docs], its domain)"""
        file = self._file(shard, DOCUMENTS_ENDING)
        try:
            _, first = read_index(self._file(shard, ".bin"))
            domain = read_table(file, columns=["domain"])["domain"].cast(pa.string()).fill_null("").combine_chunks()
        except (OSError, pa.ArrowException) as e:
            raise _damaged(file, str(e)[:200]) from None
        if len(domain) != len(first) - 1:
            raise _damaged(file, f"it has {len(domain):,} documents, the index has {len(first) - 1:,}")
        return first[:-1], domain.chunk(0) if isinstance(domain, pa.ChunkedArray) else domain


def _cached(cache: dict[int, Any], key: int, make: Callable[[], Any]) -> Any:
    """The cached value or, if it is new, that of `make`; the cache keeps the OPEN newest values."""
    if key not in cache:
        if len(cache) >= OPEN:
            cache.pop(next(iter(cache)))
        cache[key] = make()
    return cache[key]


def _joined(pieces: Iterator[np.ndarray]) -> np.ndarray:
    arrays = list(pieces)
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _manifest(path: str) -> dict[str, Any]:
    """Manifest of shards or of a round; raises TinydataError for any other directory."""
    fix = "pass a directory that `tinydata encode` or `tinydata resample` wrote"
    try:
        manifest = json.loads(read_bytes(Location.of(path) / MANIFEST))
    except TinydataError:
        raise TinydataError(f"the directory has no {MANIFEST}", where=path, fix=fix, code=UNREADABLE) from None
    except ValueError as e:
        raise TinydataError(f"{MANIFEST} is damaged: {e}", where=path, fix=fix, code=UNREADABLE) from None
    if not isinstance(manifest, dict) or not ("shards" in manifest or {"base", "kept", "parts"} <= manifest.keys()):
        by = manifest.get("verb", "another program") if isinstance(manifest, dict) else "another program"
        raise TinydataError(f"neither shards nor a round: written by {by}", where=path, fix=fix, code=UNREADABLE)
    return manifest


def _native(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    """The manifest; raises TinydataError unless it belongs to shards in the native format."""
    if "shards" not in manifest:
        fix = "pass a directory that `tinydata encode` wrote"
        raise TinydataError("a round, not shards", where=path, fix=fix, code=UNREADABLE)
    to = manifest.get("options", {}).get("to", "megatron")
    if to != "megatron":
        raise TinydataError(
            f"these shards are {to}, and only the native format is read here",
            where=path,
            fix="encode without --to",
            code=UNREADABLE,
        )
    return manifest


def open_base(
    recorded: dict[str, Any], near: str, given: str = "", subject: str = "round was", option: str = "--base"
) -> Stream:
    """`base` of the manifest in `near` -> the shards that it records.

    They are looked up at the path `given` or, without it, at the recorded path and next to the manifest. subject and
    option: what an error calls `near` ("round was", "scores were"), and the option that gives the path. Raises
    TinydataError (exit 3) if the shards are missing or have other tokens.
    """
    next_to = posixpath.join(Location.of(near).parent.path, recorded["path"])
    places = [given] if given else [recorded["absolute"], next_to]
    existing = next((p for p in places if (Location.of(p) / MANIFEST).exists()), None)
    if existing is None:
        raise TinydataError(
            f"the shards that the {subject} created from are not at {' nor at '.join(places)}",
            where=near,
            fix=f"specify their path with {option} SHARDS",
            code=UNREADABLE,
        )
    stream = Stream.open(Location.of(existing).absolute)
    if stream.listed or stream.fingerprint != recorded["fingerprint"]:
        raise TinydataError(
            f"these are not the shards that the {subject} created from: their fingerprint is different",
            where=f"{existing}, used by {near}",
            fix=f"pass the right ones with {option} SHARDS, or create it again",
            code=UNREADABLE,
        )
    return stream


def _damaged(file: Location, why: str) -> TinydataError:
    fix = "create or copy the directory again; an incomplete one cannot be read"
    return TinydataError(f"cannot be read: {why}", where=str(file), fix=fix, code=UNREADABLE)
