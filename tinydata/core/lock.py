"""One writer per output: a lock file with the host and process id of the command that is writing."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from typing import IO, Any

from tinydata.core.errors import TinydataError

BEAT, STALE = 10.0, 60.0  # seconds between the signs of life of a holder, and without one until it counts as dead

_mine: dict[str, Lock] = {}  # the locks of this process, by path


class Lock:
    """The lock `path` on a local or shared filesystem, held from construction until `release`.

    Where the filesystem supports flock, the lock of a killed process is free at once. On a shared filesystem the
    holder may run on another host: it updates the file every BEAT seconds, and counts as dead after STALE.
    Raises TinydataError, which names host and process, if another command holds the lock.
    """

    def __init__(self, path: str):
        self.thread: int = threading.get_ident()
        self.path = os.path.abspath(path)
        earlier = _mine.get(self.path)
        if earlier and earlier.thread == self.thread:  # an earlier call in this thread ended with an error
            earlier.release()
        self._file = open(self.path, "a+b")  # noqa: SIM115 - open for as long as the lock is held
        about = _read(self._file)
        age = time.time() - os.fstat(self._file.fileno()).st_mtime
        if not _claimed(self._file) or (about and about["host"] != platform.node() and age < STALE):
            self._file.close()
            raise _held(self.path, about, age)
        self._file.truncate(0)
        self._file.write(json.dumps({"host": platform.node(), "pid": os.getpid()}).encode())
        self._file.flush()
        _mine[self.path] = self
        self._ended = threading.Event()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:  # the directory was deleted; the next write says so
                return

    def release(self) -> None:
        """Gives the lock back; the file stays until its directory is deleted, and a second call does nothing."""
        self._ended.set()
        self._file.close()
        if _mine.get(self.path) is self:
            del _mine[self.path]


def _claimed(file: IO[bytes]) -> bool:
    """Whether this process now has the file's flock; true where the system or the filesystem has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _read(file: IO[bytes]) -> dict[str, Any]:
    """The holder, {host, pid}; {} if there is none, or the file holds something else."""
    file.seek(0)
    try:
        about = json.loads(file.read(1000))
        return {"host": str(about["host"]), "pid": int(about["pid"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def _held(path: str, about: dict[str, Any], age: float) -> TinydataError:
    who = f"process {about['pid']} on {about['host']}" if about else "another process"
    return TinydataError(
        f"{who} is writing this output already; its last sign of life is {max(age, 0):.0f} s old",
        where=os.path.dirname(path),
        fix=f"wait until it ends, or stop it (a killed one on another host is noticed after {STALE:.0f} s);"
        " then run the command again: it continues from the finished parts",
    )
