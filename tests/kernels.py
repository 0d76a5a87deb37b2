"""Each kernel is compiled once for all workers of a run, and anew when any kernel's source has changed.

numba's own cache knows of one file at a time: of a kernel that calls another one's it keeps what the other was.
So the cache's folder has the name of all of them. Imported before tinydata is: numba reads its settings once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def folder() -> Path:
    """.pytest_cache/kernels/<hash of all sources with kernels>; what was there of other ones is removed."""
    content = hashlib.sha256()
    for file in sorted((ROOT / "tinydata").rglob("*.py")):
        source = file.read_bytes()
        if b"@cached" in source or b"@compiled" in source or b"@inlined" in source or b"njit" in source:
            content.update(b"%s\0%d\0" % (str(file.relative_to(ROOT)).encode(), len(source)) + source)
    here = ROOT / ".pytest_cache" / "kernels" / content.hexdigest()[:16]
    if not here.is_dir():
        shutil.rmtree(here.parent, ignore_errors=True)
        here.mkdir(parents=True, exist_ok=True)
    return here


os.environ.setdefault("NUMBA_CACHE_DIR", str(folder()))

from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

held: set[str] = set()
compiled = Dispatcher.compile


def compile_once(dispatcher: Any, signature: Any) -> Any:
    """While one worker compiles a kernel, others that want it wait, and then find it in the cache.

    Two workers never wait for each other: kernels do not call in circles.
    """
    name = f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}"
    with global_compiler_lock:  # first: a thread that has it may be about to want this kernel
        if name in held or not name.startswith("tinydata."):
            return compiled(dispatcher, signature)
        held.add(name)
        try:
            with (Path(os.environ["NUMBA_CACHE_DIR"]) / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    return compiled(dispatcher, signature)
                finally:
                    fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough where a forked process has it open too
        finally:
            held.remove(name)


if "PYTEST_XDIST_WORKER" in os.environ:
    Dispatcher.compile = compile_once  # type: ignore[method-assign]
