"""`compact --drop-tokens`: reserved tokens go, those that something needs stay, and the text is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import train_bytes, train_pieces
from tinydata.cli.main import main
from tinydata.cli.texts.compact import trade_off_text
from tinydata.core.errors import TinydataError
from tinydata.engines.local import LocalEngine
from tinydata.tokenizers.base import CONTROL
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.compact.plan import Choice, Goal, choose, open_counts
from tinydata.verbs.count.plan import Settings
from tinydata.verbs.count.verb import count

RESERVED = [f"<unused{k}>" for k in range(60)]
# by the chat template, the post-processor, the padding, two configurations
NAMED = ["<turn>", "<tool>", "<pad>", "<image>", "<image-id>", "<end-id>"]


def _bytes(where: Path, text: list[str]) -> Path:
    """A byte-level BPE whose files name some of its added tokens, and list the reserved ones, too."""
    train_bytes(where, text, {})
    file = where / "tokenizer.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    at = {t: 2_503 + k for k, t in enumerate([*RESERVED, *NAMED])}
    config["added_tokens"] += [{"id": i, "content": t, **flags} for t, i in at.items()]
    begin = {"<tool>": {"id": "<tool>", "ids": [at["<tool>"]], "tokens": ["<tool>"]}}
    first = [{"SpecialToken": {"id": "<tool>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*first, {"Sequence": {"id": "B", "type_id": 1}}]
    config["post_processor"] = {"type": "TemplateProcessing", "single": first, "pair": pair, "special_tokens": begin}
    config["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    config["padding"] |= {"pad_id": at["<pad>"], "pad_type_id": 0, "pad_token": "<pad>"}
    file.write_text(json.dumps(config), encoding="utf-8")
    settings = {
        "eos_token": "<|endoftext|>",
        "chat_template": "{{ '<turn>' }}",
        "extra_special_tokens": {"i": "<image>"},
    }
    decoder = {str(i): {"content": t, **flags} for t, i in at.items()}
    lists = {"additional_special_tokens": [*RESERVED[:3], "<image>"], "added_tokens_decoder": decoder}
    (where / "tokenizer_config.json").write_text(json.dumps(settings | lists), encoding="utf-8")
    ids = {"text_config": {"image_token_index": at["<image-id>"]}, "eos_token_id": [2_500, at["<end-id>"]]}
    (where / "config.json").write_text(json.dumps(ids))
    (where / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": RESERVED[:2]}))
    return where


def _pieces(where: Path, text: list[str]) -> Path:
    return train_pieces(where, text, user_defined_symbols=RESERVED[:30], control_symbols=RESERVED[30:])


def _unigram(where: Path, text: list[str]) -> Path:
    symbols = {"user_defined_symbols": RESERVED[:30], "control_symbols": RESERVED[30:]}
    return train_pieces(where, text, model_type="unigram", **symbols)


FAMILIES: dict[str, Callable[[Path, list[str]], Path]] = {"bytes": _bytes, "pieces": _pieces, "unigram": _unigram}


@pytest.fixture(scope="module")
def made(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each family the tokenizer NAME and its counts NAME-counts."""
    root = tmp_path_factory.mktemp("dropped")
    rows = [{"text": t[i : i + 1_000]} for t in text for i in range(0, len(t), 1_000)]
    (root / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    for name, train in FAMILIES.items():
        train(root / name, text)
        count(
            [str(root / "corpus.jsonl")], str(root / name), str(root / f"{name}-counts"), LocalEngine(1), Settings(0.3)
        )
    return root


def chosen(made: Path, name: str, *drop: str, **goal: Any) -> Choice:
    return choose(open_counts(str(made / f"{name}-counts")), str(made / name), Goal(drop_tokens=drop, **goal))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("goal", [{"vocab": 1_200}, {"vocab": -1}, {"coverage": 0.99}, {"max_inflation": 0.02}])
def test_reserved_tokens_go_whatever_decides_the_size(made: Path, name: str, goal: dict[str, Any]) -> None:
    big = open_tokenizer(str(made / name))
    choice = chosen(made, name, "<unused*>", **goal)
    assert not [p for p in choice.small.pieces if p.startswith(b"<unused")]
    assert {p for i, p in enumerate(big.pieces) if big.kinds[i] == CONTROL and not p.startswith(b"<unused")} <= set(
        choice.small.pieces
    )
    trip = choice.tradeoff["heldout"]["round_trip"]
    assert trip["same_text"] == trip["documents"] > 30
    if goal == {"vocab": -1}:
        assert choice.small.size == big.size - 60
        assert choice.tradeoff["heldout"]["inflation"] == 0
    if goal == {"vocab": 1_200}:
        assert choice.small.size == 1_200
        assert choice.tradeoff["heldout"]["inflation"] < chosen(made, name, **goal).tradeoff["heldout"]["inflation"]


def test_some_by_text_and_by_id(made: Path) -> None:
    small = chosen(made, "bytes", "<unused7>", "#2504", vocab=1_200).small
    left = {p.decode() for p in small.pieces if p.startswith(b"<unused")}
    assert left == set(RESERVED) - {"<unused7>", "<unused1>"}


def test_no_file_names_a_removed_token(made: Path) -> None:
    """A name in a list would come back as a new token, with an id beyond the last."""
    files = chosen(made, "bytes", "<unused*>", vocab=1_200).small.files
    assert not [name for name, content in files.items() if b"<unused" in content]
    assert json.loads(files["tokenizer_config.json"])["additional_special_tokens"] == ["<image>"]
    assert b"<turn>" in files["tokenizer_config.json"]


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("<turn>", "the chat template uses it"),
        ("<tool>", "tokenizer.json names it in its post_processor"),
        ("<pad>", "tokenizer.json names it in its padding"),
        ("<image>", "tokenizer_config.json names it as i"),
        ("<image-id>", "config.json names it as image_token_index"),
        ("<end-id>", "config.json names it as eos_token_id"),
        ("<|endoftext|>", "tokenizer_config.json names it as eos_token"),
        ("the", "no special or added token 'the'"),
        ("<nothing*>", "no special or added token '<nothing*>'"),
        ("#17", "no special or added token '#17'"),
        ("<*>", "cannot be removed"),
    ],
)
def test_what_something_needs_is_refused(made: Path, token: str, why: str) -> None:
    with pytest.raises(TinydataError) as caught:
        chosen(made, "bytes", token, vocab=1_200)
    assert why in caught.value.what


