"""What one process of a training does in the tests of two: run as RANK WORLD_SIZE FOLDER, it leaves FOLDER/RANK.pt.

The tests do the same alone, with all the images, and compare.
"""

import gc
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from small_models import small_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from psarm.model import processes
from psarm.model.batchnorm import SyncBatchNorm1d, SyncBatchNorm2d

CHANGES = {
    "width": 0.125,
    "roi_size": 4,
    "min_size": 48,
    "max_size": 80,
    "arm_dropout": 0.0,
    "roi_batch_size": 16,
    "rpn_batch_size": 64,
    "post_nms_top_n_train": 30,
}
TRAININGS = {
    "psarm": ("psarm", 20, False),
    "nae": ("nae", 3, False),
    "cascaded": ("cascaded_psarm", 3, False),
    "recomputing": ("psarm", 3, True),
}
"""Variant, steps, activation checkpointing."""
GLOBAL_BATCH = 4
ROWS = {"ragged": (5, 2), "none here": (0, 6), "none there": (3, 0), "one each": (1, 1)}
"""Rows of the two processes."""


class Losses(nn.Module):
    """What DistributedDataParallel wraps."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, targets):
        return self.model.losses(images, targets)


def scene(step, place):
    """Image and target number `place` of a global batch: sizes differ, some people are unlabelled, some not there."""
    generator = torch.Generator().manual_seed(100 * step + place)
    height, width = (int(torch.randint(40, 90, (), generator=generator)) for _ in range(2))
    people = 0 if (step % 5, place) in {(0, 2), (0, 3), (1, 0)} else int(torch.randint(1, 4, (), generator=generator))
    corners = torch.rand(people, 2, 2, generator=generator, dtype=torch.float64).sort(dim=1).values
    boxes = (corners * torch.tensor([width, height]) * 0.7 + torch.tensor([[0.0, 0.0], [12.0, 12.0]])).flatten(1)
    target = {
        "boxes": boxes,
        "labels": torch.randint(-1, 7, (people,), generator=generator),
        "seed": torch.tensor(1000 * step + place),
    }
    return torch.rand(3, height, width, generator=generator, dtype=torch.float64), target


def train(variant, steps, recomputes, rank=0, world=1):
    """Losses of each step and the state at the end, of a plain loop over this process's part of each batch."""
    model = small_model(3, variant=variant, **CHANGES).double().train()
    model.checkpoint_activations(recomputes)
    losses = Losses(model)
    if world > 1:
        losses = DistributedDataParallel(losses, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    size = GLOBAL_BATCH // world
    values = []
    for step in range(steps):
        batch = [scene(step, place) for place in range(rank * size, (rank + 1) * size)]
        found = losses([image for image, _ in batch], [target for _, target in batch])
        optimizer.zero_grad()
        sum(found.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        values.append({name: value.item() for name, value in found.items()})
    return {"losses": values, "state": model.state_dict()}


def rows_of(case, rank, dtype, shape=(), offset=3.0):
    """This process's part [m,3,*shape] of a batch for a BatchNorm of three channels."""
    generator = torch.Generator().manual_seed(sum(ROWS[case]))
    values = torch.randn(sum(ROWS[case]), 3, *shape, generator=generator, dtype=torch.float64)
    return (values * torch.tensor([1.0, 0.2, 5]).view(3, *[1] * len(shape)) + offset).to(dtype).split(ROWS[case])[rank]


def make_norm(kind, dtype):
    norm = kind(3).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.5, -1.0]))
        norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    return norm.train()


def normalise(norm, parts):
    """Output, gradients and running statistics of one BatchNorm after a batch, its parts one below the other."""
    rows = torch.cat(parts).requires_grad_()
    out = norm(rows)
    weights = torch.arange(1.0, out.shape[1:].numel() + 1).to(out.dtype).view(out.shape[1:])
    (out.square() * weights).sum().backward()
    return {
        "out": out.detach(),
        "of_rows": rows.grad,
        "of_weight": norm.weight.grad,
        "of_bias": norm.bias.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
        "tracked": norm.num_batches_tracked,
    }


def norms(rank):
    """`normalise` of every case."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        for case in ROWS:
            found[case, 1, dtype] = normalise(make_norm(SyncBatchNorm1d, dtype), [rows_of(case, rank, dtype)])
            found[case, 2, dtype] = normalise(make_norm(SyncBatchNorm2d, dtype), [rows_of(case, rank, dtype, (2, 3))])
    offset = [rows_of("ragged", rank, torch.float32, offset=1e4)]
    found["large mean"] = normalise(make_norm(SyncBatchNorm1d, torch.float32), offset)
    alone = make_norm(SyncBatchNorm1d, torch.float64)
    alone.synchronised = False
    found["not synchronised"] = normalise(alone, [rows_of("ragged", rank, torch.float64)])
    try:
        make_norm(SyncBatchNorm1d, torch.float64)(torch.ones(1 - rank, 3, dtype=torch.float64))
    except ValueError as error:
        found["a single row"] = str(error)
    return found


def exchange(rank):
    """What each function of psarm.model.processes answers."""
    mine = torch.arange(6.0).reshape(3, 2) + 10 * rank
    return {
        "world_size": processes.world_size(),
        "sum_across": processes.sum_across(mine),
        "max_across": processes.max_across([3 + rank, 7 - rank], "cpu"),
        "ragged": processes.gather_rows(mine[: 1 + 2 * rank]),
        "none_here": processes.gather_rows(mine[: 3 * rank]),
        "none": processes.gather_rows(mine[:0].long()),
        "share": processes.share(torch.tensor(2.0 + rank), 3 * rank + 1),
        "share_of_nothing": processes.share(torch.tensor(0.0), 0),
        "mine": mine,
    }


def main(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=world)
    found = {"exchange": exchange(rank), "norms": norms(rank)}
    found |= {name: train(*training, rank, world) for name, training in TRAININGS.items()}
    torch.save(found, folder / f"{rank}.pt")
    gc.collect()  # DistributedDataParallel has to go before the process group (see psarm.training.trainer)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
