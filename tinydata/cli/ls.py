"""tinydata ls."""

from __future__ import annotations

import click

from tinydata.cli.options import PATH, Run, common, needed
from tinydata.core.errors import DONE, UNREADABLE


@click.command(epilog="Example: tinydata ls --lineage round-1")
@click.argument("paths", type=PATH, nargs=-1)
@click.option(
    "--lineage",
    is_flag=True,
    help="Also show the inputs that each result was made from, their inputs, and what has changed since.",
)
@common
def ls(paths: tuple[str, ...], lineage: bool, run: Run) -> int:
    """List what PATHS hold.

    PATHS: corpora, counts, vocabularies, shards, scores, rounds, training runs and models. The
    default is the current directory.
    """
    console = run.console()
    if lineage:
        from tinydata.artifacts.lineage import lineage as lineage_of

        console.result(*lineage_of(needed(list(paths), "PATHS")))
        return 0
    from tinydata.artifacts.listing import MISSING, listing

    facts, text = listing(list(paths) or ["."])
    console.result(facts, text)
    return UNREADABLE if any(f["holds"] == MISSING for f in facts) else DONE
