"""InternEvo's JSON lines of token ids: our count against the paper's first step, written anew as it is described.

Goal: ten times as fast, with the same counts.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from benchmarks import ours, process
from benchmarks.place import Place
from benchmarks.table import Peak, Row, alone, compare

UNIT = "M tokens/CPU-s"


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    tok = process.call("benchmarks.made:tokenizer", place.folder).value
    made = process.call("benchmarks.made:internevo", place.folder, int(24e6 * place.scale)).value
    speeds = process.call("benchmarks.internevo:speeds", made, tok, max(place.rounds // 2, 1)).value
    whole = ours.Whole(place, made["large"], tok)
    return [
        compare("InternEvo lines / the paper's step 1", UNIT, speeds["ours"], speeds["paper"], ">= 10"),
        alone("InternEvo lines, the whole command", UNIT, [whole.speed("tokens")], note=whole.cost),
    ], [Peak("count InternEvo lines", whole.run.peak)]


# -- in a process of its own ------------------------------------------------------------------


def speeds(made: dict[str, str], tok: str, rounds: int) -> dict[str, list[float]]:
    found = ours.counts(made["small"], tok)
    if {i: n for i, n in enumerate(found.tolist()) if n} != step_one(made["small"]):
        raise AssertionError("our counts differ from the paper's step 1")
    work = {"ours": partial(ours.tokens, tok=tok), "paper": lambda path: sum(step_one(path).values())}
    sizes = (made["small"], made["large"])
    return process.alternate({n: partial(process.marginal, w, *sizes) for n, w in work.items()}, rounds)


def step_one(path: str) -> dict[int, int]:
    """Each line through json, each id through a dict. (The paper's also lets broken lines vanish: none are here.)"""
    frequency: dict[int, int] = {}
    for file in sorted(Path(path).glob("*.bin")):
        with open(file) as f:
            for line in f:
                for token in json.loads(line)["tokens"]:
                    if token in frequency:
                        frequency[token] += 1
                    else:
                        frequency[token] = 1
    return frequency
