"""What exactly is this made of: the chain of manifests behind a directory, as a graph and as a tree.

    model ─► run ─► round ─► scores ─► (the model that scored), shards ─► vocabulary ─► counts ─► corpus

Every directory says what it was made from, with the fingerprint that had then. Here these are followed, and
compared with what is there now. A relative path is looked for beside the directory that names it, where the
command is given, and further up; of several places, the one with the right fingerprint is taken.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinydata.artifacts.artifact import Made, damage, fingerprints, held, made
from tinydata.artifacts.sources import Source, sources
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.location import Location, fingerprint
from tinydata.core.text import many, size, table

LOOKED_AT = 1000  # files of a corpus whose fingerprints are compared
SHORT = 12  # letters of a fingerprint in the tree
CHANGED, GONE = "changed since", "gone"


@dataclass
class Node:
    """One directory, or one corpus or tokenizer. `problem`: what is wrong with it by its own manifest."""

    path: str
    by: str = ""
    holds: str = ""
    detail: str = ""
    fingerprint: str = ""
    problem: str = ""
    gone: bool = False
    edges: list[Edge] = field(default_factory=list)


class Edge(NamedTuple):
    role: str
    to: Node
    state: str  # "", CHANGED or GONE
    why: str  # what changed


def lineage(paths: list[str]) -> tuple[dict[str, Any], str]:
    """Directories -> (graph as JSON, trees as text). Raises TinydataError where nothing says what made one."""
    graph = Graph()
    roots = [graph.walk(_root(path)) for path in paths]
    return graph.json(roots), text(roots)


def _root(path: str) -> Made:
    found = made(path)
    if found is not None:
        return found
    raise TinydataError(
        "nothing here says what it was made of" if Location.of(path).exists() else "there is no such directory",
        where=path,
        fix="name a directory that tinydata or the trainer wrote: a model, a run, a round, scores, shards, …",
        code=UNREADABLE,
    )


class Graph:
    """Nodes by where they are; each is opened once."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._prints: dict[str, dict[str, str]] = {}

    def walk(self, d: Made) -> Node:
        """A directory and all behind it. A chain is as long as rounds are many: recursion is deep enough."""
        key = d.where.absolute
        if key in self.nodes:
            return self.nodes[key]
        what = held(d)
        prints = fingerprints(d)
        self._prints[key] = prints
        own = next((v for kind, v in prints.items() if kind != "step"), "")
        node = Node(_shown(d.where), d.by, what.holds, what.detail, own, damage(d))
        self.nodes[key] = node
        node.edges = [self._follow(d, s) for s in sources(d)]
        return node

    def _follow(self, d: Made, s: Source) -> Edge:
        if s.role == "corpus":
            return self._corpus(d, s)
        best: tuple[Node, list[str]] | None = None
        for place in _places(d, s.paths):
            node = self._open(place, s.role)
            if node is None:
                continue
            differs = self._differences(place, s)
            if best is None or (best[1] and not differs):
                best = node, differs
            if not differs:
                break
        if best is None:
            place = _places(d, s.paths)[0]
            key = place.absolute
            if key not in self.nodes:
                known = next(iter(s.wanted.values()), "")
                self.nodes[key] = Node(_shown(place), holds=s.role, detail=s.hint, fingerprint=known, gone=True)
            return Edge(s.role, self.nodes[key], GONE, "")
        return Edge(s.role, best[0], CHANGED if best[1] else "", "; ".join(best[1]))

    def _open(self, place: Location, role: str) -> Node | None:
        """What is there now, with all behind it; None if it is nothing that has this role."""
        found = made(place)
        if found is not None:
            return self.walk(found)
        if role != "tokenizer" or not place.exists():
            return None
        key = place.absolute
        if key not in self.nodes:
            told = _tokenizer(place)
            if told is None:
                return None
            self.nodes[key], self._prints[key] = told, {"tokenizer": told.fingerprint}
        return self.nodes[key]

    def _differences(self, place: Location, s: Source) -> list[str]:
        now = self._prints.get(place.absolute, {})
        if "tokenizer" in s.wanted and "tokenizer" not in now:  # of a model's directory
            told = _tokenizer(place)
            now = {**now, **({"tokenizer": told.fingerprint} if told else {})}
        out = [
            f"{kind} {_short(was)} then, {_short(now[kind])} now" if kind in now else f"{kind} {_short(was)} then"
            for kind, was in s.wanted.items()
            if now.get(kind) != was
        ]
        return out + _changed_files(place, s.files)

    def _corpus(self, d: Made, s: Source) -> Edge:
        """Files, some of which may be gone or changed; a directory that was made here is followed."""
        fixed = _fixed(s.paths[0])
        places = _places(d, [fixed])
        there = [p for p in places if p.exists()]
        if not there:
            key = places[0].absolute
            self.nodes.setdefault(key, _files_node(places[0], s.paths[0], s.files, gone=True))
            return Edge(s.role, self.nodes[key], GONE, "")
        place, changed = there[0], _changed_below(there[0], fixed, s.files)
        for other in there[1:] if changed else []:
            if not _changed_below(other, fixed, s.files):
                place, changed = other, []
                break
        found = made(place)
        key = place.absolute
        node = self.walk(found) if found else self.nodes.setdefault(key, _files_node(place, s.paths[0], s.files))
        return Edge(s.role, node, CHANGED if changed else "", "; ".join(changed))

    def json(self, roots: list[Node]) -> dict[str, Any]:
        """{roots, nodes, edges}; a node's name is its path as it is shown. What is empty or false is left out."""
        nodes = [{k: v for k, v in vars(n).items() if k != "edges" and v} for n in self.nodes.values()]
        edges = []
        for n in self.nodes.values():
            for e in n.edges:
                about = {k: v for k, v in (("state", e.state), ("why", e.why)) if v}
                edges.append({"from": n.path, "to": e.to.path, "as": e.role, **about})
        return {"roots": [n.path for n in roots], "nodes": nodes, "edges": edges}


