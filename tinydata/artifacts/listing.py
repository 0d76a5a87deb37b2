"""Paths -> what they contain, as JSON and as a table: `tinydata ls`."""

from __future__ import annotations

import os
import re
from typing import Any

from tinydata.artifacts.artifact import Artifact, bytes_of, describe, open_artifact
from tinydata.core.errors import TinydataError
from tinydata.core.location import Location
from tinydata.core.text import many, size, table
from tinydata.formats.corpus import plan

MISSING = "missing"  # `holds` of a path that does not exist


def listing(paths: list[str]) -> tuple[list[dict[str, Any]], str]:
    """Paths -> (JSON, table): for each, what kind of artifact, unfinished output or corpus it is."""
    facts = []
    for path in paths:
        for one in _outputs(path) or [path]:
            artifact = open_artifact(one)
            facts.append(_artifact(one, artifact) if artifact else _unfinished(one) or _tokenizer(one) or _corpus(one))
    return facts, table(facts, {"path": "path", "holds": "holds", "size": "size", "detail": ""})


def _outputs(path: str) -> list[str]:
    """Artifacts and unfinished outputs directly inside a directory; [] if the path is an artifact itself."""
    where = Location.of(path)
    if not where.is_dir() or not where.local or open_artifact(where):
        return []
    outputs = []
    for entry in os.scandir(where.absolute):
        name = entry.name[1:-8] if entry.name.startswith(".") and entry.name.endswith(".partial") else entry.name
        if entry.is_dir() and (name != entry.name or open_artifact(entry.path)):
            outputs.append(os.path.normpath(os.path.join(path, name)))
    return sorted(set(outputs))


def _unfinished(path: str) -> dict[str, Any] | None:
    where = Location.of(path)
    parts = where.parent / f".{where.name}.partial" / "parts"
    if not parts.exists():
        return None
    done = sum(f.name.endswith(".json") for f in parts.children())
    detail = f"{many(done, 'part')} done; run the same command again to continue"
    return {"path": path, "holds": "unfinished", "size": "", "detail": detail}


def _artifact(path: str, artifact: Artifact) -> dict[str, Any]:
    contents = describe(artifact)
    facts = {"path": path, "holds": contents.holds, "size": size(bytes_of(artifact))}
    return {**facts, **({"ids": contents.ids} if contents.ids else {}), "detail": contents.detail}


_TOKENIZER_FILES = re.compile(
    r"(tokenizer|tekken|vocab)\.json|vocab\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model|.*\.tiktoken"
)


def _tokenizer(path: str) -> dict[str, Any] | None:
    """What a tokenizer's file or directory holds; None if no name there is one of a tokenizer."""
    where = Location.of(path)
    names = [f.name for f in where.children()] if where.is_dir() else [where.name] if where.exists() else []
    if not any(_TOKENIZER_FILES.fullmatch(name) for name in names):
        return None
    from tinydata.tokenizers.open import open_tokenizer, read_tokenizer  # it loads numba, which a corpus does not need

    try:
        tok = open_tokenizer(path)
    except TinydataError as e:
        return {"path": path, "holds": "tokenizer", "size": "", "detail": f"cannot be used: {e.what}"}
    held = size(sum(len(content) for content in read_tokenizer(path).values()))
    return {
        "path": path,
        "holds": "tokenizer",
        "size": held,
        "ids": tok.size,
        "detail": f"{tok.family}, {tok.size:,} ids",
    }


def _corpus(path: str) -> dict[str, Any]:
    try:
        corpus = plan([path])
    except TinydataError as e:
        holds = "nothing to read" if Location.of(path).exists() else MISSING
        return {"path": path, "holds": holds, "size": "", "detail": e.what.partition("\n")[0]}
    forms = sorted({s.format for s in corpus.splits})
    types = sorted({t for s in corpus.splits for n, t in s.columns.types if n == s.columns.ids != t != "ids"})
    detail = ", ".join([many(len(corpus.files), "file"), *forms, *types])
    return {"path": path, "holds": corpus.kind, "size": size(sum(s.bytes for s in corpus.splits)), "detail": detail}
