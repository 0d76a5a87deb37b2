"""Flat token ids in Megatron shards: our count against merely reading and summing the same bytes.

Goal: at least 0.55 of reading and summing, and twice the best np.bincount; in Spark as fast as outside.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import process
from benchmarks.place import Place
from benchmarks.table import Peak, Row, alone, compare

UNIT = "M tokens/CPU-s"
# The difference is taken where the held-out text is complete (64 MB, at some 7 GB of shards).
NAMES = {"once": 1, "twice": 2, "small": 8, "large": 16}


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    out: list[Row] = []
    peaks: list[Peak] = []
    for dtype in ("int32", "uint16"):
        tokens = int(256e6 * place.scale)
        made = process.call("benchmarks.made:shards", place.folder, dtype, tokens, 4, NAMES).value
        tok = process.call("benchmarks.made:tokenizer", place.folder).value
        speeds = process.call("benchmarks.shards:speeds", made, dtype, tok, place.rounds).value
        best = max(
            (n for n in speeds if n.startswith("bincount")), key=lambda n: sorted(speeds[n])[len(speeds[n]) // 2]
        )
        wanted = dtype == "int32"
        name = f"{dtype} shards"
        out.append(compare(f"{name} / read and sum", UNIT, speeds["ours"], speeds["sum"], ">= 0.55" if wanted else ""))
        out.append(compare(f"{name} / np.{best}", UNIT, speeds["ours"], speeds[best], ">= 2" if wanted else ""))
        counts = f"{place.folder}/counts"
        run = process.tinydata("count", made["large"], "--tokenizer", tok, "--workers", "1", "-o", counts)
        all_in = total(counts) / run.cpu / 1e6
        out.append(alone(f"{name}, whole command", UNIT, [all_in], note=f"{run.cpu:.1f} CPU-s, {run.wall:.1f} s"))
        peaks.append(Peak(f"count {name}", run.peak))
        shutil.rmtree(counts)
        if wanted:
            out += in_spark(place, made, tok)
    return out, peaks


def in_spark(place: Place, made: dict[str, str], tok: str) -> list[Row]:
    """The same inside Spark, JVM and Python workers included."""
    try:
        speeds = process.call("benchmarks.shards:spark_speeds", made, tok, max(3, place.rounds // 2)).value
    except RuntimeError as e:
        return [Row("int32 shards, in Spark / outside", note=f"skipped: {str(e).splitlines()[-1]}")]
    return [compare("int32 shards, in Spark / outside", UNIT, speeds["spark"], speeds["ours"], ">= 0.8")]


def total(counts: str) -> int:
    """COUNTS directory -> tokens."""
    from json import loads

    return int(loads((Path(counts) / "manifest.json").read_text())["totals"]["tokens"])


# -- in a process of its own ------------------------------------------------------------------


def speeds(made: dict[str, str], dtype: str, tok: str, rounds: int) -> dict[str, list[float]]:
    """{contender: M tokens per CPU-second in each round}, all marginal."""
    _same_counts(made["once"], dtype, tok)
    read: dict[str, Callable[[str], int]] = {"sum": partial(read_and_sum, dtype=dtype)}
    for ids in (1 << 16, 1 << 18):
        read[f"bincount, chunks of {ids >> 10}k"] = partial(bincount, dtype=dtype, ids=ids)
    work = {"ours": partial(counted, tok=tok), **read}
    for contender in work.values():
        contender(made["once"])
    sizes = {"ours": (made["small"], made["large"])}  # the others have no fixed cost: any two sizes will do
    plain = (made["once"], made["twice"])
    return process.alternate({n: partial(process.marginal, w, *sizes.get(n, plain)) for n, w in work.items()}, rounds)


def spark_speeds(made: dict[str, str], tok: str, rounds: int) -> dict[str, list[float]]:
    from tinydata.engines.spark import SparkEngine

    engine = SparkEngine(1)
    inside = partial(counted, tok=tok, engine=engine)
    outside = partial(counted, tok=tok)
    for work in (inside, inside, outside):
        work(made["large"])
    measured = process.alternate(
        {
            "spark": partial(process.marginal, inside, made["small"], made["large"], clock=process.cpu),
            "ours": partial(process.marginal, outside, made["small"], made["large"]),
        },
        rounds,
    )
    engine.close()
    return measured


def counted(path: str, tok: str, engine: object = None) -> int:
    """Our count, one worker, to a directory that is removed again -> tokens."""
    from tinydata.count import count
    from tinydata.engines.local import LocalEngine

    out = f"{Path(path).parent}/counts-{Path(path).name}"
    manifest = count([path], tok, out, engine or LocalEngine(1))
    shutil.rmtree(out)
    return int(manifest["totals"]["tokens"])


def read_and_sum(path: str, dtype: str) -> int:
    """Every byte read into one 1 MB buffer and added up: the least that any count must do -> tokens."""
    import numpy as np

    buffer = np.empty((1 << 20) // np.dtype(dtype).itemsize, dtype)
    tokens = 0
    for file in sorted(Path(path).glob("*.bin")):
        with open(file, "rb", buffering=0) as f:
            while n := f.readinto(buffer):
                np.sum(buffer[: n // buffer.itemsize])
                tokens += n // buffer.itemsize
    return tokens


def bincount(path: str, dtype: str, ids: int) -> int:
    import numpy as np

    counts = _bincount(path, dtype, ids)
    return int(np.sum(counts))


def _bincount(path: str, dtype: str, ids: int) -> object:
    """np.bincount at its best: it wants int64, so chunks go through one int64 buffer that is used again."""
    import numpy as np

    from benchmarks.made import SIZE

    buffer, wide = np.empty(ids, dtype), np.empty(ids, np.int64)
    counts = np.zeros(SIZE, np.int64)
    for file in sorted(Path(path).glob("*.bin")):
        with open(file, "rb", buffering=0) as f:
            while n := f.readinto(buffer):
                n //= buffer.itemsize
                wide[:n] = buffer[:n]
                counts += np.bincount(wide[:n], minlength=SIZE)
    return counts


def _same_counts(path: str, dtype: str, tok: str) -> None:
    import numpy as np

    from benchmarks.place import counts_of

    theirs = _bincount(path, dtype, 1 << 18)
    if not np.array_equal(counts_of(path, tok), theirs):
        raise AssertionError(f"{path}: our counts differ from np.bincount's")
