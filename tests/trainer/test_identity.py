"""What the trainer says of models, and that tinydata knows them again by that."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

from tinydata.artifacts import artifact
from tinydata.core.location import Location
from trainer.training.identity import of_weights


def test_weights_are_known_by_the_same_fingerprint_on_both_sides(tmp_path):
    before = None
    for name, size in (("b.safetensors", 100), ("a.safetensors", 70_000), ("c.safetensors", 300_000)):
        (tmp_path / name).write_bytes(bytes(range(100)) * (size // 100))
        now = of_weights(tmp_path)
        assert now == artifact.of_weights(Location.of(tmp_path)) != before
        before = now
