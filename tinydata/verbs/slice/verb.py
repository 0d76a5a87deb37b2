"""Model + vocabulary -> model directory: kept rows are copied from file to file, all other tensors byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinydata import __version__
from tinydata.core.location import fingerprint, to_json
from tinydata.core.output import Output
from tinydata.verbs.slice.hf_model import INDEX
from tinydata.verbs.slice.plan import ModelSlice, header_of_shard, prepare, tensors_of_shard
from tinydata.verbs.slice.safetensors import CHUNK, Reader, Tensor, from_float32, laid_out, to_float32
from tinydata.verbs.slice.vocabulary_rows import Options


def write(
    new: ModelSlice, out: str, *, force: bool = False, progress: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """ModelSlice -> model directory in `out`; returns its manifest. progress: called with numbers of written bytes."""
    model = new.model
    output = Output(out, header(new), force=force)
    streamed: dict[str, dict[str, Any]] = {}
    try:
        output.place.make_dir()
        for shard in model.shards:
            with (output.place / shard.file.name).stream() as sink, Reader(shard.file) as reader:
                sink.write(header_of_shard(shard, new.rows, new.after))
                for t in laid_out(shard.tensors):
                    for content in _data(reader, t, new):
                        sink.write(content)
                        progress(len(content))
            streamed[shard.file.name] = sink.sum
        for name, file in {**new.copied, **new.tokenizer}.items():
            with (output.place / name).stream() as sink, Reader(file) as reader:
                for content in reader.chunks(0, file.size):
                    sink.write(content)
            streamed[name] = sink.sum
        files = {name: _dump(config) for name, config in new.configs.items()}
        if model.weights is not None:
            files[INDEX] = to_json(_index(new))
        return output.publish(new.result, files, streamed)
    except BaseException:
        output.abandon()
        raise


def header(new: ModelSlice) -> dict[str, Any]:
    """The part of the manifest that is known before the model is written."""
    read = {s.file.name: s.file for s in new.model.shards} | {n: new.model.files[n] for n in new.configs}
    return {
        "tinydata": __version__,
        "verb": "slice",
        "inputs": {
            new.model.path: {"files": {n: fingerprint(f) for n, f in sorted(read.items())}},
            new.vocabulary.path: {"files": new.vocabulary.manifest["files"]},
        },
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in new.options._asdict().items()},
        "tokenizer": new.vocabulary.manifest["tokenizer"],
    }


def _dump(config: dict[str, Any]) -> bytes:
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def _index(new: ModelSlice) -> dict[str, Any]:
    """model.safetensors.index.json with the new sizes."""
    index = dict(new.model.weights or {})
    tensors = [t for s in new.model.shards for t in tensors_of_shard(s, new.rows, new.after)]
    metadata = dict(index.get("metadata") or {})
    metadata["total_size"] = sum(t.bytes for t in tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = new.result["parameters"]["after"]
    return {**index, "metadata": metadata}


def _data(reader: Reader, t: Tensor, new: ModelSlice) -> Iterator[Any]:
    """A tensor as it is written, in pieces of about CHUNK bytes."""
    if t.name not in new.rows:
        yield from reader.chunks(t.start, t.bytes)
        return
    vocabulary = new.vocabulary
    n = len(vocabulary.source)
    step = max(CHUNK * t.rows // t.bytes, 1)
    total: Any = 0
    for first in range(0, n, step):
        ids = vocabulary.source[first : first + step]
        rows = reader.rows(t, np.maximum(ids, 0))
        learned = np.flatnonzero(ids < 0)
        if len(learned):
            rows[learned] = _means(reader, t, [vocabulary.learned[int(first + k)] for k in learned], step)
        if new.after > n:
            total = total + to_float32(rows, t.dtype).sum(0, dtype=np.float64)
        yield rows.data.cast("B")
    for first in range(n, new.after, step):
        mean = from_float32((total / n).astype(np.float32)[None], t.dtype)
        yield np.repeat(mean, min(step, new.after - first), 0).data.cast("B")


def _means(reader: Reader, t: Tensor, parts: list[np.ndarray], step: int) -> np.ndarray:
    """The mean of the rows of each list of old ids, in float32, `step` rows at a time: uint8[lists, bytes of a row]."""
    out = np.empty((len(parts), t.bytes // t.rows), np.uint8)
    ends = np.cumsum([len(p) for p in parts])
    first = 0
    while first < len(parts):
        before = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, before + step, side="right")), first + 1)
        rows = to_float32(reader.rows(t, np.concatenate(parts[first:last])), t.dtype)
        lengths = np.array([len(p) for p in parts[first:last]])
        begin = np.cumsum(lengths) - lengths
        total = rows[begin]
        for k in range(1, int(lengths.max())):  # one after the other: numpy's own sums depend on the shape
            longer = lengths > k
            total[longer] += rows[begin[longer] + k]
        out[first:last] = from_float32(total / lengths[:, None].astype(np.float32), t.dtype)
        first = last
    return out


def slice_model(
    model: str,
    vocabulary: str,
    out: str,
    options: Options | None = None,
    *,
    force: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Model directory + VOCAB -> the sliced model in `out`; returns the manifest."""
    return write(prepare(model, vocabulary, options), out, force=force, progress=progress)
