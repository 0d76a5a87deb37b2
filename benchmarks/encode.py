"""Text to shards against encoding it with the tokenizer's own library; old ids to new against a look-up table.

Text, subset and clocks are those of `text`. On the subset our ids must be the library's. Goals: five
times the library, on one core and on all; rewriting 100 M tokens a second and ten times encoding.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.place import SHARED, Place
from benchmarks.table import Peak, Row, alone, compare
from benchmarks.text import TOKENIZERS, counter

MB, TOKENS = "MB/CPU-s", "M tokens/CPU-s"
BIG, KEPT = "InternLM", 48_000
COPIES = 8  # names of the tokenized corpus in the large one


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    if not (SHARED / "corpora").is_dir():
        return [Row("encode", note=f"skipped: no {SHARED.parent.name}/data/corpora beside the project")], []
    made = process.call("benchmarks.text:unpack", place.folder, "", place.scale).value
    rounds = max(place.rounds // 2, 1)
    out: list[Row] = []
    peaks: list[Peak] = []
    encoded: list[float] = []
    for name, (path, library) in TOKENIZERS.items():
        tok = str(SHARED / "tokenizers" / path)
        same = process.call("benchmarks.encode:same", library, made["subset"], tok).value
        if not same:
            raise AssertionError(f"{name}: our ids differ from those of {library}")
        speeds = process.call("benchmarks.encode:speeds", library, made, tok, rounds).value
        out.append(compare(f"encode, {name}: one core / {library}", MB, speeds["ours"], speeds[library], ">= 5"))
        row, peak = _machine(place, made, tok, library, name)
        out += [row, _gigatoken(made, tok, rounds, name)]
        peaks.append(peak)
        if name == BIG:
            encoded = speeds["tokens"]
    return [*out, *_rewriting(place, made, encoded)], peaks


def _machine(place: Place, made: dict[str, Any], tok: str, library: str, name: str) -> tuple[Row, Peak]:
    """The command on all cores against the library on all cores, by the clock on the wall."""
    run = process.tinydata("encode", made["whole"], "--vocab", tok, "-o", f"{place.folder}/shards")
    shutil.rmtree(f"{place.folder}/shards")
    other = process.call("benchmarks.encode:on_all_cores", library, made["subset"], tok).value
    ours = made["bytes"]["whole"] / run.wall / 1e6
    row = compare(f"encode, {name}: all cores, all in / {library}", "MB/s", [ours], [other], ">= 5")
    return row._replace(note=f"{run.cpu:.1f} CPU-s, {run.wall:.1f} s"), Peak(f"encode text, {name}", run.peak)


def _gigatoken(made: dict[str, Any], tok: str, rounds: int, name: str) -> Row:
    name = f"encode, {name}: one core / gigatoken"
    try:
        speeds = process.call("benchmarks.encode:speeds", "gigatoken", made, tok, rounds).value
        same = process.call("benchmarks.encode:same", "gigatoken", made["subset"], tok).value
    except RuntimeError as e:
        return Row(name, note=f"skipped: {str(e).splitlines()[-1][:100]}")
    return compare(name, MB, speeds["ours"], speeds["gigatoken"], note="" if same else "its ids differ")


def _rewriting(place: Place, made: dict[str, Any], encoded: list[float]) -> list[Row]:
    """The corpus as ids of the big tokenizer, and a vocabulary made on it."""
    tok = str(SHARED / "tokenizers" / TOKENIZERS[BIG][0])
    counts, vocab, ids, large = (f"{place.folder}/{n}" for n in ("counts", "vocab", "ids", "large"))
    process.tinydata("count", made["whole"], "--tokenizer", tok, "-o", counts)
    process.tinydata("compact", counts, "--tokenizer", tok, "--vocab", str(KEPT), "-o", vocab)
    process.tinydata("encode", made["whole"], "--vocab", tok, "-o", ids)
    os.makedirs(large)
    for k in range(COPIES):
        for end in (".bin", ".idx"):
            os.link(f"{ids}/shard-00000{end}", f"{large}/shard-{k:03}{end}")
    kernel = process.call("benchmarks.encode:kernels", ids, vocab, place.rounds).value
    verb = process.call("benchmarks.encode:rewriting", ids, large, vocab, place.rounds).value
    name = f"rewrite {BIG} to {KEPT:,}"
    share = f"{kernel['kept']:.1%} of tokens kept"
    return [
        compare(f"{name}: kernel / a look-up table alone", TOKENS, kernel["ours"], kernel["table"], "", share),
        compare(f"{name}: kernel / ragged numpy", TOKENS, kernel["ours"], kernel["ragged"]),
        alone(f"{name}: kernel", TOKENS, kernel["ours"], ">= 100"),
        alone(f"{name}: shards to shards", TOKENS, verb, ">= 100"),
        compare(f"{name}: shards to shards / encoding the text", TOKENS, verb[: len(encoded)], encoded, ">= 10"),
    ]


# -- in a process of its own ------------------------------------------------------------------


def encode(path: str, vocab: str) -> dict[str, Any]:
    """`tinydata encode` with one worker, its result thrown away -> manifest."""
    from tinydata.engines.local import LocalEngine
    from tinydata.verbs.encode.verb import encode

    out = f"{path}-shards"
    manifest = encode([path], vocab, out, LocalEngine(1))
    shutil.rmtree(out)
    return manifest


def speeds(library: str, made: dict[str, Any], tok: str, rounds: int) -> dict[str, list[float]]:
    """{"ours", library: MB per CPU-second, "tokens": ours in M tokens}: what more text costs, without start-up."""
    count = counter(library, tok)
    count(made["subset"])
    encode(made["subset"], tok)
    there = made["bytes"]["subset"]
    found: dict[str, int] = {}

    def ours(path: str) -> int:
        totals = encode(path, tok)["totals"]
        found[path] = totals["tokens"]
        return totals["bytes"]

    speeds = process.alternate(
        {
            "ours": partial(process.marginal, ours, made["subset"], made["whole"]),
            library: lambda: process.speed(lambda: (count(made["subset"]), there)[1]),
        },
        rounds,
    )
    sizes = [made["bytes"][n] for n in ("whole", "subset")]
    per_byte = (found[made["whole"]] - found[made["subset"]]) / (sizes[0] - sizes[1])
    return {**speeds, "tokens": [s * per_byte for s in speeds["ours"]]}


def on_all_cores(library: str, path: str, tok: str) -> float:
    """The library on all cores, texts in memory -> MB per second."""
    for name in process.ONE_CORE:
        os.environ.pop(name, None)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    texts = [json.loads(line)["text"] for file in sorted(Path(path).glob("*.jsonl")) for line in file.open()]
    size = sum(len(t.encode()) for t in texts)
    work = _batch(library, tok)
    work(texts[:64])
    began = time.perf_counter()
    work(texts)
    return size / (time.perf_counter() - began) / 1e6


def _batch(library: str, tok: str) -> Callable[[list[str]], Any]:
    if library == "sentencepiece":
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=tok)
        return lambda texts: model.encode(texts, num_threads=os.cpu_count())
    import tokenizers

    from benchmarks.text import _tokenizer_json

    native = tokenizers.Tokenizer.from_str(_tokenizer_json(tok))
    return lambda texts: native.encode_batch(texts, add_special_tokens=False)


def same(library: str, path: str, tok: str) -> bool:
    """Whether our ids are the library's, on every document."""
    import numpy as np

    from benchmarks.text import _gigatoken_encode, _sentencepiece, _tokenizers
    from tinydata.formats.corpus import plan, read
    from tinydata.tokenizers.open import open_tokenizer
    from tinydata.tokenizers.text_encoder import TextEncoder

    theirs = {"tokenizers": _tokenizers, "sentencepiece": _sentencepiece, "gigatoken": _gigatoken_encode}[library](tok)
    encoder = TextEncoder(open_tokenizer(tok))
    for file in sorted(Path(path).glob("*.jsonl")):
        splits = plan([str(file)]).splits
        ours = [encoder.encode(b.column("text"))[0].copy() for s in splits for b in read(s, lambda p, r, e: None)]
        if not np.array_equal(np.concatenate(ours), np.concatenate(list(theirs(file)))):
            return False
    return True


