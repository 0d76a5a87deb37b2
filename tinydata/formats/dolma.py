"""dolma's and OLMo's ids: `x.npy`, which contains only ids of an undeclared type, with its documents in `x.csv.gz`.

.csv.gz: no header; start, end (in tokens, exclusive) and, optionally, id, source, line. A real npy array
of one dimension is read too. Without .csv.gz the end-of-text id separates documents.
Source: dolma python/dolma/tokenizer/memmap_writer.py, OLMo-core data/numpy_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from tinydata.core.location import Location
from tinydata.formats import dtype_evidence, token_files
from tinydata.formats.base import Bad, Columns, Split, SplitRange, Wanted

MAGIC = b"\x93NUMPY"
_IDS, _MASK = "token_ids", "labels_mask"


def matches(file: Location) -> bool:
    return file.name.endswith(".npy") and not _ids_of_mask(file)


def _ids_of_mask(file: Location) -> bool:
    """Whether a file is the mask of another one, as open-instruct caches them: labels_mask_… with token_ids_…"""
    return _MASK in file.name and (file.parent / file.name.replace(_MASK, _IDS)).exists()


def _mask_of(file: Location) -> Location | None:
    """The file with a byte per token of `file`, 1 where it carries loss; None if there is none."""
    mask = file.parent / file.name.replace(_IDS, _MASK)
    return mask if _IDS in file.name and mask.exists() else None


def columns(file: Location, wanted: Wanted) -> Columns:
    """Raises OSError for an array that does not contain ids, and for documents that do not fit them."""
    header, dtype = _header(file)
    data, note = dtype_evidence.sample(file, header, file.size - header), ""
    if dtype is None:
        dtype, note = dtype_evidence.infer_dtype(data, file.size, wanted, file, "the file is not a real npy array")
    if not _bounds_of(file).exists():
        if _mask_of(file):
            raise OSError(f"it has a mask, {_MASK}, but no document boundaries in {_bounds_of(file).name}")
        return dtype_evidence.separated(data, dtype, wanted.eos, note)
    end = int(_bounds(file).first[-1])
    mask = _mask_of(file)
    if mask and mask.size != end:
        raise OSError(f"{mask.name} has {mask.size} bytes for {end} tokens")
    if header + end * dtype.itemsize != file.size:
        raise OSError(f"it has {file.size} bytes, its .csv.gz says {header + end * dtype.itemsize}")
    return Columns(ids="ids", types=(("ids", dtype.name),), note=note)


class _Header(NamedTuple):
    size: int  # bytes before the ids
    dtype: np.dtype | None  # None: not declared


def _header(file: Location) -> _Header:
    """x.npy -> its npy header; one of no bytes if it does not have any."""
    with file.open() as f:
        if f.read(len(MAGIC)) != MAGIC:
            return _Header(0, None)
        f.seek(0)
        try:
            version = np.lib.format.read_magic(f)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(f)
        except ValueError as e:
            raise OSError(f"its npy header is broken: {e}") from None
        header = f.tell()
    if len(shape) != 1 or dtype.kind not in "iu" or not dtype.isnative:
        raise OSError(f"it is an array of {dtype} in {len(shape)} dimensions, not a row of token ids")
    if header + shape[0] * dtype.itemsize != file.size:
        raise OSError(f"it has {file.size} bytes, its header says {header + shape[0] * dtype.itemsize}")
    return _Header(header, dtype)


class _Bounds(NamedTuple):
    first: np.ndarray  # first token of each document, int64[documents + 1]
    doc_id: pa.Array | None


def _bounds_of(file: Location) -> Location:
    return file.parent / (file.name.removesuffix(".npy") + ".csv.gz")


def _bounds(file: Location) -> _Bounds:
    bounds = _bounds_of(file)
    return _read_bounds(bounds, bounds.changed)


@lru_cache(maxsize=2)  # splits of one file follow one another
def _read_bounds(file: Location, changed: int) -> _Bounds:
    options = pv.ReadOptions(use_threads=False, autogenerate_column_names=True)
    types = {"f0": pa.int64(), "f1": pa.int64(), "f2": pa.string()}
    try:
        with file.open() as f:
            convert = pv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
            rows = pv.read_csv(pa.CompressedInputStream(f, "gzip"), options, convert_options=convert)
    except (pa.ArrowInvalid, OSError) as e:
        raise OSError(f"{file.name} cannot be read: {' '.join(str(e).split())[:120]}") from None
    if rows.num_columns < 2 or rows["f0"].null_count or rows["f1"].null_count:
        raise OSError(f"{file.name} has no start and end for each document")
    start, end = rows["f0"].to_numpy(), rows["f1"].to_numpy()
    first = np.concatenate([start[:1], end])
    if first[0] != 0 or (start != first[:-1]).any() or (end < start).any():
        raise OSError(f"{file.name} has documents that overlap or leave gaps")
    ids = rows["f2"].combine_chunks() if rows.num_columns > 2 else None
    return _Bounds(first, None if ids is None or pc.all(ids.is_null()).as_py() else ids)


def splits(file: Location) -> list[SplitRange]:
    """Runs of documents with .csv.gz; ranges of bytes without."""
    size = file.size - _header(file).size
    if _bounds_of(file).exists():
        first = _bounds(file).first
        return token_files.runs(first, size // max(int(first[-1]), 1))
    return token_files.cells(size)


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    file = Location.of(split.path)
    header = _header(file).size
    dtype = np.dtype(split.columns.types[0][1])
    if _bounds_of(file).exists():
        bounds = _bounds(file)
        yield from token_files.documents(
            split, bounds.first, dtype, bad, header=header, doc_id=bounds.doc_id, loss=_mask_of(file)
        )
    else:
        yield from token_files.cut(split, dtype, file.size - header, bad, header=header)
