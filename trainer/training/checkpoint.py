"""Checkpoints in torch's DCP format: written by any number of processes, readable by any other number, always complete.

    RUN/checkpoints/step-00000100/   .metadata, *.distcp: weights and AdamW's moments; state.json: all the rest
    RUN/latest                       the name of the newest

A save is staged to memory, written by a thread into step-….tmp, and renamed when every rank's part is on the
disk. Only tensors are stored with DCP. Its one pickled file is read by an unpickler that allows only the classes in it.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from trainer.errors import UNREADABLE, TrainerError
from trainer.huggingface import architecture as hf
from trainer.huggingface import weights
from trainer.model.transformer import Model, ModelConfig

FOLDER, LATEST, STATE = "checkpoints", "latest", "state.json"


class Checkpoints:
    """The checkpoints of one run. All ranks call the same methods; rank 0 renames and deletes."""

    def __init__(self, run: Path, keep: int, first: bool):
        self.folder, self.run, self.keep, self.first = run / FOLDER, run, keep, first
        self._group = dist.new_group(
            backend="gloo"
        )  # a separate group, so that its thread does not interfere with training
        self._saving: Future[Any] | None = None
        self._name = ""

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Returns when everything is staged; one save at a time."""
        self.wait()
        self._name = f"step-{step:08d}"
        part = self.folder / f"{self._name}.tmp"
        if self.first:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            write_json(part / STATE, state)
        dist.barrier(self._group)
        saving = dcp.async_save(_tensors(model, optimizer), checkpoint_id=part, process_group=self._group)
        assert isinstance(saving, Future)
        self._saving = saving

    def poll(self) -> None:
        """Finishes a save if its data are written. Rank 0's write ends only after those of all other ranks."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        saving.result()
        if self.first:
            whole = self.folder / self._name
            shutil.rmtree(whole, ignore_errors=True)  # left by an earlier execution of the same steps
            (self.folder / f"{self._name}.tmp").rename(whole)
            replace_text(self.run / LATEST, self._name)
            self._purge()

    def _purge(self) -> None:
        done = sorted(p for p in self.folder.glob("step-*") if p.suffix != ".tmp")
        for old in done[: -self.keep] if self.keep else []:
            old.rename(old.with_suffix(".tmp"))  # so that a kill during deletion leaves nothing that looks complete
            shutil.rmtree(old.with_suffix(".tmp"))


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    done = sorted(p for p in (run / FOLDER).glob("step-*") if p.suffix != ".tmp" and (p / ".metadata").exists())
    return done[-1] if done else None


def read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        return json.loads((checkpoint / STATE).read_text())
    except (OSError, ValueError) as e:
        raise TrainerError(
            f"{STATE} is missing or cannot be read: {e}",
            where=str(checkpoint),
            fix="use another checkpoint",
            code=UNREADABLE,
        ) from None


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Weights and moments, in place, whatever the number of ranks that wrote them."""
    _load(checkpoint, _tensors(model, optimizer))
    for p, s in optimizer.state.items():
        assert p.dtype == s["exp_avg"].dtype == s["exp_avg_sq"].dtype == torch.float32


def begin_moments(optimizer: torch.optim.Optimizer) -> None:
    """Creates AdamW's moments before its first step: a checkpoint needs them even if that step is skipped."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            zeros = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            optimizer.state[p] = {"step": torch.zeros((), device=p.device), **zeros}


class Known(NamedTuple):
    """What is recorded about a model, without its weights."""

    config: ModelConfig
    facts: dict[str, Any]


class LoadedModel(NamedTuple):
    model: Model
    facts: dict[str, Any]


def about(path: str | Path) -> Known:
    """A run, one checkpoint of it, or a Hugging Face directory -> the model's shape, and the recorded facts.

    Facts: the checkpoint's step, tokens, tokenizer and recipe; for a Hugging Face directory, its tinydata.json.
    """
    path = Path(path)
    if (path / "config.json").exists():
        facts = path / "tinydata.json"
        return Known(hf.read_config(path), json.loads(facts.read_text()) if facts.exists() else {})
    state = read_state(checkpoint_of(path))
    return Known(ModelConfig(**state["model"]), state)


def checkpoint_of(path: Path) -> Path:
    """The newest checkpoint of a run; a checkpoint itself is returned as it is."""
    checkpoint = path if (path / STATE).exists() else latest(path)
    if checkpoint is None:
        raise TrainerError(
            "this is neither a run, nor a checkpoint, nor a Hugging Face directory",
            where=str(path),
            fix="pass the directory that was given to `python -m trainer.run -o`",
            code=UNREADABLE,
        )
    return checkpoint


def load_model(path: str | Path, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """The model that `about` describes, with its weights, on the CPU; and the recorded facts."""
    path = Path(path)
    if (path / "config.json").exists():
        return LoadedModel(weights.load(path, dtype), about(path).facts)
    path = checkpoint_of(path)  # only once: a run in progress may write a newer one at any time
    config, facts = about(path)
    with torch.device("meta"):
        model = Model(config)
    model.to_empty(device="cpu")
    model.fill_buffers()
    _load(path, {f"model.{n}": p.data for n, p in model.named_parameters()}, alone=True)
    model.to(dtype)
    model.inv_freq = model.inv_freq.float()
    return LoadedModel(model, facts)


def weights_of(path: str | Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every parameter, in order; of a Hugging Face directory, one is in memory at a time."""
    if (Path(path) / "config.json").exists():
        yield from weights.Weights.open(path).items()
    else:
        yield from load_model(path).model.state_dict().items()


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a checkpoint, by name; the learning rate and betas come from the recipe."""
    out: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        out[f"model.{name}"] = p.data
        for key, value in optimizer.state.get(p, {}).items():
            out[f"optimizer.{name}.{key}"] = value
    return out


def _load(checkpoint: Path, tensors: dict[str, Tensor], alone: bool = False) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # intended here
            dcp.load(tensors, storage_reader=_Reader(checkpoint), no_dist=alone)
    except (Exception, dcp.CheckpointException) as e:
        why = str(e).strip().splitlines()[-1][:300]
        raise TrainerError(
            f"the checkpoint cannot be read: {why}",
            where=str(checkpoint),
            fix="delete it, so that the previous checkpoint is used, or choose another one",
            code=UNREADABLE,
        ) from e


class _Reader(dcp.FileSystemReader):
    """Refuses entries other than tensors, because DCP would unpickle them."""

    def __init__(self, checkpoint: Path):
        super().__init__(checkpoint)
        with (checkpoint / ".metadata").open("rb") as f:
            self._checked = _Unpickler(f).load()
        if not isinstance(self._checked, Metadata):
            raise pickle.UnpicklingError("its .metadata file does not contain checkpoint metadata")
        for name, entry in self._checked.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise pickle.UnpicklingError(f"{name} is not a tensor")

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._checked


class _Unpickler(pickle.Unpickler):
    CLASSES: ClassVar = {
        "torch.distributed.checkpoint.metadata": {
            "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex",
            "StorageMeta", "_MEM_FORMAT_ENCODING",
        },
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "torch.serialization": {"_get_layout"},
        "torch": {"Size", "float32", "bfloat16", "float16", "float64", "int64", "int32"},
        "collections": {"OrderedDict"},
        "pathlib": {"PosixPath"},  # where the writer put it; 3.13 pickles it by its private module
        "pathlib._local": {"PosixPath"},
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if name not in self.CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a checkpoint")
        return super().find_class(module, name)


def write_json(path: Path, value: Any) -> None:
    replace_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replaces a file atomically: readers see the old content or the new one, never a part."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    part.rename(path)
