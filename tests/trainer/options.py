"""The options of the trainer's programs, with the help that tyro shows: the string below each field."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools

PROGRAMS = {
    "trainer.run": "trainer.training.config:RunConfig",
    "trainer.inherit": "trainer.inherit:InheritConfig",
    "trainer.export": "trainer.export:ExportConfig",
    "trainer.evaluate": "trainer.evaluate:EvaluateConfig",
    "trainer.generate": "trainer.generate:GenerateConfig",
    "trainer.sweep": "trainer.sweep:SweepConfig",
    "trainer.bench": "trainer.bench:BenchConfig",
    "trainer.curve": "trainer.curve:CurveConfig",
}


def config_of(program: str) -> type:
    """The dataclass of a program's options."""
    module, name = PROGRAMS[program].split(":")
    return getattr(importlib.import_module(module), name)


def option_helps(config: type) -> dict[str, str]:
    """{option: its help}; "" where there is none."""
    body = ast.parse(inspect.getsource(config)).body[0].body  # type: ignore[attr-defined]
    out = {f.name: "" for f in dataclasses.fields(config)}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            out[field.target.id] = " ".join(inspect.cleandoc(below.value.value).split())
    return out
