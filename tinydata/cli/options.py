"""The options that several commands share, and what is done with them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from tinydata.core.text import many

Command = Callable[..., Any]


def common(command: Command) -> Command:
    """The options every verb has."""
    for option in reversed(
        [
            click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout."),
            click.option("-q", "--quiet", is_flag=True, help="Only the result, and errors."),
            click.option("-v", "--verbose", is_flag=True, help="Traces of errors."),
        ]
    ):
        command = option(command)
    return command


def writing(command: Command) -> Command:
    """The options of a verb that makes a directory."""
    for option in reversed(
        [
            click.option("--dry-run", is_flag=True, help="Say what would be done, with evidence, and stop."),
            click.option("--force", is_flag=True, help="Replace an output that tinydata made before."),
        ]
    ):
        command = option(command)
    return common(command)


def running(command: Command) -> Command:
    """The options of a verb that runs on an engine."""
    for option in reversed(
        [
            click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True),
            click.option("--workers", type=click.IntRange(0), default=0, help="Processes [default: one per core]."),
            click.option("--partitions", type=click.IntRange(0), default=0, help="Tasks [default: by bytes]."),
        ]
    ):
        command = option(command)
    return writing(command)


@contextmanager
def connected(engine: str, workers: int, pandas: bool = False) -> Iterator[Any]:
    """The engine of that name, closed at the end; pandas: on Spark, through mapInPandas."""
    if engine == "spark":
        from tinydata.engines.spark import SparkEngine

        spark = SparkEngine(workers, pandas=pandas)
        try:
            yield spark
        finally:
            spark.close()
    else:
        from tinydata.engines.local import LocalEngine

        yield LocalEngine(workers)


def needed(value: Any, what: str) -> Any:
    """An input that was given on the command line or stands in tinydata.toml; a usage error otherwise."""
    if not value:
        raise click.UsageError(f"{what} is missing: give it, or run `tinydata init` here once")
    return value


def given(name: str, value: tuple[str, ...]) -> list[str]:
    """A many-valued argument, or what tinydata.toml says."""
    return list(value) or list(click.get_current_context().lookup_default(name) or ())


def record(out: str, began: float, **facts: Any) -> None:
    """Leaves the run's time and command beside the manifest, which stays the same whatever they are."""
    from tinydata.core.location import Location, to_json

    command = shlex.join(["tinydata", *(click.get_current_context().obj or [])])
    (Location.of(out) / ".run.json").write(to_json({"command": command, "seconds": time.time() - began, **facts}))


FORMATS = ("megatron", "parquet", "internevo", "llmc")  # that are written
DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")


def columns(command: Command) -> Command:
    """The options that name a corpus's columns."""
    for option in reversed(
        [
            click.option("--text-column", default="", help="Column with text [default: text, content]."),
            click.option("--ids-column", default="", help="Column with token ids [default: input_ids, tokens]."),
            click.option("--domain-column", default="", help="Column with the domain [default: domain, else folder]."),
            click.option("--id-column", default="", help="Column with the document's id [default: doc_id, id]."),
            click.option("--dtype", type=click.Choice(DTYPES), help="Of token ids in files that do not say it."),
        ]
    ):
        command = option(command)
    return command


def wanted(named: dict[str, str]) -> Any:
    """--text-column … -> Wanted."""
    from tinydata.formats.base import Wanted

    text, ids, domain, doc_id = (named[f"{n}_column"] for n in ("text", "ids", "domain", "id"))
    return Wanted(text, ids, domain, doc_id, named["dtype"] or "")


def typed(option: str) -> bool:
    """Whether it was given on the command line, and is not what tinydata.toml says."""
    source = click.get_current_context().get_parameter_source(option)
    return source == click.core.ParameterSource.COMMANDLINE


def warnings(manifest: dict[str, Any]) -> list[str]:
    """What a user must hear though it went well."""
    out = []
    bad = manifest["quarantined"]
    if bad["documents"]:
        why = "; ".join(f"{n} x {r}" for r, n in bad["reasons"].items())
        out.append(f"warning: {many(bad['documents'], 'document')} quarantined ({why}); see quarantine.parquet")
    if manifest["options"].get("heldout") and not manifest["totals"]["heldout_documents"]:
        share = manifest["options"]["heldout"]
        out.append(
            f"note: no document fell into the held-out {share:.0%}, so `compact` cannot measure; --heldout takes more"
        )
    if manifest["totals"]["masked"]:
        out.append(
            f"note: {manifest['totals']['masked']:,} masked tokens (no loss, or negative ids) counted as all others"
        )
    if manifest["skipped_files"]:
        some = ", ".join(manifest["skipped_files"][:3])
        out.append(f"note: {len(manifest['skipped_files'])} files of no known format skipped: {some}")
    for path in manifest.get("encoded_whole", []):
        out.append(f"note: words first differed from the library on {path}; it was encoded whole")
    return out
