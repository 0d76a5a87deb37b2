"""Accuracy on multiple-choice questions in JSON lines: the most likely continuation is the model's answer.

No harness, no download, no few-shot examples: the text of each choice is scored as a continuation of the question (the
cloze form, which small models can answer, unlike a choice among letters). Likelihoods are compared in total and per
byte of the continuation, which does not favor short ones and does not depend on the tokenizer.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.errors import UNREADABLE, TrainerError
from trainer.huggingface.tokenizer import Tokenizer
from trainer.model.head_loss import chunk_tokens
from trainer.model.transformer import Model

GREEDY = -1  # gold of an item without choices: correct if greedy decoding produces one of the continuations


class Item(NamedTuple):
    pairs: list[tuple[str, str]]  # context, continuation
    gold: int  # index of the correct pair, or GREEDY


class Request(NamedTuple):
    ids: list[int]
    asked: int  # number of ids at the end whose likelihood is requested
    cut: bool  # the context was too long for the model, so its beginning was removed


# -- reading ----------------------------------------------------------------------------------


def read_items(path: str | Path) -> list[Item]:
    """JSON lines in any of SHAPES -> items. Raises TrainerError, with the line, for any other."""
    items = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise TrainerError(
            f"the task file cannot be read: {e}", where=str(path), fix="pass --tasks FILE.jsonl", code=UNREADABLE
        ) from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            items.append(_item(line, f"{path}, line {number}"))
    if not items:
        raise TrainerError(
            "the task file contains no questions", where=str(path), fix="pass --tasks FILE.jsonl", code=UNREADABLE
        )
    return items


def _item(line: str, where: str) -> Item:
    known = "; ".join(", ".join(keys) for keys in SHAPES)
    try:
        x = json.loads(line)
        convert = next((make for keys, make in SHAPES.items() if x.keys() >= set(keys)), None)
        if convert is None:
            raise ValueError(f"its keys are {', '.join(x)}")
        item = convert(x)
        if not -1 <= item.gold < len(item.pairs) or not all(c.strip() for _, c in item.pairs):
            raise ValueError(f"the answer is number {item.gold + 1} of {len(item.pairs)} choices, or a choice is empty")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise TrainerError(
            f"the question is not in a supported format: {type(e).__name__}: {e}",
            where=where,
            fix=f"use a JSON object with one of these sets of keys: {known}",
            code=UNREADABLE,
        ) from None
    return item


def _after(context: str, choices: list[str], gold: int) -> Item:
    return Item([(context, joined(context, c)) for c in choices], gold)


def joined(context: str, continuation: str) -> str:
    """The continuation, preceded by a space if its script separates words and there is none yet."""
    spaceless = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "FULLWIDTH", "CIRCLED")
    first = unicodedata.name(continuation[:1], "")
    bare = not context or context[-1:].isspace() or continuation[:1].isspace() or first.startswith(spaceless)
    return continuation if bare else f" {continuation}"


def _asked(question: str) -> str:
    """The question as a prompt that ends where the answer begins."""
    if re.search("[\u4e00-\u9fff]", question):
        return f"问题：{question.strip()}\n答案："
    return f"Question: {question.strip()}\nAnswer:"


def _query(x: dict[str, Any]) -> Item:
    query = x["query"]
    waiting = query.rsplit("\n", 1)[-1].startswith("Question:")  # llm-foundry's files do not contain "Answer:"
    return _after(f"{query}\nAnswer:" if waiting else query, x["choices"], x["gold"])


def _contexts(x: dict[str, Any]) -> Item:
    return Item([(c, joined(c, x["continuation"])) for c in x["context_options"]], x["gold"])


def _copa(x: dict[str, Any]) -> Item:
    """The cause, then the effect, without a word between them, so that the form is the same in every language."""
    premise, choices = x["premise"], [x["choice1"], x["choice2"]]
    if x["question"] == "effect":
        return _after(premise, choices, x["label"])
    return Item([(c, joined(c, premise)) for c in choices], x["label"])


def _options(x: dict[str, Any]) -> Item:
    """AGIEval: `(A)` is removed from the options; the label is a letter."""
    question = "\n".join(t.strip() for t in (x.get("passage"), x["question"]) if t)
    options = [re.sub(r"^\s*\(?[A-H][).．、:]\s*", "", o) for o in x["options"]]
    return _after(_asked(question), options, _letter(x["label"]))


def _letter(label: Any) -> int:
    if not (isinstance(label, str) and len(label) == 1):
        raise ValueError(f"there is no single correct answer: {label!r}")
    return ord(label) - ord("A")


def _mmlu(x: dict[str, Any]) -> Item:
    answer = x["answer"]
    return _after(_asked(x["question"]), x["choices"], answer if isinstance(answer, int) else _letter(answer))


def _arc(x: dict[str, Any]) -> Item:
    labels = x["choices"]["label"]
    return _after(_asked(x["question"]), x["choices"]["text"], labels.index(x["answerKey"]))


def _question(x: dict[str, Any]) -> Item:
    context = f"{x['context'].strip()}\n{_asked(x['question'])}"
    return _after(context, list(dict.fromkeys(x["answers"])), GREEDY)


SHAPES: dict[tuple[str, ...], Callable[[dict[str, Any]], Item]] = {
    ("query", "choices", "gold"): _query,
    ("context_options", "continuation", "gold"): _contexts,  # Winograd: the context that makes it more likely
    ("context", "continuation"): lambda x: _after(x["context"], [x["continuation"]], GREEDY),  # LAMBADA
    ("premise", "choice1", "choice2", "question", "label"): _copa,
    ("question", "options", "label"): _options,
    ("question", "choices", "answerKey"): _arc,  # this and the next two as on the Hugging Face hub
    ("ctx", "endings", "label"): lambda x: _after(x["ctx"], x["endings"], int(x["label"])),
    ("goal", "sol1", "sol2", "label"): lambda x: _after(_asked(x["goal"]), [x["sol1"], x["sol2"]], x["label"]),
    ("question", "choices", "answer"): _mmlu,
    ("context", "question", "answers"): _question,
}


# -- scoring ----------------------------------------------------------------------------------


def request(tokenizer: Tokenizer, begin: int | None, context: str, continuation: str, length: int) -> Request:
    """A pair -> ids of both together. The ids that differ from those of the context alone are the continuation.

    length: the model's T; only the last T + 1 ids are kept.
    """
    alone, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    same = next((k for k, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
    asked = max(1, len(whole) - same)
    if begin is not None:
        whole = [begin, *whole]
    return Request(whole[-length - 1 :], min(asked, length, len(whole) - 1), len(whole) > length + 1)


@torch.no_grad()
def likelihoods(
    model: Model, requests: list[Request], tokens: int, done: Callable[[int], None] = lambda n: None
) -> tuple[np.ndarray, np.ndarray]:
    """-> nll of each continuation, in nats, float64 [n]; whether greedy decoding would produce it, bool [n].

    tokens: largest number in one forward pass. `done` is called with the number of requests after each.
    """
    nll, greedy = np.empty(len(requests)), np.empty(len(requests), bool)
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].ids))
    while order:
        rows = max(1, tokens // len(requests[order[0]].ids))
        here, order = order[:rows], order[rows:]
        nll[here], greedy[here] = _batch(model, [requests[i] for i in here])
        done(len(here))
    return nll, greedy


def _batch(model: Model, requests: list[Request]) -> tuple[np.ndarray, np.ndarray]:
    device = model.embed_tokens.weight.device
    longest = max(len(r.ids) for r in requests)
    ids = torch.tensor([[*r.ids, *[0] * (longest - len(r.ids))] for r in requests], device=device)
    at = [(row, k) for row, r in enumerate(requests) for k in range(len(r.ids) - r.asked, len(r.ids))]
    row, place = torch.tensor(at, device=device).unbind(1)
    hidden, targets = model.hidden(ids[:, :-1])[row, place - 1], ids[row, place]
    nll, greedy = _at_head(hidden, model.head(), targets)
    which = row.cpu().numpy()
    sums = np.bincount(which, nll.cpu().double().numpy(), len(requests))
    return sums, np.bincount(which, (~greedy).cpu().numpy(), len(requests)) == 0


def _at_head(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """hidden [n, d], head [V, d], targets [n] -> nll float32 [n], target is the most likely id bool [n]; by chunks."""
    nll, greedy = [], []
    size = chunk_tokens(len(head), hidden.device.type)
    for h, t in zip(hidden.split(size), targets.split(size), strict=True):
        logits = (h @ head.T).float()
        nll.append(logits.logsumexp(1) - logits.gather(1, t.unsqueeze(1)).squeeze(1))
        greedy.append(logits.argmax(1) == t)
    return torch.cat(nll), torch.cat(greedy)


def accuracy(items: list[Item], nll: np.ndarray, greedy: np.ndarray) -> dict[str, float]:
    """nll and greedy of all pairs, item after item -> accuracy, in total and per byte, with standard errors.

    Choices of equal likelihood share the point, so that a model without knowledge gets the chance level.
    """
    plain, by_bytes, chance, at = [], [], [], 0
    for item in items:
        here = slice(at, at + len(item.pairs))
        at = here.stop
        if item.gold == GREEDY:
            plain.append(float(greedy[here].any()))
            by_bytes.append(plain[-1])
            chance.append(0.0)
            continue
        sizes = np.array([len(c.encode()) for _, c in item.pairs])
        plain.append(_point(nll[here], item.gold))
        by_bytes.append(_point(nll[here] / sizes, item.gold))
        chance.append(1 / len(item.pairs))
    out: dict[str, float] = {"items": len(items), "chance": float(np.mean(chance))}
    for name, points in (("accuracy", plain), ("accuracy_by_bytes", by_bytes)):
        spread = float(np.std(points, ddof=1)) if len(points) > 1 else 0.0
        out |= {name: float(np.mean(points)), f"{name}_stderr": spread / math.sqrt(len(points))}
    return out


def _point(costs: np.ndarray, gold: int) -> float:
    best = costs == costs.min()
    return float(best[gold]) / int(best.sum())


def solve(
    model: Model,
    tokenizer: Tokenizer,
    begin: int | None,
    items: list[Item],
    *,
    length: int,
    tokens: int,
    done: Callable[[int], None] = lambda n: None,
) -> dict[str, float]:
    """Items -> accuracy, and `cut`: number of pairs longer than `length` tokens. begin: the id that precedes a text."""
    requests = [request(tokenizer, begin, *pair, length) for item in items for pair in item.pairs]
    return accuracy(items, *likelihoods(model, requests, tokens, done)) | {"cut": sum(r.cut for r in requests)}
