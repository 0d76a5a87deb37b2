"""paths -> CorpusPlan -> record batches: the files of a corpus that are read, their formats and their splits."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinydata.core.errors import FIXABLE, UNREADABLE, TinydataError
from tinydata.core.expand import expand
from tinydata.core.location import Location
from tinydata.core.output import MANIFEST
from tinydata.core.quarantine import Unusable, weights
from tinydata.core.text import many
from tinydata.formats.base import USUAL, Bad, NoDocuments, NotData, Split, Wanted
from tinydata.formats.domain import domain_of
from tinydata.formats.registry import READERS
from tinydata.formats.strangers import advice, is_about_data
from tinydata.formats.text_lines import codec
from tinydata.formats.text_lines import show as in_text
from tinydata.formats.writing import DOCUMENTS_ENDING

_COMPANIONS = (".idx", ".meta", ".ds.index", ".ds.metadata", ".loss", "meta.pkl", MANIFEST)  # they describe data files
_TABLES = ("quarantine.parquet", "pieces.parquet")  # tables in a directory that tinydata wrote, not documents
_ONE_DOMAIN = ("txt", "whole_file")


class CorpusPlan(NamedTuple):
    """Which files of a corpus are read, divided into splits, and which are not."""

    splits: list[Split]
    files: list[Location]
    unreadable: list[Unusable]  # files that are quarantined entirely
    skipped: list[str]  # files of an unknown format
    said: list[str]  # files that were left out because they are read already, and what looks like a mistake
    given_by: list[int]  # of each of the files, the number of the path that it was found with

    @property
    def kind(self) -> str:
        """ "text" or "ids": a corpus never has both."""
        return self.splits[0].columns.kind


def plan(paths: list[str], wanted: Wanted = USUAL) -> CorpusPlan:
    """Corpora (files, directories, globs) -> CorpusPlan.

    Raises TinydataError (exit 3) if there is nothing to read, no file has a known format, a column
    does not exist, or text and token ids are mixed.
    """
    _check_paths(paths, wanted)
    named, unlisted, said, given_by = expand(paths)
    given = {Location.of(path).path for path in paths}  # files that the user named are read whatever their name
    with ThreadPoolExecutor(16) as pool:  # on object stores each inspection is a round trip
        tasks = [
            (file, name, wanted.of(n), file.path in given) for (file, name), n in zip(named, given_by, strict=True)
        ]
        inspected = list(pool.map(lambda task: _inspect(*task), tasks))
    by_path = [n for i, n in zip(inspected, given_by, strict=True) if i.known]
    known = _of_one_kind([i for i in inspected if i.known])
    if (errors := [i.error for i in known if i.error]) and not any(i.splits for i in known):
        raise errors[0]
    strangers = [f"{i.file.path} is left out: {i.stranger}" for i in inspected if i.stranger]
    names = {name for _, name in named}
    corpus = CorpusPlan(
        splits=[split for i in known for split in i.splits],
        files=[i.file for i in known],
        unreadable=[Unusable(path, 0, reason, documents=1) for path, reason in unlisted]
        + [_unusable(i.file, i.unreadable) for i in known if i.unreadable is not None],
        skipped=[i.file.path for i in inspected if not i.known and not _accompanies_data(i.file, i.name, names)],
        said=said + strangers,
        given_by=by_path,
    )
    _check_readable(corpus, paths, [i for i in inspected if i.stranger])
    return corpus


def _check_paths(paths: list[str], wanted: Wanted) -> None:
    """Raises TinydataError if the columns are named path by path, and not for these paths."""
    if wanted.each and len(wanted.each) != len(paths):
        raise TinydataError(
            f"there is a value for each of {many(len(wanted.each), 'path')}; the corpus has {many(len(paths), 'path')}",
            where=", ".join(
                f"{name.replace('doc_id', 'id')} = {v}" for name, v in wanted.given.items() if isinstance(v, list)
            ),
            fix="give one value for all paths of the corpus, or one for each, in their order",
        )


def _unusable(file: Location, reason: str) -> Unusable:
    return Unusable(file.path, 0, reason, documents=0, bytes=file.size)


class _Inspected(NamedTuple):
    """What one file of a corpus turned out to be."""

    file: Location
    name: str  # path relative to the corpus
    known: bool  # whether its format is known
    splits: tuple[Split, ...] = ()
    unreadable: str | None = None  # the reason, if it cannot be read
    error: TinydataError | None = None  # what the user can do about it
    stranger: str = ""  # why it is not data, though its format is known


def _inspect(file: Location, name: str, wanted: Wanted, given: bool) -> _Inspected:
    form = _format_of(file, wanted)
    if form == "txt" and not given and is_about_data(file.name):
        return _Inspected(
            file, name, known=False, stranger="by its name it is about the data; name the file to read it"
        )
    if not form:
        return _Inspected(file, name, known=False)
    if file.size == 0:
        return _Inspected(file, name, known=True)
    hive = dict(part.split("=", 1) for part in file.path.split("/")[:-1] if "=" in part)  # as Spark partitions tables
    domain = domain_of(name, file.parent.name)
    if wanted.domain in hive:
        domain = unquote(hive[wanted.domain])
    elif form in _ONE_DOMAIN and not given and "/" not in name:  # a directory of texts is one domain, not one per file
        domain = file.parent.name if file.parent.name not in ("", ".", "..") else "text"
    try:
        columns = READERS[form].columns(file, wanted._replace(domain="") if wanted.domain in hive else wanted)
        ranges = READERS[form].splits(file)
    except pa.ArrowCancelled:  # Ctrl-C
        raise
    except NoDocuments:
        return _Inspected(file, name, known=True)
    except NotData as e:
        return _Inspected(file, name, known=False, stranger=str(e))
    except (pa.ArrowException, OSError, EOFError) as e:
        return _Inspected(file, name, known=True, unreadable=" ".join(str(e).split())[:200])
    except TinydataError as e:
        return _Inspected(file, name, known=True, unreadable=e.what, error=e)
    splits = [Split(file.absolute, name, domain, form, r.start, r.stop, r.bytes, columns) for r in ranges]
    return _Inspected(file, name, known=True, splits=tuple(splits))


def _format_of(file: Location, wanted: Wanted) -> str:
    """Name of the first format that matches; "" if none does, or if the file is metadata."""
    if any(fnmatch.fnmatch(file.name, pattern.strip()) for pattern in wanted.as_text.split(",")):
        return "whole_file"
    if _is_metadata(file):
        return ""
    return next((name for name, form in READERS.items() if form.matches(file)), "") or _by_content(file)


def _by_content(file: Location) -> str:
    """The format of a file whose name has no ending, such as part-00000; "" if its first bytes do not tell."""
    if "." in file.name or not file.size:
        return ""
    with file.open() as f:
        head = f.read(64)
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else ""


def _is_metadata(file: Location) -> bool:
    """Whether a file belongs to a directory that tinydata wrote, and has a data format but no documents."""
    if file.name.endswith(DOCUMENTS_ENDING):
        return (file.parent / (file.name.removesuffix(DOCUMENTS_ENDING) + ".bin")).exists()
    return file.name == MANIFEST or (file.name in _TABLES and (file.parent / MANIFEST).exists())


def _accompanies_data(file: Location, name: str, names: set[str]) -> bool:
    """Whether a file of no known format describes others; `names`: of all files of the corpus."""
    bounds_of_npy = name.removesuffix(".csv.gz") + ".npy" in names  # dolma's
    mask_of_npy = "labels_mask" in name and name.replace("labels_mask", "token_ids") in names  # open-instruct's
    return name.endswith(_COMPANIONS) or bounds_of_npy or mask_of_npy or _is_metadata(file)


def _check_readable(corpus: CorpusPlan, paths: list[str], strangers: list[_Inspected]) -> None:
    """Raises TinydataError (exit 3) if no file has a known format, or if none has anything to read."""
    if not corpus.splits and strangers:
        raise TinydataError(
            f"nothing to read: {strangers[0].stranger}",
            where=strangers[0].file.path,
            fix="pass the files that have the documents; --text-column or --ids-column chooses another column",
            code=UNREADABLE,
        )
    if not corpus.files:
        raise TinydataError(
            "no file of a known format",
            where=", ".join(paths),
            fix=advice(corpus.skipped),
            code=UNREADABLE,
        )
    if corpus.splits:
        return
    what, where = "the corpus is empty: all of its files are empty", ", ".join(paths)
    if corpus.unreadable:
        where, reason = corpus.unreadable[0].path, corpus.unreadable[0].reason
        count = f"{len(corpus.unreadable)} of {len(corpus.files)} files unreadable"
        what = f"nothing to read: {count}, the rest empty ({reason})"
    fix = "check that the files were written or downloaded completely"
    raise TinydataError(what, where=where, fix=fix, code=UNREADABLE)


def _of_one_kind(inspected: list[_Inspected]) -> list[_Inspected]:
    """The files of a corpus, those of the rarer kind (text among token ids, or the reverse) marked as unreadable.

    Raises TinydataError (exit 3) if the rarer kind has a tenth of the bytes or more: then neither can be meant.
    """
    size = {"text": 0, "ids": 0}
    first: dict[str, str] = {}
    for file in inspected:
        for split in file.splits:
            size[split.columns.kind] += split.bytes
            first.setdefault(split.columns.kind, split.path)
    rarer, other = sorted(size, key=size.__getitem__)
    if not size[rarer]:
        return inspected
    if 10 * size[rarer] >= size[other]:
        raise TinydataError(
            "the corpus mixes text and token ids",
            where=f"text: {first['text']}; ids: {first['ids']}",
            fix="process the two separately, or choose the column with --text-column or --ids-column",
            code=UNREADABLE,
        )
    reason = f"it has {_KINDS[rarer]}, and most files of the corpus have {_KINDS[other]}"
    odd = [bool(i.splits) and i.splits[0].columns.kind == rarer for i in inspected]
    return [i._replace(splits=(), unreadable=reason) if o else i for i, o in zip(inspected, odd, strict=True)]


_KINDS = {"text": "text", "ids": "token ids"}


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    """One split -> batches of TEXT or TOKENS, whose schema metadata has `path` and `name`; calls bad for the rest."""
    try:
        yield from READERS[split.format].read(split, bad)
    except pa.ArrowCancelled:  # Ctrl-C
        raise
    except (pa.ArrowException, OSError, EOFError) as e:  # what a reader did not expect must not end the run
        if (
            isinstance(e, OSError) and not Location.of(split.path).local
        ):  # it may work the next time: not a lost document
            raise
        bad(split.start, f"it cannot be read: {' '.join(str(e).split())[:200]}", b"", documents=0, size=split.bytes)


def check_bad(bad: pa.Table, good: int, max_bad: float, corpus: CorpusPlan) -> None:
    """QUARANTINE table, number of usable documents -> TinydataError if too large a share (--max-bad) is unusable.

    Also raised if there is no document at all.
    """
    weight = weigh(bad, good, corpus)
    lost = int(weight.sum())
    if lost and lost > max_bad * (good + lost):
        row = int(np.argmax(weight)) if weight.max() > lost / 2 else 0
        worst = bad.slice(row, 1).to_pylist()[0]
        outside = "outside the vocabulary" in worst["reason"]
        about = "about " if pc.max(bad["bytes"]).as_py() else ""
        most = ("; most of them: " if row else "; the first: ") + _share_of_file(worst, corpus)
        raise TinydataError(
            f"{about}{lost:,} of {good + lost:,} documents cannot be used, more than --max-bad {max_bad:g}{most}",
            where=_place(worst, corpus),
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


def weigh(bad: pa.Table, good: int, corpus: CorpusPlan) -> np.ndarray:
    """QUARANTINE -> documents that each row stands for, int64[rows], estimated where their number is unknown."""
    size = sum(s.bytes for s in corpus.splits) + sum(u.bytes for u in corpus.unreadable)
    return weights(bad, good, max(size - sum(bad["bytes"].to_pylist()), size // 10))


def _share_of_file(bad: dict[str, Any], corpus: CorpusPlan) -> str:
    """A row of QUARANTINE -> its reason and, if it stands for a part of a file, how large a part."""
    sizes = [s.bytes for s in corpus.splits if s.path == bad["path"]]
    whole = sum(sizes) or bad["bytes"]
    share = f", {min(bad['bytes'] / whole, 1):.0%} of the file" if bad["bytes"] and whole else ""
    documents = f", {bad['documents']:,} documents" if bad["documents"] > 1 else ""
    return bad["reason"] + documents + share


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


SAID = 10  # files that are named, of those that are left out or read once
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
    ] + _some([f"note: {text}" for text in corpus.said])


def not_read(corpus: CorpusPlan) -> list[str]:
    """CorpusPlan -> which of the files, and what share of the bytes, are of no known format or cannot be read."""
    lines = []
    if corpus.skipped:
        total = sum(s.bytes for s in corpus.splits) + (left := sum(Location.of(p).size for p in corpus.skipped))
        names = ", ".join(corpus.skipped[:6])
        lines.append(f"not read: {many(len(corpus.skipped), 'file')}, {left / total:.0%} of the bytes: {names}")
    if corpus.unreadable:
        worst = corpus.unreadable[0]
        lines.append(f"cannot be read: {many(len(corpus.unreadable), 'file')}, such as {worst.path} ({worst.reason})")
    return lines


def _some(lines: list[str]) -> list[str]:
    return lines if len(lines) <= SAID else [*lines[:SAID], f"note: and {len(lines) - SAID:,} more of this kind"]


def ignore_bad(position: int, reason: str, start: bytes, /, *, documents: int = 1, size: int = 0) -> None:
    """A `bad` for samples: the run itself reports what cannot be used."""


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
        for batch in read(split, ignore_bad):
            sample.append(batch)
            memory += batch.nbytes
            if memory >= SAMPLE_BYTES:
                rate = disk / before if before else _DISK_PER_BYTE.get(codec(split.path), 1.0)
                return sample, min(disk + rate * (memory - before), disk + split.bytes)
        disk += split.bytes
    return sample, max(disk, 1.0)
