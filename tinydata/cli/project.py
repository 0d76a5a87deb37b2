"""tinydata.toml: the inputs of each verb that the command line does not name.

One table per verb, its keys the verb's options: click reads it as defaults, so flags win over
TINYDATA_<VERB>_<OPTION> in the environment, and these over the file.
"""

from __future__ import annotations

import json
import os
import tomllib
from typing import Any

from tinydata.core.errors import TinydataError

FILE = "tinydata.toml"


def load(options: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """tinydata.toml of this directory -> {verb: {option: value}}; {} if there is none.

    `options`: those of each verb. Raises TinydataError for any other: a typing error must not
    mean the default. Tables of other names belong to other programs.
    """
    if not os.path.exists(FILE):
        return {}
    try:
        with open(FILE, "rb") as f:
            tables = tomllib.load(f)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise TinydataError(
            f"not valid TOML: {e}",
            where=FILE,
            fix="correct the line, or run `tinydata init --force` to write a new file",
        ) from None
    for verb in options.keys() & tables.keys():
        _check(verb, tables[verb], options[verb])
    return tables


def _check(verb: str, table: Any, options: list[str]) -> None:
    if not isinstance(table, dict):
        raise TinydataError(
            f"{verb} is a value, not a table",
            where=FILE,
            fix=f"write a line [{verb}], and the options of {verb} below it",
        )
    for name in table:
        if name not in options:
            raise TinydataError(
                f"`tinydata {verb}` has no option {name!r}",
                where=f"{FILE}, table [{verb}]",
                fix=f"use one of these options: {', '.join(options)}",
            )


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
