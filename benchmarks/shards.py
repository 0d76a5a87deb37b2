"""Flat token ids in Megatron shards: our count against merely reading and summing the same bytes.

Goal: at least 0.55 of reading and summing, and twice the best np.bincount; in Spark as fast as outside.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ours, process
from benchmarks.place import Place
from benchmarks.table import Peak, Row, alone, compare

UNIT = "M tokens/CPU-s"
FILES = 4
# Our cost is the difference between 16 GB and 32 GB, where the held-out text is complete and only
# counting is left. The others have no fixed cost, so any two sizes will do for them.
NAMES = {
    "int32": {"once": 1, "twice": 2, "small": 16, "large": 32},
    "uint16": {"once": 1, "twice": 2, "small": 32, "large": 64},
}


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    tok = process.call("benchmarks.made:tokenizer", place.folder).value
    made = {
        d: process.call("benchmarks.made:shards", place.folder, d, int(256e6 * place.scale), FILES, n).value
        for d, n in NAMES.items()
    }
    out, peaks = _outside(place, made["int32"], tok, "int32", place.rounds, (">= 0.55", ">= 2"))
    out.append(_in_spark(place, made["int32"], tok))
    more, peak = _outside(place, made["uint16"], tok, "uint16", max(place.rounds // 2, 1), ("", ""))
    return out + more, peaks + peak


def _outside(
    place: Place, made: dict[str, str], tok: str, dtype: str, rounds: int, goals: tuple[str, str]
) -> tuple[list[Row], list[Peak]]:
    speeds = process.call("benchmarks.shards:speeds", made, dtype, tok, rounds).value
    best = max((n for n in speeds if n.startswith("bincount")), key=lambda n: statistics.median(speeds[n]))
    name = f"{dtype} shards"
    whole = [ours.Whole(place, made[size], tok) for size in ("twice", "large")]
    return [
        compare(f"{name} / read and sum", UNIT, speeds["ours"], speeds["sum"], goals[0]),
        compare(f"{name} / np.{best}", UNIT, speeds["ours"], speeds[best], goals[1]),
        *(
            alone(
                f"{name}, the whole command, {w.totals['tokens'] / 1e9:.1f} G tokens",
                UNIT,
                [w.speed("tokens")],
                note=w.cost,
            )
            for w in whole
        ),
    ], [Peak(f"count {name}", max(w.run.peak for w in whole))]


def _in_spark(place: Place, made: dict[str, str], tok: str) -> Row:
    """The same inside Spark: JVM and Python workers included."""
    name = "int32 shards in Spark / outside"
    try:
        speeds = process.call("benchmarks.shards:spark_speeds", made, tok, max(place.rounds // 2, 1)).value
    except RuntimeError as e:
        return Row(name, note=f"skipped: {str(e).splitlines()[-1]}")
    return compare(name, UNIT, speeds["spark"], speeds["ours"], ">= 0.9")


# -- in a process of its own ------------------------------------------------------------------


def speeds(made: dict[str, str], dtype: str, tok: str, rounds: int) -> dict[str, list[float]]:
    """{contender: M tokens per CPU-second in each round}, all marginal."""
    import numpy as np

    if not np.array_equal(ours.counts(made["once"], tok), _bincount(made["once"], dtype, 1 << 18)):
        raise AssertionError("our counts differ from np.bincount's")
    work: dict[str, Callable[[str], int]] = {
        "ours": partial(ours.tokens, tok=tok),
        "sum": partial(read_and_sum, dtype=dtype),
        "bincount, chunks of 64k": partial(bincount, dtype=dtype, ids=1 << 16),
        "bincount, chunks of 256k": partial(bincount, dtype=dtype, ids=1 << 18),
    }
    for contender in work.values():
        contender(made["once"])
    sizes = {"ours": (made["small"], made["large"])}
    plain = (made["once"], made["twice"])
    return process.alternate({n: partial(process.marginal, w, *sizes.get(n, plain)) for n, w in work.items()}, rounds)


def spark_speeds(made: dict[str, str], tok: str, rounds: int) -> dict[str, list[float]]:
    from tinydata.engines.spark import SparkEngine

    engine = SparkEngine(1)
    inside, outside = partial(ours.tokens, tok=tok, engine=engine), partial(ours.tokens, tok=tok)
    for work in (inside, inside, outside):  # the JVM compiles what is hot
        work(made["small"])
    sizes = (made["small"], made["large"])
    measured = process.alternate(
        {
            "spark": partial(process.marginal, inside, *sizes, clock=process.cpu),
            "ours": partial(process.marginal, outside, *sizes),
        },
        rounds,
    )
    engine.close()
    return measured


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
    return int(_bincount(path, dtype, ids).sum())


def _bincount(path: str, dtype: str, ids: int) -> Any:
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
