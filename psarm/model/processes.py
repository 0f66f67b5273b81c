"""What the processes of a distributed training tell each other inside the model; one process alone tells itself.

Every process calls these functions in the same order, whatever it has to tell. P processes, n rows of this one. Nothing
here is differentiable.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """P: processes that train together, 1 where torch's process group is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def sum_across(value: Tensor) -> Tensor:
    """`value`, of one shape and dtype everywhere, summed over the processes; one process alone gets its own back."""
    if world_size() == 1:
        return value.detach()
    total = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def max_across(values: list[int], device: torch.device | str) -> list[int]:
    """The largest of each of `values` in any process; `device` is one that the process group can send from."""
    if world_size() == 1:
        return values
    largest = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


@torch.no_grad()
def gather_rows(rows: Tensor) -> Tensor:
    """[n,...] of each process, n as it likes, one below the other in the order of ranks: [sum of n,...]."""
    if world_size() == 1:
        return rows.detach()
    counts = gather(torch.tensor(len(rows), device=rows.device)).tolist()
    # Only tensors of one shape can be gathered by every backend, so shorter ones are filled up with zeros.
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(gather(padded), counts, strict=True)])


@torch.no_grad()
def gather(value: Tensor) -> Tensor:
    """`value`, of one shape and dtype everywhere, of each process in the order of ranks: [P,...]."""
    mine = value.detach().contiguous()
    if world_size() == 1:
        return mine[None]
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(parts, mine)
    return torch.stack(parts)


def share(loss_sum: Tensor, count: int) -> Tensor:
    """This process's share of a mean over the `count` terms of all processes; `loss_sum` is the sum over its own.

    It is scaled so that the average over the processes is that mean: DistributedDataParallel, which averages gradients,
    then gives those of one process with all the terms. Without any terms it is 0.
    """
    processes = world_size()
    if processes == 1:
        return loss_sum / max(count, 1)
    total = sum_across(torch.tensor(count, device=loss_sum.device))
    return loss_sum * processes / total.clamp(min=1)
