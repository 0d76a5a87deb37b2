"""What a run says of where it began, and that tinydata knows it again by that."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

from tinydata import made  # noqa: E402
from tinydata.store import Location  # noqa: E402
from trainer.identity import of_weights  # noqa: E402


def test_weights_are_known_by_the_same_fingerprint_on_both_sides(tmp_path):
    before = None
    for name, size in (("b.safetensors", 100), ("a.safetensors", 70_000), ("c.safetensors", 300_000)):
        (tmp_path / name).write_bytes(bytes(range(100)) * (size // 100))
        now = of_weights(tmp_path)
        assert now == made.of_weights(Location.of(tmp_path)) != before
        before = now


def test_where_a_run_began_stays_what_it_was(train, tmp_path):
    """Of a run that has become another one in the meantime, too."""
    first, second = tmp_path / "first", tmp_path / "second"
    train("first", "--steps", "2")
    train("second", "--init", "first", "--steps", "4", "--save-every", "2")
    began = json.loads((second / "recipe.json").read_text())
    assert began["init"]["recipe"] == json.loads((first / "recipe.json").read_text())["fingerprint"]
    assert began["init"]["step"] == 2
    (state,) = first.glob("checkpoints/*/state.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), "step": 3, "fingerprint": "another"}))
    train("second", "--init", "first", "--steps", "6")
    now = json.loads((second / "recipe.json").read_text())
    assert now["init"] == began["init"] and now["fingerprint"] != began["fingerprint"]
