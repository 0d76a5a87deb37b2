"""The first pass over text that nobody has seen, and the second: counting and encoding against exact encoders.

Each contender has a process of its own, on one core, in turns. It loads the tokenizer, encodes one made-up line, so
that compiling and loading are over, and then all shared corpora, a file at a time, twice. We and gigatoken read the
JSON lines in the time that is measured; fastokens gets texts that are in memory. Counts of all
ids must be ours.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import process
from benchmarks.place import SHARED, Place
from benchmarks.table import Peak, Row, compare
from benchmarks.text import _texts, _tokenizer_json

UNIT = "MB/CPU-s"
TOKENIZERS = {
    "GPT-2": "bytebpe/gpt2_50257/vocab.json",
    "Qwen3": "modern/qwen3",
    "DeepSeek-V3": "modern/deepseek_v3",
    "gpt-oss": "modern/gptoss",
}
PEERS = ("gigatoken", "fastokens")
GOALS = {("count", 0): ">= 1.5", ("encode", 0): ">= 1", ("count", 1): ">= 1", ("encode", 1): ">= 0.7"}
LINE = "Once upon a time, in 1999, there were 3 l\u00edttle \u72d0\u72f8 \u2014 and that's it!\n"


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    if not (SHARED / "corpora").is_dir():
        return [Row("passes", note=f"skipped: no {SHARED.parent.name}/data/corpora beside the project")], []
    made = process.call("benchmarks.text:unpack", place.folder, "", place.scale).value
    out: list[Row] = []
    peaks: list[Peak] = []
    for name, path in TOKENIZERS.items():
        found = _in_turns(made, str(SHARED / "tokenizers" / path), max(place.rounds // 2, 1))
        peaks += [Peak(f"{who}, {name}", found[who]["peak"]) for who in ("count", "encode")]
        for who in ("count", "encode"):
            for turn, label in enumerate(("first", "second")):
                out.append(_against_the_best(f"{who}, {name}: {label} pass", who, turn, found))
    return out, peaks


def _against_the_best(name: str, who: str, turn: int, found: dict[str, dict[str, Any]]) -> Row:
    exact = [p for p in PEERS if found[p]["counts"] == found["count"]["counts"]]
    others = {p: statistics.median(found[p]["speeds"][turn]) for p in exact}
    note = "; ".join(f"{p}: {found[p]['why']}" for p in PEERS if p not in exact)
    ours = found[who]["speeds"][turn]
    if not others:
        return Row(name, note=note)
    best = max(others, key=lambda p: others[p])
    note = ", ".join([f"{p} {others[p]:.1f}" for p in others if p != best] + [note] * bool(note))
    return compare(f"{name} / {best}", UNIT, ours, found[best]["speeds"][turn], GOALS[who, turn], note)


def _in_turns(made: dict[str, Any], tok: str, rounds: int) -> dict[str, dict[str, Any]]:
    """{contender: its speeds in the first and second passes, and a hash of the counts of all ids}."""
    found: dict[str, dict[str, Any]] = {
        who: {"speeds": ([], []), "counts": "", "why": "its counts differ", "peak": 0}
        for who in ("count", "encode", *PEERS)
    }
    for _ in range(rounds):
        for who, facts in found.items():
            try:
                run = process.call("benchmarks.passes:both", who, made["whole"], tok)
            except RuntimeError as e:
                facts["why"] = str(e).splitlines()[-1][:100]
                continue
            for turn in (0, 1):
                facts["speeds"][turn].append(run.value["speeds"][turn])
            facts["counts"], facts["peak"] = run.value["counts"], max(facts["peak"], run.peak)
    if found["encode"]["counts"] != found["count"]["counts"]:
        raise AssertionError("the ids that encoding gives are not those that counting counts")
    return found


# -- in a process of its own ------------------------------------------------------------------


class Contender(NamedTuple):
    """What is measured: encode and finish."""

    prepare: Callable[[str], Any]  # path of a .jsonl -> what is encoded
    encode: Callable[[Any], Any]  # -> its ids, in any form; None: they are only counted
    flat: Callable[[Any], Any] = list  # -> an array of ids
    finish: Callable[[], Any] = lambda: None  # at the end of a pass -> int64[ids], how often each occurred, or None


def both(who: str, folder: str, tok: str) -> dict[str, Any]:
    """Contender, directory of .jsonl, tokenizer -> {"speeds": MB per CPU-second of two passes, "counts": a hash}."""
    import numpy as np

    from tinydata.tokenizers.open import open_tokenizer

    files = sorted(str(p) for p in Path(folder).glob("*.jsonl"))
    size = sum(len(t.encode()) for file in files for batch in _texts(Path(file)) for t in batch)
    contender = CONTENDERS[who](tok)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as line:
        line.write(json.dumps({"text": LINE}) + "\n")
        line.flush()
        contender.encode(contender.prepare(line.name))
        contender.finish()
    counts = np.zeros((2, open_tokenizer(tok).size), np.int64)
    speeds = []
    for turn in range(2):
        spent = 0.0
        for file in files:
            given = contender.prepare(file)
            began = time.process_time()
            ids = contender.encode(given)
            spent += time.process_time() - began
            if ids is not None:
                counts[turn] += np.bincount(contender.flat(ids), minlength=counts.shape[1])
        began = time.process_time()
        counted = contender.finish()
        spent += time.process_time() - began
        if counted is not None:
            counts[turn] = counted
        speeds.append(size / spent / 1e6)
    return {"speeds": speeds, "counts": hashlib.md5(counts[0].tobytes()).hexdigest()}


def _batches(file: str) -> Iterator[Any]:
    from tinydata.formats.corpus import plan, read

    for split in plan([file]).splits:
        for batch in read(split, lambda *_: None):
            yield batch.column("text")


def _count(tok: str) -> Contender:
    import numpy as np

    from tinydata.tokenizers.open import open_tokenizer
    from tinydata.tokenizers.text_counter import TextCounter

    counter, before = TextCounter(open_tokenizer(tok)), []

    def add(file: str) -> None:
        for texts in _batches(file):
            counter.add(texts, np.zeros(len(texts), np.int32))

    def finish() -> Any:
        before.append(counter.finish()[0].copy())
        return before[-1] - (before[-2] if len(before) > 1 else 0)

    return Contender(str, add, finish=finish)


def _encode(tok: str) -> Contender:
    import numpy as np

    from tinydata.tokenizers.open import open_tokenizer
    from tinydata.tokenizers.text_encoder import TextEncoder

    encoder = TextEncoder(open_tokenizer(tok))
    return Contender(str, lambda file: [encoder.encode(texts)[0].copy() for texts in _batches(file)], np.concatenate)


def _gigatoken(tok: str) -> Contender:
    import awkward
    import gigatoken

    library = gigatoken.Tokenizer.from_json(_tokenizer_json(tok))
    return Contender(
        str,
        lambda file: library.encode_files(gigatoken.JsonlFileSource([file]), parallel=False),
        lambda ids: awkward.to_numpy(awkward.flatten(ids)),
    )


def _fastokens(tok: str) -> Contender:
    import fastokens
    import numpy as np

    library = fastokens.Tokenizer.from_json_str(_tokenizer_json(tok))
    return Contender(
        lambda file: [t for texts in _texts(Path(file)) for t in texts],
        library.encode_batch,
        lambda found: np.concatenate([np.array(getattr(f, "ids", f), np.int64) for f in found]),
    )


CONTENDERS = {"count": _count, "encode": _encode, "gigatoken": _gigatoken, "fastokens": _fastokens}
