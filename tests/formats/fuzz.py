"""Damaged files of every format: nothing may end in a traceback, a signal, a hang or a large allocation, nor get lost.

    python -m tests.formats.fuzz --cases 100000 [--seed 0] [--format mds] [--only 1234]

A case is a number: it chooses a format, a file of its fixture and a mutation, so `--only` repeats it. Each case must
end in documents, in quarantined documents, or in a TinydataError. Where a format declares how many documents it has,
what is neither read nor quarantined counts as lost; where it has checksums, so does a document that was never written.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.formats.test_text_and_ids import internevo_file, megatron_pair
from tests.formats.test_token_files import datatrove, dolma, litdata, litpkds, llmc, mds, nanogpt, ndarray
from tinydata.core.errors import TinydataError
from tinydata.formats import corpus
from tinydata.formats.base import Wanted

SECONDS, ALLOCATED = 20, 2 << 30
DOCUMENTS = 40
WANTED = Wanted(vocab=1000, eos=0)


class Fixture(NamedTuple):
    """How a small corpus is written, and what of it can be checked."""

    write: Callable[[Path, list[Any]], object]
    ids: bool
    counted: bool = False  # some file says how many documents there are
    summed: bool = False  # checksums cover every byte of a document


def _ids(rng: random.Random) -> list[list[int]]:
    return [[rng.randrange(1, 1000) for _ in range(rng.randrange(1, 60))] + [0] for _ in range(DOCUMENTS)]


def _texts(rng: random.Random) -> list[str]:
    words = ["tide", "лес", "水", "kiosk", '"quoted"', "a\\b", "é", "🙂"]
    return [" ".join(rng.choices(words, k=rng.randrange(1, 30))) for _ in range(DOCUMENTS)]


def _json(texts: list[Any], key: str = "text") -> bytes:
    rows = [{key: t, "id": f"d{i}", "domain": "web"} for i, t in enumerate(texts)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet(where: Path, documents: list[Any], key: str) -> None:
    table = pa.table({key: documents, "id": [f"d{i}" for i in range(len(documents))]})
    pq.write_table(table, where / "a.parquet", row_group_size=10, write_page_checksum=True, compression="zstd")


FIXTURES: dict[str, Fixture] = {
    "jsonl": Fixture(lambda d, t: (d / "a.jsonl").write_bytes(_json(t)), False),
    "jsonl ids": Fixture(lambda d, t: (d / "a.jsonl").write_bytes(_json(t, "input_ids")), True),
    "jsonl.gz": Fixture(lambda d, t: (d / "a.jsonl.gz").write_bytes(gzip.compress(_json(t))), False, summed=True),
    "jsonl.zst": Fixture(
        lambda d, t: (d / "a.jsonl.zst").write_bytes(pa.Codec("zstd").compress(_json(t), asbytes=True)), False
    ),
    "txt": Fixture(lambda d, t: (d / "a.txt").write_bytes("\n\n".join(t).encode()), False),
    "parquet": Fixture(lambda d, t: _parquet(d, t, "text"), False, counted=True),
    "parquet ids": Fixture(lambda d, t: _parquet(d, t, "input_ids"), True, counted=True),
    "internevo": Fixture(
        lambda d, t: internevo_file(d / "a.bin", [json.dumps({"tokens": x}).encode() + b"\n" for x in t]),
        True,
        counted=True,
    ),
    "megatron": Fixture(lambda d, t: megatron_pair(d / "a.bin", t), True, counted=True),
    "datatrove": Fixture(datatrove, True, counted=True),
    "dolma": Fixture(dolma, True, counted=True),
    "nanogpt": Fixture(nanogpt, True),
    "llmc": Fixture(llmc, True),
    "litpkds": Fixture(litpkds, True),
    "litdata": Fixture(litdata, True, counted=True),
    "mds": Fixture(
        lambda d, t: mds(d, {"tokens": "ndarray:int32"}, [{"tokens": ndarray(x, "int32")} for x in t]),
        True,
        counted=True,
    ),
    "mds text": Fixture(lambda d, t: mds(d, {"text": "str"}, [{"text": x.encode()} for x in t]), False, counted=True),
    "mds.zstd": Fixture(
        lambda d, t: mds(d, {"text": "str"}, [{"text": x.encode()} for x in t], "zstd"), False, counted=True
    ),
}  # fmt: skip

EXTREME = (0, 1, -1, 2**7, 2**15 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)


def mutated(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Name of a mutation drawn by `rng`, and the content after it."""
    data, size = bytearray(content), len(content)
    if not size:
        return "insert", bytes(rng.randbytes(9))
    a = rng.randrange(size)
    b = min(size, a + rng.choice([1, 2, 8, 40, size]))
    kind = rng.choice(["bits", "bytes", "zeros", "cut", "delete", "repeat", "insert", "field", "number", "swap"])
    if kind == "bits":
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        data[a:b] = rng.randbytes(b - a)
    elif kind == "zeros":
        data[a:b] = bytes(b - a)
    elif kind == "cut":
        del data[a:]
    elif kind == "delete":
        del data[a:b]
    elif kind == "repeat":
        data[b:b] = data[a:b]
    elif kind == "insert":
        data[a:a] = rng.randbytes(rng.randrange(1, 30))
    elif kind == "field":  # an integer near the beginning or the end, where headers and footers are
        width = rng.choice([1, 2, 4, 8])
        place = rng.randrange(min(size, 64)) if rng.random() < 0.7 else max(0, size - rng.randrange(1, 64))
        value = rng.choice([*EXTREME, size, 2 * size, size - 1])
        data[place : place + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
        del data[size:]
    elif kind == "number":  # one that is written in decimal digits
        digits = [i for i, c in enumerate(data) if 48 <= c < 58]
        if digits:
            place = rng.choice(digits)
            data[place : place + 1] = str(rng.choice(EXTREME)).encode()
    else:
        data[:] = data[a:] + data[:a]
    return kind, bytes(data)


class Case(NamedTuple):
    """One damaged corpus."""

    number: int
    format: str
    what: str  # file and mutation
    fixture: Fixture
    documents: list[Any]


def build(number: int, seed: int, where: Path, only: str = "") -> Case:
    """Writes case `number` into the empty directory `where`."""
    rng = random.Random(f"{seed} {number}")
    name = only or rng.choice(list(FIXTURES))
    fixture = FIXTURES[name]
    documents = _ids(rng) if fixture.ids else _texts(rng)
    fixture.write(where, documents)
    file = rng.choice(sorted(p for p in where.iterdir() if p.is_file()))
    if rng.random() < 0.01:
        file.unlink()
        return Case(number, name, f"{file.name}: deleted", fixture, documents)
    kind, content = mutated(file.read_bytes(), rng)
    file.write_bytes(content)
    return Case(number, name, f"{file.name}: {kind}", fixture, documents)


def outcome(case: Case, where: Path) -> str:
    """Reads the corpus -> "whole", "said", "refused", "changed" (nothing tells) or what is wrong, after "FAULT: "."""
    got: list[Any] = []
    lost = 0

    def bad(position: int, reason: str, excerpt: bytes, /, *, documents: int = 1, size: int = 0) -> None:
        nonlocal lost
        lost += max(documents, 1)

    try:
        plan = corpus.plan([str(where)], WANTED)
        for split in plan.splits:
            for batch in corpus.read(split, bad):
                got += batch.column("text" if "text" in batch.schema.names else "ids").to_pylist()
    except TinydataError as e:
        str(e).encode()
        return "refused"
    said = bool(lost or plan.unreadable or plan.skipped or plan.said)
    known = Counter(map(repr, case.documents))
    if case.fixture.summed and not said and Counter(map(repr, got)) - known:
        return "FAULT: a document that was never written, though there are checksums"
    declares = case.what.split(":")[0].endswith((".index", ".idx", ".meta", ".csv.gz", "index.json"))
    if case.fixture.counted and not declares and not said and len(got) < len(case.documents):
        return f"FAULT: {len(case.documents) - len(got)} documents are lost without a word"
    if Counter(map(repr, got)) == known:
        return "whole"
    return "said" if said else "changed"


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"over {SECONDS} s")


