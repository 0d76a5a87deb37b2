"""Computes the loss of every token of sequences under a frozen model: `tinydata score --scorer trainer.scorer:load`.

The model is a run, one of its checkpoints, or a Hugging Face directory; other architectures than the trainer's are
loaded by transformers. float32 and one thread on a CPU, so that a result does not depend on how many processes share
the work; bfloat16, compiled, on a GPU. Every forward pass has the same shape: the last one is filled up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from trainer.data.order import held_out
from trainer.errors import UNREADABLE, TrainerError
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.model.cost import parameters
from trainer.model.head_loss import CHUNK_LOGITS, IGNORE
from trainer.model.transformer import ModelConfig
from trainer.training.checkpoint import about, checkpoint_of, load_model
from trainer.training.identity import of_model
from trainer.training.parallel import ATTENTION
from trainer.training.sequence_losses import FOLDER
from trainer.training.validation import LONGEST

AT_ONCE = {"cpu": 2_048, "cuda": 65_536}  # tokens in one forward pass; 8,192 of a tiny model are 20% slower on a CPU
Losses = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # tokens, targets, documents [B, T] -> nll [B, T]


def load(model: str, device: str = "auto", seq_len: int = 0) -> Scorer:
    """`seq_len`: tokens per sequence; 0: as in the model's training, for a Hugging Face model at most 2,048."""
    if device == "auto":
        device = next(iter(devices()), "cpu")
    return Scorer(Path(model), torch.device(device), seq_len)


