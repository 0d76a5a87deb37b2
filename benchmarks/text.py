"""Raw text, JSON lines of many languages and code: our whole count against encoding every document.

The others read the same lines with json, encode on one core and add up np.bincount; their start-up
is not counted, ours is, except in the rows that say marginal. They are measured on every tenth
document, on which the counts must be the same. Goal: 10 times as fast per core.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.place import SHARED, Place, counts_of
from benchmarks.table import Peak, Row, compare

UNIT = "MB/CPU-s"
TOKENIZERS = {
    "GPT-2 50,257": ("bytebpe/gpt2_50257", "encode_batch"),
    "OLMo/NeoX 50,280": ("bytebpe/olmo_gpt_neox_v1_5/tokenizer.json", "encode_batch"),
    "InternLM 103,168": ("sp_bpe/internlm_103168/tokenizer.model", "sentencepiece"),
    "Mistral 32,000": ("sp_bpe/mistral_v1_32000/tokenizer.model", "sentencepiece"),
}
CHINESE = "sentencepiece"  # the library whose Chinese is measured apart


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    if not SHARED.exists():
        return [Row("raw text", note="skipped: no ../shared/data with real text and tokenizers")], []
    size = process.call("benchmarks.text:prepare", place.folder, place.scale).value
    out: list[Row] = []
    peaks: list[Peak] = []
    rounds = max(1, min(3, place.rounds))
    for name, (path, library) in TOKENIZERS.items():
        tok = str(SHARED / "tokenizers" / path)
        for corpus in ("all", "chinese") if library == CHINESE else ("all",):
            found, peak = measured(place, f"{corpus} text, {name}", tok, corpus, library, size, rounds)
            out += found
            peaks.append(peak)
    return out, peaks


def measured(
    place: Place, name: str, tok: str, corpus: str, library: str, size: dict[str, float], rounds: int
) -> tuple[list[Row], Peak]:
    """All rows of one tokenizer on one corpus."""
    large, small = f"{place.folder}/{corpus}", f"{place.folder}/{corpus}-tenth"
    same = process.call("benchmarks.text:same_counts", small, tok).value
    all_in, marginal, theirs, giga, peaks = [], [], [], [], []
    for _ in range(rounds):
        runs = {path: ours(place, path, tok) for path in (large, small)}
        all_in.append(size[large] / runs[large].cpu)
        marginal.append((size[large] - size[small]) / (runs[large].cpu - runs[small].cpu))
        theirs.append(size[small] / process.call("benchmarks.text:reference", small, tok).value)
        peaks.append(runs[large].peak)
        giga.append(process.call("benchmarks.text:gigatoken", small, tok).value)
    found = [
        compare(f"{name} / {library}", UNIT, all_in, theirs, ">= 10", same),
        compare(f"{name}, marginal / {library}", UNIT, marginal, theirs),
    ]
    if all(g["seconds"] for g in giga):
        speeds = [size[small] / g["seconds"] for g in giga]
        found.append(compare(f"{name}, marginal / gigatoken", UNIT, marginal, speeds, note=giga[0]["note"]))
    else:
        found.append(Row(f"{name} / gigatoken", note=giga[0]["note"]))
    return found, Peak(f"count {name}", int(statistics.median(peaks)))


def ours(place: Place, corpus: str, tok: str) -> process.Run:
    out = f"{place.folder}/counts"
    run = process.tinydata("count", corpus, "--tokenizer", tok, "--workers", "1", "-o", out)
    process.command(["rm", "-r", out])
    return run


# -- in a process of its own ------------------------------------------------------------------


def prepare(folder: str, scale: float) -> dict[str, float]:
    """Decompresses the corpora: all, every tenth document, and the Chinese ones alike -> MB of text in each."""
    import pyarrow as pa

    size: dict[str, float] = {}
    for source in sorted((SHARED / "corpora").glob("*.jsonl.zst")):
        lines = pa.input_stream(str(source), compression="zstd").read().splitlines(keepends=True)
        lines = lines[: max(1, int(len(lines) * scale))]
        for corpus in ("all", *(["chinese"] if source.name.startswith("zh_") else [])):
            for name, some in ((corpus, lines), (f"{corpus}-tenth", lines[::10])):
                where = Path(folder) / name
                where.mkdir(exist_ok=True)
                (where / source.name.removesuffix(".zst")).write_bytes(b"".join(some))
                text = sum(len(json.loads(line)["text"].encode()) for line in some)
                size[str(where)] = size.get(str(where), 0.0) + text / 1e6
    return size


def reference(corpus: str, tok: str) -> float:
    """json, the library, np.bincount, document batches of 1,000 -> CPU-seconds without loading."""
    from tinydata.tokenizers.base import open_tokenizer

    tokenizer = open_tokenizer(tok)
    tokenizer.encode(["warm"])
    began = process.cpu()
    _encode_all(corpus, tokenizer)
    return process.cpu() - began


def _encode_all(corpus: str, tokenizer: Any) -> Any:
    import numpy as np

    counts = np.zeros(tokenizer.size, np.int64)
    for file in sorted(Path(corpus).glob("*.jsonl")):
        with open(file, "rb") as f:
            texts = [json.loads(line)["text"] for line in f]
        for i in range(0, len(texts), 1000):
            for ids in tokenizer.encode(texts[i : i + 1000]):
                counts += np.bincount(np.array(ids, np.int64), minlength=tokenizer.size)
    return counts


def same_counts(corpus: str, tok: str) -> str:
    import numpy as np

    from tinydata.tokenizers.base import open_tokenizer

    if not np.array_equal(counts_of(corpus, tok), _encode_all(corpus, open_tokenizer(tok))):
        raise AssertionError(f"{corpus}: our counts differ from the library's")
    return "identical counts"


def gigatoken(corpus: str, tok: str) -> dict[str, Any]:
    """The same with the gigatoken package -> CPU-seconds, or why not; its ids are compared too."""
    import numpy as np

    try:
        import gigatoken as giga
    except ImportError:
        return {"seconds": 0, "note": "skipped: gigatoken is not installed"}
    from tinydata.tokenizers.base import open_tokenizer

    known = open_tokenizer(tok)
    try:
        if tok.endswith(".model"):
            fast = giga.Tokenizer.from_sentencepiece(tok)
        else:
            fast = giga.Tokenizer.from_json(json.dumps(known.config))
        fast.encode_batch(["warm"])
    except Exception as e:  # it raises bare Exceptions of its own
        return {"seconds": 0, "note": f"gigatoken cannot load it: {' '.join(str(e).split())[:80]}"}
    counts = np.zeros(known.size, np.int64)
    began = process.cpu()
    for file in sorted(Path(corpus).glob("*.jsonl")):
        with open(file, "rb") as f:
            texts = [json.loads(line)["text"] for line in f]
        for ids in fast.encode_batch(texts):
            counts += np.bincount(np.array(ids, np.int64), minlength=known.size)[: known.size]
    took = process.cpu() - began
    differ = np.abs(counts - _encode_all(corpus, known)).sum() / counts.sum()
    return {"seconds": took, "note": "identical counts" if not differ else f"its counts differ: {differ:.2%} of tokens"}
