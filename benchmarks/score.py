"""Scoring against the scorer alone: what plan, guards, reading, writing and Spark cost beside the model.

The model is a small one of the trainer's with random weights, and a unit takes some seconds, which is little: in real
use it takes minutes. Bare is a loop of that scorer over the same batches in memory. Goals: Spark and the local engine
within 5 % of it; guards at 50 M tokens a second, so that one core feeds 50 GPUs. A scorer that does nothing shows what
moving costs by itself.
"""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.place import Place
from benchmarks.table import Peak, Row, alone, compare

TOKENS = "M tokens/CPU-s"
VOCAB, T = 8_192, 512
UNIT = 1 << 14  # tokens
UNITS = {"small": 2, "large": 14}


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    rounds = max(place.rounds // 2, 1)
    made = process.call("benchmarks.score:make", place.folder, place.scale).value
    kernel = process.call("benchmarks.score:guards", rounds).value
    moving = process.call("benchmarks.score:moving", made, rounds).value
    out = [
        alone("score: guards", TOKENS, kernel, ">= 50"),
        alone("score: all but the model", TOKENS, moving, ">= 20", "a scorer that does nothing"),
    ]
    try:
        found = process.call("benchmarks.score:beside", made, rounds).value
    except RuntimeError as e:
        return [*out, Row("score: Spark / bare scorer", note=f"skipped: {str(e).splitlines()[-1][:100]}")], []
    note = f"{found['seconds']:.1f} s a unit"
    for name in ("local", "spark"):
        out.append(compare(f"score: {name} / bare scorer", TOKENS, found[name], found["bare"], ">= 0.95", note))
    return out, []


# -- in a process of its own ------------------------------------------------------------------


def make(folder: str, scale: float) -> dict[str, str]:
    """Shards of made-up ids in two sizes, and a large one for moving alone -> {size: path}; and a model."""
    sizes = {name: max(int(n * UNIT * scale), 2 * T) for name, n in UNITS.items()}
    sizes |= {"little": int(16e6 * scale), "much": int(128e6 * scale)}
    return {name: shards(Path(folder) / name, n) for name, n in sizes.items()} | {"model": model(Path(folder))}


def shards(where: Path, tokens: int) -> str:
    """A directory as `tinydata encode` writes it: documents of 700 tokens, frequent ids first."""
    import numpy as np
    import pyarrow as pa

    from tinydata.core import schema
    from tinydata.core.location import Location, to_json
    from tinydata.formats import megatron
    from tinydata.formats.writing import Piece

    where.mkdir()
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.zipf(1.2, tokens) - 1, VOCAB - 1).astype(np.uint16)
    lengths = np.diff(np.append(np.arange(0, tokens, 700), tokens))
    labels = pa.table([[f"d{i}" for i in range(len(lengths))], ["web"] * len(lengths)], names=schema.DOCUMENTS.names)
    files = megatron.write(
        Location.of(where), "shard-00000", ids.dtype, False, iter([Piece(ids, None, lengths, labels)])
    )
    tokenizer = {"path": "none", "family": "made up", "size": VOCAB, "fingerprint": "0" * 32}
    shard = {"name": "shard-00000", "documents": len(lengths), "tokens": tokens}
    manifest = {"verb": "encode", "options": {}, "dtype": "uint16", "tokenizer": tokenizer, "shards": [shard]}
    (where / "manifest.json").write_bytes(to_json({**manifest, "files": files}))
    return str(where)


def model(folder: Path) -> str:
    """A Hugging Face directory with random weights, or "" without torch."""
    try:
        import torch
    except ImportError:
        return ""
    from dataclasses import replace

    from tinydata.core.location import to_json
    from trainer.huggingface import architecture
    from trainer.huggingface import weights as hf
    from trainer.model.init import random_weights
    from trainer.model.presets import preset

    shape = replace(preset("tiny-4m").model, vocab=VOCAB, seq_len=T)
    hf.save(folder / "model", shape, random_weights(shape, 0), torch.float32)
    (folder / "model" / "config.json").write_bytes(to_json(architecture.config_json(shape, torch.float32)))
    return str(folder / "model")