def devices() -> list[str]:
    """All GPUs, for one process each."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


class Scorer:
    """Reads the configuration when it is created, and the weights when it is first called."""

    loads: ClassVar[int] = 0  # how often this process has read weights

    def __init__(self, path: Path, device: torch.device, seq_len: int):
        self.path = path
        self._hub = (path / "config.json").exists()
        self._place = (
            path if self._hub else checkpoint_of(path)
        )  # a newer checkpoint may appear while this one is scored
        self._device, self._dtype = device, torch.bfloat16 if device.type == "cuda" else torch.float32
        self._config, self._facts = self._about()
        trained = self._facts.get("train", {})
        self.vocab = self._config.vocab if isinstance(self._config, ModelConfig) else self._config.vocab_size
        longest = self._longest()
        self.seq_len: int = seq_len or trained.get("seq_len") or min(longest, LONGEST)
        if not isinstance(self._config, ModelConfig) and self.seq_len > longest:
            raise TrainerError(
                f"sequences of {self.seq_len:,} tokens are longer than the model's maximum of {longest:,}",
                where=str(path),
                fix=f"use --seq-len {longest} or less",
            )
        self.masks_documents = bool(trained.get("mask_documents"))
        self.rows = max(1, AT_ONCE[device.type] // self.seq_len)
        if not isinstance(self._config, ModelConfig):  # all its logits are computed at once
            self.rows = max(1, min(self.rows, CHUNK_LOGITS[device.type] // (self.seq_len * self.vocab)))

    def _about(self) -> tuple[Any, dict[str, Any]]:
        """-> ModelConfig, or a configuration of transformers; and the recorded facts."""
        try:
            return about(self._place)
        except TrainerError as e:
            if not self._hub or e.code == UNREADABLE:
                raise
            try:
                from transformers import AutoConfig

                return AutoConfig.from_pretrained(self.path), {}
            except (ImportError, OSError, ValueError) as other:
                fix = f"{e.fix}; other models are loaded by transformers, which reports: {other}"
                raise TrainerError(e.what, where=e.where, fix=fix) from None

    def _longest(self) -> int:
        if isinstance(self._config, ModelConfig):
            return self._config.seq_len
        return getattr(self._config, "max_position_embeddings", None) or LONGEST

    @cached_property
    def facts(self) -> dict[str, Any]:
        """path, checkpoint, parameters, step, tokens, recipe or weights (fingerprints), device, precision"""
        out: dict[str, Any] = {"path": str(self.path), "parameters": self._parameters()}
        out |= {} if self._hub else {"checkpoint": self._place.name}
        out |= {k: self._facts[k] for k in ("step", "tokens") if k in self._facts} | of_model(self._place)
        return out | {"device": self._device.type, "precision": str(self._dtype).removeprefix("torch.")}

    def _parameters(self) -> int:
        if isinstance(self._config, ModelConfig):
            return sum(parameters(self._config).values())
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self._config)
        return sum(p.numel() for p in model.parameters())

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """family, size, fingerprint; {} if none is known."""
        if self._facts.get("tokenizer"):
            return self._facts["tokenizer"]
        try:
            found = read_tokenizer(self.path)
        except TrainerError:
            return {}
        return {"family": found.family, "size": found.size, "fingerprint": found.fingerprint}

    @property
    def losses(self) -> str:
        """The directory of losses that the run logged; "" if there is none."""
        run = self._place.parent.parent
        return str(run / FOLDER) if not self._hub and (run / FOLDER).exists() else ""

    def held_out(self, fingerprint: str, total: int) -> np.ndarray:
        """Of the `total` sequences of these shards -> int64: those with tokens that the model's run held out."""
        data, trained = self._facts.get("data") or {}, self._facts.get("train") or {}
        if data.get("fingerprint") != fingerprint or "seq_len" not in trained:
            return np.empty(0, np.int64)
        T = trained["seq_len"]
        excluded = held_out(max(0, (data["tokens"] - 1) // T), trained["holdout"])
        first, last = excluded * T // self.seq_len, ((excluded + 1) * T - 1) // self.seq_len
        spans = [np.arange(a, b + 1) for a, b in zip(first.tolist(), last.tolist(), strict=True)]
        numbers = np.unique(np.concatenate([np.empty(0, np.int64), *spans]))
        return numbers[numbers < total]

    @torch.no_grad()
    def __call__(
        self, ids: np.ndarray, bears: np.ndarray | None = None, documents: np.ndarray | None = None
    ) -> np.ndarray:
        """ids int64 [n, T+1], bears bool [n, T], documents int32 [n, T] -> nll float32 [n, T], in nats.

        0 where a target bears no loss; values that are not finite are returned as they are. Raises TrainerError for
        an id outside the vocabulary.
        """
        n, T = len(ids), self.seq_len
        assert ids.shape == (n, T + 1), f"{ids.shape} came for sequences of {T} + 1"
        if n and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab:
            wrong = int(ids.max()) if ids.max() >= self.vocab else int(ids.min())
            raise TrainerError(
                f"token id {wrong} is outside the model's vocabulary of {self.vocab:,}",
                where=str(self.path),
                fix="encode the text with the model's tokenizer",
            )
        targets = ids[:, 1:] if bears is None else np.where(bears, ids[:, 1:], IGNORE)
        found = []
        with sdpa_kernel(ATTENTION, set_priority=True):
            for a in range(0, n, self.rows):
                at = np.minimum(np.arange(a, a + self.rows), n - 1)  # the last row is repeated to fill the pass
                masked = None if documents is None else self._on_device(documents[at])
                found.append(self._forward(self._on_device(ids[at, :-1]), self._on_device(targets[at]), masked))
        nll = torch.cat(found)[:n].float().cpu().numpy() if n else np.empty((0, T), np.float32)
        return np.where(targets == IGNORE, np.float32(0), nll)

    def _on_device(self, x: np.ndarray) -> Tensor:
        t = torch.from_numpy(np.ascontiguousarray(x))
        return t if self._device.type == "cpu" else t.pin_memory().to(self._device, non_blocking=True)

    @cached_property
    def _forward(self) -> Losses:
        """Computes losses; reads the weights when it is first used."""
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        else:
            torch.cuda.set_device(self._device)
            torch.set_float32_matmul_precision("high")
        Scorer.loads += 1
        return self._own() if isinstance(self._config, ModelConfig) else self._theirs()

    def _own(self) -> Losses:
        model = load_model(self._place, self._dtype).model.to(self._device).eval()
        if self._device.type == "cuda":
            for layer in model.layers:
                layer.compile(fullgraph=True)
        return lambda tokens, targets, documents: model(tokens, targets, documents)[1]

    def _theirs(self) -> Losses:
        from transformers import AutoModelForCausalLM

        try:
            model: Any = AutoModelForCausalLM.from_pretrained(self.path, use_safetensors=True)
        except (OSError, ValueError) as e:
            raise TrainerError(
                f"transformers cannot load the model: {str(e)[:300]}",
                where=str(self.path),
                fix="use safetensors weights and an architecture that the installed version of transformers supports",
                code=UNREADABLE,
            ) from None
        model = model.to(self._device, self._dtype).eval()

        def losses(tokens: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
            logits = model(input_ids=tokens, use_cache=False).logits.float()
            nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
            return nll.view_as(targets)

        return losses
