"""Raw text in JSON lines: our count against encoding all of it with the tokenizer's own library.

Real text in many languages and scripts (171 MB of it). The libraries are slow, so they get every
n-th document, about 20 MB, and both are compared by the megabyte; on these documents the counts
must be the same. Goal: ten times as fast, start-up included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ours, process
from benchmarks.place import SHARED, Place
from benchmarks.table import Peak, Row, compare

UNIT = "MB/CPU-s"
SUBSET = 20e6  # bytes of text the libraries get
# name -> (path below the tokenizers, library)
TOKENIZERS = {
    "GPT-2": ("bytebpe/gpt2_50257/vocab.json", "tokenizers"),
    "OLMo": ("bytebpe/olmo_gpt_neox_v1_5/tokenizer.json", "tokenizers"),
    "InternLM": ("sp_bpe/internlm_103168/tokenizer.model", "sentencepiece"),
    "Mistral": ("sp_bpe/mistral_v1_32000/tokenizer.model", "sentencepiece"),
}


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    if not (SHARED / "corpora").is_dir():
        return [Row("text", note=f"skipped: no {SHARED.parent.name}/data/corpora beside the project")], []
    everything = process.call("benchmarks.text:unpack", place.folder, "", place.scale).value
    chinese = process.call("benchmarks.text:unpack", place.folder, "zh_", place.scale).value
    out: list[Row] = []
    peaks: list[Peak] = []
    for name, (path, library) in TOKENIZERS.items():
        corpora = {"text": everything} | ({"Chinese": chinese} if library == "sentencepiece" else {})
        for corpus, made in corpora.items():
            row, peak = _against(place, made, str(SHARED / "tokenizers" / path), library, f"{corpus}, {name}")
            out += row
            peaks.append(peak)
    return out, peaks


def _against(place: Place, made: dict[str, Any], tok: str, library: str, name: str) -> tuple[list[Row], Peak]:
    """Rows of one corpus and tokenizer: all in, marginal, and gigatoken."""
    whole = ours.Whole(place, made["whole"], tok)
    all_in = process.call("benchmarks.text:reference", library, made["subset"], tok)
    same = process.call("benchmarks.text:our_counts", made["subset"], tok).value
    if same != all_in.value:
        raise AssertionError(f"{name}: our counts differ from those of {library}")
    rounds = max(place.rounds // 2, 1)
    speeds = process.call("benchmarks.text:speeds", library, made, tok, rounds).value
    size = made["bytes"]["subset"] / 1e6
    out = [
        compare(f"{name}: all in / {library}", UNIT, [whole.speed("bytes")], [size / all_in.cpu], ">= 10", whole.cost),
        compare(f"{name}: marginal / {library}", UNIT, speeds["ours"], speeds[library], ">= 10"),
    ]
    return [*out, _gigatoken(name, made, tok, rounds, same)], Peak(f"count {name}", whole.run.peak)


def _gigatoken(name: str, made: dict[str, Any], tok: str, rounds: int, same: list[int]) -> Row:
    name = f"{name}: marginal / gigatoken"
    try:
        speeds = process.call("benchmarks.text:speeds", "gigatoken", made, tok, rounds).value
        found = process.call("benchmarks.text:reference", "gigatoken", made["subset"], tok).value
    except RuntimeError as e:
        return Row(name, note=f"skipped: {str(e).splitlines()[-1][:100]}")
    return compare(name, UNIT, speeds["ours"], speeds["gigatoken"], note="" if found == same else "its counts differ")


# -- in a process of its own ------------------------------------------------------------------


def unpack(folder: str, prefix: str, scale: float) -> dict[str, Any]:
    """The corpora as plain .jsonl, and every n-th document -> {"whole", "subset": directory, "bytes": of text}."""
    documents = list(_documents(prefix, scale))
    size = sum(len(text.encode()) for _, _, text in documents)
    step = max(round(size / SUBSET), 8)
    made: dict[str, Any] = {"bytes": {}}
    for name, kept in (("whole", documents), ("subset", documents[::step])):
        made[name] = os.path.join(folder, f"{prefix}{name}")
        made["bytes"][name] = _write(made[name], kept)
    return made


def _documents(prefix: str, scale: float) -> Iterator[tuple[str, str, str]]:
    """(file, line, text) of the first `scale` of each file's documents."""
    import pyarrow as pa

    for path in sorted((SHARED / "corpora").glob(f"{prefix}*.jsonl.zst")):
        with pa.input_stream(str(path), compression="zstd") as f:
            lines = f.read().decode().splitlines()
        for line in lines[: max(round(len(lines) * scale), 1)]:
            yield path.name.removesuffix(".zst"), line, json.loads(line)["text"]


