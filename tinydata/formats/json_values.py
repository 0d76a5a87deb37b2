"""JSON that is not one object a line: an array of objects, or objects that span several lines, plain or compressed.

The file is one split, read as a stream: memory is bounded by the largest object. Positions are numbers of objects.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from tinydata.core.errors import TinydataError
from tinydata.core.location import Location
from tinydata.formats import jsonl, text_lines
from tinydata.formats.base import CHAT, Bad, Columns, NoDocuments, NotData, Split, SplitRange, Wanted, choose

HEAD = 1 << 16  # bytes that tell one layout from another
BATCH = 4 << 20  # characters of JSON in a batch, about
LARGEST = 1 << 28  # characters of an object: what is not complete after so many is broken
_ENDINGS = (".json", ".jsonl", ".ndjson")
_SPACE = " \t\r\n"


def matches(file: Location) -> bool:
    """Whether the first bytes are an array, or an object that spans several lines."""
    if not text_lines.plain_name(file.name).endswith(_ENDINGS) or not file.size:
        return False
    try:
        head = text_lines.first_bytes(file, HEAD)
    except (OSError, EOFError):
        return False
    whole = len(head) < HEAD
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    line, end, rest = head.partition(b"\n")
    if head[:1] == b"[":  # an array, unless more lines follow one that is complete
        return not (end and rest.strip() and jsonl.is_json(line))
    return bool(end) and line.strip().startswith(b"{") and not jsonl.is_json(line) and _spans_lines(head, whole)


def _spans_lines(head: bytes, whole: bool) -> bool:
    """Whether a file begins with an object that ends in a later line, as indented JSON does; whole: `head` is all."""
    text = head.decode("utf-8", "replace")
    try:
        json.JSONDecoder().raw_decode(text)
        return True
    except RecursionError:
        return False
    except json.JSONDecodeError as e:  # the beginning of a large object is not complete, but has no other fault
        return not whole and (e.pos >= len(text.rstrip()) - 1 or e.msg.startswith("Unterminated string"))


def columns(file: Location, wanted: Wanted) -> Columns:
    """The keys of the first objects. Raises NotData for a single object without text, such as dataset_info.json."""
    first: list[Any] = []
    try:
        for _, value in islice(_values(file, text_lines.Consumed()), jsonl.INSPECTED):
            first.append(value)
    except (ValueError, RecursionError) as e:  # if there is anything before the damage, `read` reports it
        if not first:
            raise OSError(f"broken JSON: {e}") from None
    objects = [value for value in first if isinstance(value, dict)]
    if not first:
        raise NoDocuments
    if not objects:
        raise OSError("its JSON values are not objects")
    types = jsonl.types_of(objects, wanted)
    try:
        return choose(types, wanted, file)
    except TinydataError:
        if len(first) == 1 and not CHAT & types.keys():
            raise NotData("it is one JSON object without text or token ids") from None
        raise


def splits(file: Location) -> list[SplitRange]:
    return [SplitRange(0, 1, file.size)]


def read(split: Split, bad: Bad) -> Iterator[pa.RecordBatch]:
    body = split.columns.text or split.columns.ids
    schema = jsonl.schema_of(split.columns)
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    consumed = text_lines.Consumed()
    number, last = -1, 0
    try:
        for number, (size, value) in enumerate(_values(Location.of(split.path), consumed)):
            try:
                rows.append(jsonl.document(value, schema, body))
                places.append(number)
            except (ValueError, AttributeError) as e:
                what = str(e) if isinstance(e, ValueError) else "not a JSON object"
                bad(number, f"broken JSON value: {what}", json.dumps(value).encode()[:400])
            last += size
            if last >= BATCH:
                yield from _batches(split, rows, places, schema, body)
                rows, places, last = [], [], 0
    except (ValueError, OSError, EOFError, RecursionError) as e:
        yield from _batches(split, rows, places, schema, body)
        left = max(split.bytes - consumed.bytes, 1)
        lost = max(round((number + 1) * left / max(consumed.bytes, 1)), 1)
        bad(number + 1, f"broken JSON, the rest of the file was not read: {e}", b"", documents=lost, size=left)
        return
    yield from _batches(split, rows, places, schema, body)


def _batches(
    split: Split, rows: list[dict[str, Any]], places: list[int], schema: pa.Schema, body: str
) -> Iterator[pa.RecordBatch]:
    if rows:
        yield jsonl.batch_of(split, jsonl.table_of(rows, schema, body), np.array(places, np.int64))


def _values(file: Location, consumed: text_lines.Consumed) -> Iterator[tuple[int, Any]]:
    """(characters, value) of each element of a file's array, or of its values one after another.

    Raises ValueError where the text is not JSON or not UTF-8, and what `decompressed` raises. The text that is kept
    grows by doubling while a value is not complete, so that large values take linear time.
    """
    source = text_lines.decompressed(file, consumed)
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    value_at = json.JSONDecoder().raw_decode
    text, at, ended, array = "", 0, False, False
    wanted = 0  # characters that `text` should have before the next attempt
    first = True
    while True:
        if not ended and len(text) - at < max(wanted, 1):
            pieces = [text[at:]]  # joined once, however many the next attempt needs
            missing = max(wanted, 1) - len(pieces[0])
            while missing > 0 and not ended:
                data = next(source, b"")
                ended = not data
                pieces.append(decode(data, ended))
                missing -= len(pieces[-1])
            text, at = "".join(pieces), 0
        before = at
        at = _skip(text, at)
        if at == len(text):
            if ended:
                if array:
                    raise ValueError("the array does not end")
                return
            continue
        if first:
            first, array = False, text[at] == "["
            at += array
            continue
        if array and text[at] == "]":
            if text[_skip(text, at + 1) :].strip() or any(chunk.strip() for chunk in source):
                raise ValueError("text after the end of the array")
            return
        if text[at] == ",":
            at += 1
            continue
        try:
            value, end = value_at(text, at)
        except json.JSONDecodeError as e:
            if ended or len(text) - at > LARGEST:
                raise ValueError(e.msg) from None
            wanted = 2 * (len(text) - at) + 1
            continue
        if end == len(text) and not ended and text[end - 1] not in ']}"':  # a number may continue
            wanted = len(text) - at + 1
            continue
        yield end - before, value
        at, wanted = end, 0


def _skip(text: str, at: int) -> int:
    """The position of the next character that is not white space."""
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
