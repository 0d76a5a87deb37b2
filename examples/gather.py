"""gather.py OUT.jsonl [SAMPLE.jsonl [MEGABYTES]]: the Python installation's sources and documentation as a corpus.

Domains: stdlib, tests and packages (source files), documentation (docstrings, .rst, .txt, .md). It is 48 MB of text
without another number. The sample is a twentieth of the documents, by the hash of their id.
"""

import ast
import json
import os
import sys
import sysconfig
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

SAMPLE = 20  # one document of so many
TEXT = {".rst", ".txt", ".md"}


def files() -> Iterator[tuple[str, Path]]:
    """(domain, path), the standard library first, then what is installed."""
    stdlib, packages = (Path(sysconfig.get_paths()[k]) for k in ("stdlib", "purelib"))
    for path in sorted(stdlib.rglob("*")):
        if "site-packages" not in path.parts and "dist-packages" not in path.parts:
            yield "tests" if {"test", "tests"} & set(path.parts) else "stdlib", path
    for path in sorted(packages.rglob("*")):
        yield "packages", path


def documents(domain: str, path: Path) -> Iterator[tuple[str, str, str]]:
    """(doc_id, domain, text) of one file: its source, and its docstrings as a document of their own."""
    if path.suffix not in TEXT | {".py"} or not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return
    name = "/".join(path.parts[-4:])
    if path.suffix in TEXT:
        yield name, "documentation", text
        return
    yield name, domain, text
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docs = [d for node in ast.walk(tree) if isinstance(node, kinds) and (d := ast.get_docstring(node))]
    if docs:
        yield name + "#docstrings", "documentation", "\n\n".join(docs)


def main(out: str, sample: str = "", megabytes: str = "48") -> None:
    warnings.simplefilter("ignore", SyntaxWarning)
    written, size, limit = 0, 0, float(megabytes) * 1e6
    parts = [f"{path}.part" for path in (out, sample) if path]
    with ExitStack() as stack:
        every, *some = (stack.enter_context(open(part, "w", encoding="utf-8")) for part in parts)
        for domain, path in files():
            if size >= limit:  # parsing what is installed besides would take minutes
                break
            for doc_id, label, text in documents(domain, path):
                if len(text) > 200 and size < limit:
                    line = json.dumps({"doc_id": doc_id, "domain": label, "text": text}, ensure_ascii=False) + "\n"
                    every.write(line)
                    if some and zlib.crc32(doc_id.encode()) % SAMPLE == 0:
                        some[0].write(line)
                    written += 1
                    size += len(text.encode())
    for part in parts:  # killed before, there is neither
        os.replace(part, part.removesuffix(".part"))
    print(f"{written:,} documents, {size / 1e6:.1f} MB of text")


if __name__ == "__main__":
    main(*sys.argv[1:])
