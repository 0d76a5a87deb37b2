"""The house: who imports whom, and how large its rooms are. `lint-imports` has the layers; this has the rest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(f for package in ("tinydata", "trainer") for f in (ROOT / package).rglob("*.py"))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_when_loaded(tree: ast.Module, known: set[str]) -> set[str]:
    """Modules of ours that are imported while this one is loaded; imports inside functions come later."""
    found = set()
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module in known:
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in known else node.module for a in node.names
            }
        waiting.extend(ast.iter_child_nodes(node))
    return found


def test_no_import_goes_in_a_circle() -> None:
    known = {module_of(f) for f in SOURCES}
    left = {module_of(f): imports_when_loaded(ast.parse(f.read_text(encoding="utf-8")), known) for f in SOURCES}
    left = {name: needs - {name} for name, needs in left.items()}
    while ready := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in ready}
    assert not left, f"in a circle, or above one: {sorted(left)}"


def test_nothing_private_crosses_files() -> None:
    taken = [
        f"{module_of(file)}: {node.module}.{alias.name}"
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("tinydata", "trainer")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert taken == []


def test_the_top_level_can_be_read_in_one_breath() -> None:
    names = {p.name for p in (ROOT / "tinydata").iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert len(names) <= 9, sorted(names)


@pytest.mark.parametrize("file", SOURCES, ids=module_of)
def test_no_file_has_outgrown_its_name(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert source.count("\n") <= 400
    long = [
        f"{node.name}, line {node.lineno}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno - node.lineno >= 60  # type: ignore[operator]
        and not any(word in ast.dump(d) for d in node.decorator_list for word in ("njit", "compiled", "inlined"))
    ]
    assert long == []
