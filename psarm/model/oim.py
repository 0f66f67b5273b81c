"""Online instance matching (OIM, Xiao et al., CVPR 2017): a table of labelled people and a queue of unlabelled ones.

n samples, C identities, Q queue rows, D embedding dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

UNLABELLED = -1
BACKGROUND = -2


class OnlineInstanceMatching(nn.Module):
    """Cross entropy of 30·x·[LUT; queue]ᵀ over labelled samples; both tables are updated on every call in training.

    `lut` [C,D], `cq` [Q,D] and `header` (next queue row to overwrite) are buffers, so a checkpoint holds them.
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

        Logits use the tables from before the update. With no labelled sample the loss is 0.
        """
        person = labels != BACKGROUND
        embeddings, labels = embeddings[person], labels[person]
        tables = torch.cat([self.lut, self.cq]).to(embeddings.dtype)  # a copy: the update below must not reach it
        labelled = labels >= 0
        logits = self.scalar * embeddings[labelled] @ tables.t()  # [n,C+Q]
        loss = functional.cross_entropy(logits, labels[labelled], reduction="sum") / labelled.sum().clamp(min=1)
        if self.training:
            self._update(embeddings.detach().to(self.lut.dtype), labels)
        return loss

    @torch.no_grad()
    def _update(self, embeddings: Tensor, labels: Tensor) -> None:
        """One sample after another, in order: table rows move towards the sample, queue rows are overwritten."""
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
        # Identities are independent of each other, so the k-th samples of all identities can move together.
        order = torch.argsort(labels, stable=True)
        ordered = labels[order]
        turn = torch.arange(len(ordered), device=labels.device) - torch.searchsorted(ordered, ordered)
        for k in range(int(turn.max()) + 1 if len(turn) else 0):
            chosen = order[turn == k]
            rows = self.momentum * self.lut[labels[chosen]] + (1 - self.momentum) * embeddings[chosen]
            self.lut[labels[chosen]] = functional.normalize(rows, dim=1)
