"""tinydata init."""

from __future__ import annotations

import os

import click

from tinydata.cli.corpus_options import Columns, CorpusCommand, columns
from tinydata.cli.options import PATH, Run, common
from tinydata.cli.project import FILE, content
from tinydata.core.errors import TinydataError
from tinydata.core.text import many


@click.command(cls=CorpusCommand, epilog="Example: tinydata init corpus/ --tokenizer tokenizer.json")
@click.argument("corpus", type=PATH, nargs=-1, required=True)
@click.option("--tokenizer", type=PATH, required=True, help="Directory or file of the original, large tokenizer.")
@columns
@click.option("--force", is_flag=True, help="Replace an existing tinydata.toml in this directory.")
@common
def init(corpus: tuple[str, ...], tokenizer: str, force: bool, columns: Columns, run: Run) -> int:
    """Write tinydata.toml, the default inputs of this directory.

    The other commands then run without arguments here. CORPUS: files, directories or globs of text
    or token ids. Where the columns of sources differ, name them after each, as in `web/ --text-column
    body books/ --text-column document`; before the first source, an option is for all.
    """
    from tinydata.cli.texts.init import corpus_text
    from tinydata.core.location import Location
    from tinydata.formats.corpus import notes, plan
    from tinydata.tokenizers.open import open_tokenizer
    from tinydata.tokenizers.special_tokens import id_facts

    where = Location.of(FILE)
    if where.exists() and not force:
        raise TinydataError(
            "tinydata.toml exists already", where=os.getcwd(), fix="edit the file, or replace it with --force"
        )
    tok = open_tokenizer(tokenizer)
    found = plan(list(corpus), columns.wanted()._replace(**id_facts(tok)))
    where.write(content(list(corpus), tokenizer, columns.named()).encode())
    files, size = len(found.files), sum(s.bytes for s in found.splits)
    lines = [
        f"{many(files, 'file')} of {found.kind}, {size:,} bytes; {tok.family} tokenizer of {tok.size:,} ids",
        *corpus_text(found, list(corpus)),
        "wrote tinydata.toml; next: tinydata count",
    ]
    run.console().result({"files": files, "bytes": size, "kind": found.kind, "ids": tok.size}, "\n".join(lines))
    for line in notes(found):
        run.console().say(line)
    return 0
