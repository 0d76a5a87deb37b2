"""Bits per byte and multiple choice against what they are by definition."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install tinydata[train]")
pytest.importorskip("tyro", reason="the trainer's programs need tyro: pip install tinydata[train]")

import torch

from tests.trainer.processes import completed
from tinydata.engines.local import LocalEngine
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.encode import verb as encode
from trainer.data.order import Sequences
from trainer.data.shards import Shards
from trainer.errors import TrainerError
from trainer.evaluate import EvaluateConfig, chosen, on_data
from trainer.evaluation.multiple_choice import (
    GREEDY,
    Item,
    Request,
    accuracy,
    joined,
    likelihoods,
    read_items,
    request,
    solve,
)
from trainer.huggingface.tokenizer import Tokenizer, read_tokenizer
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig
from trainer.training.validation import measured

T = 64


@pytest.fixture(scope="module")
def shards(text: list[str], byte_bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of real text, with an end-of-text token behind each document."""
    root = tmp_path_factory.mktemp("evaluate")
    for domain, documents in (("code", text[:20]), ("prose", text[-28:])):
        (root / "corpus" / domain).mkdir(parents=True)
        lines = "".join(json.dumps({"text": t}) + "\n" for t in documents)
        (root / "corpus" / domain / "a.jsonl").write_text(lines, encoding="utf-8")
    encode.encode([str(root / "corpus")], str(byte_bpe / "gpt2"), str(root / "shards"), LocalEngine(1))
    return root / "shards"


@pytest.fixture(scope="module")
def tokenizer(byte_bpe: Path) -> Tokenizer:
    return read_tokenizer(byte_bpe / "gpt2")


def made(vocab: int, **changes: Any) -> Model:
    config = ModelConfig(vocab, width=32, depth=2, heads=4, kv_heads=2, head_dim=8, ffn=64, seq_len=T)
    model = Model(config)
    for (name, tensor), (_, p) in zip(random_weights(config, 0), model.named_parameters(), strict=True):
        p.data.copy_(tensor * changes.get("scale", 8.0) if "norm" not in name else tensor)
    return model.eval()


def uniform(vocab: int) -> Model:
    """All logits 0."""
    model = made(vocab)
    assert model.lm_head is not None
    model.lm_head.weight.data.zero_()
    return model


CPU = torch.device("cpu")


# -- bits per byte ----------------------------------------------------------------------------


def test_a_uniform_model_needs_the_vocabularys_bits(shards: Path, byte_bpe: Path) -> None:
    data = Shards.open(shards)
    sequences = Sequences(data, T, 0)
    numbers = np.arange(0, sequences.total, 3)
    found = measured(uniform(data.vocab), sequences, numbers, rows=4, device=CPU, vocab=data.vocab)

    tok = open_tokenizer(str(byte_bpe / "gpt2"))
    targets = [int(t) for i in numbers for t in data.read(i * T + 1, i * T + T + 1)]
    sizes = [len(tok.pieces[t]) for t in targets if t != data.manifest["eos"]]
    assert data.manifest["eos"] in targets
    assert found["bits_per_byte"] == pytest.approx(math.log2(data.vocab) / np.mean(sizes), rel=1e-6)
    assert found["loss"] == pytest.approx(math.log(data.vocab), rel=1e-6)  # of all targets, special ones too
    assert (found["targets"], found["bytes"]) == (len(targets), sum(sizes))


def test_domains_are_the_documents_of_the_targets(shards: Path, byte_bpe: Path) -> None:
    data, tok = Shards.open(shards), open_tokenizer(str(byte_bpe / "gpt2"))
    model, sequences = made(data.vocab), Sequences(data, T, 0)
    numbers = np.arange(sequences.total)
    found = measured(model, sequences, numbers, rows=5, device=CPU, vocab=data.vocab)

    names, domain_of = data.domains
    want: dict[str, list[float]] = {n: [0.0, 0.0, 0.0, 0.0] for n in names}
    for i in numbers.tolist():
        ids = torch.from_numpy(data.read(i * T, i * T + T + 1))
        with torch.no_grad():
            logits = model(ids[None, :-1])
        nll = -logits[0].log_softmax(1).gather(1, ids[1:, None]).squeeze(1).double()
        for k in range(T):
            document = max(d for d, s in enumerate(data.documents) if s <= i * T + 1 + k)
            sums = want[names[domain_of[document]]]
            size = 0 if ids[k + 1] == data.manifest["eos"] else len(tok.pieces[ids[k + 1]])
            for j, value in enumerate((nll[k].item(), 1, nll[k].item() if size else 0, size)):
                sums[j] += value
    assert set(found["domains"]) == {"code", "prose"}
    for name, (nats, count, text_nats, size) in want.items():
        got = found["domains"][name]
        assert (got["targets"], got["bytes"]) == (count, size)
        assert got["loss"] == pytest.approx(nats / count, rel=1e-5)
        assert got["bits_per_byte"] == pytest.approx(text_nats / math.log(2) / size, rel=1e-5)
    assert found["loss"] == pytest.approx(sum(w[0] for w in want.values()) / len(numbers) / T, rel=1e-5)


