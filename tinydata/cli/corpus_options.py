"""The options of commands that read a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from tinydata.cli.options import gathered

if TYPE_CHECKING:  # it imports pyarrow, which --help does not need
    from tinydata.formats.base import Wanted

DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")
_BY_SOURCE = "tinydata.columns_by_source"

Column = str | tuple[str, ...]  # of all sources, or one for each


@dataclass(frozen=True)
class Columns:
    """The columns of a corpus as the user names them; empty: the usual names."""

    text_column: Column = ""
    ids_column: Column = ""
    domain_column: Column = ""
    id_column: Column = ""
    dtype: Column | None = None
    read_as_text: Column = ""

    def wanted(self) -> Wanted:
        from tinydata.formats.base import Wanted

        return Wanted.from_given({**asdict(self), "doc_id_column": self.id_column})

    def named(self) -> dict[str, Any]:
        """Those that the user gave, by the name of their option; a list has one for each source."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v}


_NAMES = [field.name for field in fields(Columns)]


class CorpusCommand(click.Command):
    """A command whose sources may have columns of their own: `SOURCE --text-column body SOURCE2 --text-column text`.

    An option of the columns is for the sources since the last such option; before the first source, it is for all.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            ctx.meta[_BY_SOURCE] = list(self._by_source(ctx, list(args)))
        return super().parse_args(ctx, args)

    def _by_source(self, ctx: click.Context, args: list[str]) -> Iterator[dict[str, str]]:
        """The options of the columns, source by source."""
        parser = self.make_parser(ctx)
        parser.allow_interspersed_args = False  # so that it stops at each source
        everywhere: dict[str, str] = {}
        own: list[dict[str, str]] = []
        finished = 0  # sources whose columns are known
        while True:
            given, _, _ = parser.parse_args(list(args))
            rest = list(given["corpus"]) if isinstance(given.get("corpus"), tuple) else []
            named = {name: value for name, value in given.items() if name in _NAMES}
            for source in own[finished:] if own else [everywhere]:
                source.update(named)
            finished = len(own) if named else finished
            if not rest:
                break
            all_sources = len(args) > len(rest) and args[-len(rest) - 1] == "--"
            own += [{} for _ in (rest if all_sources else rest[:1])]
            args = [] if all_sources else rest[1:]
        yield from ({**everywhere, **source} for source in own)


def _columns(**values: Any) -> Columns:
    """The columns of all sources, or, where they differ on the command line or in tinydata.toml, of each."""
    ctx = click.get_current_context()
    by_source = ctx.meta.get(_BY_SOURCE) or []
    for name, value in values.items():
        usual = ctx.lookup_default(name)
        if any(name in source for source in by_source):
            of_each = tuple(source.get(name, usual if isinstance(usual, str) else "") for source in by_source)
            values[name] = of_each[0] if len(set(of_each)) == 1 else of_each
        elif isinstance(value, tuple) and by_source:  # as the file has them for these sources
            known = dict(zip(ctx.lookup_default("corpus") or (), value, strict=False))
            values[name] = tuple(known.get(source, "") for source in ctx.params["corpus"])
    return Columns(**values)


class _Column(click.ParamType):
    """A value for all sources, or, in tinydata.toml, a list of one for each."""

    name = "text"

    def __init__(self, choices: tuple[str, ...] = ()) -> None:
        self.type = click.Choice(choices) if choices else click.STRING

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self.type.get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, list | tuple):
            return tuple(each and self.type.convert(each, param, ctx) for each in value)
        return value and self.type.convert(value, param, ctx)


def _option(name: str, help: str, choices: tuple[str, ...] = ()) -> Any:
    return click.option(name, type=_Column(choices), default=None if choices else "", help=help)


columns = gathered(
    "columns",
    _columns,
    text_column=_option("--text-column", "Name of the column with the text. The default is text or content."),
    ids_column=_option("--ids-column", "Name of the column with token ids. The default is input_ids or tokens."),
    domain_column=_option(
        "--domain-column",
        "Name of the column with the domain. The default is domain, or the file's folder without such a column.",
    ),
    id_column=_option("--id-column", "Name of the column with the document's id. The default is doc_id or id."),
    dtype=_option("--dtype", "Type of the token ids in files that do not declare it.", DTYPES),
    read_as_text=_option(
        "--read-as-text", "Names of files of which each is one document, such as '*.md,*.py', whatever their format."
    ),
)

max_bad = click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="Share of the documents that may be unusable before the command fails.",
)
