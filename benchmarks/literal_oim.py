"""OIM as it is usually written, to measure against: tables joined for every loss, moved in backward, by the sample.

n samples, C identities, Q queue rows, D embedding dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from psarm.model.oim import BACKGROUND


class LiteralMatching(nn.Module):
    """What `psarm.model.oim.OnlineInstanceMatching` computes in one process, for one backward pass a loss."""

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
        """Loss of unit `embeddings` [n,D] with `labels` [n]: 0…C-1, -1 an unlabelled person, -2 background."""
        person = labels != BACKGROUND
        embeddings, labels = embeddings[person], labels[person]
        similarity: Tensor = _Similarity.apply(embeddings, labels, self)  # type: ignore[no-untyped-call]
        labelled = labels >= 0
        loss = functional.cross_entropy(self.scalar * similarity[labelled], labels[labelled], reduction="sum")
        return loss / labelled.sum().clamp(min=1)


class _Similarity(torch.autograd.Function):
    """[n,C+Q]; its backward pass moves the tables."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, labels: Tensor, oim: LiteralMatching) -> Tensor:
        ctx.save_for_backward(embeddings, labels)
        ctx.oim = oim
        return embeddings @ torch.cat([oim.lut, oim.cq]).t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        embeddings, labels = ctx.saved_tensors
        oim = ctx.oim
        of_embeddings = gradient @ torch.cat([oim.lut, oim.cq])
        for x, y in zip(embeddings, labels.tolist(), strict=True):
            if y >= 0:
                moved = oim.momentum * oim.lut[y] + (1 - oim.momentum) * x
                oim.lut[y] = moved / moved.norm()
            elif len(oim.cq):
                oim.cq[oim.header] = x
                oim.header.copy_((oim.header + 1) % len(oim.cq))
        return of_embeddings, None, None