def _write(folder: str, documents: list[tuple[str, str, str]]) -> int:
    """-> bytes of text."""
    os.makedirs(folder)
    files: dict[str, list[str]] = {}
    for name, line, _ in documents:
        files.setdefault(name, []).append(line)
    for name, lines in files.items():
        Path(folder, name).write_text("\n".join(lines) + "\n")
    return sum(len(text.encode()) for _, _, text in documents)


def speeds(library: str, made: dict[str, Any], tok: str, rounds: int) -> dict[str, list[float]]:
    """{"ours", library: MB per CPU-second in each round}: what more text costs, without start-up."""
    count = counter(library, tok)
    count(made["subset"])
    work = partial(ours.text_bytes, tok=tok)
    work(made["subset"])
    there = made["bytes"]["subset"]
    return process.alternate(
        {
            "ours": partial(process.marginal, work, made["subset"], made["whole"]),
            library: lambda: process.speed(lambda: (count(made["subset"]), there)[1]),
        },
        rounds,
    )


def our_counts(path: str, tok: str) -> list[int]:
    return ours.counts(path, tok).tolist()


def reference(library: str, path: str, tok: str) -> list[int]:
    """Everything encoded by the library -> count of each id."""
    return counter(library, tok)(path).tolist()


def counter(library: str, tok: str) -> Callable[[str], Any]:
    """Library and tokenizer -> (directory of .jsonl -> int64[ids])."""
    from tinydata.tokenizers.open import open_tokenizer

    size = open_tokenizer(tok).size
    encode = {"tokenizers": _tokenizers, "sentencepiece": _sentencepiece, "gigatoken": _gigatoken_encode}[library](tok)
    return partial(_count, encode=encode, size=size)


def _count(path: str, encode: Callable[[Path], Iterator[Any]], size: int) -> Any:
    import numpy as np

    counts = np.zeros(size, np.int64)
    for file in sorted(Path(path).glob("*.jsonl")):
        for ids in encode(file):
            counts += np.bincount(ids, minlength=size)
    return counts


def _texts(file: Path, documents: int = 256) -> Iterator[list[str]]:
    batch: list[str] = []
    with open(file) as f:
        for line in f:
            batch.append(json.loads(line)["text"])
            if len(batch) == documents:
                yield batch
                batch = []
    if batch:
        yield batch


def _tokenizers(tok: str) -> Callable[[Path], Iterator[Any]]:
    import numpy as np
    import tokenizers

    library = tokenizers.Tokenizer.from_str(_tokenizer_json(tok))

    def encode(file: Path) -> Iterator[Any]:
        for texts in _texts(file):
            found = library.encode_batch(texts, add_special_tokens=False)
            yield np.concatenate([np.array(e.ids, np.int64) for e in found])

    return encode


def _sentencepiece(tok: str) -> Callable[[Path], Iterator[Any]]:
    import numpy as np
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_file=tok)

    def encode(file: Path) -> Iterator[Any]:
        for texts in _texts(file):
            yield np.concatenate([np.array(ids, np.int64) for ids in library.encode(texts, num_threads=1)])

    return encode


def _gigatoken_encode(tok: str) -> Callable[[Path], Iterator[Any]]:
    import awkward
    import gigatoken

    if tok.endswith(".model"):
        library = gigatoken.Tokenizer.from_sentencepiece(tok)
    else:
        library = gigatoken.Tokenizer.from_json(_tokenizer_json(tok))

    def encode(file: Path) -> Iterator[Any]:
        found = library.encode_files(gigatoken.JsonlFileSource([str(file)]), parallel=False)
        yield awkward.to_numpy(awkward.flatten(found))

    return encode


def _tokenizer_json(tok: str) -> str:
    """tokenizer.json, made of vocab.json and merges.txt where there is none."""
    from tinydata.tokenizers.open import open_tokenizer

    return json.dumps(open_tokenizer(tok).config)
