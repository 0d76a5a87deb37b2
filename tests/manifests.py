"""Manifests made up for tests: whole_manifest ones, of which a test says only what it is about."""

from __future__ import annotations

from types import UnionType
from typing import Any, NotRequired, get_origin, get_type_hints, is_typeddict

from tinydata.core.manifest import TYPES


def whole_manifest(verb: str, **given: Any) -> dict[str, Any]:
    """A manifest of this verb: what is given, and the emptiest value of its type wherever nothing is."""
    return _filled(TYPES[verb], {"verb": verb, **given})


def _filled(kind: Any, given: Any) -> Any:
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        asked = {k: h for k, h in hints.items() if get_origin(h) is not NotRequired}
        filled = {k: _filled(h, given.get(k, {} if is_typeddict(h) else _empty(h))) for k, h in asked.items()}
        return {**given, **filled}
    return given


def _empty(kind: Any) -> Any:
    if isinstance(kind, UnionType):
        return None
    return {} if kind is Any else (get_origin(kind) or kind)()
