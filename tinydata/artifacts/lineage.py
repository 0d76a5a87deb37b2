"""Directories -> everything they were produced from, back to the corpus, as a graph (JSON) and as a tree (text).

    model ─► run ─► round ─► scores ─► (the model that scored), shards ─► vocabulary ─► counts ─► corpus

Every artifact records its inputs with the fingerprints they had at the time. These records are followed here and
compared with the current state. A relative path is looked up next to the artifact that names it, in the working
directory and in the parent directories; if it exists in several places, the one with the right fingerprint is used.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinydata.artifacts.artifact import Artifact, damage, describe, fingerprints, open_artifact
from tinydata.artifacts.sources import Source, sources
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, fingerprint
from tinydata.core.text import many, size, table

LOOKED_AT = 1000  # at most so many files of a corpus are compared
SHORT = 12  # characters of a fingerprint shown in the tree
CHANGED, MISSING = "changed since", "missing"


@dataclass
class Node:
    """An artifact, a corpus or a tokenizer. `problem` says where it disagrees with its own manifest."""

    path: str
    by: str = ""
    holds: str = ""
    detail: str = ""
    fingerprint: str = ""
    problem: str = ""
    missing: bool = False
    edges: list[Edge] = field(default_factory=list)


class Edge(NamedTuple):
    """One input of a node: the role it had, and whether it still is what it was then."""

    role: str
    to: Node
    state: str  # "", CHANGED or MISSING
    why: str  # what changed


def lineage(paths: list[str]) -> tuple[dict[str, Any], str]:
    """Directories -> (graph as JSON, trees as text).

    Raises TinydataError for a directory without the metadata of tinydata or the trainer.
    """
    graph = Graph()
    roots = [graph.walk(_root(path)) for path in paths]
    return graph.json(roots), text(roots)


def _root(path: str) -> Artifact:
    artifact = open_artifact(path)
    if artifact is not None:
        return artifact
    raise TinydataError(
        "the path has no metadata that says what it was produced from"
        if Location.of(path).exists()
        else "the directory does not exist",
        where=path,
        fix="name a directory that tinydata or the trainer wrote: a model, a run, a round, scores, shards, …;"
        " `tinydata ls` without --lineage lists those of a directory",
        code=UNREADABLE,
    )


class Graph:
    """Nodes by absolute path; each artifact is opened once."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._prints: dict[str, dict[str, str]] = {}

    def walk(self, artifact: Artifact) -> Node:
        """Artifact -> its node, with the nodes of all its inputs.

        Recursive: a chain is only a few levels per round of training.
        """
        key = artifact.where.absolute
        if key in self.nodes:
            return self.nodes[key]
        contents = describe(artifact)
        prints = fingerprints(artifact)
        self._prints[key] = prints
        own = next((v for kind, v in prints.items() if kind != "step"), "")
        node = Node(_shown(artifact.where), artifact.by, contents.holds, contents.detail, own, damage(artifact))
        self.nodes[key] = node
        node.edges = [self._follow(artifact, s) for s in sources(artifact)]
        return node

    def _follow(self, artifact: Artifact, s: Source) -> Edge:
        if s.role == "corpus":
            return self._corpus(artifact, s)
        best: tuple[Node, list[str]] | None = None
        for place in _places(artifact, s.paths):
            node = self._open(place, s.role)
            if node is None:
                continue
            differs = self._differences(place, s)
            if best is None or (best[1] and not differs):
                best = node, differs
            if not differs:
                break
        if best is None:
            place = _places(artifact, s.paths)[0]
            key = place.absolute
            if key not in self.nodes:
                known = next(iter(s.wanted.values()), "")
                self.nodes[key] = Node(_shown(place), holds=s.role, detail=s.hint, fingerprint=known, missing=True)
            return Edge(s.role, self.nodes[key], MISSING, "")
        return Edge(s.role, best[0], CHANGED if best[1] else "", "; ".join(best[1]))

    def _open(self, place: Location, role: str) -> Node | None:
        """The node of what is at this place now; None if nothing there can have this role."""
        artifact = open_artifact(place)
        if artifact is not None:
            return self.walk(artifact)
        if role != "tokenizer" or not place.exists():
            return None
        key = place.absolute
        if key not in self.nodes:
            tokenizer = _tokenizer(place)
            if tokenizer is None:
                return None
            self.nodes[key], self._prints[key] = tokenizer, {"tokenizer": tokenizer.fingerprint}
        return self.nodes[key]

    def _differences(self, place: Location, s: Source) -> list[str]:
        now = self._prints.get(place.absolute, {})
        if "tokenizer" in s.wanted and "tokenizer" not in now:  # it may be a model directory, which contains one
            tokenizer = _tokenizer(place)
            now = {**now, **({"tokenizer": tokenizer.fingerprint} if tokenizer else {})}
        out = [
            f"{kind} was {_short(was)}, is now {_short(now[kind])}" if kind in now else f"{kind} was {_short(was)}"
            for kind, was in s.wanted.items()
            if now.get(kind) != was
        ]
        return out + _changed_files(place, s.files)

    def _corpus(self, artifact: Artifact, s: Source) -> Edge:
        """Compares a corpus with its recorded sizes and fingerprints; if it is an artifact, follows it further."""
        fixed = _fixed(s.paths[0])
        places = _places(artifact, [fixed])
        existing = [p for p in places if p.exists()]
        if not existing:
            key = places[0].absolute
            self.nodes.setdefault(key, _files_node(places[0], s.paths[0], s.files, missing=True))
            return Edge(s.role, self.nodes[key], MISSING, "")
        place, changed = existing[0], _changed_below(existing[0], fixed, s.files)
        for other in existing[1:] if changed else []:
            if not _changed_below(other, fixed, s.files):
                place, changed = other, []
                break
        nested = open_artifact(place)
        key = place.absolute
        node = self.walk(nested) if nested else self.nodes.setdefault(key, _files_node(place, s.paths[0], s.files))
        return Edge(s.role, node, CHANGED if changed else "", "; ".join(changed))

    def json(self, roots: list[Node]) -> dict[str, Any]:
        """-> {roots, nodes, edges}. Nodes are named by the path that is shown; empty and false values are left out."""
        nodes = [{k: v for k, v in vars(n).items() if k != "edges" and v} for n in self.nodes.values()]
        edges = []
        for n in self.nodes.values():
            for e in n.edges:
                about = {k: v for k, v in (("state", e.state), ("why", e.why)) if v}
                edges.append({"from": n.path, "to": e.to.path, "as": e.role, **about})
        return {"roots": [n.path for n in roots], "nodes": nodes, "edges": edges}


