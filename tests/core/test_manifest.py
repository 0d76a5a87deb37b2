"""Every manifest matches the type of its verb; if one does not, the error names the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import whole_manifest
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.manifest import TYPES, faults
from tinydata.core.output import read_manifest

TOKENIZER = {"path": "t", "family": "f", "size": 9, "fingerprint": "0"}
COUNT: dict[str, Any] = {
    "tinydata": "0", "verb": "count", "inputs": {}, "options": {}, "tokenizer": TOKENIZER, "kind": "text",
    "files": {"counts.parquet": {"bytes": 1, "sha256": "0"}},
    "totals": dict.fromkeys(
        ["documents", "bytes", "tokens", "masked", "domains", "distinct_tokens", "heldout_documents", "heldout_bytes",
         "heldout_tokens"], 1,
    ),
    "quarantined": {"documents": 0, "reasons": {}, "unread_bytes": {}}, "skipped_files": [], "encoded_whole": [],
}  # fmt: skip


def test_the_manifest_of_count_matches_its_type() -> None:
    """Output.publish asserts the same for every verb whenever it writes a manifest."""
    assert faults(COUNT) == []
    assert set(TYPES) == {"count", "compact", "encode", "slice", "score", "resample"}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"tokenizer": None}, "tokenizer is NoneType, not an object"),
        ({"tokenizer": {**TOKENIZER, "size": "9"}}, "tokenizer.size is str, not int"),
        ({"tokenizer": {**TOKENIZER, "size": True}}, "tokenizer.size is bool, not int"),
        ({"totals": {**COUNT["totals"], "tokens": -5}}, "totals.tokens is negative"),
        ({"totals": {"documents": 1}}, "totals.bytes is missing"),
        ({"skipped_files": ["a", 3]}, "skipped_files[1] is int, not str"),
        ({"files": {"a": {"bytes": 1.5, "sha256": "0"}}}, "files.a.bytes is float, not int"),
        ({"files": [1]}, "files is list, not dict"),
    ],
)
def test_a_manifest_that_does_not_match_its_type_is_refused(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    assert faults({**COUNT, **change})[0] == fault
    (tmp_path / "manifest.json").write_text(json.dumps({**COUNT, **change}))
    with pytest.raises(TinydataError, match="damaged") as refused:
        read_manifest(str(tmp_path), "count")
    assert refused.value.code == UNREADABLE and fault in refused.value.what


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", "[" * 100_000, '{"verb": ["count"]}', '"count"'])
def test_a_file_that_is_not_a_manifest_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(TinydataError):
        read_manifest(str(tmp_path), "count")


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../b", "~/x", "a\\..\\b"])
def test_a_manifest_leads_nowhere_else(name: str) -> None:
    whole = whole_manifest("encode")
    assert faults(whole) == []
    named = "which is not in its directory"
    assert named in faults({**whole, "files": {name: {"bytes": 1, "sha256": ""}}})[0]
    assert named in faults({**whole, "shards": [{"name": name, "documents": 1, "tokens": 1}]})[0]
