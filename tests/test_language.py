"""Plain words: what a user reads is written in the field's language, not in one author's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(f for package in ("tinydata", "trainer") for f in (ROOT / package).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# word -> what to write instead
AVOIDED = {
    r"anew": "again, from the start, from its text",
    r"beside": "next to, in the same directory, together with, compared with",
    r"told": "given, passed, specified",
    r"(here|there) already": "already exists",
    r"is there already": "already exists",
    r"it is there": "it exists",
    r"has gone on": "has continued",
    r"goes on": "continues",
}
NAMES = {"--beside", '"beside"'}  # an option's name is not prose


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string that is a sentence or part of one: messages, help and docstrings."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def faults(text: str) -> list[str]:
    for name in NAMES:
        text = text.replace(name, "")
    return [f"{m[0]!r}: write {better}" for word, better in AVOIDED.items() for m in re.finditer(rf"\b{word}\b", text)]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_strings_and_docstrings_use_plain_words(file: Path) -> None:
    assert [(line, fault) for line, text in prose(file) for fault in faults(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda f: f.name)
def test_pages_use_plain_words(page: Path) -> None:
    assert faults(page.read_text(encoding="utf-8")) == []
