"""What every engine must do on the same corpus: exact counts, the same bytes, and resuming after a kill.

A new engine joins by a line in `ENGINES`. Killing is done for real: `tinydata count` runs in a
process group of its own, which gets the signal in the middle of its work.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata import cli
from tinydata.core.errors import ENGINE, FIXABLE, INTERRUPTED, QUARANTINED, TinydataError
from tinydata.core.location import table_bytes
from tinydata.core.quarantine import Unusable, quarantined
from tinydata.engines.base import FAN_IN, grouped
from tinydata.engines.local import LocalEngine
from tinydata.formats import text_lines as streams
from tinydata.formats.base import Columns, Split
from tinydata.formats.corpus import plan, read
from tinydata.tokenizers.open import open_tokenizer, read_tokenizer
from tinydata.verbs.count import merge, worker
from tinydata.verbs.count import verb as count_verb
from tinydata.verbs.count.plan import Settings

ENGINES = ["local-1", "local-2", pytest.param("spark", marks=pytest.mark.spark)]
SETTINGS = Settings(heldout=0.2, max_bad=0.5)
DEADLINE = 60  # seconds until a subprocess that should have ended is a failure


# -- engines ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """(master, arguments of count) -> `spark-submit jobs/token_freq.py …`, in a process of its own."""
    pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'tinydata[spark]'")
    from tinydata.engines.spark import java

    try:
        home = java()
    except TinydataError as e:
        pytest.skip(f"{e.what}: {e.fix}")
    spark_home = Path(pyspark.__file__).parent
    job = Path(__file__).parents[2] / "jobs" / "token_freq.py"
    elsewhere = tmp_path_factory.mktemp("driver")  # nothing may depend on where the driver runs

    def run(master: str, *args: str) -> subprocess.CompletedProcess[str]:
        command = [spark_home / "bin" / "spark-submit", "--master", master, job, *args]
        environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, **({"JAVA_HOME": home} if home else {})}
        return subprocess.run(command, env=environment, cwd=elsewhere, capture_output=True, text=True)

    before = set(spark_home.glob("work/*"))
    yield run
    for left in set(spark_home.glob("work/*")) - before:  # local-cluster leaves its executors' logs there
        shutil.rmtree(left)


# -- the corpus -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tokenizer(byte_bpe: Path) -> str:
    return str(byte_bpe / "gpt2")


@pytest.fixture(scope="session")
def documents(text: list[str]) -> dict[str, list[str]]:
    """domain -> documents. Those of `prose` are in `scripts` too, with the same ids."""
    return {"code": text[:40], "prose": text[40:60], "scripts": text[60:] + text[40:60]}


@pytest.fixture(scope="session")
def corpus(documents: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders code, prose, scripts: JSON lines (one of them broken), gzip, zstd in frames, Parquet in row groups."""
    root = tmp_path_factory.mktemp("engines") / "corpus"
    for domain in documents:
        (root / domain).mkdir(parents=True)
    rows = {d: [{"id": f"d{hash_of(t)}", "text": t} for t in texts] for d, texts in documents.items()}
    code = lines(rows["code"][:25])
    cut = code.index(b"\n", len(code) // 2) + 1
    (root / "code" / "a.jsonl").write_bytes(code[:cut] + b'{"id": "x", "text": "no end\n' + code[cut:])
    (root / "code" / "b.jsonl.gz").write_bytes(gzip.compress(lines(rows["code"][25:]), mtime=0))
    (root / "prose" / "a.jsonl.zst").write_bytes(frames(lines(rows["prose"]), 9_001))
    half = len(rows["scripts"]) // 2
    (root / "scripts" / "a.jsonl").write_bytes(lines(rows["scripts"][:half]).rstrip(b"\n"))
    pq.write_table(pa.Table.from_pylist(rows["scripts"][half:]), root / "scripts" / "b.parquet", row_group_size=5)
    return root


def hash_of(text: str) -> int:
    return sum(i * ord(c) for i, c in enumerate(text, 1)) % 1_000_003


def lines(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in rows)


def frames(data: bytes, size: int) -> bytes:
    """zstd with a frame every `size` bytes, in the middle of a line as it may fall."""
    return b"".join(pa.compress(data[i : i + size], codec="zstd", asbytes=True) for i in range(0, len(data), size))


@pytest.fixture
def small_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many splits in a small corpus: what 64 MB are to a big one, 3 kB are to this one."""
    monkeypatch.setattr(streams, "SPLIT_BYTES", 3_000)
    monkeypatch.setattr("tinydata.formats.parquet.SPLIT_BYTES", 3_000)


@pytest.fixture(scope="session")
def reference(documents: dict[str, list[str]], tokenizer: str) -> dict[str, Counter[int]]:
    """domain -> Counter of token ids, each document encoded by the native library."""
    tok = open_tokenizer(tokenizer)
    return {d: Counter(i for ids in tok.encode(texts) for i in ids) for d, texts in documents.items()}


def content(directory: Path) -> dict[str, bytes]:
    """All files of an output except the record of the run, which contains times."""
    files = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    files.pop(".run.json", None)
    return files


@pytest.fixture(scope="session")
def plain(corpus: Path, tokenizer: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of one worker in one go."""
    out = tmp_path_factory.mktemp("plain") / "counts"
    count_verb.count([str(corpus)], tokenizer, str(out), LocalEngine(1), SETTINGS, partitions=1)
    return content(out)


# -- exact, and the same everywhere -----------------------------------------------------------


@pytest.mark.parametrize(
    "engine", ["local-1", "local-2", pytest.param("spark", marks=pytest.mark.cluster)], indirect=True
)
def test_counts_are_those_of_the_library(
    engine: Any,
    corpus: Path,
    tokenizer: str,
    reference: dict[str, Counter[int]],
    plain: dict[str, bytes],
    tmp_path: Path,
    small_splits: None,
) -> None:
    """So many tasks that their results are merged in a tree; the bytes are still those of one task."""
    assert len(plan([str(corpus)]).splits) >= 40 > FAN_IN
    out = tmp_path / "counts"
    manifest = count_verb.count([str(corpus)], tokenizer, str(out), engine, SETTINGS, partitions=40)
    got: dict[str, Counter[int]] = {d: Counter() for d in reference}
    for row in pq.read_table(out / "counts.parquet").to_pylist():
        got[row["domain"]][row["token_id"]] = row["count"]
    assert got == reference
    assert manifest["totals"]["tokens"] == sum(c.total() for c in reference.values())
    assert content(out) == plain


@pytest.mark.parametrize(
    ("engine", "partitions"),
    [
        *(("local-1", n) for n in (1, 2, 7)),
        ("local-2", 7),
        *(pytest.param("spark", n, marks=pytest.mark.cluster) for n in (1, 2, 7)),
    ],
    indirect=["engine"],
)
def test_same_bytes(
    engine: Any, partitions: int, corpus: Path, tokenizer: str, plain: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "counts"
    count_verb.count([str(corpus)], tokenizer, str(out), engine, SETTINGS, partitions=partitions)
    assert content(out) == plain


def test_the_broken_line_is_named(corpus: Path, plain: dict[str, bytes]) -> None:
    [bad] = pq.read_table(pa.BufferReader(plain["quarantine.parquet"])).to_pylist()
    assert bad["path"] == str(corpus / "code" / "a.jsonl")
    assert bad["reason"].startswith("broken JSON line")
    assert (corpus / "code" / "a.jsonl").read_bytes()[bad["position"] :].startswith(b'{"id": "x", "text": "no end\n')


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_an_error_in_a_task_is_the_users(engine: Any, tokenizer: str, tmp_path: Path) -> None:
    """What a task raises arrives as it was raised: what, where, fix and exit code."""
    for name in ("a", "b"):
        rows = [{"text": "x", "domain": f"{name}{i}"} for i in range(worker.MAX_DOMAINS + 1)]
        (tmp_path / f"{name}.jsonl").write_bytes(lines(rows))
    with pytest.raises(TinydataError) as caught:
        count_verb.count([str(tmp_path)], tokenizer, str(tmp_path / "counts"), engine, SETTINGS, partitions=2)
    assert caught.value.what == f"more than {worker.MAX_DOMAINS} domains"
    assert caught.value.where in (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    assert "--domain-column" in caught.value.fix
    assert caught.value.code == FIXABLE


# -- grouping and merging ---------------------------------------------------------------------


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 1 << 31), max_size=60),
    slots=st.integers(1, 64),
    partitions=st.integers(0, 70),
)
def test_every_split_is_in_one_group(sizes: list[int], slots: int, partitions: int) -> None:
    splits = [Split(f"{i}", f"{i}", "d", "jsonl", 0, 1, n, Columns(text="text")) for i, n in enumerate(sizes)]
    groups = grouped(splits, slots, partitions)
    assert [s for g in groups for s in g] == splits
    assert all(groups)
    if partitions:
        assert len(groups) <= partitions


