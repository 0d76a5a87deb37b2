"""The options of the trainer's programs, with the help that tyro shows: the string below each field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools

_NAMES = ("inherit", "export", "evaluate", "generate", "sweep", "bench", "curve")
PROGRAMS = {"trainer.run": "trainer.training.config"} | {f"trainer.{n}": f"trainer.{n}" for n in _NAMES}


def option_helps(config: type) -> dict[str, str]:
    """{option: its help}; "" where there is none."""
    body = ast.parse(inspect.getsource(config)).body[0].body  # type: ignore[attr-defined]
    out = {f.name: "" for f in dataclasses.fields(config)}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            out[field.target.id] = " ".join(inspect.cleandoc(below.value.value).split())
    return out