# -- where things are -------------------------------------------------------------------------


def _places(d: Made, paths: list[str]) -> list[Location]:
    """Where a path may be meant, most likely first: beside the directory, here, further up; never empty."""
    out: list[Location] = []
    for path in paths:
        if "://" in path or posixpath.isabs(path):
            out.append(Location.of(path))
            continue
        home = d.where.parent
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
    """As short as it can be said from here."""
    if not where.local:
        return where.path
    relative = os.path.relpath(where.absolute)
    return where.absolute if relative.startswith("..") else relative


def _fixed(path: str) -> str:
    """A glob -> the folder above its first star; anything else stays."""
    while any(c in path for c in "*?["):
        path = posixpath.dirname(path)
    return path or "."


# -- files ------------------------------------------------------------------------------------


def _changed_files(directory: Location | None, files: dict[str, dict[str, Any]]) -> list[str]:
    """{name in the directory, or path: {bytes, fingerprint}} -> one sentence if some are other ones now, or gone."""
    step = -(-len(files) // LOOKED_AT)
    looked = list(files.items())[:: max(step, 1)]

    def differs(item: tuple[str, dict[str, Any]]) -> str:
        name, was = item
        file = directory / name if directory else Location.of(name)
        if not file.exists():
            return f"{name} is gone"
        now = fingerprint(file)
        return "" if now == {k: was[k] for k in now} else f"{name} has {size(now['bytes'])}, {size(was['bytes'])} then"

    with ThreadPoolExecutor(16) as pool:
        found = [x for x in pool.map(differs, looked) if x]
    if not found:
        return []
    if len(files) == 1:
        return found
    return [f"{len(found):,} of {many(len(looked), 'file')} differ: {', '.join(found[:3])}" + ", …" * (len(found) > 3)]


def _changed_below(place: Location, fixed: str, files: dict[str, dict[str, Any]]) -> list[str]:
    """Files by the path they had when `fixed` was where `place` is now."""
    base = place.path[: len(place.path) - len(fixed)] if place.path.endswith(fixed) else ""
    return _changed_files(None, {base + name: about for name, about in files.items()})


def _files_node(place: Location, told: str, files: dict[str, dict[str, Any]], gone: bool = False) -> Node:
    detail = f"{many(len(files), 'file')}, {size(sum(f['bytes'] for f in files.values()))}"
    prints = [f["fingerprint"] for _, f in sorted(files.items())]
    own = prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest()[:32]
    name = _shown(place) + (told[len(_fixed(told)) :] if told != _fixed(told) else "")
    return Node(name, holds="corpus", detail=detail, fingerprint=own if files else "", gone=gone)


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
    """One line a directory: what it was to the one above, path, verb, fingerprint, facts; what is wrong stands last."""
    told: set[int] = set()
    rows = [row for root in roots for row in _rows(root, "", "", "", "", told)]
    return table([dict(zip("abcd", row, strict=True)) for row in rows], dict.fromkeys("abcd", ""))[1:]


def _rows(node: Node, lead: str, turn: str, role: str, note: str, told: set[int]) -> Iterator[tuple[str, ...]]:
    name = node.path if role in ("", posixpath.basename(node.path)) else f"{role}: {node.path}"
    if id(node) in told:
        yield (f"{lead}{turn}{name} (above)", "", "", note)
        return
    told.add(id(node))
    wrong = f"NOT AS ITS MANIFEST SAYS: {node.problem}" if node.problem else ""
    facts = "; ".join(filter(None, (node.detail, note, wrong)))
    yield (f"{lead}{turn}{name}", node.by or node.holds, _short(node.fingerprint), facts)
    inner = lead + {"├─ ": "│  ", "└─ ": "   "}.get(turn, "")
    for n, edge in enumerate(node.edges):
        mark = {CHANGED: f"CHANGED SINCE: {edge.why}", GONE: "GONE"}.get(edge.state, "")
        yield from _rows(edge.to, inner, "└─ " if n == len(node.edges) - 1 else "├─ ", edge.role, mark, told)


def _short(value: str) -> str:
    return value[:SHORT]