def test_partitions_is_the_number_of_tasks() -> None:
    splits = [Split(f"{i}", f"{i}", "d", "jsonl", 0, 1, 1_000, Columns(text="text")) for i in range(100)]
    assert [len(grouped(splits, 2, n)) for n in (1, 2, 7, 20, 100)] == [1, 2, 7, 20, 100]


@pytest.fixture(scope="session")
def partials(corpus: Path, tokenizer: str) -> list[pa.Table]:
    """What nine tasks hand in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "SPLIT_BYTES", 10_000)
        splits = plan([str(corpus)]).splits
    files = read_tokenizer(tokenizer)

    def task(group: list[Split]) -> pa.Table:
        bad: list[Unusable] = []
        batches = (b for s in group for b in read(s, lambda p, r, e, s=s, **lost: bad.append(Unusable(s.path, p, r))))
        counted = pa.Table.from_batches(list(worker.count_batches(batches, files=files, settings=SETTINGS)))
        return pa.concat_tables([counted, quarantined(bad)])

    return [task(g) for g in grouped(splits, 1, 9)]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_merge_is_associative_and_commutative(partials: list[pa.Table], data: st.DataObject) -> None:
    """Partial results joined two or three at a time, in any order, are the same table as all at once."""
    todo = list(partials)
    while len(todo) > 1:
        todo = data.draw(st.permutations(range(len(todo))).map(partial(_taken, todo)))
        n = data.draw(st.integers(2, min(3, len(todo))))
        todo = [*todo[n:], merge.merge(todo[:n])]
    assert table_bytes(todo[0]) == table_bytes(merge.merge(partials))


def _taken(tables: list[pa.Table], order: list[int]) -> list[pa.Table]:
    return [tables[i] for i in order]


def test_held_out_documents_do_not_depend_on_the_grouping_when_cut(
    partials: list[pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More held-out text than is kept: the documents of lowest hash stay, whichever parts are truncated first."""
    everything = merge.split_parts(merge.merge(partials))["heldout"]
    monkeypatch.setattr("tinydata.verbs.count.heldout.HELDOUT_BYTES", 9_000)
    whole = merge.split_parts(merge.merge(partials))["heldout"]
    pairs = [merge.merge(partials[i : i + 2]) for i in range(0, len(partials), 2)]
    assert merge.split_parts(merge.merge(pairs[::-1]))["heldout"].equals(whole)
    assert whole.equals(everything.slice(0, len(whole)))
    assert 0 < len(whole) < len(everything)
    assert sum(len(t.encode()) for t in whole["text"].to_pylist()) <= 9_000


