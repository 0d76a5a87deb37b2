"""tinydata completion."""

from __future__ import annotations

import click


@click.command(epilog='Example: eval "$(tinydata completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script that completes commands in a shell."""
    from click.shell_completion import get_completion_class

    from tinydata.cli.main import cli

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(cli, {}, "tinydata", "_TINYDATA_COMPLETE").source())
    return 0