def run(numbers: range, seed: int, only: str = "") -> Iterator[tuple[int, str, str]]:
    """Cases -> (number, format and mutation, outcome); exceptions become faults, allocation is limited."""
    signal.signal(signal.SIGALRM, _too_long)
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + ALLOCATED, resource.RLIM_INFINITY))
    for number in numbers:
        with tempfile.TemporaryDirectory() as place:
            case = build(number, seed, Path(place), only)
            signal.alarm(SECONDS)
            try:
                result = outcome(case, Path(place))
            except BaseException:
                last = traceback.format_exc().strip().splitlines()
                frames = [line.strip() for line in last if "tinydata/" in line]
                result = f"FAULT: {last[-1]} at {frames[-1] if frames else '?'}"
            finally:
                signal.alarm(0)
            yield number, f"{case.format}, {case.what}", result


def _worker(numbers: range, seed: int, only: str, results: Any) -> None:
    for result in run(numbers, seed, only):
        results.put(result)
    results.put(None)


def main(args: list[str] | None = None) -> int:
    """Runs the cases in a process of their own, which is started again behind a case that killed it."""
    parser = argparse.ArgumentParser(prog="python -m tests.formats.fuzz")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", default="", choices=["", *FIXTURES])
    parser.add_argument("--only", type=int, default=-1)
    options = parser.parse_args(args)
    todo = range(options.cases) if options.only < 0 else range(options.only, options.only + 1)
    outcomes: Counter[tuple[str, str]] = Counter()
    faults: dict[str, list[str]] = {}
    context = multiprocessing.get_context("spawn")
    while todo:
        results = context.Queue()
        process = context.Process(target=_worker, args=(todo, options.seed, options.format, results))
        process.start()
        last = todo.start - 1
        while True:
            try:
                result = results.get(timeout=5 if not process.is_alive() else 3 * SECONDS)
            except Exception:  # the queue is empty: the process died, or does not answer to its alarm
                process.kill()
                process.join()
                result = (last + 1, "?", f"FAULT: killed by signal, or a hang (exit code {process.exitcode})")
            if result is None:
                todo = range(0)
                break
            last, what, said = result
            outcomes[what.split(",")[0], said.split(":")[0]] += 1
            if said.startswith("FAULT"):
                faults.setdefault(said, []).append(f"case {last} ({what})")
            if "killed by signal" in said:
                todo = range(last + 1, todo.stop)
                break
        process.join()
    kinds = ("whole", "said", "refused", "changed", "FAULT")
    print(f"{'':12}" + "".join(f"{k:>10}" for k in kinds))
    for name in sorted({name for name, _ in outcomes}):
        print(f"{name:12}" + "".join(f"{outcomes[name, k]:10,}" for k in kinds))
    for fault, cases in sorted(faults.items(), key=lambda pair: -len(pair[1])):
        print(f"{len(cases)} x {fault}\n    {'; '.join(cases[:3])}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
