"""Token ids in Parquet (list<int32>, dictionary, zstd): decoding bounds everything, and we should add little to it.

Goal: at least 0.85 of decoding alone; ten times Spark SQL's explode and groupBy.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ours, process
from benchmarks.place import Place
from benchmarks.table import Peak, Row, alone, compare

UNIT = "M tokens/CPU-s"
FILES = 6


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    tok = process.call("benchmarks.made:tokenizer", place.folder).value
    made = process.call("benchmarks.made:parquet", place.folder, int(96e6 * place.scale), FILES).value
    speeds = process.call("benchmarks.parquet:speeds", made, tok, place.rounds).value
    whole = ours.Whole(place, made["large"], tok)
    return [
        compare("Parquet ids / decoding alone", UNIT, speeds["ours"], speeds["decode"], ">= 0.85"),
        _against_sql(place, made, tok),
        alone("Parquet ids, the whole command", UNIT, [whole.speed("tokens")], note=whole.cost),
    ], [Peak("count Parquet ids", whole.run.peak)]


def _against_sql(place: Place, made: dict[str, str], tok: str) -> Row:
    name = "Parquet ids / Spark SQL explode + groupBy"
    try:
        speeds = process.call("benchmarks.parquet:sql_speeds", made, tok, max(place.rounds // 2, 1)).value
    except RuntimeError as e:
        return Row(name, note=f"skipped: {str(e).splitlines()[-1]}")
    return compare(name, UNIT, speeds["ours"], speeds["sql"], ">= 10")


# -- in a process of its own ------------------------------------------------------------------


def speeds(made: dict[str, str], tok: str, rounds: int) -> dict[str, list[float]]:
    work = {"ours": partial(ours.tokens, tok=tok), "decode": decode}
    for contender in work.values():
        contender(made["small"])
    sizes = (made["small"], made["large"])
    return process.alternate({n: partial(process.marginal, w, *sizes) for n, w in work.items()}, rounds)


def decode(path: str) -> int:
    """Row groups read with one thread, each value touched -> tokens."""
    import numpy as np
    import pyarrow.parquet as pq

    tokens = 0
    for name in sorted(Path(path).glob("*.parquet")):
        file = pq.ParquetFile(name)
        for group in range(file.metadata.num_row_groups):
            for chunk in file.read_row_group(group, columns=["input_ids"], use_threads=False)["input_ids"].chunks:
                values = chunk.values.to_numpy()
                np.sum(values)
                tokens += len(values)
    return tokens


def sql_speeds(made: dict[str, str], tok: str, rounds: int) -> dict[str, list[float]]:
    import numpy as np

    from tinydata.engines.spark import SparkEngine

    engine = SparkEngine(2)  # for its session on this machine: local[2]
    sql = partial(explode, engine._session)
    found = ours.counts(made["small"], tok)
    for token, count in sql(made["small"]).items():
        found[token] -= count
    if np.any(found):
        raise AssertionError("our counts differ from Spark SQL's")
    outside = partial(ours.tokens, tok=tok)
    outside(made["small"])
    sizes = (made["small"], made["large"])
    measured = process.alternate(
        {
            "ours": partial(process.marginal, outside, *sizes),
            "sql": partial(process.marginal, lambda path: sum(sql(path).values()), *sizes, clock=process.cpu),
        },
        rounds,
    )
    engine.close()
    return measured


def explode(session: Any, path: str) -> dict[int, int]:
    """{token id: count}, the way one writes it in SQL."""
    from pyspark.sql.functions import explode as one_row_each

    ids = session.read.parquet(path).select(one_row_each("input_ids").alias("id"))
    return {row["id"]: row["count"] for row in ids.groupBy("id").count().collect()}
