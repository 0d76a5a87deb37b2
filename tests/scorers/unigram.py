"""A scorer for tests of `tinydata score`, which needs no torch: the loss of a token is -ln of its id's share.

MODEL is a directory with shares.npy and, where wanted, facts.json: what else the scorer says of itself, `nap`, the
seconds that a batch takes, and `devices`, the GPUs this machine is to have.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from tinydata.verbs.score.worker import AHEAD

LOADS: list[str] = []  # devices that a model was loaded to in this process


def devices() -> list[str]:
    return os.environ.get("UNIGRAM_DEVICES", "").split()


def made(where: Path, shares: np.ndarray, **facts: Any) -> Path:
    """Writes a model: shares float64[vocab]."""
    where.mkdir()
    np.save(where / "shares.npy", shares)
    (where / "facts.json").write_text(json.dumps(facts))
    return where


class Unigram:
    def __init__(self, model: str, device: str, seq_len: int):
        self._model, self._device, self._losses = model, device, np.empty(0)
        told = json.loads((Path(model) / "facts.json").read_text())
        self.seq_len = seq_len or told.get("seq_len", 64)
        self.vocab = len(np.load(Path(model) / "shares.npy", mmap_mode="r"))
        self.tokenizer = told.get("tokenizer", {})
        self.rows, self.masks_documents = 4, told.get("masks_documents", False)
        self.losses, self._held, self._nap = told.get("losses", ""), told.get("held", []), told.get("nap", 0)
        self.facts = {"path": model, "parameters": self.vocab, "device": device, "precision": "fp64"}
        self.facts |= {k: told[k] for k in ("step",) if k in told}

    @property
    def loads(self) -> int:
        return len(LOADS)

    def held_out(self, fingerprint: str, total: int) -> np.ndarray:
        return np.array(self._held, np.int64)

    def __call__(self, ids: np.ndarray, bears: np.ndarray | None, documents: np.ndarray | None) -> np.ndarray:
        """A token that begins a document costs 1 more, if documents are masked: so it is seen that they came."""
        if not len(self._losses):
            LOADS.append(self._device)
            with np.errstate(divide="ignore"):  # a share of 0 is an infinite loss, which is wanted
                self._losses = -np.log(np.load(Path(self._model) / "shares.npy")).astype(np.float32)
        assert ids.dtype == np.int64
        assert len(ids) <= AHEAD * self.rows
        time.sleep(self._nap)
        nll = self._losses[ids[:, 1:]]
        if documents is not None:
            nll[:, 1:] += np.diff(documents, axis=1) != 0
        return nll if bears is None else np.where(bears, nll, np.float32(0))


def load(model: str, device: str = "auto", seq_len: int = 0) -> Unigram:
    return Unigram(model, device, seq_len)
