"""The data the speeds are measured on: made the same way every time, in the folder given.

Ids are drawn by Zipf's law from a vocabulary of 100,000 whose order says nothing of frequency;
documents have 500 to 1,500 of them. Large corpora are several names of the same few files: they
are read from the page cache, which holds 1 GB, far more than any processor cache.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np

SIZE = 100_000
_BYTES = 256
_DRAWS = 1 << 22  # entries of the table ids are drawn from: the rarest has three
_CODES = {"int32": 4, "uint16": 8}  # Megatron's


def tokenizer(folder: str) -> str:
    """A byte-level BPE whose pieces are two, three and four letters, 3.8 on average; -> its path."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        path.write_text(json.dumps(_tokenizer()))
    return str(path)


def _tokenizer() -> dict[str, Any]:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = list(ascii_lowercase)
    grown = (("".join(word[: len(word) // 2 or 1]), "".join(word[len(word) // 2 or 1 :])) for word in _words(letters))
    merges = list(islice(grown, SIZE - _BYTES))
    vocab = {piece: i for i, piece in enumerate([*sorted(ByteLevel.alphabet()), *(a + b for a, b in merges)])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [" ".join(m) for m in merges]},
    }


def _words(letters: list[str]) -> Iterator[tuple[str, ...]]:
    for n in (2, 3, 4):
        yield from product(letters, repeat=n)


def _drawn_from(top: int) -> np.ndarray:
    """int32[_DRAWS]: each id from _BYTES to top as often as Zipf's law has it."""
    share = np.cumsum(1 / np.arange(1, top - _BYTES + 1))
    edges = np.round(share / share[-1] * _DRAWS).astype(np.int64)
    ids = np.random.default_rng(0).permutation(np.arange(_BYTES, top, dtype=np.int32))
    return np.repeat(ids, np.diff(edges, prepend=0))


def documents(tokens: int, seed: int) -> np.ndarray:
    """int32[documents]: their lengths, about `tokens` in all."""
    return np.random.default_rng(seed).integers(500, 1501, max(tokens // 1000, 1)).astype(np.int32)


def ids(total: int, seed: int, top: int = SIZE) -> Iterator[np.ndarray]:
    """`total` ids in pieces of some millions."""
    table = _drawn_from(top)
    rng = np.random.default_rng(seed)
    while total:
        n = min(total, 1 << 22)
        yield table[rng.integers(0, len(table), n, dtype=np.uint32)]
        total -= n


def shards(folder: str, dtype: str, tokens: int, files: int, names: dict[str, int]) -> dict[str, str]:
    """Megatron shards -> {size: directory with each of `files` files under so many names}."""
    out = {size: os.path.join(folder, f"{dtype}-{size}") for size in names}
    for size, path in out.items():
        os.makedirs(path)
        for k in range(files * names[size]):
            stem = f"{folder}/{dtype}-{k % files}"
            if not os.path.exists(f"{stem}.bin"):
                _shard(stem, dtype, tokens // files, k)
            for end in (".bin", ".idx"):
                os.link(stem + end, f"{path}/shard-{k:03d}{end}")
    return out


def _shard(stem: str, dtype: str, tokens: int, seed: int) -> None:
    lengths = documents(tokens, seed)
    ends = np.cumsum(lengths, dtype=np.int64)
    size = np.dtype(dtype).itemsize
    with open(f"{stem}.bin", "wb") as f:
        for piece in ids(int(ends[-1]), seed, SIZE if size > 2 else 1 << 16):
            f.write(piece.astype(dtype).tobytes())
    with open(f"{stem}.idx", "wb") as f:
        f.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, _CODES[dtype], len(lengths), len(lengths) + 1))
        f.write(lengths.tobytes())
        f.write(((ends - lengths) * size).tobytes())
        f.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())


def parquet(folder: str, tokens: int, files: int) -> dict[str, str]:
    """list<int32>, dictionary and zstd, row groups of about 1 M ids -> {"small": one file, "large": all}."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = {size: os.path.join(folder, f"parquet-{size}") for size in ("small", "large")}
    for path in out.values():
        os.makedirs(path, exist_ok=True)
    for k in range(files):
        lengths = documents(tokens // files, k)
        values = np.concatenate(list(ids(int(lengths.sum()), k)))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        table = pa.table({"input_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))})
        path = f"{out['large']}/part-{k:03d}.parquet"
        pq.write_table(table, path, compression="zstd", use_dictionary=True, row_group_size=1000)
    os.link(f"{out['large']}/part-000.parquet", f"{out['small']}/part-000.parquet")
    return out


def internevo(folder: str, tokens: int) -> dict[str, str]:
    """InternEvo's JSON lines and their .meta -> {"small": a quarter, "large": all}."""
    out = {}
    for size, share in (("small", 4), ("large", 1)):
        out[size] = os.path.join(folder, f"internevo-{size}")
        os.makedirs(out[size], exist_ok=True)
        lengths = documents(tokens // share, 0)
        values = np.concatenate(list(ids(int(lengths.sum()), 0)))
        at, meta = 0, []
        with open(f"{out[size]}/part.bin", "wb") as f:
            for row in np.split(values, np.cumsum(lengths)[:-1]):
                line = json.dumps({"tokens": row.tolist()}).encode() + b"\n"
                meta.append((at, len(row)))
                at += f.write(line)
        with open(f"{out[size]}/part.bin.meta", "wb") as f:
            np.save(f, np.array(meta, np.int32))
    return out
