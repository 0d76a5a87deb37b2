"""tinydata doctor."""

from __future__ import annotations

import click

from tinydata.cli.options import ENGINE, PATH, Run, common


@click.command(epilog="Example: tinydata doctor --engine spark")
@ENGINE
@click.option("--tokenizer", type=PATH, default="", help="Directory or file of a tokenizer to test as well.")
@common
def doctor(engine: str, tokenizer: str, run: Run) -> int:
    """Check this installation, and show how to fix each fault.

    With --engine spark the Spark executors are checked too.
    """
    from tinydata.cli.checks import all_checks, checks_text

    results = all_checks(engine, tokenizer)
    run.console().result(results, checks_text(results))
    return 0 if all(r["ok"] is not False for r in results) else 1
