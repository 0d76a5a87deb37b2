"""An output that another process writes, whose input was edited, or that is complete: refused, continued, returned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.manifests import whole_manifest
from tinydata.core.errors import TinydataError, UpToDate
from tinydata.core.location import Location, fingerprint
from tinydata.core.lock import STALE
from tinydata.core.output import Output

HOLDER = """
import sys, time
from pathlib import Path
from tests.core.test_lock import output
output(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def output(path: Path, *inputs: Path, force: bool = False) -> Output:
    header = whole_manifest("count", inputs={str(f): fingerprint(Location.of(f)) for f in inputs})
    del header["files"]  # `publish` adds them
    return Output(str(path), header, force=force)


def edited_in_place(file: Path) -> None:
    """The same size, beginning and end, so the fingerprint is the same."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * 300_000)
    os.utime(file, (1e9, 1e9))
    return file


def test_a_second_process_is_named_the_first_and_a_killed_one_is_continued(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, cwd=root, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(TinydataError, match=f"process {holder.pid} on .* is writing this output"):
            output(tmp_path / "out")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    output(tmp_path / "out").publish({}, {"x": b"1"})
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_two_threads_are_two_writers_and_a_repeated_call_is_not(tmp_path: Path) -> None:
    output(tmp_path / "out")
    output(tmp_path / "out")  # as in a notebook, after the first call ended with an error
    refused: list[TinydataError] = []

    def other() -> None:
        with pytest.raises(TinydataError) as e:
            output(tmp_path / "out")
        refused.append(e.value)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert str(os.getpid()) in refused[0].what


def test_another_host_counts_as_dead_without_a_sign_of_life(tmp_path: Path) -> None:
    lock = tmp_path / ".out.partial" / ".lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    with pytest.raises(TinydataError, match="process 7 on elsewhere"):
        output(tmp_path / "out")
    os.utime(lock, (time.time() - STALE - 1,) * 2)
    output(tmp_path / "out").publish({}, {})


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"host": 1}', b"[" * 1000])
def test_a_damaged_lock_is_nobodys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / ".lock").write_bytes(content)
    output(tmp_path / "out").publish({}, {})


def test_an_input_edited_in_place_is_not_resumed(tmp_path: Path, corpus: Path) -> None:
    out = output(tmp_path / "out", corpus)
    (out.parts / "a.parquet").write(b"part")
    edited_in_place(corpus)
    with pytest.raises(TinydataError, match="an input was modified after the unfinished run began") as e:
        output(tmp_path / "out", corpus)
    assert e.value.where == str(corpus)
    assert not (output(tmp_path / "out", corpus, force=True).parts / "a.parquet").exists()


def test_the_same_finished_command_is_up_to_date(tmp_path: Path, corpus: Path) -> None:
    manifest = output(tmp_path / "out", corpus).publish({}, {"x": b"1"})
    with pytest.raises(UpToDate) as e:
        output(tmp_path / "out", corpus)
    assert e.value.manifest == json.loads(json.dumps(manifest))
    assert [p.name for p in tmp_path.iterdir() if p != corpus] == ["out"]
    edited_in_place(corpus)
    with pytest.raises(TinydataError, match=r"with the same options, but .*a\.txt was modified since"):
        output(tmp_path / "out", corpus)


def test_an_output_that_lost_a_file_is_not_up_to_date(tmp_path: Path) -> None:
    output(tmp_path / "out").publish({}, {"x": b"1"})
    (tmp_path / "out" / "x").unlink()
    with pytest.raises(TinydataError, match="already exists"):
        output(tmp_path / "out")


@pytest.mark.parametrize("name", ["notes.txt", ".git/config", "deep/er/x"])
def test_force_never_deletes_a_file_of_the_user(tmp_path: Path, name: str) -> None:
    output(tmp_path / "out").publish({}, {"x": b"1"})
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(TinydataError, match=f"did not create: {name}"):
        output(tmp_path / "out", force=True)
    assert file.read_text() == "mine"
    file.unlink()
    output(tmp_path / "out", force=True).publish({}, {"x": b"2"})


def test_a_directory_deleted_under_the_command_is_named(tmp_path: Path) -> None:
    import shutil

    out = output(tmp_path / "out")
    shutil.rmtree(tmp_path / ".out.partial")
    with pytest.raises(TinydataError, match="was deleted or moved while") as e:
        (out.parts / "a.parquet").write(b"part")
    assert ".out.partial" in e.value.where


def test_an_output_finished_meanwhile_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process publishes between the look at the output and the lock."""
    first = output(tmp_path / "out")
    take = Output._lock_output

    def late(self: Output) -> None:
        if not first.final.exists():
            first.publish({}, {"x": b"1"})
        take(self)

    monkeypatch.setattr(Output, "_lock_output", late)
    with pytest.raises(UpToDate):
        output(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "x"]


def test_a_damaged_record_of_an_unfinished_run_is_another_run(tmp_path: Path) -> None:
    out = output(tmp_path / "out")
    (out.parts.parent / "command.json").write(b"{")
    with pytest.raises(TinydataError, match="an unfinished run with other inputs or options"):
        output(tmp_path / "out")
    output(tmp_path / "out", force=True).publish({}, {})
