"""The command `tinydata`: its group of commands, and the exit code of each run.

Each command has its own file. Heavy imports live inside commands.
"""

from __future__ import annotations

import shlex
import sys

import click

from tinydata.cli.compact import compact
from tinydata.cli.console import Console, show_messages, use_plain_signs
from tinydata.cli.count import count
from tinydata.cli.doctor import doctor
from tinydata.cli.encode import encode
from tinydata.cli.init import init
from tinydata.cli.ls import ls
from tinydata.cli.project import load
from tinydata.cli.report import report
from tinydata.cli.resample import resample
from tinydata.cli.score import score
from tinydata.cli.slice import slice
from tinydata.core.errors import DONE, INTERRUPTED, TinydataError, UpToDate


def main(args: list[str] | None = None) -> None:
    """The console script: runs a command and exits with the documented code."""
    args = sys.argv[1:] if args is None else args
    use_plain_signs()
    if not {"-q", "--quiet"} & set(args):
        show_messages()
    try:
        defaults = load({name: command.params for name, command in cli.commands.items()})
        code = cli.main(args, prog_name="tinydata", standalone_mode=False, default_map=defaults, obj=args) or 0
    except UpToDate as e:
        Console("--json" in args).result(e.manifest, f"{e.path} is up to date: this command wrote it from these inputs")
        code = DONE
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
        print(f"\ninterrupted; finished parts are kept. To continue: {again}", file=sys.stderr)
        code = INTERRUPTED
    except SystemExit:  # raised by click after completing a word, and when the reader of a pipe has closed it
        code = 0
    sys.exit(code)


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "TINYDATA",
    },
    epilog="Start with `tinydata init CORPUS --tokenizer TOKENIZER`, then `tinydata count` and `tinydata compact`."
    " Exit codes: 0 done, 1 fixable error, 2 usage, 3 input unreadable or empty, 4 engine unreachable,"
    " 5 done but some documents quarantined, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda c, p, v: _version(c, v),
    help="Show the versions of tinydata, Python, git and Spark, and exit.",
)
def cli() -> None:
    """Make compact tokenizers and training data for tiny language models."""


def _version(context: click.Context, asked: bool) -> None:
    if asked:
        from tinydata.cli.checks import versions

        click.echo("\n".join(f"{name} {version}" for name, version in versions().items()))
        context.exit()


@click.command(epilog='Example: eval "$(tinydata completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script that completes commands in a shell."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(cli, {}, "tinydata", "_TINYDATA_COMPLETE").source())
    return 0


for command in (init, count, compact, slice, encode, score, resample, report, ls, doctor, completion):
    cli.add_command(command)
