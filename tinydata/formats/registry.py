"""The formats by name: those that are read, in the order in which they are tried, and those that are written."""

from __future__ import annotations

from tinydata.formats import (
    arrow,
    csv,
    datatrove,
    dolma,
    internevo,
    json_values,
    jsonl,
    litdata,
    litpkds,
    llmc,
    mds,
    megatron,
    nanogpt,
    parquet,
    txt,
    whole_file,
)
from tinydata.formats.base import Format
from tinydata.formats.writing import Write

# The first format that matches a file reads it: those recognized by companion files come first, then those recognized
# by their first bytes, then those recognized by their ending. `nanogpt` accepts any other .bin.
READERS: dict[str, Format] = {
    "internevo": internevo,
    "megatron": megatron,
    "datatrove": datatrove,
    "mds": mds,
    "litdata": litdata,
    "litpkds": litpkds,
    "llmc": llmc,
    "dolma": dolma,
    "parquet": parquet,
    "json_values": json_values,
    "jsonl": jsonl,
    "csv": csv,
    "arrow": arrow,
    "txt": txt,
    "nanogpt": nanogpt,
    "whole_file": whole_file,
}

WRITERS: dict[str, Write] = {
    "megatron": megatron.write,
    "parquet": parquet.write,
    "internevo": internevo.write,
    "llmc": llmc.write,
}
