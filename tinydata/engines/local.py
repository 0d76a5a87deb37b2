"""The default engine: processes on this machine; a single worker or a single task runs in the calling process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NamedTuple

from tinydata.core.errors import TinydataError
from tinydata.engines.base import Worker, set_worker

_counter: Any = None  # in a worker: bytes done by all workers


class LocalEngine:
    """Runs tasks in `workers` processes (0: one per core), started with "spawn": after a fork, pyarrow may hang."""

    name = "local"

    def __init__(self, workers: int = 0):
        self.slots = workers or _cores()
        self._shared: _Pool | None = None

    def run(
        self, tasks: list[Any], work: Callable[..., Any], *, progress: Callable[[int], None], label: str
    ) -> Iterator[tuple[int, Any]]:
        """Yields (task number, work(task, tell)); progress(bytes) is called as workers report what they processed."""
        if min(self.slots, len(tasks)) <= 1:
            for i, task in enumerate(tasks):
                yield i, work(task, progress)
            return
        with self._pool(min(self.slots, len(tasks))) as pool:
            reported = pool.counter.value
            with _ctrl_c_blocked():
                futures = {pool.executor.submit(_call, work, task): i for i, task in enumerate(tasks)}
                pool.processes[:] = pool.executor._processes.values()  # shutdown() clears this attribute of the pool
            while futures:
                done, _ = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
                now = pool.counter.value
                progress(now - reported)
                reported = now
                for future in done:
                    yield futures.pop(future), future.result()

    @contextmanager
    def together(self) -> Iterator[None]:
        """All runs inside the block share their processes: starting one costs a second of CPU."""
        with self._pool(self.slots) as self._shared:
            try:
                yield
            finally:
                self._shared = None

    @contextmanager
    def _pool(self, workers: int) -> Iterator[_Pool]:
        """Yields the shared pool, or a new one, whose processes start with their first task."""
        if self._shared:
            yield self._shared
            return
        context = multiprocessing.get_context("spawn")
        counter, started = context.Value("q", 0), context.Value("q", 0)
        known = (counter, started, os.getpid())
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=known)
        pool = _Pool(executor, counter, [])
        try:
            yield pool
        except BrokenProcessPool:
            raise TinydataError(
                "a worker process was killed, most likely because the machine ran out of memory",
                fix="run the same command again with fewer --workers; finished parts are kept",
            ) from None
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in pool.processes:
                process.terminate()


class _Pool(NamedTuple):
    """A pool of worker processes."""

    executor: ProcessPoolExecutor
    counter: Any  # bytes processed by all of them
    processes: list[Any]


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C: only the parent handles it, after the block."""
    received: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, frame: received.append(number)) if main else None
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else set()  # child processes inherit it
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
    if received:
        signal.raise_signal(signal.SIGINT)


def _cores() -> int:
    """Number of cores this process may use; on macOS the number of cores of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(counter: Any, started: Any, parent: int) -> None:
    global _counter
    _counter = counter
    with started.get_lock():
        set_worker(Worker(started.value))
        started.value += 1
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this worker when its parent has ended: one killed by SIGKILL cannot stop its workers from writing."""
    import time

    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(work: Callable[..., Any], task: Any) -> Any:
    return work(task, _tell)


def _tell(done: int) -> None:
    with _counter.get_lock():
        _counter.value += done
