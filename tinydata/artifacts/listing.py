"""What paths hold: `tinydata ls`."""

from __future__ import annotations

import os
from typing import Any

from tinydata.artifacts.artifact import Made, bytes_of, held, made
from tinydata.core.errors import TinydataError
from tinydata.core.location import Location
from tinydata.core.text import many, size, table
from tinydata.formats.corpus import plan


def listing(paths: list[str]) -> tuple[list[dict[str, Any]], str]:
    """What each path holds -> (JSON, text): a directory that was made here, an unfinished one, or a corpus."""
    facts = []
    for path in paths:
        for one in _outputs(path) or [path]:
            found = made(one)
            facts.append(_made(one, found) if found else _unfinished(one) or _corpus(one))
    return facts, table(facts, {"path": "path", "holds": "holds", "size": "size", "detail": ""})


def _outputs(path: str) -> list[str]:
    """Directories inside that were made here, or begun."""
    where = Location.of(path)
    if not where.is_dir() or not where.local or made(where):
        return []
    found = []
    for entry in os.scandir(where.absolute):
        name = entry.name[1:-8] if entry.name.startswith(".") and entry.name.endswith(".partial") else entry.name
        if entry.is_dir() and (name != entry.name or made(entry.path)):
            found.append(os.path.normpath(os.path.join(path, name)))
    return sorted(set(found))


def _unfinished(path: str) -> dict[str, Any] | None:
    where = Location.of(path)
    parts = where.parent / f".{where.name}.partial" / "parts"
    if not parts.exists():
        return None
    done = sum(f.name.endswith(".json") for f in parts.children())
    detail = f"{many(done, 'part')} done; the command that began it goes on"
    return {"path": path, "holds": "unfinished", "size": "", "detail": detail}


def _made(path: str, found: Made) -> dict[str, Any]:
    what = held(found)
    facts = {"path": path, "holds": what.holds, "size": size(bytes_of(found))}
    return {**facts, **({"ids": what.ids} if what.ids else {}), "detail": what.detail}


def _corpus(path: str) -> dict[str, Any]:
    try:
        found = plan([path])
    except TinydataError as e:
        return {"path": path, "holds": "nothing to read", "size": "", "detail": e.what.partition("\n")[0]}
    forms = sorted({s.format for s in found.splits})
    types = sorted({t for s in found.splits for n, t in s.columns.types if n == s.columns.ids != t != "ids"})
    detail = ", ".join([many(len(found.files), "file"), *forms, *types])
    return {"path": path, "holds": found.kind, "size": size(sum(s.bytes for s in found.splits)), "detail": detail}
