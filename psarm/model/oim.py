"""Online instance matching (OIM, Xiao et al., CVPR 2017): a table of labelled people and a queue of unlabelled ones.

n samples, C identities, Q queue rows, D embedding dimensions, U identities that come up, K how often at most.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from psarm.model.processes import gather_rows, share

UNLABELLED = -1
BACKGROUND = -2


class OnlineInstanceMatching(nn.Module):
    """Cross entropy of 30·x·[LUT; queue]ᵀ over labelled samples; both tables are updated on every call in training.

    `lut` [C,D], `cq` [Q,D] and `header` (next queue row to overwrite) are buffers, so a checkpoint holds them. With
    several processes the loss is this one's share of the mean over all samples, and every process updates its tables
    with the samples of all, in the order of ranks, so that the tables stay the same everywhere.
    """

    lut: Tensor
    cq: Tensor
    header: Tensor

    def __init__(
        self, embedding_dim: int, num_identities: int, queue_size: int, momentum: float, scalar: float
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.scalar = scalar
        self.register_buffer("lut", torch.zeros(num_identities, embedding_dim))
        self.register_buffer("cq", torch.zeros(queue_size, embedding_dim))
        self.register_buffer("header", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of unit `embeddings` [n,D] with `labels` [n]: 0…C-1, -1 an unlabelled person, -2 background (ignored).

        Logits use the tables from before the update, and are computed in the tables' precision whatever the autocast.
        With no labelled sample the loss is 0.
        """
        embeddings = embeddings.to(self.lut.dtype)
        labelled = torch.where(labels >= 0)[0]
        loss_sum = _MatchingLoss.apply(embeddings[labelled], labels[labelled], self.lut, self.cq, self.scalar)  # type: ignore[no-untyped-call]
        loss = share(loss_sum, len(labelled))
        if self.training:
            person = torch.where(labels != BACKGROUND)[0]
            self._update(gather_rows(embeddings[person]), gather_rows(labels[person]))
        return loss

    @torch.no_grad()
    def _update(self, embeddings: Tensor, labels: Tensor) -> None:
        """As one sample after another, in order: table rows move towards the sample, queue rows are overwritten."""
        labelled = labels >= 0
        self._update_lut(embeddings[labelled], labels[labelled])
        unlabelled = embeddings[~labelled]
        size, count = self.cq.shape[0], unlabelled.shape[0]
        if size == 0 or count == 0:
            return
        rows = (self.header + torch.arange(count, device=labels.device)) % size
        self.cq[rows[-size:]] = unlabelled[-size:]  # where the queue wraps, the last sample stays
        self.header.copy_((self.header + count) % size)

    def _update_lut(self, embeddings: Tensor, labels: Tensor) -> None:
        # Every step normalises what the one before left, so K steps it takes; but identities are independent of each
        # other, so their first samples move together, then their second ones. With the identities that come up most in
        # front, those that still have a sample are always the first rows.
        identities, inverse, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        by_count = counts.argsort(descending=True, stable=True)  # [U]
        place = torch.empty_like(by_count).scatter_(0, by_count, torch.arange(len(by_count), device=labels.device))
        by_identity = inverse.argsort(stable=True)  # [n]
        turn = torch.empty_like(inverse)  # [n] how many samples of its identity come before a sample
        first = counts.cumsum(0) - counts  # [U]
        turn[by_identity] = torch.arange(len(labels), device=labels.device) - first.repeat_interleave(counts)
        samples = embeddings[(turn * len(identities) + place[inverse]).argsort()]
        rows = self.lut[identities[by_count]]  # [U,D]
        for moving in torch.split(samples, turn.bincount().tolist()):
            moved = self.momentum * rows[: len(moving)] + (1 - self.momentum) * moving
            rows[: len(moving)] = functional.normalize(moved, dim=1)
        self.lut[identities[by_count]] = rows


class _MatchingLoss(torch.autograd.Function):
    """The summed cross entropy, with its gradient computed at once.

    So nothing but the gradient [n,D] waits for the backward pass: neither probabilities nor tables, which may change.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, labels: Tensor, lut: Tensor, cq: Tensor, scalar: float) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = embeddings.new_empty(len(embeddings), len(lut) + len(cq))  # [n,C+Q]
            torch.mm(embeddings, lut.t(), out=logits[:, : len(lut)])
            torch.mm(embeddings, cq.t(), out=logits[:, len(lut) :])
            own = labels[:, None]
            largest = logits.mul_(scalar).amax(1, keepdim=True)
            wanted = logits.gather(1, own)
            # In place: with many identities this one tensor is all the memory that the loss takes.
            total = logits.sub_(largest).exp_().sum(1, keepdim=True)
            loss: Tensor = (total.log() - (wanted - largest)).sum()
            if ctx.needs_input_grad[0]:
                difference = logits.div_(total).scatter_add_(1, own, -torch.ones_like(wanted))
                gradient = difference[:, : len(lut)] @ lut
                ctx.save_for_backward(gradient.addmm_(difference[:, len(lut) :], cq).mul_(scalar))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (of_embeddings,) = ctx.saved_tensors
        return gradient * of_embeddings, None, None, None, None
