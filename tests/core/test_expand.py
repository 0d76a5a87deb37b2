"""Paths mean what pathlib and a shell mean, and no file is read twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.expand import Found, expand


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "d/top.jsonl",
        "d/a/one.jsonl",
        "d/a/b/two.jsonl",
        "d/a/b/notes.md",
        "d/.hidden/x.jsonl",
        "d/_tmp/y.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*paths: str | Path) -> list[str]:
    return [name for _, name in expand([str(p) for p in paths]).files]


def notes(*paths: str | Path) -> list[str]:
    return expand([str(p) for p in paths]).notes


@pytest.mark.parametrize("pattern", [
    "d/*.jsonl", "d/*/*.jsonl", "d/**/*.jsonl", "d/**", "d/a/**/*.md", "d/?/b/*", "d/[ab]/*.jsonl", "d/**/b/*.jsonl",
    "*/top.jsonl", "./d/*.jsonl", "d/*", "**/*.jsonl", "d/**/**/*.jsonl", "d/a/b/t*o.jsonl", "d/*/b/two.jsonl",
    "d/.hidden/*.jsonl", "d/_tmp/*",
])  # fmt: skip
def test_patterns_mean_what_pathlib_means(tree: Path, pattern: str) -> None:
    hidden = (".hidden", "_tmp")
    wanted = sorted(
        str(p)
        for p in Path().glob(f"{pattern}/*" if pattern.endswith("**") else pattern)
        if p.is_file() and not any(h in p.parts and h not in pattern for h in hidden)
    )
    assert sorted(os.path.normpath(f.path) for f, _ in expand([pattern]).files) == wanted


def test_the_counts_of_a_glob_at_three_depths(tree: Path) -> None:
    assert [len(names(f"d/{p}")) for p in ("*.jsonl", "*/*.jsonl", "**/*.jsonl")] == [1, 1, 3]


def test_names_are_relative_to_the_directory_or_the_fixed_part(tree: Path) -> None:
    assert names("d") == ["a/b/notes.md", "a/b/two.jsonl", "a/one.jsonl", "top.jsonl"]
    assert names("d/a/*/two.jsonl") == ["b/two.jsonl"]
    assert names(tree / "d" / "a" / "one.jsonl") == ["one.jsonl"]


@pytest.mark.parametrize("name", ["br[1].jsonl", "a*b.jsonl", "what?.jsonl", "dir[0]/x.jsonl"])
def test_an_existing_name_wins_over_a_pattern(tree: Path, name: str) -> None:
    file = tree / "e" / name
    file.parent.mkdir(parents=True)
    file.write_text("x")
    assert [f.path for f, _ in expand([f"e/{name}"]).files] == [f"e/{name}"]
    assert len(names(f"e/{name.split('/')[0]}")) == 1


@pytest.mark.parametrize("target", [".", "..", "../d", "a"])
def test_a_loop_of_links_is_walked_once_and_named(tree: Path, target: str) -> None:
    os.symlink(target, "d/loop")
    found = expand(["d"])
    assert len({os.path.realpath(f.path) for f, _ in found.files}) == len(found.files) == 4
    assert any("d/loop" in n or "d/a" in n for n in found.notes)


def test_a_linked_directory_outside_is_followed(tree: Path) -> None:
    os.makedirs("blobs/in")
    Path("blobs/in/z.jsonl").write_text("z")
    os.symlink("../blobs", "d/more")
    assert "more/in/z.jsonl" in names("d")


def test_the_same_file_by_two_names_is_read_once_and_said(tree: Path) -> None:
    os.symlink("top.jsonl", "d/alias.jsonl")
    os.link("d/a/one.jsonl", "d/hard.jsonl")
    found = expand(["d", "d/a", "d/top.jsonl", "d/top.jsonl"])
    assert [n for _, n in found.files] == ["a/b/notes.md", "a/b/two.jsonl", "a/one.jsonl", "top.jsonl"]
    assert any("d/alias.jsonl" in n and "d/top.jsonl" in n for n in found.notes)
    assert sum("d/top.jsonl is given twice" in n for n in found.notes) == 2


def test_a_file_name_that_is_not_utf8_is_named(tree: Path) -> None:
    try:
        Path(os.fsdecode(b"d/caf\xe9.jsonl")).write_text("x")
    except OSError:
        pytest.skip("this filesystem takes UTF-8 names only")
    found: Found = expand(["d"])
    assert len(found.files) == 4
    assert found.unreadable == [(r"d/caf\xe9.jsonl", "the file name is not valid UTF-8; rename the file")]
    with pytest.raises(TinydataError, match="no such file") as e:
        expand(["d/nothing"])
    str(e.value).encode()


def test_a_dangling_link_is_named(tree: Path) -> None:
    os.symlink("nowhere", "d/gone.jsonl")
    assert expand(["d"]).unreadable == [("d/gone.jsonl", "the link leads to a file that does not exist")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every directory")
def test_a_directory_that_cannot_be_listed_is_named(tree: Path) -> None:
    os.chmod("d/a", 0)
    try:
        assert "cannot list the directory" in expand(["d"]).unreadable[0][1]
    finally:
        os.chmod("d/a", 0o755)


def test_a_compressed_copy_is_pointed_out(tree: Path) -> None:
    Path("d/top.jsonl.gz").write_bytes(b"")
    assert [n for n in notes("d") if "both read" in n]
    assert not [n for n in notes("d/*.gz") if "both read" in n]


def test_nothing_there_names_the_nearest_directory(tree: Path) -> None:
    for path, what in (("d/a/nothing/*.txt", "d/a"), ("nowhere/x", "."), ("d/x[1]", "d")):
        with pytest.raises(TinydataError, match="no such file or directory") as e:
            expand([path])
        assert f"the nearest existing directory is {what};" in e.value.fix
        assert e.value.code == UNREADABLE
    Path("empty").mkdir()
    with pytest.raises(TinydataError, match="the directory contains no files"):
        expand(["empty"])