@pytest.mark.parametrize("rows", [1, 7])
def test_how_many_at_once_does_not_matter(shards: Path, rows: int) -> None:
    data = Shards.open(shards)
    model, sequences = made(data.vocab), Sequences(data, T, 0)
    numbers = np.array([5, 2, 11, 30, 31])
    told: list[int] = []
    options: dict[str, Any] = {"device": CPU, "vocab": data.vocab}
    found = measured(model, sequences, numbers, rows=rows, done=told.append, **options)
    want = measured(model, sequences, numbers, rows=5, **options)
    assert found["loss"] == pytest.approx(want["loss"], rel=1e-6)
    assert found["bytes"] == want["bytes"]
    assert sum(told) == 5 * T


def test_without_sizes_there_is_only_the_loss(shards: Path, tmp_path: Path) -> None:
    for file in shards.iterdir():
        if file.name != "pieces.parquet":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    data = Shards.open(tmp_path)
    found = measured(uniform(data.vocab), Sequences(data, T, 0), np.arange(3), rows=2, device=CPU, vocab=data.vocab)
    assert "bits_per_byte" not in found
    assert found["loss"] == pytest.approx(math.log(data.vocab), rel=1e-6)


def test_what_is_looked_at(shards: Path) -> None:
    data = Shards.open(shards)
    total = (data.tokens - 1) // T
    assert chosen(data, {}, T, 0)[1].tolist() == list(range(total))
    some = chosen(data, {}, T, 10 * T)[1]
    assert len(some) == len(set(some.tolist())) == 10
    assert np.ptp(np.diff(some)) <= 1  # evenly spread
    run = {"data": {"fingerprint": data.fingerprint}, "train": {"seq_len": T, "holdout": 24}}
    assert chosen(data, run, T, 10 * T)[1].tolist() == Sequences(data, T, 24).held_out.tolist()
    assert "may have been trained" in chosen(data, run, T // 2, 0)[2]


def test_ids_of_another_tokenizer_are_refused(shards: Path) -> None:
    data = Shards.open(shards)
    other = {"tokenizer": {"family": "wordpiece", "size": 7, "fingerprint": "00ff"}}
    with pytest.raises(TrainerError, match=r"different tokenizer.*00ff") as e:
        on_data(uniform(data.vocab), other, str(shards), EvaluateConfig("model"))
    assert data.tokenizer["fingerprint"] in e.value.where
    with pytest.raises(TrainerError, match="the model has only 9"):
        on_data(uniform(9), {}, str(shards), EvaluateConfig("model"))


def test_the_program_says_what_the_run_said(shards: Path, tmp_path: Path, byte_bpe: Path) -> None:
    """A checkpoint evaluated on its own held-out sequences: the last validation of the run; and all of it as text."""
    train = f"--data {shards} -o run --preset tiny-1m --width 32 --depth 1 --heads 2 --seq-len {T} --steps 2"
    spoken(tmp_path, "trainer.run", *train.split(), "--batch-tokens", "512", "--holdout", "20", "--device", "cpu")
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [x["validation"] for x in lines if "validation" in x][-1]
    task = tmp_path / "mine.jsonl"
    task.write_text(json.dumps({"query": "import", "choices": ["os", "the red kiosk"], "gold": 0}) + "\n")
    asked = ["run", "--device", "cpu", "--diagnostics", "--tokenizer", str(byte_bpe / "gpt2")]
    found = json.loads(spoken(tmp_path, "trainer.evaluate", *asked, "--tasks", str(task), "--json"))
    assert found["validation"]["loss"] == pytest.approx(last["loss"], rel=1e-6)
    assert found["validation"]["bits_per_byte"] == pytest.approx(last["bits_per_byte"], rel=1e-6)
    assert found["step"] == 2
    assert found["tasks"]["mine"]["chance"] == 0.5
    assert len(found["diagnostics"]["layers"]) == 2
    shown = spoken(tmp_path, "trainer.evaluate", *asked)
    assert f"{found['validation']['bits_per_byte']:.4f}" in shown
    assert "attention sinks" in shown


def spoken(where: Path, module: str, *args: str) -> str:
    done = completed(module, *args, cwd=where)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- multiple choice: reading -----------------------------------------------------------------

SHAPES: list[tuple[dict[str, Any], list[tuple[str, str]], int]] = [
    (
        {"query": "Question: What is wet?", "choices": ["Water", "Sand"], "gold": 0},
        [("Question: What is wet?\nAnswer:", " Water"), ("Question: What is wet?\nAnswer:", " Sand")],
        0,
    ),
    (
        {"query": "Q: Is it so?\nA:", "choices": ["yes", "no"], "gold": 1},
        [("Q: Is it so?\nA:", " yes"), ("Q: Is it so?\nA:", " no")],
        1,
    ),
    (
        {"context_options": ["The cup fell because the cup", "The cup fell because the shelf"],
         "continuation": "was loose.", "gold": 1},
        [("The cup fell because the cup", " was loose."), ("The cup fell because the shelf", " was loose.")],
        1,
    ),
    ({"context": "once upon a", "continuation": "time"}, [("once upon a", " time")], GREEDY),
    (
        {"premise": "It rained.", "choice1": "He slept.", "choice2": "He got wet.", "question": "effect", "label": 1},
        [("It rained.", " He slept."), ("It rained.", " He got wet.")],
        1,
    ),
    (
        {"premise": "天黑了。", "choice1": "太阳落山了。", "choice2": "天亮了。", "question": "cause", "label": 0},
        [("太阳落山了。", "天黑了。"), ("天亮了。", "天黑了。")],
        0,
    ),
    (
        {"passage": None, "question": "“大一统”指的是", "options": ["(A)中华文明", "(B)埃及文明"], "label": "B"},
        [("问题：“大一统”指的是\n答案：", "中华文明"), ("问题：“大一统”指的是\n答案：", "埃及文明")],
        1,
    ),
    (
        {"question": "Which is ice?", "choices": {"text": ["fire", "frost"], "label": ["A", "B"]}, "answerKey": "B"},
        [("Question: Which is ice?\nAnswer:", " fire"), ("Question: Which is ice?\nAnswer:", " frost")],
        1,
    ),
    ({"ctx": "A man sits", "endings": ["down.", "up a tree."], "label": "0"},
     [("A man sits", " down."), ("A man sits", " up a tree.")], 0),
    ({"goal": "Open a jar", "sol1": "Turn the lid.", "sol2": "Sing.", "label": 0},
     [("Question: Open a jar\nAnswer:", " Turn the lid."), ("Question: Open a jar\nAnswer:", " Sing.")], 0),
    ({"question": "1 + 1?", "choices": ["1", "2"], "answer": 1},
     [("Question: 1 + 1?\nAnswer:", " 1"), ("Question: 1 + 1?\nAnswer:", " 2")], 1),
    ({"context": "The cat is Tom. ", "question": "Who?", "answers": ["Tom", "Tom", "the cat"]},
     [("The cat is Tom.\nQuestion: Who?\nAnswer:", " Tom"), ("The cat is Tom.\nQuestion: Who?\nAnswer:", " the cat")],
     GREEDY),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "pairs", "gold"), SHAPES, ids=lambda x: "-".join(x)[:40] if isinstance(x, dict) else ""
)
def test_shapes(tmp_path: Path, line: dict[str, Any], pairs: list[tuple[str, str]], gold: int) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({**line, "_row": 3}) + "\n\n")
    assert read_items(tmp_path / "a.jsonl") == [Item(pairs, gold)]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"query": "a"}',
        '{"query": "a", "choices": ["b"], "gold": 1}',
        '{"query": "a", "choices": ["b", " "], "gold": 0}',
        '{"question": "a", "options": ["b", "c"], "label": ["A", "B"]}',
    ],
)
def test_other_lines_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"context": "a", "continuation": "b"}\n' + line + "\n")
    with pytest.raises(TrainerError) as e:
        read_items(tmp_path / "a.jsonl")
    assert e.value.where.endswith("a.jsonl, line 2")


