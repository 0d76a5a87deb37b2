"""What `tinydata init` prints about a corpus: what it will read as what, and what it leaves out."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from tinydata.core.location import Location
from tinydata.core.text import many
from tinydata.formats.corpus import CorpusPlan, ignore_bad, read

SHOWN = 6  # domains and files that are named


def corpus_text(corpus: CorpusPlan) -> list[str]:
    """Formats and columns, domains by size, the first document, and what is not read, a line each."""
    lines = []
    for (form, columns), _ in Counter((s.format, s.columns) for s in corpus.splits).most_common(SHOWN):
        used = {"domains": columns.domain, "ids of documents": columns.doc_id}
        also = "".join(f", {what} in {name!r}" for what, name in used.items() if name)
        lines.append(f"  {form}: {corpus.kind} in {columns.text or columns.ids!r}{also}")
    sizes: Counter[str] = Counter()
    for split in corpus.splits:
        if not split.columns.domain:
            sizes[split.domain] += split.bytes
    if sizes:
        named = ", ".join(name for name, _ in sizes.most_common(SHOWN))
        more = f" and {len(sizes) - SHOWN} more" if len(sizes) > SHOWN else ""
        lines.append(f"  domains by file or folder: {named}{more}")
    first = next(islice(read(corpus.splits[0], ignore_bad), 1), None)
    if first is not None and len(first):
        text = str(first.column(3)[0].as_py() if corpus.kind == "text" else first.column(3)[0].as_py()[:16])
        lines.append(f"  the first document begins: {' '.join(text.split())[:70]!r}")
    if corpus.skipped:
        total = sum(s.bytes for s in corpus.splits) + (left := sum(Location.of(p).size for p in corpus.skipped))
        names = ", ".join(corpus.skipped[:SHOWN])
        lines.append(f"  not read: {many(len(corpus.skipped), 'file')}, {left / total:.0%} of the bytes: {names}")
    if corpus.unreadable:
        worst = corpus.unreadable[0]
        lines.append(f"  cannot be read: {many(len(corpus.unreadable), 'file')}, such as {worst.path} ({worst.reason})")
    return lines
