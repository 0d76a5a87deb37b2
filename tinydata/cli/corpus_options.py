"""The options of commands that read a corpus."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from tinydata.cli.options import gathered

if TYPE_CHECKING:  # it imports pyarrow, which --help does not need
    from tinydata.formats.base import Wanted

DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")


@dataclass(frozen=True)
class Columns:
    """The columns of a corpus as the user names them; empty: the usual names."""

    text_column: str = ""
    ids_column: str = ""
    domain_column: str = ""
    id_column: str = ""
    dtype: str | None = None
    read_as_text: str = ""

    def wanted(self) -> Wanted:
        from tinydata.formats.base import Wanted

        names = (self.text_column, self.ids_column, self.domain_column, self.id_column)
        return Wanted(*names, self.dtype or "", as_text=self.read_as_text)

    def named(self) -> dict[str, str]:
        """Those that the user gave, by the name of their option."""
        return {name: value for name, value in asdict(self).items() if value}


columns = gathered(
    "columns",
    Columns,
    text_column=click.option(
        "--text-column", default="", help="Name of the column with the text. The default is text or content."
    ),
    ids_column=click.option(
        "--ids-column", default="", help="Name of the column with token ids. The default is input_ids or tokens."
    ),
    domain_column=click.option(
        "--domain-column",
        default="",
        help="Name of the column with the domain. The default is domain, or the file's folder without such a column.",
    ),
    id_column=click.option(
        "--id-column", default="", help="Name of the column with the document's id. The default is doc_id or id."
    ),
    dtype=click.option(
        "--dtype", type=click.Choice(DTYPES), help="Type of the token ids in files that do not declare it."
    ),
    read_as_text=click.option(
        "--read-as-text",
        default="",
        help="Names of files of which each is one document, such as '*.md,*.py', whatever their format.",
    ),
)

max_bad = click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="Share of the documents that may be unusable before the command fails.",
)
