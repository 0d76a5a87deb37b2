"""tinydata report."""

from __future__ import annotations

import click

from tinydata.cli.options import PATH, Run, common, given, needed, typed


@click.command(epilog="Example: tinydata report counts vocab -o report.html")
@click.argument("dirs", type=PATH, nargs=-1)
@click.option("-o", "--out", type=PATH, default="report.html", show_default=True, help="File for the HTML page.")
@common
def report(dirs: tuple[str, ...], out: str, run: Run) -> int:
    """Make one HTML page about the results in DIRS.

    DIRS: directories of counts, vocabularies, shards, scores or rounds. The page needs no network.
    """
    from tinydata.core.location import Location
    from tinydata.pages.page import report as make_page

    planned = given("dirs", dirs)
    # tinydata.toml names every directory of the pipeline: the page shows those that exist by now.
    existing = [d for d in planned if typed("dirs") or Location.of(d).exists()]
    made = make_page(needed(existing or planned, "DIRS"), out)
    run.console().result(made, f"wrote {made['report']} ({made['bytes']:,} bytes)")
    return 0
