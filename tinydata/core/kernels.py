"""The numba decorators that all kernels use, and what kernels in several packages need.

Compiled code is cached on disk.
"""

from __future__ import annotations

import logging
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numba import njit
from numba.core import event as numba_events

log = logging.getLogger("tinydata")


def _cacheable() -> bool:
    """Whether compiled code can be cached: where numba does it, or, if neither this package's directory nor the
    home directory is writable (containers with random user ids, YARN), in a temporary directory of this user."""
    if _numba_can_cache():
        return True
    place = Path(tempfile.gettempdir()) / f"tinydata-kernels-{os.getuid() if hasattr(os, 'getuid') else ''}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        about = place.lstat()
    except OSError:
        return False
    if place.is_symlink() or (hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o077)):
        return False  # somebody else could put code there
    setattr(numba.config, "CACHE_DIR", str(place))  # noqa: B010 - created at run time
    return _numba_can_cache()


def _numba_can_cache() -> bool:
    try:
        njit(cache=True)(_probe)
    except RuntimeError:  # no locator available
        return False
    return True


def _probe() -> None:
    """Never compiled; numba looks for the place of its cache when it is decorated."""


class _Announcement(numba_events.Listener):
    """One line when the first kernel is compiled, so that nobody wonders about these seconds."""

    def on_start(self, event: Any) -> None:
        numba_events.unregister("numba:compile", self)
        again = "the next run finds them in a cache" if CACHED else "each process does, as no directory is writable"
        log.info("compiling kernels; %s", again)

    def on_end(self, event: Any) -> None:
        pass


CACHED = _cacheable()
numba_events.register("numba:compile", _Announcement())

# Kernels that allocate nothing are compiled without numba's reference counting, which costs time in every
# call that takes an array: splitting 195 MB into GPT-2 words took 2.2 s with it and 0.40 s without.
cached: Any = partial(njit, cache=CACHED)
compiled: Any = partial(cached, _nrt=False)
inlined: Any = partial(compiled, forceinline=True)


def buffers(texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """string[n] -> (offsets int32[n + 1], data uint8[...]), without a copy."""
    _, offsets, data = texts.buffers()
    start = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4)
    return start, np.frombuffer(data if data and data.size else b"\0", np.uint8)


def gather(values: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """values [n], documents stored end to end, lengths and order int64[docs] -> the documents in that order."""
    starts = np.cumsum(lengths) - lengths
    out = np.empty(int(lengths[order].sum()), values.dtype)
    _gather(values, starts, lengths, order, out)
    return out


@cached()
def _gather(values, starts, lengths, order, out):
    n = 0
    for d in order:
        out[n : n + lengths[d]] = values[starts[d] : starts[d] + lengths[d]]
        n += lengths[d]
