"""What `tinydata init` prints about a corpus: what it will read as what, and what it leaves out."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from tinydata.formats.base import Split
from tinydata.formats.corpus import CorpusPlan, ignore_bad, not_read, read

SHOWN = 6  # domains that are named


def corpus_text(corpus: CorpusPlan, paths: list[str]) -> list[str]:
    """Of each path: formats and columns, domains by size, the first document; then what is not read; a line each."""
    path_of = {file.absolute: number for file, number in zip(corpus.files, corpus.given_by, strict=True)}
    lines = []
    for number, path in enumerate(paths):
        splits = [split for split in corpus.splits if path_of[split.path] == number]
        lines += [f" {path}"] * (len(paths) > 1) + (
            _source_text(splits, corpus.kind) if splits else ["  nothing to read"]
        )
    return [*lines, *(f"  {line}" for line in not_read(corpus))]


def _source_text(splits: list[Split], kind: str) -> list[str]:
    lines = []
    for (form, columns), _ in Counter((s.format, s.columns) for s in splits).most_common(SHOWN):
        used = {"domains": columns.domain, "ids of documents": columns.doc_id}
        also = "".join(f", {what} in {name!r}" for what, name in used.items() if name)
        lines.append(f"  {form}: {kind} in {columns.text or columns.ids!r}{also}")
    sizes: Counter[str] = Counter()
    for split in splits:
        if not split.columns.domain:
            sizes[split.domain] += split.bytes
    if sizes:
        named = ", ".join(name for name, _ in sizes.most_common(SHOWN))
        more = f" and {len(sizes) - SHOWN} more" if len(sizes) > SHOWN else ""
        lines.append(f"  domains by file or folder: {named}{more}")
    first = next(islice(read(splits[0], ignore_bad), 1), None)
    if first is not None and len(first):
        text = str(first.column(3)[0].as_py() if kind == "text" else first.column(3)[0].as_py()[:16])
        lines.append(f"  the first document begins: {' '.join(text.split())[:70]!r}")
    return lines
