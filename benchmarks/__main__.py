"""python -m benchmarks [--only shards,text] [--scale 0.1] [--rounds 7] [--json]: data, measurements, one table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib import import_module

from benchmarks.place import Place
from benchmarks.table import Peak, Row, text

NAMES = ("shards", "parquet", "internevo", "text", "passes", "encode", "compact", "adapt", "resample", "score")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Speeds as ratios, measured side by side."
    )
    parser.add_argument("--only", default=",".join(NAMES), help="some of " + ",".join(NAMES))
    parser.add_argument("--scale", type=float, default=1.0, help="how much data [1.0]")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each; the median counts [7]")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    options = parser.parse_args()
    rows: list[Row] = []
    peaks: list[Peak] = []
    for name in options.only.split(","):
        if name not in NAMES:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(NAMES)}")
        print(f"{name} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="tinydata-benchmark-") as folder:
            measured, largest = import_module(f"benchmarks.{name}").rows(Place(folder, options.scale, options.rounds))
        rows += measured
        peaks += largest
    if options.json:
        facts = [{**r._asdict(), "met": r.met} for r in rows]
        print(json.dumps({"rows": facts, "peaks": [p._asdict() for p in peaks]}, indent=2))
    else:
        print(text(rows, peaks))


if __name__ == "__main__":
    main()
