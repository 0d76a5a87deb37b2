"""paths -> CorpusPlan -> record batches: the files of a corpus that are read, their formats and their splits."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.core.expand import expand
from tinydata.core.location import Location
from tinydata.core.output import MANIFEST
from tinydata.formats.base import USUAL, Bad, Split, Wanted
from tinydata.formats.domain import domain_of
from tinydata.formats.registry import READERS
from tinydata.formats.text_lines import codec
from tinydata.formats.text_lines import show as in_text
from tinydata.formats.writing import DOCUMENTS_ENDING

_COMPANIONS = (".idx", ".meta", ".ds.index", ".ds.metadata", ".loss", "meta.pkl", MANIFEST)  # they describe data files
_TABLES = ("quarantine.parquet", "pieces.parquet")  # tables in a directory that tinydata wrote, not documents


class CorpusPlan(NamedTuple):
    """Which files of a corpus are read, divided into splits, and which are not."""

    splits: list[Split]
    files: list[Location]
    unreadable: list[tuple[str, str]]  # (path, reason) of files that are quarantined entirely
    skipped: list[str]  # files of an unknown format
    said: list[str]  # files that were left out because they are read already, and what looks like a mistake

    @property
    def kind(self) -> str:
        """ "text" or "ids": a corpus never has both."""
        return self.splits[0].columns.kind


def plan(paths: list[str], wanted: Wanted = USUAL) -> CorpusPlan:
    """Corpora (files, directories, globs) -> CorpusPlan.

    Raises TinydataError (exit 3) if there is nothing to read, no file has a known format, a column
    does not exist, or text and token ids are mixed.
    """
    named, unlisted, said = expand(paths)
    with ThreadPoolExecutor(16) as pool:  # on object stores each inspection is a round trip
        inspected = list(pool.map(lambda pair: _inspect(pair[0], pair[1], wanted), named))
    known = [i for i in inspected if i.known]
    names = {name for _, name in named}
    corpus = CorpusPlan(
        splits=[split for i in known for split in i.splits],
        files=[i.file for i in known],
        unreadable=unlisted + [(i.file.path, i.unreadable) for i in known if i.unreadable is not None],
        skipped=[i.file.path for i in inspected if not i.known and not _accompanies_data(i.file, i.name, names)],
        said=said,
    )
    _check_readable(corpus, paths)
    _check_one_kind(corpus)
    return corpus


class _Inspected(NamedTuple):
    """What one file of a corpus turned out to be."""

    file: Location
    name: str  # path relative to the corpus
    known: bool  # whether its format is known
    splits: tuple[Split, ...] = ()
    unreadable: str | None = None  # the reason, if it cannot be read


def _inspect(file: Location, name: str, wanted: Wanted) -> _Inspected:
    form = _format_of(file)
    if not form:
        return _Inspected(file, name, known=False)
    if file.size == 0:
        return _Inspected(file, name, known=True)
    try:
        columns = READERS[form].columns(file, wanted)
        ranges = READERS[form].splits(file)
    except (pa.ArrowInvalid, OSError) as e:
        return _Inspected(file, name, known=True, unreadable=" ".join(str(e).split())[:200])
    domain = domain_of(name, file.parent.name)
    splits = [Split(file.absolute, name, domain, form, r.start, r.stop, r.bytes, columns) for r in ranges]
    return _Inspected(file, name, known=True, splits=tuple(splits))


def _format_of(file: Location) -> str:
    """Name of the first format that matches; "" if none does, or if the file is metadata."""
    if _is_metadata(file):
        return ""
    return next((name for name, form in READERS.items() if form.matches(file)), "")


def _is_metadata(file: Location) -> bool:
    """Whether a file belongs to a directory that tinydata wrote, and has a data format but no documents."""
    if file.name.endswith(DOCUMENTS_ENDING):
        return (file.parent / (file.name.removesuffix(DOCUMENTS_ENDING) + ".bin")).exists()
    return file.name == MANIFEST or (file.name in _TABLES and (file.parent / MANIFEST).exists())


def _accompanies_data(file: Location, name: str, names: set[str]) -> bool:
    """Whether a file of no known format describes others; `names`: of all files of the corpus."""
    bounds_of_npy = name.removesuffix(".csv.gz") + ".npy" in names  # dolma's
    return name.endswith(_COMPANIONS) or bounds_of_npy or _is_metadata(file)


def _check_readable(corpus: CorpusPlan, paths: list[str]) -> None:
    """Raises TinydataError (exit 3) if no file has a known format, or if none has anything to read."""
    if not corpus.files:
        raise TinydataError(
            "no file of a known format",
            where=", ".join(paths),
            fix="known formats: .jsonl .json (plain, .gz, .zst), .parquet, .txt, .mds, litdata chunks, and token ids in"
            " .bin/.idx (Megatron), .bin/.bin.meta (InternEvo), .ds (datatrove), .npy (dolma), .bin (llm.c, nanoGPT)",
            code=UNREADABLE,
        )
    if corpus.splits:
        return
    what, where = "the corpus is empty: all of its files are empty", ", ".join(paths)
    if corpus.unreadable:
        where, reason = corpus.unreadable[0]
        count = f"{len(corpus.unreadable)} of {len(corpus.files)} files unreadable"
        what = f"nothing to read: {count}, the rest empty ({reason})"
    fix = "check that the files were written or downloaded completely"
    raise TinydataError(what, where=where, fix=fix, code=UNREADABLE)


def _check_one_kind(corpus: CorpusPlan) -> None:
    """Raises TinydataError (exit 3) if some files have text and others token ids."""
    first = {split.columns.kind: split.path for split in reversed(corpus.splits)}
    if len(first) > 1:
        raise TinydataError(
            "the corpus mixes text and token ids",
            where=f"text: {first['text']}; ids: {first['ids']}",
            fix="process the two separately, or choose the column with --text-column or --ids-column",
            code=UNREADABLE,
        )


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """One split -> batches of TEXT or TOKENS, whose schema metadata has `path` and `name`; calls bad for the rest."""
    return READERS[split.format].read(split, bad)


def check_bad(bad: pa.Table, good: int, max_bad: float, corpus: CorpusPlan) -> None:
    """QUARANTINE table, number of usable documents -> TinydataError if too large a share (--max-bad) is unusable.

    Also raised if there is no document at all.
    """
    if len(bad) and len(bad) > max_bad * (good + len(bad)):
        first = bad.slice(0, 1).to_pylist()[0]
        outside = "outside the vocabulary" in first["reason"]
        raise TinydataError(
            f"{len(bad)} of {good + len(bad)} documents cannot be used, more than --max-bad {max_bad:g};"
            f" the first: {first['reason']}",
            where=_place(first, corpus),
            fix=(
                "the corpus was tokenized with a different tokenizer; pass that one with --tokenizer"
                if outside
                else "repair or remove the file, or allow more with --max-bad"
            ),
            code=FIXABLE if good else UNREADABLE,
        )
    if not good:
        raise TinydataError(
            "the corpus is empty: it has no documents",
            where=", ".join(f.path for f in corpus.files[:3]),
            fix="check that the files were written or downloaded completely",
            code=UNREADABLE,
        )


def _place(bad: dict[str, Any], corpus: CorpusPlan) -> str:
    """A row of QUARANTINE -> its location for an error message: path, row or byte, document, first characters."""
    form = next((s.format for s in corpus.splits if s.path == bad["path"]), "")
    parts = [bad["path"]]
    if form in ("parquet", "megatron"):
        parts.append(f"{'row' if form == 'parquet' else 'document'} {bad['position']}")
    elif form:
        parts.append(in_text(Location.of(bad["path"]), bad["position"]))
    if bad["doc_id"]:
        parts.append(f"document {bad['doc_id']}")
    return ", ".join(parts) + (f": {bad['excerpt']}" if bad["excerpt"] else "")


SAMPLE_BYTES = 64 << 20
_DISK_PER_BYTE = {"gzip": 0.3, "zstd": 0.28}  # compression of text; used only if no whole file fits into the sample


def notes(corpus: CorpusPlan) -> list[str]:
    """CorpusPlan -> notes for the user: what was inferred from the data because the files do not declare it."""
    paths_of: dict[str, list[str]] = {}
    for s in corpus.splits:
        if s.columns.note and s.path not in paths_of.setdefault(s.columns.note, []):
            paths_of[s.columns.note].append(s.path)
    return [
        f"note: {note} ({paths[0]}{f' and {len(paths) - 1} more' * (len(paths) > 1)})"
        for note, paths in paths_of.items()
    ] + [f"note: {text}" for text in corpus.said]


def sample_batches(corpus: CorpusPlan) -> tuple[list[Any], float]:
    """CorpusPlan -> (batches of a few splits spread over the corpus, the bytes on disk that they represent).

    Splits are read entirely, so that the ratio is right for compressed files too. The last one may
    be read in part; its bytes on disk are then estimated from the splits read so far.
    """
    step = max(1, len(corpus.splits) // 16)
    sample: list[Any] = []
    memory, disk = 0, 0.0
    for split in corpus.splits[::step]:
        before = memory
        for batch in read(split, lambda p, r, e: None):
            sample.append(batch)
            memory += batch.nbytes
            if memory >= SAMPLE_BYTES:
                rate = disk / before if before else _DISK_PER_BYTE.get(codec(split.path), 1.0)
                return sample, min(disk + rate * (memory - before), disk + split.bytes)
        disk += split.bytes
    return sample, max(disk, 1.0)