def test_a_blank_only_where_the_script_has_one() -> None:
    assert joined("So", "it goes") == " it goes"
    assert joined("So ", "it goes") == joined("", "it goes") == "it goes"
    assert joined("所以", "他走了") == "他走了"
    assert joined("그래서", "갔다") == " 갔다"
    assert joined("ดังนั้น", "เขาไป") == "เขาไป"


def test_the_shared_files_are_read(shared: Path) -> None:
    files = sorted((shared / "eval").glob("*.jsonl"))
    for file in files:
        items = read_items(file)
        assert len(items) == len(file.read_text(encoding="utf-8").strip().split("\n"))
        assert {len(i.pairs) for i in items} <= {1, 2, 3, 4, 5}
    assert len(files) > 10


# -- multiple choice: scoring -----------------------------------------------------------------


def test_likelihoods_are_those_of_one_at_a_time(tokenizer: Tokenizer) -> None:
    model = made(tokenizer.size)
    words = ["The ferry leaves", "so don't be late; we'll wait by the red kiosk", "import", "def f(x):\n    return x"]
    requests = [request(tokenizer, tokenizer.eos, a, " " + b, T) for a in words for b in words]
    told: list[int] = []
    nll, greedy = likelihoods(model, requests, tokens=90, done=told.append)
    assert sum(told) == len(requests) > len(told) > 1
    for r, cost, said in zip(requests, nll, greedy, strict=True):
        ids = torch.tensor(r.ids)
        with torch.no_grad():
            log_p = model(ids[None, :-1])[0].log_softmax(1)
        asked = range(len(ids) - r.asked, len(ids))
        assert cost == pytest.approx(-sum(log_p[k - 1, ids[k]].item() for k in asked), rel=1e-4)
        assert said == all(log_p[k - 1].argmax() == ids[k] for k in asked)


