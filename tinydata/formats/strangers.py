"""Files among data that are not read: which are left out by their name, and what to do about unknown formats."""

from __future__ import annotations

import re

from tinydata.formats.text_lines import plain_name

# Text files that come with data and describe it.
_ABOUT_DATA = re.compile(
    r"(readme|licen[cs]e|copying|notice|authors|contributors|changelog|changes|requirements|robots|cmakelists|urls?"
    r"|checksums?|md5sums?|sha\d+sums?|manifest|version)([^a-z/].*)?\.txt(\.\w+)?$",
    re.IGNORECASE,
)

KNOWN = (
    "known formats: .jsonl .json .csv .tsv .txt (plain, .gz, .zst, .bz2, .xz), .parquet, .arrow, .mds, litdata chunks,"
    " and token ids in .bin/.idx (Megatron), .bin/.bin.meta (InternEvo), .ds (datatrove), .npy (dolma), .bin (llm.c,"
    " nanoGPT)"
)
_WEB, _PACKED = (".warc", ".wet", ".wat", ".arc"), (".zip", ".tar", ".tgz", ".7z", ".rar", ".lz4", ".br", ".lzma", ".z")
_TABLES = (".xlsx", ".xls", ".ods", ".db", ".sqlite", ".avro", ".orc")
_INSTEAD = {  # endings of files that are not read, and what makes text of them
    _WEB: "extract the text of web archives first, for example with datatrove",
    _PACKED: "unpack archives first; single files may be compressed as .gz, .zst, .bz2 or .xz",
    _TABLES: "write the table as Parquet or CSV first",
    (".pdf", ".epub", ".docx", ".html", ".htm", ".xml"): "extract the text first",
    (".md", ".rst", ".tex", ".py", ".js", ".c", ".h", ".cpp", ".java", ".go", ".rs"): "read text files of other endings"
    " with --read-as-text, for example '*.md,*.py'",
}


def is_about_data(name: str) -> bool:
    """Whether a file is about data by its name: LICENSE.txt, requirements.txt."""
    return bool(_ABOUT_DATA.match(name))


def holds_data(name: str) -> bool:
    """Whether a file of an unknown format most likely has documents, so that leaving it out is a loss."""
    return plain_name(name).endswith(_WEB + _PACKED + _TABLES)


def advice(paths: list[str]) -> str:
    """What to do about files of unknown formats."""
    names = [name for path in paths for name in (path.lower(), plain_name(path))]
    return "; ".join([*(text for ends, text in _INSTEAD.items() if any(n.endswith(ends) for n in names)), KNOWN])
