"""What a page is made of. Text in blocks is plain; the template escapes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from tinydata.pages.charts import Chart

ROWS = 100  # of a table; a page is read, and the rest is in the files it was made from


@dataclass(frozen=True)
class Table:
    """Columns are (heading, kind); kind says how a cell is set:

    text | number | code: a string; token: a string whose blanks are shown; tokens: a list of such
    """

    columns: list[tuple[str, str]]
    rows: list[list[Any]]
    foot: list[Any] = field(default_factory=list)
    folded: str = ""  # what to click on to see it; empty: always open
    note: str = ""
    block: ClassVar[str] = "table"


@dataclass(frozen=True)
class Tiles:
    """The few numbers to see first: (number, what it is, remark)."""

    items: list[tuple[str, str, str]]
    block: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Facts:
    """(name, kind as in Table, value)"""

    title: str
    items: list[tuple[str, str, str]]
    block: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Figures:
    charts: list[Chart]
    block: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Beside:
    """A chart and its table: next to each other where there is room."""

    left: Figures
    right: Table
    block: ClassVar[str] = "beside"


@dataclass(frozen=True)
class Notes:
    """Paragraphs; `warn`: what a reader must not overlook."""

    items: list[str]
    warn: bool = False
    block: ClassVar[str] = "notes"


class Passage(NamedTuple):
    """Running text, to be looked at; line ends and runs of blanks are shown as signs."""

    title: str
    facts: list[str]
    mark: str  # set apart; "" if there is none
    text: str


@dataclass(frozen=True)
class Passages:
    items: list[Passage]
    block: ClassVar[str] = "passages"


class Section(NamedTuple):
    anchor: str
    title: str
    blocks: list[Any]
    of: str = ""  # the directory it is about