# -- where things are -------------------------------------------------------------------------


def _places(artifact: Artifact, paths: list[str]) -> list[Location]:
    """Recorded paths -> candidate places, most likely first: next to the artifact, the working directory, its parents.

    Never empty.
    """
    out: list[Location] = []
    for path in paths:
        if "://" in path or posixpath.isabs(path):
            out.append(Location.of(path))
            continue
        home = artifact.where.parent
        if not home.local:
            out.append(home / path)
            continue
        above = Location.of(home.absolute)
        out += [above / path, Location.of(path)]
        while above.parent.path != above.path:
            above = above.parent
            out.append(above / path)
    unique = {p.absolute: p for p in reversed(out)}
    return [unique[key] for key in dict.fromkeys(p.absolute for p in out)]


def _shown(where: Location) -> str:
    """Relative to the working directory if the place is below it, else absolute."""
    if not where.local:
        return where.path
    relative = os.path.relpath(where.absolute)
    return where.absolute if relative.startswith("..") else relative


def _fixed(path: str) -> str:
    """Glob -> the directory above its first wildcard; any other path is returned unchanged."""
    while any(c in path for c in "*?["):
        path = posixpath.dirname(path)
    return path or "."


# -- files ------------------------------------------------------------------------------------


def _changed_files(directory: Location | None, files: dict[str, dict[str, Any]]) -> list[str]:
    """{name in the directory, or path: {bytes, fingerprint}} -> one sentence about files that changed or are missing.

    [] if none did; of more than LOOKED_AT files an evenly spaced sample is compared.
    """
    step = -(-len(files) // LOOKED_AT)
    sampled = list(files.items())[:: max(step, 1)]

    def differs(item: tuple[str, dict[str, Any]]) -> str:
        name, was = item
        file = directory / name if directory else Location.of(name)
        if not file.exists():
            return f"{name} is missing"
        now = fingerprint(file)
        return "" if now == {k: was[k] for k in now} else f"{name} has {size(now['bytes'])}, had {size(was['bytes'])}"

    with ThreadPoolExecutor(16) as pool:
        differing = [x for x in pool.map(differs, sampled) if x]
    if not differing:
        return []
    if len(files) == 1:
        return differing
    return [
        f"{len(differing):,} of {many(len(sampled), 'file')} differ: {', '.join(differing[:3])}"
        + ", …" * (len(differing) > 3)
    ]


def _changed_below(place: Location, fixed: str, files: dict[str, dict[str, Any]]) -> list[str]:
    """Compares files recorded below `fixed` with the files of the same names below `place`."""
    base = place.path[: len(place.path) - len(fixed)] if place.path.endswith(fixed) else ""
    return _changed_files(None, {base + name: about for name, about in files.items()})


def _files_node(place: Location, given: str, files: dict[str, dict[str, Any]], missing: bool = False) -> Node:
    detail = f"{many(len(files), 'file')}, {size(sum(f['bytes'] for f in files.values()))}"
    prints = [f["fingerprint"] for _, f in sorted(files.items())]
    own = prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest()[:32]
    name = _shown(place) + (given[len(_fixed(given)) :] if given != _fixed(given) else "")
    return Node(name, holds="corpus", detail=detail, fingerprint=own if files else "", missing=missing)


def _tokenizer(place: Location) -> Node | None:
    from tinydata.tokenizers.base import fingerprint as of
    from tinydata.tokenizers.open import load, read_tokenizer

    try:
        tok = load(read_tokenizer(place.path), place.path)
    except TinydataError:
        return None
    return Node(_shown(place), holds="tokenizer", detail=f"{tok.family}, {tok.size:,} ids", fingerprint=of(tok))


# -- as text ----------------------------------------------------------------------------------


def text(roots: list[Node]) -> str:
    """Trees -> one line per node: role and path, producer, fingerprint, facts, and last what is wrong with it."""
    shown: set[int] = set()
    rows = [row for root in roots for row in _rows(root, "", "", "", "", shown)]
    return table([dict(zip("abcd", row, strict=True)) for row in rows], dict.fromkeys("abcd", ""))[1:]


def _rows(node: Node, lead: str, turn: str, role: str, note: str, shown: set[int]) -> Iterator[tuple[str, ...]]:
    name = node.path if role in ("", posixpath.basename(node.path)) else f"{role}: {node.path}"
    if id(node) in shown:
        yield (f"{lead}{turn}{name} (shown above)", "", "", note)
        return
    shown.add(id(node))
    wrong = f"DIFFERS FROM ITS MANIFEST: {node.problem}" if node.problem else ""
    facts = "; ".join(filter(None, (node.detail, note, wrong)))
    yield (f"{lead}{turn}{name}", node.by or node.holds, _short(node.fingerprint), facts)
    inner = lead + {"├─ ": "│  ", "└─ ": "   "}.get(turn, "")
    for n, edge in enumerate(node.edges):
        mark = {CHANGED: f"CHANGED SINCE: {edge.why}", MISSING: "MISSING"}.get(edge.state, "")
        yield from _rows(edge.to, inner, "└─ " if n == len(node.edges) - 1 else "├─ ", edge.role, mark, shown)


def _short(value: str) -> str:
    return value[:SHORT]
