"""Where the scorer comes from: its module, its devices, and its errors in the user's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

from tinydata.core.errors import FIXABLE, TinydataError, missing_extra
from tinydata.engines.base import seat


def scorer_module(spec: str) -> tuple[Any, str]:
    """ "module:function" -> (module, function); raises TinydataError if there is none."""
    name, _, function = spec.partition(":")
    try:
        module = import_module(name)
    except ModuleNotFoundError as e:
        if e.name in ("torch", "safetensors"):
            raise missing_extra(e.name, "train") from None
        raise TinydataError(f"no module {e.name!r}", where=f"--scorer {spec}", fix="name one as MODULE:LOAD") from None
    if not hasattr(module, function or "load"):
        raise TinydataError(f"{name} has no {function!r}", where=f"--scorer {spec}", fix="name one as MODULE:LOAD")
    return module, function or "load"


def devices(spec: str) -> list[str]:
    """GPUs of this machine that the scorer can use."""
    module, _ = scorer_module(spec)
    return module.devices() if hasattr(module, "devices") else []


def device_of(spec: str, told: str) -> str:
    """The device of this worker: as told, or the GPU that the cluster gave, or that of the worker's number."""
    if told != "auto":
        return told
    there, own = devices(spec), seat()
    if not there:
        return "cpu"
    given = f"cuda:{own.gpu}"  # where a cluster lets a process see its own GPUs only, they are counted from 0
    return given if given in there else there[own.number % len(there)]


def new(spec: str, model: str, device: str, seq_len: int, rows: int = 0) -> Any:
    """A scorer, which has read no weights yet. rows: sequences at once, if not 0."""
    module, function = scorer_module(spec)
    with explained():
        scorer = getattr(module, function)(model, device, seq_len)
    scorer.rows = rows or scorer.rows
    return scorer


@contextmanager
def explained() -> Iterator[None]:
    """What the trainer says of an error, as TinydataError; any other error as it is."""
    try:
        yield
    except Exception as e:
        if type(e).__name__ == "OutOfMemoryError":
            raise TinydataError(f"the GPU's memory is too small: {str(e)[:200]}", fix="use fewer --rows") from e
        if isinstance(e, TinydataError) or not hasattr(e, "fix"):
            raise
        where, code = getattr(e, "where", ""), getattr(e, "code", FIXABLE)
        raise TinydataError(getattr(e, "what", str(e)), where=where, fix=e.fix, code=code) from e


loads_before: dict[str, int] = {}  # run of the verb -> loads in this process until it came here


@lru_cache(maxsize=1)
def scorer_of_run(run: str, spec: str, model: str, device: str, seq_len: int, rows: int) -> Any:
    """The scorer of a run of the verb, for all of its units that come to this process."""
    scorer = new(spec, model, device, seq_len, rows)
    loads_before.setdefault(run, scorer.loads)
    return scorer
