"""What a page is made of. Text in blocks is plain; the template escapes it."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinydata.report.charts import Chart

ROWS = 100  # of a table; a page is read, and the rest is in the files it was made from


class Table(NamedTuple):
    """Columns are (heading, kind); kind says how a cell is set:

    text | number | code: a string; token: a string whose blanks are shown; tokens: a list of such
    """

    columns: list[tuple[str, str]]
    rows: list[list[Any]]
    foot: list[Any] = []  # noqa: RUF012 - never changed; a NamedTuple's default
    folded: str = ""  # what to click on to see it; empty: always open
    note: str = ""
    block = "table"


class Tiles(NamedTuple):
    """The few numbers to see first: (number, what it is, remark)."""

    items: list[tuple[str, str, str]]
    block = "tiles"


class Facts(NamedTuple):
    """(name, kind as in Table, value)"""

    title: str
    items: list[tuple[str, str, str]]
    block = "facts"


class Figures(NamedTuple):
    charts: list[Chart]
    block = "figures"


class Beside(NamedTuple):
    """A chart and its table: next to each other where there is room."""

    left: Figures
    right: Table
    block = "beside"


class Notes(NamedTuple):
    """Paragraphs; `warn`: what a reader must not overlook."""

    items: list[str]
    warn: bool = False
    block = "notes"


class Section(NamedTuple):
    anchor: str
    title: str
    blocks: list[Any]
    of: str = ""  # the directory it is about