def features(rounds: int) -> list[float]:
    """The kernel on ids in memory."""
    import numpy as np

    from tinydata.verbs.score.features import features, rarity

    ids = np.minimum(np.random.default_rng(0).zipf(1.2, (1 << 15, T + 1)) - 1, VOCAB - 1).astype(np.uint16)
    rare = rarity(np.bincount(ids.ravel(), minlength=VOCAB))
    features(ids[:2], rare, 3)

    def work() -> int:
        features(ids, rare, 3)
        return ids.size

    return [process.speed(work) for _ in range(rounds)]


class Nothing:
    """A scorer that takes no time."""

    def __init__(self, seq_len: int):
        import numpy as np

        from tinydata.verbs.score.worker import AHEAD

        self.seq_len, self.vocab, self.tokenizer, self.facts = seq_len or T, VOCAB, {}, {}  # type: ignore[var-annotated]
        self.rows, self.masks_documents, self.losses, self.loads = 32, False, "", 1
        self._nll = np.ones((self.rows * AHEAD, self.seq_len), np.float32)

    def held_out(self, fingerprint: str, total: int) -> list[int]:
        return []

    def __call__(self, ids: Any, bears: Any, documents: Any) -> Any:
        return self._nll[: len(ids)]


def nothing(model: str, device: str, seq_len: int) -> Nothing:
    return Nothing(seq_len)


def verb(engine: Any, scorer: str, model: str, path: str) -> int:
    """`tinydata score`, its result thrown away -> tokens."""
    from tinydata.verbs.score.plan import Settings
    from tinydata.verbs.score.verb import score

    out = f"{path}-scores"
    done = score(path, out, engine, Settings(model=model, scorer=scorer, device="cpu"))
    shutil.rmtree(out)
    return int(done.manifest["totals"]["sequences"]) * done.manifest["seq_len"]


def moving(made: dict[str, str], rounds: int) -> list[float]:
    """All of the verb, both passes, with a scorer that does nothing; marginal."""
    from tinydata.engines.local import LocalEngine

    work = partial(verb, LocalEngine(1), "benchmarks.score:nothing", "none")
    work(made["little"])
    return [process.marginal(work, made["little"], made["much"]) for _ in range(rounds)]


def beside(made: dict[str, str], rounds: int) -> dict[str, Any]:
    """{"bare", "local", "spark": M tokens per CPU-second, marginal; "seconds": CPU-seconds of a unit}."""
    import numpy as np

    from tinydata.engines.local import LocalEngine
    from tinydata.engines.spark import SparkEngine
    from tinydata.formats.dataset import Stream
    from tinydata.verbs.score import plan as score
    from tinydata.verbs.score.scorer import new

    if not made["model"]:
        raise RuntimeError("torch is not installed: pip install 'tinydata[train]'")
    score.UNIT_TOKENS = (UNIT, UNIT)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    scorer = new("trainer.scorer:load", made["model"], "cpu", T)

    def bare(path: str) -> int:
        stream = Stream.open(path)
        ids = stream.rows(np.arange(stream.total(T)), T).astype(np.int64)
        for a in range(0, len(ids), scorer.rows):
            scorer(ids[a : a + scorer.rows], None, None)
        return len(ids) * T

    spark = SparkEngine(1, pandas=True)
    try:
        works = {
            "bare": bare,
            "local": partial(verb, LocalEngine(1), "trainer.scorer:load", made["model"]),
            "spark": partial(verb, spark, "trainer.scorer:load", made["model"]),
        }
        for work in works.values():
            work(made["small"])
        began = time.process_time()
        tokens = bare(made["small"])
        seconds = (time.process_time() - began) * UNIT / tokens
        clocked = {n: partial(process.marginal, w, made["small"], made["large"], process.cpu) for n, w in works.items()}
        return {**process.alternate(clocked, rounds), "seconds": seconds}
    finally:
        spark.close()
