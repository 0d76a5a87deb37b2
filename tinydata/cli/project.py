"""tinydata.toml: the inputs of each verb that the command line does not name.

One table per verb, whose keys are the verb's options: click reads it as defaults, so options on the command line
override TINYDATA_<VERB>_<OPTION> in the environment, and these override the file. As with git, the file also serves
the directories below it; its paths are relative to the file, and `~` is the home directory.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import click

from tinydata.core.errors import TinydataError

FILE = "tinydata.toml"
OTHERS = ("train",)  # tables of the trainer, which checks them itself


def find() -> Path | None:
    """tinydata.toml of this directory, or of the nearest one above it that has one."""
    here = Path.cwd()
    return next((d / FILE for d in (here, *here.parents) if (d / FILE).is_file()), None)


def load(options: dict[str, list[click.Parameter]]) -> dict[str, dict[str, Any]]:
    """tinydata.toml -> {verb: {option: value}}, with paths relative to the current directory; {} if there is none.

    `options`: those of each verb. Raises TinydataError for an unknown table or option: a typing error must not
    mean the default.
    """
    file = find()
    if file is None:
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise TinydataError(
            f"not valid TOML: {e}",
            where=str(file),
            fix="correct the line, or run `tinydata init --force` to write a new file",
        ) from None
    for verb in tables:
        if verb not in options and verb not in OTHERS:
            raise TinydataError(
                f"there is no verb {verb!r}",
                where=str(file),
                fix=f"{_near(verb, [*options, *OTHERS])}, or remove the table",
            )
    return {verb: _values(tables[verb], verb, options[verb], file) for verb in options.keys() & tables.keys()}


def _values(table: Any, verb: str, options: list[click.Parameter], file: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise TinydataError(
            f"{verb} is a value, not a table",
            where=str(file),
            fix=f"write a line [{verb}], and the options of {verb} below it",
        )
    kinds = {str(option.name): option.type for option in options}
    for name in table:
        if name not in kinds:
            raise TinydataError(
                f"`tinydata {verb}` has no option {name!r}",
                where=f"{file}, table [{verb}]",
                fix=_near(name, list(kinds)),
            )
    return {k: _path(v, file.parent) if isinstance(kinds[k], click.Path) else v for k, v in table.items()}


def _path(value: Any, folder: Path) -> Any:
    """A path, or a list of them, as it stands in a file of `folder` -> as it is reached from the current directory."""
    if isinstance(value, list):
        return [_path(one, folder) for one in value]
    if not isinstance(value, str) or not value or re.match(r"[a-z][a-z0-9+.-]*://", value):
        return value
    value = os.path.expanduser(value)
    return value if os.path.isabs(value) or folder == Path.cwd() else os.path.relpath(folder / value)


def _near(name: str, known: list[str]) -> str:
    """Advice after a misspelt name."""
    close = difflib.get_close_matches(name, known, 1)
    return f"write {close[0]!r}" if close else f"use one of {', '.join(known)}"


def content(corpus: list[str], tokenizer: str, columns: dict[str, str]) -> str:
    """Arguments of `tinydata init` -> the file's content."""
    tables: dict[str, dict[str, Any]] = {
        "count": {"corpus": corpus, "tokenizer": tokenizer, **columns, "out": "counts"},
        "compact": {"counts": "counts", "tokenizer": tokenizer, "out": "vocab"},
        "encode": {"corpus": corpus, "vocab": "vocab", **columns, "out": "shards"},
        "score": {"shards": "shards", "model": "run", "out": "scores"},
        "resample": {"scores": "scores", "out": "round-1"},
        "report": {"dirs": ["counts", "vocab", "shards", "scores", "round-1"], "out": "report.html"},
    }
    lines = ["# Written by `tinydata init`. Options on the command line override the values in this file."]
    for verb, options in tables.items():
        lines += ["", f"[{verb}]"]
        lines += [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in options.items()]
    return "\n".join(lines) + "\n"
