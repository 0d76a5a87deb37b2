"""Losses that a run logged during training (`--log-sequence-loss`), by step -> by sequence, one file per unit.

RUN/losses/step-*.parquet has a row for each sequence of each batch, in order; recipe.json names the shards. The process
that starts `score` sorts them once into a file for each unit.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, read_bytes, read_table, table_bytes
from tinydata.formats.dataset import Stream

TENTHS = 10
RECIPE = "recipe.json"


class LoggedLosses(NamedTuple):
    """The losses of n sequences when each was last trained on."""

    times: np.ndarray  # int32[n]: how often it was trained on; 0: never, and the other fields are 0
    tokens: np.ndarray  # int32[n]
    nll: np.ndarray  # float64[n]
    largest: np.ndarray  # float32[n]: loss of one token
    tenth: np.ndarray  # int32[n]: of the run, by rows


def why_not(run: Location, stream: Stream, seq_len: int) -> str:
    """Run -> why its log is not about these sequences; "" if it is."""
    recorded = recipe(run)
    if recorded["data"]["fingerprint"] != stream.fingerprint:
        return f"the run was trained on other shards: {recorded['data'].get('directory', '?')}"
    if recorded["model"]["seq_len"] != seq_len:
        return f"the run's sequences have {recorded['model']['seq_len']} tokens, not {seq_len}"
    return ""


def recipe(run: Location) -> dict[str, Any]:
    """Run directory -> its recipe.json."""
    try:
        return json.loads(read_bytes(run / RECIPE))
    except (TinydataError, ValueError) as e:
        raise TinydataError(
            f"{RECIPE} cannot be read: {getattr(e, 'what', e)}",
            where=str(run),
            fix="pass the directory given to `python -m trainer.run -o`",
            code=UNREADABLE,
        ) from None


def sort(folder: Location, parts: Location, spans: list[tuple[int, int]], until: int = 0) -> int:
    """RUN/losses, first and last sequence of each unit -> parts/logged-NUMBER.parquet per unit; returns the last step.

    until: rows of later steps are ignored; 0: no limit. Memory: 28 bytes per row.
    """
    files = [f for f in folder.children() if f.name.endswith(".parquet")] if folder.exists() else []
    if not files:
        raise TinydataError(
            "the run logged no losses",
            where=str(folder),
            fix="train it with --log-sequence-loss, or score with --model",
        )
    table = pa.concat_tables([read_table(f) for f in files]).combine_chunks()
    if until:
        table = table.filter(pa.array(table["step"].to_numpy() <= until))
    sequence = table["sequence"].to_numpy()
    order = np.argsort(sequence, kind="stable")
    distinct, counts = np.unique(sequence, return_counts=True)
    last = order[np.cumsum(counts) - 1]
    rows = table.take(pa.array(last)).select(["sequence", "tokens", "nll", "max"])
    rows = rows.append_column("tenth", pa.array((last * TENTHS // max(len(order), 1)).astype(np.int32)))
    rows = rows.append_column("times", pa.array(counts.astype(np.int32)))
    for number, span in enumerate(spans):
        a, b = np.searchsorted(distinct, [span[0], span[1] + 1]).tolist()
        (parts / _name(number)).write(table_bytes(rows.slice(a, b - a), "none"))
    return int(table["step"].to_numpy().max(initial=0))


def _name(unit: int) -> str:
    return f"logged-{unit:07d}.parquet"


def logged_losses(parts: Location, unit: int, numbers: np.ndarray) -> LoggedLosses:
    """File that `sort` wrote for a unit -> LoggedLosses of its sequences, numbers int64[n] ascending."""
    table = read_table(parts / _name(unit))
    at = np.searchsorted(numbers, table["sequence"].to_numpy())
    known = (at < len(numbers)) & (numbers[np.minimum(at, len(numbers) - 1)] == table["sequence"].to_numpy())
    kinds = {"times": np.int32, "tokens": np.int32, "nll": np.float64, "max": np.float32, "tenth": np.int32}
    out = [np.zeros(len(numbers), kind) for kind in kinds.values()]
    for array, name in zip(out, kinds, strict=True):
        array[at[known]] = table[name].to_numpy()[known]
    return LoggedLosses(*out)