def test_what_greedy_decoding_says(tokenizer: Tokenizer) -> None:
    model = made(tokenizer.size)
    ids = tokenizer.encode("The ferry leaves at")
    for _ in range(4):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    other = [*ids[:-1], (ids[-1] + 1) % tokenizer.size]
    _, greedy = likelihoods(model, [Request(ids, 4, False), Request(other, 4, False), Request(other, 5, False)], 64)
    assert greedy.tolist() == [True, False, False]


def test_a_request_is_the_pair_and_asks_for_the_continuation(tokenizer: Tokenizer) -> None:
    r = request(tokenizer, tokenizer.eos, "The red", " kiosk", T)
    assert r.ids[0] == tokenizer.eos
    assert tokenizer.decode(r.ids[1:]) == "The red kiosk"
    assert tokenizer.decode(r.ids[-r.asked :]) == " kiosk"
    assert not r.cut
    inside = request(tokenizer, None, "The red kio", "sk", T)  # what changes when the pair is one text
    assert tokenizer.decode(inside.ids[-inside.asked :]).endswith("sk")
    assert inside.asked >= 1


def test_what_is_too_long_loses_its_beginning(tokenizer: Tokenizer) -> None:
    context = "The ferry leaves at 6:45. " * 40
    r = request(tokenizer, tokenizer.eos, context, " Good.", T)
    assert len(r.ids) == T + 1
    assert r.cut
    assert tokenizer.decode(r.ids).endswith("6:45.  Good.")
    found = solve(made(tokenizer.size), tokenizer, None, [Item([(context, " a"), ("b", " c")], 0)], length=T, tokens=99)
    assert found["cut"] == 1


def test_a_uniform_model_prefers_few_tokens_and_shares_the_point(tokenizer: Tokenizer) -> None:
    items = [
        Item([("It is", " the"), ("It is", " the"), ("It is", " the the")], 0),  # two are equally likely
        Item([("It is", " the the"), ("It is", " the")], 0),
    ]
    found = solve(uniform(tokenizer.size), tokenizer, tokenizer.eos, items, length=T, tokens=64)
    assert found["accuracy"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_accuracy_by_hand() -> None:
    two = [("c", " ab"), ("c", " abcdef")]  # 3 and 7 bytes
    items = [Item(two, 0), Item(two, 1), Item(two, 1), Item([("c", " x")], GREEDY)]
    nll = np.array([3.0, 4.0, 3.0, 4.0, 9.0, 8.0, 5.0])
    found = accuracy(items, nll, np.array([False] * 6 + [True]))
    assert found["accuracy"] == 3 / 4  # right, wrong, right, said
    assert found["accuracy_by_bytes"] == 3 / 4  # 3/3 > 4/7: wrong, right, right, said
    assert found["accuracy_stderr"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert found["chance"] == pytest.approx((3 * 0.5 + 0) / 4)
    assert found["items"] == 4
