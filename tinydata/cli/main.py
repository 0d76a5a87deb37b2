"""The command `tinydata`: its group of commands, and the exit code each run leaves with.

Each command has a file of its own: parse -> call -> print. Heavy imports live inside commands.
"""

from __future__ import annotations

import shlex
import sys

import click

from tinydata.cli.compact import compact
from tinydata.cli.count import count
from tinydata.cli.encode import encode
from tinydata.cli.other import completion, doctor, init, ls, report
from tinydata.cli.resample import resample
from tinydata.cli.score import score
from tinydata.cli.slice import slice
from tinydata.core.errors import INTERRUPTED, TinydataError


def main(args: list[str] | None = None) -> None:
    """The console script: runs a command and leaves with the documented exit code."""
    args = sys.argv[1:] if args is None else args
    try:
        from tinydata.cli.project import load

        options = {name: [str(p.name) for p in command.params] for name, command in cli.commands.items()}
        code = cli.main(args, prog_name="tinydata", standalone_mode=False, default_map=load(options), obj=args) or 0
    except TinydataError as e:
        if {"-v", "--verbose"} & set(args):
            import traceback

            traceback.print_exc()
        print(e, file=sys.stderr)
        code = e.code
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except (KeyboardInterrupt, click.Abort):
        again = shlex.join(["tinydata", *args])
        print(f"\ninterrupted; finished parts are kept. To go on: {again}", file=sys.stderr)
        code = INTERRUPTED
    except SystemExit:  # by click, which leaves so after completing a word, and when the reader of a pipe has gone
        code = 0
    sys.exit(code)


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "TINYDATA",
    },
    epilog="Start with: tinydata init CORPUS --tokenizer T, then count and compact. Exit codes: 0 done, 1 fixable"
    " error, 2 usage, 3 input unreadable or empty, 4 engine unreachable, 5 done with input quarantined,"
    " 130 interrupted.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=lambda c, p, v: _version(c, v))
def cli() -> None:
    """Compact tokenizers, and the data that goes with them, for tiny language models."""


def _version(context: click.Context, asked: bool) -> None:
    if asked:
        from tinydata.cli.doctor import versions

        click.echo("\n".join(f"{name} {version}" for name, version in versions().items()))
        context.exit()


for command in (init, count, compact, slice, encode, score, resample, report, ls, doctor, completion):
    cli.add_command(command)
