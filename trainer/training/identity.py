"""Fingerprints that identify a run and a model later: `tinydata ls --lineage` compares them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trainer.training.checkpoint import checkpoint_of, read_state

ENDS = 1 << 16  # bytes that are read at each end of a file

# options that determine the resulting weights; all others concern places, speed and reporting
DECIDES = (
    *("seed", "init_scheme", "steps", "batch_tokens", "mask_documents", "unbias", "lr", "schedule", "warmup", "decay"),
    *("floor", "weight_decay", "beta1", "beta2", "clip"),
)


def of_recipe(recipe: dict[str, Any]) -> str:
    """Fingerprint of model, data, tokenizer, initial weights and the options that determine the result; no paths."""
    init = {k: v for k, v in recipe["init"].items() if k != "path"}
    known = {
        "model": recipe["model"],
        "data": {k: recipe["data"].get(k) for k in ("fingerprint", "sequences", "held out", "kept", "inclusion")},
        "train": {k: recipe["train"][k] for k in DECIDES},
        "tokenizer": recipe["tokenizer"]["fingerprint"],
        "init": init,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def of_model(path: str | Path) -> dict[str, Any]:
    """A run or a checkpoint -> {recipe, step, tokens}; a Hugging Face directory -> {weights}."""
    path = Path(path)
    if (path / "config.json").exists():
        return {"weights": of_weights(path)}
    state = read_state(checkpoint_of(path))
    return {k: state[other] for k, other in _OF_STATE.items() if other in state}


_OF_STATE = {"recipe": "fingerprint", "step": "step", "tokens": "tokens"}


def of_weights(directory: Path) -> str:
    """Fingerprint of names, sizes and ends of the safetensors files, so that even large ones are identified at once."""
    h = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        size = file.stat().st_size
        own = hashlib.blake2b(str(size).encode(), digest_size=16)
        with file.open("rb") as f:
            own.update(f.read(ENDS))
            if size > ENDS:
                f.seek(max(size - ENDS, ENDS))
                own.update(f.read(ENDS))
        h.update(f"{file.name} {own.hexdigest()}\n".encode())
    return h.hexdigest()[:32]
