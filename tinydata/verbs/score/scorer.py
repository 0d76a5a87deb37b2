""" "MODULE:LOAD" -> scorer: its module, its devices, and its errors as TinydataError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

from tinydata.core.errors import FIXABLE, TinydataError, missing_extra
from tinydata.engines.base import this_worker


def scorer_module(spec: str) -> tuple[Any, str]:
    """ "module:function" -> (module, function); raises TinydataError if one of them does not exist."""
    name, _, function = spec.partition(":")
    try:
        module = import_module(name)
    except ModuleNotFoundError as e:
        if e.name in ("torch", "safetensors"):
            raise missing_extra(e.name, "train") from None
        raise TinydataError(f"no module {e.name!r}", where=f"--scorer {spec}", fix="name one as MODULE:LOAD") from None
    if not hasattr(module, function or "load"):
        raise TinydataError(
            f"the module {name} has no function {function!r}", where=f"--scorer {spec}", fix="name one as MODULE:LOAD"
        )
    return module, function or "load"


def devices(spec: str) -> list[str]:
    """GPUs of this machine that the scorer can use."""
    module, _ = scorer_module(spec)
    return module.devices() if hasattr(module, "devices") else []


def device_of(spec: str, given: str) -> str:
    """The device of this worker: as given, or the GPU that the cluster assigned, or one by the worker's number."""
    if given != "auto":
        return given
    available, own = devices(spec), this_worker()
    if not available:
        return "cpu"
    assigned = f"cuda:{own.gpu}"  # where a cluster lets a process see its own GPUs only, they are counted from 0
    return assigned if assigned in available else available[own.number % len(available)]


def new(spec: str, model: str, device: str, seq_len: int, rows: int = 0) -> Any:
    """A scorer that has read no weights yet. rows: sequences per forward pass; 0: the scorer's default."""
    module, function = scorer_module(spec)
    with translated_errors():
        scorer = getattr(module, function)(model, device, seq_len)
    scorer.rows = rows or scorer.rows
    return scorer


@contextmanager
def translated_errors() -> Iterator[None]:
    """Errors of the scorer that have a `fix`, and lack of GPU memory, become TinydataError."""
    try:
        yield
    except Exception as e:
        if type(e).__name__ == "OutOfMemoryError":
            raise TinydataError(f"the GPU memory is too small: {str(e)[:200]}", fix="use fewer --rows") from e
        if isinstance(e, TinydataError) or not hasattr(e, "fix"):
            raise
        where, code = getattr(e, "where", ""), getattr(e, "code", FIXABLE)
        raise TinydataError(getattr(e, "what", str(e)), where=where, fix=e.fix, code=code) from e


loads_before: dict[str, int] = {}  # run of the verb -> loads of weights in this process before it


@lru_cache(maxsize=1)
def scorer_of_run(run: str, spec: str, model: str, device: str, seq_len: int, rows: int) -> Any:
    """The scorer of a run of the verb, for all of its units that this process computes."""
    scorer = new(spec, model, device, seq_len, rows)
    loads_before.setdefault(run, scorer.loads)
    return scorer
