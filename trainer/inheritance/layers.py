"""Chooses the layers of the source to keep: evenly spaced, both ends and a thinned middle, or the most influential.

The paper (arXiv 2402.02791) finds the first and last layers matter and the middle redundant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.inheritance.importance import block_influence
from trainer.inheritance.source import Source

ENDS = 3  # layers that are always kept at each end; a quarter of fewer than 12


def choose_layers(how: str, depth: int, source: Source, tokens: Tensor | None, device: str) -> list[int]:
    """-> numbers of `depth` layers of the source, ascending. `bi` needs tokens int64 [n, T]."""
    have = source.config.depth
    ends = min(ENDS, max(1, depth // 4))
    if how == "uniform":
        return spread(0, have - 1, depth)
    if how == "ends" or (how == "bi" and depth == have):
        if depth <= 2:
            return spread(0, have - 1, depth)
        return [*range(ends), *spread(ends, have - ends - 1, depth - 2 * ends), *range(have - ends, have)]
    if how == "bi":
        assert tokens is not None
        influence = block_influence(source, tokens, device)
        if depth > 2:
            influence[:ends] = influence[have - ends :] = torch.inf
        return sorted(torch.sort(influence, descending=True, stable=True).indices[:depth].tolist())
    return listed(how, depth, have)


def spread(first: int, last: int, n: int) -> list[int]:
    """n evenly spaced numbers from first to last, including both if n > 1."""
    return [round(first + i * (last - first) / max(1, n - 1)) for i in range(n)] if n > 1 else [(first + last) // 2] * n


def listed(how: str, depth: int, have: int) -> list[int]:
    try:
        layers = [int(x) for x in how.split(",")]
    except ValueError:
        raise TrainerError(
            f"--layers {how} is not valid", fix="use ends, uniform, bi, or numbers such as 0,1,5"
        ) from None
    if len(layers) != depth or sorted(set(layers)) != layers or not 0 <= layers[0] <= layers[-1] < have:
        raise TrainerError(
            f"--layers {how} does not give {depth} different layers of 0 to {have - 1} in ascending order",
            fix=f"list {depth} numbers, or use --depth {len(set(layers))}",
        )
    return layers