# -- killed, interrupted, resumed -------------------------------------------------------------


@pytest.fixture(scope="module")
def slow(byte_bpe: Path, text: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """(arguments of `tinydata count` without -o, working directory): some seconds of work in 20 tasks.

    Its tokenizer puts a blank in front of the text, which words first does not do: the library encodes all of it.
    """
    root = tmp_path_factory.mktemp("slow")
    (root / "tokenizer").mkdir()
    config = json.loads((byte_bpe / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))
    config["pre_tokenizer"]["add_prefix_space"] = True
    (root / "tokenizer" / "tokenizer.json").write_text(json.dumps(config), encoding="utf-8")
    (root / "corpus").mkdir()
    for i in range(40):
        rows = [{"id": f"{i}-{k}", "text": t} for k, t in enumerate(text)]
        (root / "corpus" / f"part-{i:02}.jsonl").write_bytes(lines(rows))
    return ["corpus", "--tokenizer", "tokenizer", "--heldout", "0.02", "--partitions", "20"], root


@pytest.fixture(scope="module")
def undisturbed(slow: tuple[list[str], Path]) -> dict[str, bytes]:
    done = finish(slow, "undisturbed", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return content(slow[1] / "undisturbed")


def command(slow: tuple[list[str], Path], out: str, *more: str) -> dict[str, Any]:
    """Arguments of subprocess for `tinydata count` in a process group of its own, as a shell starts it."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background job ignores it
    code += "; from tinydata.cli.main import main; main(sys.argv[1:])"
    args = [sys.executable, "-c", code, "count", *slow[0], "-o", out, *more]
    return {"args": args, "cwd": slow[1], "stderr": subprocess.PIPE, "text": True, "start_new_session": True}


def finish(slow: tuple[list[str], Path], out: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(slow, out, *more), stdout=subprocess.PIPE, timeout=DEADLINE)


def parts(root: Path, out: str) -> dict[str, int]:
    """Finished parts of an unfinished output -> when each was written."""
    return {p.name: p.stat().st_mtime_ns for p in (root / f".{out}.partial" / "parts").glob("*.json")}


def disturb(
    slow: tuple[list[str], Path], out: str, act: Callable[[subprocess.Popen[str]], None], *more: str
) -> tuple[subprocess.Popen[str], str]:
    """Starts `tinydata count`, waits until some parts are done, acts -> (the ended process, its stderr).

    On a busy machine it may be done before this process looks again; then once more.
    """
    for _ in range(3):
        process, said = _disturbed(slow, out, act, *more)
        if not (slow[1] / out).exists():
            break
        shutil.rmtree(slow[1] / out)
    assert not (slow[1] / out).exists(), "it was done before it could be disturbed"
    assert len(parts(slow[1], out)) >= 3
    return process, said


def _disturbed(
    slow: tuple[list[str], Path], out: str, act: Callable[[subprocess.Popen[str]], None], *more: str
) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(**command(slow, out, *more), stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + DEADLINE
        while len(parts(slow[1], out)) < 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        act(process)
        _, said = process.communicate(timeout=DEADLINE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process, said


def send(number: signal.Signals) -> Callable[[subprocess.Popen[str]], None]:
    """A signal to the whole process group, as the terminal sends Ctrl-C, and a batch system its kill."""
    return lambda process: os.killpg(process.pid, number)


@pytest.fixture(scope="module")
def killed(slow: tuple[list[str], Path]) -> Path:
    """What `kill -9` left of a run: a hidden directory with some finished parts."""
    disturb(slow, "killed", send(signal.SIGKILL), "--workers", "2")
    return slow[1] / ".killed.partial"


def test_killed_and_run_again(slow: tuple[list[str], Path], killed: Path, undisturbed: dict[str, bytes]) -> None:
    """The same command: the same bytes, and no finished part is written a second time."""
    root = slow[1]
    shutil.copytree(killed, root / ".again.partial")
    before = parts(root, "again")
    assert 3 <= len(before) < 20
    process = subprocess.Popen(**command(slow, "again", "--workers", "1"), stdout=subprocess.DEVNULL)
    seen: dict[str, set[int]] = {}
    while process.poll() is None:
        try:
            for name, written in parts(root, "again").items():
                seen.setdefault(name, set()).add(written)
        except FileNotFoundError:  # published in the middle of looking
            pass
        time.sleep(0.005)
    assert process.returncode == 0, process.communicate()[1]
    process.communicate()
    assert {n: seen[n] for n in before} == {n: {t} for n, t in before.items()}
    assert content(root / "again") == undisturbed
    assert not list(root.glob(".again*"))


class Watched(LocalEngine):
    """The local engine, and what it was given to do."""

    def __init__(self, workers: int):
        super().__init__(workers)
        self.given: list[Any] = []

    def run(self, tasks: list[Any], work: Callable[..., Any], **options: Any) -> Iterator[tuple[int, Any]]:
        self.given += tasks
        yield from super().run(tasks, work, **options)


def test_only_what_is_missing_is_done(
    slow: tuple[list[str], Path], killed: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(slow[1])
    shutil.copytree(killed, ".missing.partial")
    done = [json.loads(p.read_bytes()) for p in (killed / "parts").glob("*.json")]
    finished = {tuple(place) for places in done for place in places}
    engine = Watched(1)
    count_verb.count(["corpus"], "tokenizer", "missing", engine, Settings(heldout=0.02), partitions=20)
    ran = [(s.path, s.format, s.start, s.stop) for t in engine.given for s in getattr(t, "splits", ())]
    assert not finished & set(ran)
    assert len(finished) + len(ran) == 40
    assert content(slow[1] / "missing") == undisturbed


@pytest.mark.parametrize("partitions", [3, 0])
def test_resumed_with_other_partitions(
    partitions: int,
    slow: tuple[list[str], Path],
    killed: Path,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(slow[1])
    shutil.copytree(killed, f".other-{partitions}.partial")
    out = f"other-{partitions}"
    count_verb.count(["corpus"], "tokenizer", out, LocalEngine(1), Settings(heldout=0.02), partitions=partitions)
    assert content(Path(out)) == undisturbed


@pytest.mark.cluster
def test_resumed_with_spark(
    spark: Any,
    slow: tuple[list[str], Path],
    killed: Path,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(slow[1])
    shutil.copytree(killed, ".spark.partial")
    count_verb.count(["corpus"], "tokenizer", "spark", spark, Settings(heldout=0.02), partitions=6)
    assert content(slow[1] / "spark") == undisturbed


def test_a_file_given_twice_counts_twice_also_after_a_kill(corpus: Path, tokenizer: str, tmp_path: Path) -> None:
    """Each mention is a task of its own; one that was finished must not stand for both."""
    twice = [str(corpus / "code" / "a.jsonl")] * 2
    count_verb.count(twice, tokenizer, str(tmp_path / "whole"), LocalEngine(1), SETTINGS, partitions=2)

    class Stopped(LocalEngine):
        def run(self, tasks: list[Any], work: Callable[..., Any], **options: Any) -> Iterator[tuple[int, Any]]:
            yield next(super().run(tasks, work, **options))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_verb.count(twice, tokenizer, str(tmp_path / "resumed"), Stopped(1), SETTINGS, partitions=2)
    count_verb.count(twice, tokenizer, str(tmp_path / "resumed"), LocalEngine(1), SETTINGS, partitions=2)
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1])
def test_ctrl_c_while_workers_start(delay: float, slow: tuple[list[str], Path]) -> None:
    """A process in the middle of its imports would print a trace of its own; these never hear of Ctrl-C."""
    process = subprocess.Popen(**command(slow, f"early-{delay}", "--workers", "2"), stdout=subprocess.DEVNULL)
    until = time.monotonic() + DEADLINE
    while process.poll() is None and not workers_of(process.pid) and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == INTERRUPTED
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c(workers: str, slow: tuple[list[str], Path], undisturbed: dict[str, bytes]) -> None:
    """Exit code 130 at once, and a message with the command that resumes, which it does."""
    out = f"interrupted-{workers}"
    began = []
    process, said = disturb(
        slow, out, lambda p: (began.append(time.monotonic()), send(signal.SIGINT)(p))[0], "--workers", workers
    )
    assert time.monotonic() - began[-1] < 20
    assert process.returncode == INTERRUPTED
    [message] = said.strip().splitlines()
    assert message.startswith("interrupted; finished parts are kept. To continue: tinydata count corpus --tokenizer")
    assert f"-o {out}" in message
    done = finish(slow, out, "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert content(slow[1] / out) == undisturbed


@pytest.mark.cluster
def test_ctrl_c_with_spark(spark: Any, slow: tuple[list[str], Path], undisturbed: dict[str, bytes]) -> None:
    """`spark` is asked for so that this is skipped where it cannot run; the session is the subprocess's own."""
    process, said = disturb(slow, "spark-interrupted", send(signal.SIGINT), "--engine", "spark", "--workers", "2")
    assert process.returncode == INTERRUPTED
    assert "interrupted; finished parts are kept. To continue: tinydata count corpus" in said
    assert "Traceback" not in said
    done = finish(slow, "spark-interrupted", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert content(slow[1] / "spark-interrupted") == undisturbed


def test_a_worker_that_is_killed(slow: tuple[list[str], Path], undisturbed: dict[str, bytes]) -> None:
    """As the kernel does when memory is short: an error that says so, and the same command finishes."""

    def kill_one(process: subprocess.Popen[str]) -> None:
        for pid in workers_of(process.pid)[:1]:
            os.kill(pid, signal.SIGKILL)

    process, said = disturb(slow, "short-of-memory", kill_one, "--workers", "2")
    assert process.returncode == FIXABLE
    assert "error: a worker process was killed" in said
    assert "fix:   run the same command again with fewer --workers; finished parts are kept" in said
    assert "Traceback" not in said
    done = finish(slow, "short-of-memory", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert content(slow[1] / "short-of-memory") == undisturbed


def test_workers_end_with_their_parent(slow: tuple[list[str], Path]) -> None:
    """SIGKILL of the parent alone tells nobody; its workers notice, and write no more."""
    found: list[int] = []

    def kill_parent(process: subprocess.Popen[str]) -> None:
        found[:] = workers_of(process.pid)
        process.kill()

    disturb(slow, "orphans", kill_parent, "--workers", "2")
    until = time.monotonic() + 20
    while any(alive(pid) for pid in found) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(found) == 2
    assert not [pid for pid in found if alive(pid)]


def nap(seconds: float, tell: Callable[[int], None]) -> float:
    time.sleep(seconds)
    return seconds


def test_stopping_does_not_wait_for_tasks_under_way() -> None:
    """A task may read a gigabyte; if the caller stops iterating, the workers end at once."""
    before = set(workers_of(os.getpid()))
    running = LocalEngine(2).run([0, 120], nap, progress=lambda n: None, label="")
    assert next(running) == (0, 0)
    started = set(workers_of(os.getpid())) - before
    running.close()  # type: ignore[attr-defined]
    until = time.monotonic() + 20
    while any(alive(pid) for pid in started) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(started) == 2
    assert not [pid for pid in started if alive(pid)]


def workers_of(parent: int) -> list[int]:
    """Process ids of the pool's workers, from /proc."""
    if not Path("/proc").is_dir():
        pytest.skip("finding a worker process needs /proc")
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- spark-submit -----------------------------------------------------------------------------


def arguments(corpus: Path, tokenizer: str, out: Path) -> list[str]:
    share = ["--heldout", str(SETTINGS.heldout), "--max-bad", str(SETTINGS.max_bad)]
    return [str(corpus), "--tokenizer", tokenizer, "-o", str(out), *share, "--partitions", "4"]


@pytest.mark.spark
def test_spark_submit(
    submit: Callable[..., subprocess.CompletedProcess[str]],
    corpus: Path,
    tokenizer: str,
    plain: dict[str, bytes],
    tmp_path: Path,
) -> None:
    done = submit("local[2]", *arguments(corpus, tokenizer, tmp_path / "counts"))
    assert done.returncode == QUARANTINED, done.stderr
    assert content(tmp_path / "counts") == plain
    run = json.loads((tmp_path / "counts" / ".run.json").read_bytes())
    assert run["engine"] == "spark"
    assert run["command"].startswith("tinydata count --engine spark ")


@pytest.mark.cluster
def test_executors_without_tinydata(spark: Any, corpus: Path, tokenizer: str, tmp_path: Path) -> None:
    """A Python for the workers that has nothing installed: the error says what they need."""
    venv.create(tmp_path / "bare", with_pip=False)
    environment = {**os.environ, "PYSPARK_PYTHON": str(tmp_path / "bare" / "bin" / "python")}
    code = "import sys; from tinydata.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "count", *arguments(corpus, tokenizer, tmp_path / "counts")]
    done = subprocess.run([*command, "--engine", "spark"], env=environment, capture_output=True, text=True)
    assert done.returncode == ENGINE, done.stderr
    assert re.search(
        r"\nerror: the Python of the executors has no module (tinydata|pyarrow|numpy)\n  fix:   install", done.stderr
    )
    assert 'File "' + str(Path(cli.__file__).parent) not in done.stderr


@pytest.mark.cluster
def test_spark_submit_to_executors(
    submit: Callable[..., subprocess.CompletedProcess[str]],
    corpus: Path,
    tokenizer: str,
    plain: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """Two executor processes, each with a Python worker of its own, that share nothing but the file system."""
    done = submit("local-cluster[2,1,1024]", *arguments(corpus, tokenizer, tmp_path / "counts"))
    assert done.returncode == QUARANTINED, done.stderr
    assert content(tmp_path / "counts") == plain
