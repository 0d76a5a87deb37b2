"""Finds what belongs to a model besides its weights: tokenizer, special ids, data, metrics."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.huggingface.tokenizer import Tokenizer, read_tokenizer
from trainer.training import metrics


@dataclass(frozen=True)
class Origin:
    """What is known about a model besides its weights; every part may be missing."""

    facts: dict[str, Any] = field(default_factory=dict)  # step, tokens, tokenizer, data, train, model
    tokenizer: Tokenizer | None = None
    manifest: dict[str, Any] = field(default_factory=dict)  # of the shards, if they still exist
    metrics: list[dict[str, Any]] = field(default_factory=list)  # lines of metrics.jsonl
    config: dict[str, Any] = field(default_factory=dict)  # config.json of a Hugging Face directory

    @property
    def eos(self) -> int | None:
        """The id that ends a document: that of the data, else of the model's configuration, else of the tokenizer."""
        for found in (self.manifest.get("eos"), self.manifest.get("end_of_text"), self.config.get("eos_token_id")):
            first = found[0] if isinstance(found, list) else found
            if first is not None and first >= 0:
                return first
        return self.tokenizer.eos if self.tokenizer else None

    @property
    def bos(self) -> int | None:
        """The id that precedes a document: its begin token, else the end token of the document before, as in GPT-2."""
        if self.manifest:
            own = self.manifest.get("bos", -1)
            return own if own >= 0 else self.eos
        if self.config.get("bos_token_id") is not None:
            return self.config["bos_token_id"]
        return self.tokenizer.bos if self.tokenizer else None

    @property
    def pad(self) -> int | None:
        return self.tokenizer.pad if self.tokenizer and self.tokenizer.pad is not None else self.eos


def origin(path: str | Path, facts: dict[str, Any], vocab: int, tokenizer: str = "") -> Origin:
    """path: a run, one of its checkpoints, or a Hugging Face directory; facts: as returned by `load_model`.

    `tokenizer`: its path, if it is not where the run recorded it. Raises TrainerError if it is a different tokenizer.
    """
    path, config = Path(path), _json(Path(path) / "config.json")
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    lines = metrics.read(run) if (run / metrics.FILE).exists() else []
    if "step" in facts:
        lines = [line for line in lines if line["step"] <= facts["step"]]
    found = _tokenizer(path, facts, vocab, tokenizer)
    shards = None if config else (facts.get("data") or {}).get("directory")  # an export does not contain the path
    return Origin(facts, found, _json(Path(shards) / "manifest.json") if shards else {}, lines, config)


def _tokenizer(path: Path, facts: dict[str, Any], vocab: int, given: str) -> Tokenizer | None:
    """The given one, else the one in the Hugging Face directory, else the one of the run's shards."""
    recorded = facts.get("tokenizer") or {}
    place = given or (recorded.get("path") if not (path / "config.json").exists() else "") or str(path)
    try:
        found = read_tokenizer(place)
    except TrainerError as e:
        if given:
            raise
        print(f"warning: {e.what}: {place}; pass one with --tokenizer", file=sys.stderr)
        return None
    _check(found, recorded, vocab, place)
    return found


def _check(found: Tokenizer, recorded: dict[str, Any], vocab: int, place: str) -> None:
    if recorded.get("fingerprint", found.fingerprint) != found.fingerprint:
        raise TrainerError(
            f"the model was trained with a different tokenizer: {recorded.get('family')}, "
            f"{recorded.get('size'):,} ids, fingerprint {recorded['fingerprint']}",
            where=f"{place} ({found.family}, {found.size:,} ids, fingerprint {found.fingerprint})",
            fix="pass the tokenizer that the shards were encoded with: --tokenizer DIR",
        )
    if found.size > vocab:
        raise TrainerError(
            f"the tokenizer has {found.size:,} ids, but the model has only {vocab:,}",
            where=place,
            fix="pass the tokenizer that the model was trained with: --tokenizer DIR",
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
