"""The attention-aware relation mixer, ARM (PS-ARM, section 3.2, Fig. 3 and 4).

A 1x1 convolution reduces the channels, a relation mixer mixes tokens and then channels, each behind its own attention
gate, SimAM adds joint spatio-channel attention, and a 1x1 convolution restores the channels.

Two layouts. ``paper``: gates see the feature map and multiply it (F'' = F' ⊙ M). ``released``: what the published
weights were trained with. There, tokens are read as a map by reinterpreting their memory ([R,T,C] as [R,C,H,W], no
transpose), so the gates see a scrambled map, and the gated map is added to the gate's input.

R RoIs, C channels (reduced), H x W cells, T = H·W tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Layout = Literal["paper", "released"]


def simam(x: Tensor) -> Tensor:
    """SimAM, parameter-free attention (Yang et al., ICML 2021) with λ = 1e-4: [R,C,H,W] → [R,C,H,W]."""
    deviation = (x - x.mean(dim=(2, 3), keepdim=True)).square()
    variance = deviation.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
    return x * torch.sigmoid(deviation / (4 * (variance + 1e-4)) + 0.5)


def to_tokens(x: Tensor) -> Tensor:
    """[R,C,H,W] → [R,T,C]."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, height: int, width: int, layout: Layout) -> Tensor:
    """[R,T,C] → [R,C,H,W]: transposed (paper) or with its memory reinterpreted (released)."""
    count, _, channels = tokens.shape
    if layout == "released":
        return tokens.reshape(count, channels, height, width)
    return tokens.transpose(1, 2).reshape(count, channels, height, width)


class SpatialGate(nn.Module):
    """CBAM spatial gate: channel max and mean → 7x7 convolution → BN → sigmoid → scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → the same, scaled by one weight a cell."""
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)  # [R,2,H,W]
        return x * torch.sigmoid(self.bn(self.conv(pooled)))


class ChannelGate(nn.Module):
    """CBAM channel gate: a shared bottleneck MLP on average- and max-pooled channels → sum → sigmoid → scale."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → the same, scaled by one weight a channel."""
        pooled = (x.mean(dim=(2, 3)), x.amax(dim=(2, 3)))  # [R,C] each
        average, maximum = (self.fc2(torch.relu(self.fc1(p))) for p in pooled)
        return x * torch.sigmoid(average + maximum)[:, :, None, None]


class Mlp(nn.Module):
    """Two linear layers with GELU (erf) and dropout after each."""

    def __init__(self, features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., features] → [..., features]."""
        x = self.dropout(nn.functional.gelu(self.fc1(x)))
        return self.dropout(self.fc2(x))  # type: ignore[no-any-return]


class Mixer(nn.Module):
    """Gate, LayerNorm over channels, MLP over tokens (spatial mixer) or channels, residual from before the gate."""

    def __init__(self, gate: nn.Module, channels: int, mlp: Mlp, over_tokens: bool, layout: Layout) -> None:
        super().__init__()
        self.gate = gate
        self.norm = nn.LayerNorm(channels)
        self.mlp = mlp
        self.over_tokens = over_tokens
        self.layout = layout

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """[R,T,C] → [R,T,C]."""
        gated = to_tokens(self.gate(to_map(tokens, height, width, self.layout)))
        normed: Tensor = self.norm(gated + tokens if self.layout == "released" else gated)
        mixed: Tensor = self.mlp(normed.transpose(1, 2)).transpose(1, 2) if self.over_tokens else self.mlp(normed)
        return tokens + mixed


class RelationMixer(nn.Module):
    """Spatially attended spatial mixing, channel-wise attended channel mixing, plus SimAM and the input."""

    def __init__(self, channels: int, cells: int, dropout: float, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.token_mixer = Mixer(SpatialGate(), channels, Mlp(cells, 3 * cells, dropout), True, layout)
        self.channel_mixer = Mixer(ChannelGate(channels), channels, Mlp(channels, 3 * channels, dropout), False, layout)

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W]."""
        height, width = x.shape[2:]
        tokens = self.channel_mixer(self.token_mixer(to_tokens(x), height, width), height, width)
        return to_map(tokens, height, width, self.layout) + simam(x) + x


class Arm(nn.Module):
    """ARM between RoIAlign and res5: reduce → relation mixer → expand."""

    def __init__(self, channels: int, reduced: int, cells: int, dropout: float, layout: Layout) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.mixer = RelationMixer(reduced, cells, dropout, layout)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """RoI features [R,C,H,W] → enriched RoI features [R,C,H,W]."""
        return self.expand(self.mixer(self.reduce(x)))  # type: ignore[no-any-return]
