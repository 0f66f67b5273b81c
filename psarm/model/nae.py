"""Norm-aware embedding (NAE, CVPR 2020; PS-ARM, section 3.1): direction identifies, length tells person or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from psarm.model.batchnorm import SyncBatchNorm1d


class NormAwareEmbedding(nn.Module):
    """Pooled features before and after res5 → unit embedding and the logit of being a person."""

    def __init__(self, res4_channels: int, res5_channels: int, embedding_dim: int) -> None:
        super().__init__()
        half = embedding_dim // 2
        self.res4 = projector(res4_channels, half)
        self.res5 = projector(res5_channels, half)
        self.rescaler = SyncBatchNorm1d(1)

    def forward(self, res4: Tensor, res5: Tensor) -> tuple[Tensor, Tensor]:
        """[R,C4], [R,C5] → embeddings [R,D] of unit norm, logits [R]."""
        vectors = self.vectors(res4, res5)
        norms = vectors.norm(dim=1, keepdim=True)
        return vectors / norms.clamp(min=1e-12), self.rescaler(norms)[:, 0]

    def vectors(self, res4: Tensor, res5: Tensor) -> Tensor:
        """The embeddings before normalisation [R,D]."""
        return torch.cat([self.res4(res4), self.res5(res5)], dim=1)


def projector(in_features: int, out_features: int) -> nn.Sequential:
    """Linear + BatchNorm. The released code draws the BatchNorm's scale from N(0, 0.01); here it starts at 1."""
    linear = nn.Linear(in_features, out_features)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, SyncBatchNorm1d(out_features))
