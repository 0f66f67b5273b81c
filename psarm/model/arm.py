"""The attention-aware relation mixer, ARM (PS-ARM, section 3.2, Fig. 3 and 4), and what Table 2 puts in its place.

A 1x1 convolution reduces the channels, a relation mixer mixes tokens and then channels, each behind its own attention
gate, SimAM adds joint spatio-channel attention, and a 1x1 convolution restores the channels.

Two layouts. ``paper``: gates see the feature map and multiply it (F'' = F' ⊙ M). ``released``: what the published
weights were trained with. There, tokens are read as a map by reinterpreting their memory ([R,T,C] as [R,C,H,W], no
transpose), so the gates see a scrambled map, and the gated map is added to the gate's input.

R RoIs, C channels (reduced), H x W cells (any two numbers), T = H·W tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from psarm.config import Mixing
from psarm.model.batchnorm import SyncBatchNorm2d

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
        self.bn = SyncBatchNorm2d(1, momentum=0.01)

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
    """Gate (or none), LayerNorm over channels, MLP over tokens or channels, residual from before the gate."""

    def __init__(self, gate: nn.Module | None, channels: int, mlp: Mlp, over_tokens: bool, layout: Layout) -> None:
        super().__init__()
        self.gate = gate
        self.norm = nn.LayerNorm(channels)
        self.mlp = mlp
        self.over_tokens = over_tokens
        self.layout = layout

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """[R,T,C] → [R,T,C]."""
        normed: Tensor = self.norm(self._gated(tokens, height, width))
        mixed: Tensor = self.mlp(normed.transpose(1, 2)).transpose(1, 2) if self.over_tokens else self.mlp(normed)
        return tokens + mixed

    def _gated(self, tokens: Tensor, height: int, width: int) -> Tensor:
        if self.gate is None:
            return tokens
        gated = to_tokens(self.gate(to_map(tokens, height, width, self.layout)))
        return gated + tokens if self.layout == "released" else gated


class RelationMixer(nn.Module):
    """Spatial mixing, then channel mixing; `reuse` adds the input, `attend` adds SimAM of the input.

    With both gates and `reuse` it is the paper's relation mixer, with `attend` too all of ARM between its two 1x1
    convolutions; with none of these it is MLP-Mixer (Tolstikhin et al., NeurIPS 2021).
    """

    def __init__(self, token_mixer: Mixer, channel_mixer: Mixer, layout: Layout, reuse: bool, attend: bool) -> None:
        super().__init__()
        self.token_mixer = token_mixer
        self.channel_mixer = channel_mixer
        self.layout = layout
        self.reuse = reuse
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W]."""
        height, width = x.shape[2:]
        tokens = self.channel_mixer(self.token_mixer(to_tokens(x), height, width), height, width)
        mixed = to_map(tokens, height, width, self.layout)
        if self.attend:
            mixed = mixed + simam(x)
        return mixed + x if self.reuse else mixed


class SpatioChannelAttention(nn.Module):
    """The joint spatio-channel attention layer alone: SimAM."""

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W]."""
        return simam(x)


class TransformerMixer(nn.Module):
    """One encoder block of ViT (Dosovitskiy et al., ICLR 2021) over the cells: attention, then an MLP, norms first.

    Positions are learned; heads are 32 channels wide; the MLP is as wide as ARM's.
    """

    def __init__(self, channels: int, cells: int, dropout: float) -> None:
        super().__init__()
        self.heads = max(1, channels // 32)
        while channels % self.heads:
            self.heads -= 1
        self.position = nn.Parameter(torch.empty(cells, channels))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 3 * channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W]."""
        tokens = to_tokens(x) + self.position
        tokens = tokens + self._attend(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return to_map(tokens, x.shape[2], x.shape[3], "paper")

    def _attend(self, tokens: Tensor) -> Tensor:
        count, cells, channels = tokens.shape
        parts = self.qkv(tokens).reshape(count, cells, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # [R,heads,T,C/heads] each
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(count, cells, channels))  # type: ignore[no-any-return]


class Arm(nn.Module):
    """ARM between RoIAlign and the head's layers: reduce → relation mixer → expand.

    It fits in front of any RoI head, on torchvision's Faster R-CNN for instance::

        model.roi_heads.box_head = nn.Sequential(Arm(256, 7), model.roi_heads.box_head)

    Args:
        channels: of the RoI features.
        size: cells of a RoI, a side or (height, width).
        reduced: channels it works on; None: a quarter of `channels`, as in the paper.
        dropout: after each layer of the two MLPs.
        layout: `paper`, or `released` for weights of the published code.
        mixing: `arm`, or a row of the paper's Table 2.
    """

    def __init__(
        self,
        channels: int,
        size: int | tuple[int, int] = 14,
        reduced: int | None = None,
        dropout: float = 0.5,
        layout: Layout = "paper",
        mixing: Mixing = "arm",
    ) -> None:
        super().__init__()
        reduced = max(1, channels // 4) if reduced is None else reduced
        height, width = (size, size) if isinstance(size, int) else size
        self.size = (height, width)
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.mixer = make_mixer(mixing, reduced, height * width, dropout, layout)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """RoI features [R,C,H,W] → enriched RoI features [R,C,H,W]; raises `ValueError` unless H x W is `size`."""
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(
                f"RoI features of the shape {tuple(x.shape)} came to an Arm for maps of {self.size} (height, width); "
                f"build it with size={tuple(x.shape[2:])}, or pool RoIs to {self.size}."
            )
        return self.expand(self.mixer(self.reduce(x)))  # type: ignore[no-any-return]


def make_mixer(mixing: Mixing, channels: int, cells: int, dropout: float, layout: Layout) -> nn.Module:
    """What stands between ARM's two 1x1 convolutions: [R,C,H,W] → [R,C,H,W] with H·W = `cells`."""
    if mixing == "spatio_channel":
        return SpatioChannelAttention()
    if mixing == "transformer":
        return TransformerMixer(channels, cells, dropout)
    spatial = SpatialGate() if mixing in ("arm", "relation_mixer", "spatially_attended") else None
    channel = ChannelGate(channels) if mixing in ("arm", "relation_mixer", "channel_attended") else None
    return RelationMixer(
        Mixer(spatial, channels, Mlp(cells, 3 * cells, dropout), True, layout),
        Mixer(channel, channels, Mlp(channels, 3 * channels, dropout), False, layout),
        layout,
        reuse=mixing != "mlp_mixer",
        attend=mixing == "arm",
    )
