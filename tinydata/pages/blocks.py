"""The building blocks of the page. All text in them is plain; the template escapes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from tinydata.pages.charts import Chart

ROWS = 100  # at most, in a table; the rest is in the files that the page was drawn from


@dataclass(frozen=True)
class Table:
    """A table. Columns are (heading, kind), where kind says how a cell is rendered.

    text, number, code: a string; token: a string with visible white space; tokens: a list of such strings
    """

    columns: list[tuple[str, str]]
    rows: list[list[Any]]
    foot: list[Any] = field(default_factory=list)
    folded: str = ""  # label to click on to open the table; empty: always open
    note: str = ""
    block: ClassVar[str] = "table"


@dataclass(frozen=True)
class Tiles:
    """The few most important numbers: (number, what it is, remark)."""

    items: list[tuple[str, str, str]]
    block: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Facts:
    """A titled list of facts: (name, kind as in Table, value)."""

    title: str
    items: list[tuple[str, str, str]]
    block: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Figures:
    """Charts, next to each other where there is room."""

    charts: list[Chart]
    block: ClassVar[str] = "figures"


@dataclass(frozen=True)
class SideBySide:
    """A chart and its table, next to each other where there is room."""

    left: Figures
    right: Table
    block: ClassVar[str] = "side-by-side"


@dataclass(frozen=True)
class Notes:
    """Paragraphs; with `warn`, warnings that a reader must not overlook."""

    items: list[str]
    warn: bool = False
    block: ClassVar[str] = "notes"


class Passage(NamedTuple):
    """A piece of running text; line ends and runs of white space are shown as symbols."""

    title: str
    facts: list[str]
    mark: str  # a highlighted label; "" if there is none
    text: str


@dataclass(frozen=True)
class Passages:
    """Several passages, one below the other."""

    items: list[Passage]
    block: ClassVar[str] = "passages"


class Section(NamedTuple):
    """A titled section of the page."""

    anchor: str
    title: str
    blocks: list[Any]
    of: str = ""  # path of the directory it is about
