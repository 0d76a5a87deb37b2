"""Distributed training with FSDP2 over every layer; a single process uses the same code path.

Without torchrun there is one process. With it, weights are sharded over all ranks, or with `replicas` over
groups of ranks that hold a copy each (HSDP).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainer.errors import TrainerError
from trainer.model.transformer import Model

# cuDNN's attention is about twice as fast on Hopper as what torch tries first
ATTENTION = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class World(NamedTuple):
    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def first(self) -> bool:
        return self.rank == 0


@contextmanager
def world(device: str = "auto", replicas: int = 1) -> Iterator[World]:
    """Joins the process group of torchrun, or one of a single process, and leaves it at the end."""
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    rank, size, local = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    if size % replicas:
        raise TrainerError(
            f"{size} processes cannot be divided into {replicas} equal replicas",
            fix="choose --replicas so that it divides the number of processes",
        )
    os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")  # so that a hang is reported with its place
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "2000")
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"  # gloo also for asynchronous checkpoints
    if kind == "cuda":
        torch.cuda.set_device(local)
        torch.set_float32_matmul_precision("high")
    store: dict[str, Any] = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group(backend, timeout=timedelta(minutes=10), **store)
    try:
        shape = (replicas, size // replicas) if replicas > 1 else (size,)
        names = ("replicate", "shard") if replicas > 1 else ("shard",)
        mesh = init_device_mesh(kind, shape, mesh_dim_names=names)
        with sdpa_kernel(ATTENTION, set_priority=True):
            yield World(rank, size, torch.device(kind, local) if kind == "cuda" else torch.device(kind), mesh)
    finally:
        dist.destroy_process_group()


def sharded(model: Model, world: World, *, bf16: bool, compile: bool) -> Model:
    """A model on the meta device -> compiled layer by layer, sharded, allocated on its device; values are not set.

    Gradients are summed over ranks, not averaged: the loss is divided by the number of targets of all ranks. With
    `bf16`, weights are stored and gradients reduced in float32, and products are computed in bfloat16.
    """
    if compile:
        for layer in model.layers:
            layer.compile(fullgraph=True)
    low = torch.bfloat16 if bf16 else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    alone = world.mesh.size() == 1  # then nothing can be freed between forward and backward
    options: dict[str, Any] = {"mesh": world.mesh, "mp_policy": policy, "reshard_after_forward": not alone}
    for layer in model.layers:
        fully_shard(layer, **options)
    fully_shard(
        model, **{**options, "reshard_after_forward": False}
    )  # embedding, norm and head: one group, tied or not
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    model.to_empty(device=world.device)
    model.fill_buffers()
    return model


def fill(model: Model, world: World, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """(name, whole tensor) of every parameter, read by rank 0 only, one at a time -> each rank's piece."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    for name, p in model.named_parameters():
        given = None
        if world.first:
            got, given = next(tensors)
            assert got == name, f"{got} came for {name}"
        whole = torch.empty(p.shape, dtype=torch.float32, device=world.device)
        if given is not None:
            whole.copy_(given)
        assert isinstance(p, DTensor)
        with torch.no_grad():
            p.copy_(distribute_tensor(whole, p.device_mesh, p.placements))


def total(world: World, *values: float | Tensor) -> list[float]:
    """Sums over all ranks, in float64; one transfer."""
    t = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=world.device).detach() for v in values])
    dist.all_reduce(t)
    return t.tolist()


def agreed(world: World, value: Any) -> Any:
    """Rank 0's value, on every rank: decisions that depend on the file system must be the same everywhere."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def quiet_collector(every: int = 100) -> Iterator[Any]:
    """Runs garbage collection every so many steps on all ranks at the same time, so that none waits for another."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield lambda step: step % every == 0 and gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
