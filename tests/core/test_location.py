"""Outputs appear complete or not at all; only directories that tinydata wrote are replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.manifests import whole_manifest
from tinydata.core.errors import TinydataError
from tinydata.core.location import Location, fingerprint
from tinydata.core.output import MANIFEST, Output, read_manifest

HEADER = whole_manifest("count", options={"n": 1})


def output(path: Path, **options: object) -> Output:
    return Output(str(path), HEADER, **options)  # type: ignore[arg-type]


def test_nothing_is_visible_before_publish_and_all_of_it_after(tmp_path: Path) -> None:
    out = output(tmp_path / "out")
    (out.parts / "a.parquet").write(b"part")
    assert not (tmp_path / "out").exists()
    manifest = out.publish({}, {"x.txt": b"abc"})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MANIFEST, "x.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert manifest["files"]["x.txt"]["bytes"] == 3
    assert read_manifest(str(tmp_path / "out"), "count") == json.loads((tmp_path / "out" / MANIFEST).read_bytes())


def test_an_abandoned_output_leaves_nothing(tmp_path: Path) -> None:
    out = output(tmp_path / "out")
    with pytest.raises(RuntimeError), (out.place / "big.bin").stream() as sink:
        sink.write(b"ab")
        raise RuntimeError
    out.abandon()
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_continues_and_another_is_refused(tmp_path: Path) -> None:
    (output(tmp_path / "out").parts / "a.parquet").write(b"part")
    assert (output(tmp_path / "out").parts / "a.parquet").exists()
    with pytest.raises(TinydataError, match="unfinished run with other inputs"):
        Output(str(tmp_path / "out"), {**HEADER, "options": {"n": 2}})
    again = Output(str(tmp_path / "out"), {**HEADER, "options": {"n": 2}}, force=True)
    assert not (again.parts / "a.parquet").exists()


def test_force_replaces_our_own_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    output(tmp_path / "out").publish({}, {"old": b"1"})
    with pytest.raises(TinydataError, match="already exists"):
        output(tmp_path / "out")
    new = output(tmp_path / "out", force=True)
    assert (tmp_path / "out" / "old").exists()
    new.publish({}, {"new": b"2"})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MANIFEST, "new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_ours_is_never_touched(tmp_path: Path, force: bool) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("ten years")
    (tmp_path / "file").write_text("x")
    for name in ("home", "file"):
        with pytest.raises(TinydataError, match="already exists") as e:
            output(tmp_path / name, force=force)
        assert "--force" not in e.value.fix
    assert (tmp_path / "home" / "thesis.txt").read_text() == "ten years"


def test_an_empty_directory_may_be_the_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    output(tmp_path / "out").publish({}, {"x": b"1"})
    assert (tmp_path / "out" / "x").exists()


def test_without_rename_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an object store: files go to their place, and count only once the manifest is there."""
    out = output(tmp_path / "out")
    out.rename, out.place = False, out.final
    written: list[str] = []
    real = Location.write
    monkeypatch.setattr(Location, "write", lambda self, content: (written.append(self.name), real(self, content))[1])
    out.publish({}, {"b": b"1", "a": b"2"})
    assert written == ["a", "b", MANIFEST]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b", MANIFEST]


def test_readers_refuse_what_is_unfinished_or_of_another_verb(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    with pytest.raises(TinydataError, match="not finished"):
        read_manifest(str(tmp_path / "half"), "count")
    output(tmp_path / "out").publish({}, {})
    with pytest.raises(TinydataError, match="not by `tinydata compact`"):
        read_manifest(str(tmp_path / "out"), "compact")


def test_a_place_that_cannot_be_written_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TinydataError) as e:
        output(tmp_path / "file" / "below")
    assert e.value.fix


def test_fingerprint_sees_both_ends_and_the_size(tmp_path: Path) -> None:
    big = bytearray(1 << 20)
    seen = set()
    for change in (None, 0, len(big) - 1):
        content = bytearray(big)
        if change is not None:
            content[change] = 1
        (tmp_path / "f").write_bytes(content)
        seen.add(fingerprint(Location.of(tmp_path / "f"))["fingerprint"])
    (tmp_path / "f").write_bytes(big + b"\0")
    seen.add(fingerprint(Location.of(tmp_path / "f"))["fingerprint"])
    assert len(seen) == 4
