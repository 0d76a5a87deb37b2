"""init, report, ls, doctor and completion."""

from __future__ import annotations

import os

import click

from tinydata.cli.console import Console
from tinydata.cli.options import columns, common, given, needed, wanted
from tinydata.core.errors import TinydataError
from tinydata.core.text import many


@click.command(epilog="Example: tinydata init corpus/ --tokenizer tokenizer.json")
@click.argument("corpus", nargs=-1, required=True)
@click.option("--tokenizer", required=True, help="The big tokenizer: directory or file.")
@columns
@click.option("--force", is_flag=True, help="Replace a tinydata.toml that is here.")
@common
def init(
    corpus: tuple[str, ...], tokenizer: str, force: bool, as_json: bool, quiet: bool, verbose: bool, **named: str
) -> int:
    """Write tinydata.toml, so that the short forms work in this directory.

    CORPUS: files, directories or globs of text or token ids.
    """
    from tinydata.cli import project as workspace
    from tinydata.core.location import Location
    from tinydata.formats.corpus import plan
    from tinydata.tokenizers.open import open_tokenizer
    from tinydata.tokenizers.special_tokens import id_facts

    console = Console(as_json, quiet, verbose)
    where = Location.of(workspace.FILE)
    if where.exists() and not force:
        raise TinydataError("tinydata.toml is here already", where=os.getcwd(), fix="edit it, or pass --force")
    tok = open_tokenizer(tokenizer)
    found = plan(list(corpus), wanted(named)._replace(**id_facts(tok)))
    where.write(workspace.text(list(corpus), tokenizer, {k: v for k, v in named.items() if v}).encode())
    files, size = len(found.files), sum(s.bytes for s in found.splits)
    console.result(
        {"files": files, "bytes": size, "kind": found.kind, "ids": tok.size},
        f"{many(files, 'file')} of {found.kind}, {size:,} bytes; {tok.family} tokenizer of {tok.size:,} ids\n"
        "wrote tinydata.toml; next: tinydata count",
    )
    return 0


@click.command(epilog="Example: tinydata report counts vocab -o report.html")
@click.argument("dirs", nargs=-1)
@click.option("-o", "--out", default="report.html", show_default=True, help="The page.")
@common
def report(dirs: tuple[str, ...], out: str, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Make one offline HTML page of what is in DIRS: counts, vocabularies, shards, scores, rounds."""
    from tinydata.pages.page import report as make

    console = Console(as_json, quiet, verbose)
    from tinydata.core.location import Location

    planned = given("dirs", dirs)
    told = click.get_current_context().get_parameter_source("dirs") == click.core.ParameterSource.COMMANDLINE
    here = [d for d in planned if told or Location.of(d).exists()]  # of those in tinydata.toml, what is made by now
    made = make(needed(here or planned, "DIRS"), out)
    console.result(made, f"wrote {made['report']} ({made['bytes']:,} bytes)")
    return 0


@click.command(epilog="Example: tinydata ls --lineage round-1")
@click.argument("paths", nargs=-1)
@click.option("--lineage", is_flag=True, help="Say what each was made of, and that of what, and what changed since.")
@common
def ls(paths: tuple[str, ...], lineage: bool, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Say what PATHS hold: corpora, counts, vocabularies, shards, scores, rounds, runs, models."""
    console = Console(as_json, quiet, verbose)
    if lineage:
        from tinydata.artifacts import lineage as chain

        console.result(*chain.lineage(needed(list(paths), "PATHS")))
        return 0
    from tinydata.artifacts.listing import listing

    console.result(*listing(list(paths) or ["."]))
    return 0


@click.command(epilog="Example: tinydata doctor --engine spark")
@click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True)
@click.option("--tokenizer", default="", help="Also try this tokenizer.")
@common
def doctor(engine: str, tokenizer: str, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Check this installation, and with --engine spark the executors too; every fault comes with its fix."""
    from tinydata.cli import doctor as checks

    console = Console(as_json, quiet, verbose)
    results = checks.run(engine, tokenizer)
    console.result(results, checks.text(results))
    return 0 if all(r["ok"] is not False for r in results) else 1


@click.command(epilog='Example: eval "$(tinydata completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    from tinydata.cli.main import cli

    click.echo(found(cli, {}, "tinydata", "_TINYDATA_COMPLETE").source())
    return 0