def kernels(ids: str, vocab: str, rounds: int) -> dict[str, Any]:
    """{"ours", "table", "ragged": M tokens per CPU-second in each round, "kept": share of tokens}."""
    import numpy as np
    import pyarrow.parquet as pq

    from tinydata.core.location import Location
    from tinydata.formats.megatron import read_index
    from tinydata.verbs.encode.rewrite import Rewriter, id_map

    _, first = read_index(Location.of(f"{ids}/shard-00000.bin"))
    values = np.fromfile(f"{ids}/shard-00000.bin", np.int32)
    table = pq.read_table(f"{vocab}/idmap.parquet")
    mapped = id_map(table, KEPT)
    rewriter = Rewriter(mapped, np.uint16)
    pieces = [(a, min(a + 1024, len(first) - 1)) for a in range(0, len(first) - 1, 1024)]
    one_each = mapped.parts[mapped.offsets[:-1]].astype(np.uint16)
    counts = np.diff(mapped.offsets)

    def ours() -> int:
        for a, b in pieces:
            rewriter.rewrite(values, first[a : b + 1])
        return len(values)

    def look_up() -> int:
        for a, b in pieces:
            one_each[values[first[a] : first[b]]]
        return len(values)

    def ragged() -> int:
        for a, b in pieces:
            old = values[first[a] : first[b]]
            n = counts[old]
            ends = np.cumsum(n)
            within = np.arange(ends[-1]) - np.repeat(ends - n, n)
            mapped.parts[np.repeat(mapped.offsets[old], n) + within].astype(np.uint16)
        return len(values)

    new = np.concatenate([rewriter.rewrite(values, first[a : b + 1])[0].copy() for a, b in pieces[:3]])
    parts = table["parts"].to_pylist()
    assert new.tolist() == [p for i in values[: first[pieces[2][1]]].tolist() for p in parts[i]]
    contenders = {"ours": ours, "table": look_up, "ragged": ragged}
    speeds = process.alternate({n: partial(process.speed, w) for n, w in contenders.items()}, rounds)
    return {**speeds, "kept": float(table["kept"].to_numpy()[values].mean())}


def rewriting(small: str, large: str, vocab: str, rounds: int) -> list[float]:
    """`tinydata encode` of ids -> M tokens per CPU-second in each round, without start-up."""

    def work(path: str) -> int:
        return int(encode(path, vocab)["totals"]["tokens_before"])

    work(small)
    return [process.marginal(work, small, large) for _ in range(rounds)]
