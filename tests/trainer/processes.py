"""Programs of the trainer as processes of their own: forked from one process that has already imported torch.

Importing torch takes longer than most of these runs. Everything else is as a user starts a program: its own command
line, directory, environment, output streams, signals and exit code.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import socket
import sys
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, TextIO

ROOT = Path(__file__).parents[2]
TINY = ["--preset", "tiny-1m", "--width", "64", "--depth", "2", "--expand", "2", "--seq-len", "32", "--device", "cpu"]
TINY += ["--batch-tokens", "384", "--holdout", "24"]  # 12 sequences a step: 1, 2 and 3 ranks share them

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.trainer.warm"])
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # with more, each process that compiles starts another one


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Started(NamedTuple):
    process: BaseProcess
    stderr: TextIO  # ends when the process does
    out: Path

    def end(self) -> Done:
        """Reads what is left and waits for the process."""
        with self.stderr:
            stderr = self.stderr.read()
        self.process.join()
        assert self.process.exitcode is not None
        stdout = self.out.read_text(encoding="utf-8")
        self.out.unlink()
        return Done(self.process.exitcode, stdout, stderr)

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


def started(module: str, *flags: object, cwd: Path, rank: int = 0, ranks: int = 1, port: int = 0) -> Started:
    """`python -m module flags…` in the directory `cwd`; with several ranks, one of them, as torchrun starts it."""
    variables = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
    more = {k: str(v) for k, v in variables.items()} if ranks > 1 else {}
    with tempfile.NamedTemporaryFile(delete=False) as stdout:
        out = Path(stdout.name)
    reader, writer = FORKS.Pipe(duplex=False)
    process = FORKS.Process(
        target=_program, args=(module, [str(f) for f in flags], cwd, environment() | more, out, writer)
    )
    process.start()
    writer.close()
    return Started(process, os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace"), out)


def _program(module: str, flags: list[str], cwd: Path, variables: dict[str, str], out: Path, err: Connection) -> None:
    import torch

    from trainer.errors import main

    os.dup2(os.open(out, os.O_WRONLY), 1)
    os.dup2(err.fileno(), 2)
    err.close()
    os.environ.update(variables)
    os.chdir(cwd)
    torch.set_num_threads(1)
    sys.argv = [module, *flags]
    main(importlib.import_module(module).program)


def completed(module: str, *flags: object, cwd: Path, ranks: int = 1) -> Done:
    """Runs it to its end, as one process or as several; the result is that of the first rank that failed, else 0's."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    each = [started(module, *flags, cwd=cwd, rank=k, ranks=ranks, port=port) for k in range(ranks)]
    done = [p.end() for p in each]
    return next((d for d in done if d.returncode), done[0])


def command(shards: Path, out: Path, *more: str) -> list[str]:
    """Flags of trainer.run for a model that learns something in seconds."""
    return ["--data", str(shards), "-o", str(out), *TINY, *more]


def curve(run: Path) -> list[tuple[int, float, float]]:
    """(step, loss, gradient norm) of every step of a run."""
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return [(x["step"], x["loss"], x["grad_norm"]) for x in lines if "loss" in x]


def sequence_losses(run: Path) -> Any:
    """What --log-sequence-loss recorded, as one table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables([pq.read_table(f) for f in sorted((run / "losses").glob("*.parquet"))])
