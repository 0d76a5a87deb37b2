"""The options that several commands share; each group of them arrives in a command as one object."""

from __future__ import annotations

import functools
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from tinydata.cli.console import Console

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

PATH = click.Path()  # a shell completes it, and in tinydata.toml it is relative to that file
VERBS_OF_PROJECT = ("count", "compact", "encode", "score", "resample", "report")  # tinydata.toml has their inputs
FORMATS = ("megatron", "parquet", "internevo", "llmc")  # that are written


@dataclass(frozen=True)
class Run:
    """How a command runs and prints. A command without some of these options sees their defaults."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    dry_run: bool = False
    force: bool = False
    engine: str = "local"
    workers: int = 0  # 0: one per core
    partitions: int = 0  # 0: by the size of the input

    def console(self) -> Console:
        return Console(self.as_json, self.quiet, self.verbose)


def gathered(parameter: str, make: Callable[..., Any], **options: Decorator) -> Decorator:
    """Options that arrive in a command as one object: `make(**values)`, in its argument `parameter`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            mine = {name: values.pop(name) for name in options}
            return command(**values, **{parameter: make(**mine)})

        decorated: Command = wrapper
        for option in reversed(options.values()):
            decorated = option(decorated)
        return decorated

    return decorate


ENGINE = click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="Where the work runs: on this machine or on Spark.",
)
_PRINTING: dict[str, Decorator] = {
    "as_json": click.option("--json", "as_json", is_flag=True, help="Print the result as JSON to stdout."),
    "quiet": click.option("-q", "--quiet", is_flag=True, help="Print only the result and errors."),
    "verbose": click.option("-v", "--verbose", is_flag=True, help="Print the Python traceback of an error."),
}
_WRITING: dict[str, Decorator] = {
    "dry_run": click.option("--dry-run", is_flag=True, help="Show what the command would do, and write nothing."),
    "force": click.option("--force", is_flag=True, help="Replace an existing output that tinydata made."),
    **_PRINTING,
}
_RUNNING: dict[str, Decorator] = {
    "engine": ENGINE,
    "workers": click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        help="Number of worker processes. The default is one per core.",
    ),
    "partitions": click.option(
        "--partitions",
        type=click.IntRange(0),
        default=0,
        help="Number of tasks to divide the work into. The default depends on the size of the input.",
    ),
    **_WRITING,
}

common = gathered("run", Run, **_PRINTING)  # for every command
writing = gathered("run", Run, **_WRITING)  # for a command that makes a directory
running = gathered("run", Run, **_RUNNING)  # for a command that runs on an engine


def needed(value: Any, what: str) -> Any:
    """An input from the command line or tinydata.toml; a usage error if neither has it."""
    if not value:
        command = click.get_current_context().command
        example = str(command.epilog).removeprefix("Example: ")
        project = ", or run `tinydata init` once in this directory" if command.name in VERBS_OF_PROJECT else ""
        raise click.UsageError(f"{what} is missing: pass it on the command line, as in `{example}`{project}")
    return value


def given(name: str, value: tuple[str, ...]) -> list[str]:
    """A many-valued argument, or its value in tinydata.toml; `-` is standard input."""
    paths = list(value) or list(click.get_current_context().lookup_default(name) or ())
    return [_standard_input() if path == "-" else path for path in paths]


_MAGIC = {b"PAR1": ".parquet", b"\x1f\x8b": ".jsonl.gz", b"\x28\xb5\x2f\xfd": ".jsonl.zst", b"BZh": ".jsonl.bz2",
          b"\xfd7zXZ": ".jsonl.xz", b"{": ".jsonl", b"[": ".json"}  # fmt: skip


def _standard_input() -> str:
    """Standard input as a file, since its splits are read by several processes; deleted when the command ends."""
    import atexit
    import shutil
    import tempfile

    stdin: Any = sys.stdin.buffer
    head = stdin.peek(8)
    ending = next((e for magic, e in _MAGIC.items() if head.lstrip(b"\xef\xbb\xbf \n").startswith(magic)), ".txt")
    folder = tempfile.mkdtemp(prefix="tinydata-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with open(f"{folder}/stdin{ending}", "wb") as f:
        shutil.copyfileobj(stdin, f, 1 << 20)
    return f.name


def typed(option: str) -> bool:
    """Whether the option's value is from the command line, not from the environment or tinydata.toml."""
    source = click.get_current_context().get_parameter_source(option)
    return source == click.core.ParameterSource.COMMANDLINE


def record(out: str, began: float, **facts: Any) -> None:
    """Writes .run.json with the run's time and command next to the manifest, which does not depend on either."""
    from tinydata.core.location import Location, to_json

    command = shlex.join(["tinydata", *(click.get_current_context().obj or [])])
    (Location.of(out) / ".run.json").write(to_json({"command": command, "seconds": time.time() - began, **facts}))
