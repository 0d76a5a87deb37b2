"""Tokenizer files whose fields are wrong: an error that says so, not a traceback, a gigabyte or a minute."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinydata.core.errors import TinydataError
from tinydata.tokenizers.open import open_tokenizer

Damage = Callable[[dict[str, Any]], Any]


def doubling(config: dict[str, Any]) -> None:
    """22 merges, each of the last piece with itself: a piece of four million letters."""
    text = "a"
    for _ in range(22):
        config["model"]["merges"].append([text, text])
        text += text
        config["model"]["vocab"][text] = len(config["model"]["vocab"])


DAMAGES: dict[str, Damage] = {
    "a huge id": lambda c: c["model"]["vocab"].update({"zz": 1 << 28}),
    "a huge added id": lambda c: c["added_tokens"].append({"id": 1 << 28, "content": "x"}),
    "a negative id": lambda c: c["model"]["vocab"].update({"zz": -1}),
    "a text id": lambda c: c["model"]["vocab"].update({"zz": "3"}),
    "a true id": lambda c: c["model"]["vocab"].update({"zz": True}),
    "added tokens an object": lambda c: c.update(added_tokens={"a": 1}),
    "added tokens numbers": lambda c: c.update(added_tokens=[1, 2]),
    "an added token without id": lambda c: c["added_tokens"].append({"content": "x"}),
    "a lone surrogate": lambda c: c["model"]["vocab"].update({"\udc00": 299}),
    "a vocab list": lambda c: c["model"].update(vocab=[1, 2, 3]),
    "doubling merges": doubling,
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_tokenizer_json(what: str, byte_bpe: Path, tmp_path: Path) -> None:
    config = json.loads((byte_bpe / "gpt2" / "tokenizer.json").read_bytes())
    DAMAGES[what](config)
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    begun = time.process_time()
    with pytest.raises(TinydataError, match="not supported") as e:
        open_tokenizer(str(tmp_path))
    str(e.value).encode()
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(("name", "content"), [
    ("added_tokens.json", '{"x": "y"}'), ("added_tokens.json", '{"x": 268435456}'), ("added_tokens.json", "[]"),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"a": {"content": "x"}}}'),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"1": 2}}'),
    ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'), ("tokenizer_config.json", "[" * 100_000),
])  # fmt: skip
def test_damaged_companions(name: str, content: str, byte_bpe: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((byte_bpe / "gpt2" / "tokenizer.json").read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(TinydataError):
        open_tokenizer(str(tmp_path))


def ranks(extra: bytes = b"", less: tuple[int, ...] = ()) -> bytes:
    lines = [b"%s %d" % (base64.b64encode(bytes([b])), b) for b in range(256) if b not in less]
    return b"\n".join([*lines, extra])


def test_a_rank_file_with_a_huge_rank(tmp_path: Path) -> None:
    (tmp_path / "gpt2.tiktoken").write_bytes(ranks(b"YWI= 268435456"))
    with pytest.raises(TinydataError, match="ranks up to 268,435,456"):
        open_tokenizer(str(tmp_path))


def test_a_rank_file_that_lists_the_empty_token(tmp_path: Path) -> None:
    """As one speech model ships it; what is missed then is only that 256 ranks are none of a known name."""
    (tmp_path / "gpt2.tiktoken").write_bytes(ranks(b"= 256"))
    with pytest.raises(TinydataError, match="256 ranks instead of"):
        open_tokenizer(str(tmp_path))