def test_what_occurs_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": "a <unused5> b"}) + "\n")
    count(
        [str(tmp_path / "corpus.jsonl")], str(made / "bytes"), str(tmp_path / "counts"), LocalEngine(1), Settings(0.0)
    )
    with pytest.raises(TinydataError, match=r"<unused5> .* cannot be removed: it occurs in the corpus"):
        choose(open_counts(str(tmp_path / "counts")), str(made / "bytes"), Goal(300, drop_tokens=("<unused*>",)))


def test_the_most_frequent_ids_keep_all_special_tokens(made: Path) -> None:
    with pytest.raises(TinydataError, match="does not work with --method frequency"):
        chosen(made, "bytes", "<unused*>", vocab=1_200, method="frequency")


@pytest.mark.parametrize(("field", "why"), [("<s>", "bos_id"), ("</s>", "eos_id"), ("<unk>", "unk_id")])
def test_what_a_model_needs_is_refused(made: Path, field: str, why: str) -> None:
    with pytest.raises(TinydataError, match=why):
        chosen(made, "pieces", field, vocab=1_200)


def test_what_never_occurs_is_said(made: Path) -> None:
    said = trade_off_text(chosen(made, "bytes", vocab=1_200).tradeoff)
    assert "note: 62 special and added tokens, 5.2% of the ids, never occur in the corpus; --drop-tokens" in said
    assert said.endswith("'<unused*>' removes 60 of them")
    assert "--drop-tokens" not in trade_off_text(chosen(made, "bytes", "<unused*>", vocab=1_200).tradeoff)


def test_the_command(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns or a file of them; other libraries read the result to the same ids."""
    monkeypatch.chdir(tmp_path)
    Path("reserved.txt").write_text("<unused*>\n")
    for name, value in (("a", "<unused*>"), ("b", "reserved.txt")):
        with pytest.raises(SystemExit) as left:
            main(["compact", str(made / "bytes-counts"), "--vocab", "1200", "--drop-tokens", value, "-o", name, "-q"])
        assert left.value.code == 0
    assert json.loads(Path("a/manifest.json").read_bytes())["options"]["drop_tokens"] == ["<unused*>"]
    assert Path("a/tokenizer.json").read_bytes() == Path("b/tokenizer.json").read_bytes()
    transformers = pytest.importorskip("transformers")
    theirs, ours = transformers.AutoTokenizer.from_pretrained("a"), open_tokenizer("a")
    texts = ["plain text", "<turn>user<pad>", "an <unused3> token that is text now"]
    assert len(theirs) == ours.size == 1_200
    assert [theirs(t, add_special_tokens=False)["input_ids"] for t in texts] == ours.encode(texts)


@pytest.mark.slow
def test_real_reserved_tokens(shared: Path, text: list[str], tmp_path: Path) -> None:
    """DeepSeek-V3 has 800 placeholders, Mistral's tekken 980 numbered tokens in front of all others."""
    rows = "".join(json.dumps({"text": t}) + "\n" for t in text)
    (tmp_path / "corpus.jsonl").write_text(rows, encoding="utf-8")
    for name, pattern, number in (("deepseek_v3", "<｜place▁holder▁no▁*｜>", 800), ("tekken", "<SPECIAL_*>", 980)):
        path, out = str(shared / "tokenizers" / "modern" / name), str(tmp_path / name)
        count([str(tmp_path / "corpus.jsonl")], path, out, LocalEngine(1), Settings(0.3))
        kept, small = (choose(open_counts(out), path, Goal(8_000, drop_tokens=d)) for d in ((), (pattern,)))
        reserved = [c.small.pieces[i].decode() for c in (kept,) for i in np.flatnonzero(c.small.kinds == CONTROL)]
        assert len([t for t in reserved if t.startswith(pattern.split("*")[0])]) == number
        assert small.tradeoff["heldout"]["inflation"] < kept.tradeoff["heldout"]["inflation"]
        for choice in (kept, small):
            trip = choice.tradeoff["heldout"]["round_trip"]
            assert trip["same_text"] == trip["documents"] > 10
            assert [choice.small.decode([i]) for i in range(8_000)][:3] == ["<unk>", "<s>", "</s>"] or name != "tekken"
