"""The relation mixer without transposes between its steps and with its norms folded.

R RoIs, T = H·W tokens, C channels (reduced).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from psarm.export.folding import fold_convolution
from psarm.model.arm import ChannelGate, Mixer, RelationMixer, SpatialGate, simam, to_map, to_tokens


def mixer_graph(mixer: nn.Module) -> nn.Module:
    """The form to export of what stands between ARM's two 1x1 convolutions: [R,C,H,W] → [R,C,H,W]."""
    return MixerGraph(mixer) if isinstance(mixer, RelationMixer) else copy.deepcopy(mixer)


class MixerGraph(nn.Module):
    """What `RelationMixer` computes; gates work on tokens where the layout allows it."""

    def __init__(self, mixer: RelationMixer) -> None:
        super().__init__()
        self.layout = mixer.layout
        self.reuse = mixer.reuse
        self.attention = SimAMGraph() if mixer.attend else None
        spatial, channel = mixer.token_mixer.gate, mixer.channel_mixer.gate
        self.spatial_gate = None if spatial is None else SpatialGateGraph(spatial)
        self.channel_gate = None if channel is None else ChannelGateGraph(channel)
        self.token_mixer = mixer.token_mixer
        self.channel_mixer = mixer.channel_mixer

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W]."""
        height, width = x.shape[2:]
        tokens = to_tokens(x)
        tokens = tokens + self._mix_tokens(self._gate(tokens, self.spatial_gate, self.token_mixer, height, width))
        tokens = tokens + self._mix_channels(self._gate(tokens, self.channel_gate, self.channel_mixer, height, width))
        mixed = to_map(tokens, height, width, self.layout)
        if self.attention is not None:
            mixed = mixed + self.attention(x)
        return mixed + x if self.reuse else mixed

    def _gate(self, tokens: Tensor, gate: nn.Module | None, mixer: Mixer, height: int, width: int) -> Tensor:
        """Gated and normed tokens [R,T,C]."""
        if gate is None:
            return mixer.norm(tokens)  # type: ignore[no-any-return]
        if self.layout == "paper":
            return mixer.norm(tokens * gate(tokens, 2, height, width))  # type: ignore[no-any-return]
        scrambled = to_map(tokens, height, width, "released").flatten(2)  # [R,C,T]
        gated = scrambled * gate(scrambled, 1, height, width)
        return mixer.norm(gated.transpose(1, 2) + tokens)  # type: ignore[no-any-return]

    def _mix_tokens(self, tokens: Tensor) -> Tensor:
        """The token MLP as W @ [T,C], one weight matrix for all RoIs."""
        first, second = self.token_mixer.mlp.fc1, self.token_mixer.mlp.fc2
        hidden = functional.gelu(first.weight @ tokens + first.bias[:, None])
        return second.weight @ hidden + second.bias[:, None]

    def _mix_channels(self, tokens: Tensor) -> Tensor:
        first, second = self.channel_mixer.mlp.fc1, self.channel_mixer.mlp.fc2
        return second(functional.gelu(first(tokens)))  # type: ignore[no-any-return]


class SimAMGraph(nn.Module):
    """`simam` as a module, so that its nodes can be told apart: squares and variances stay in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W]."""
        return simam(x)


class SpatialGateGraph(nn.Module):
    """`SpatialGate`'s weights of the cells, for features with their channels at any dimension."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        if not isinstance(gate, SpatialGate):
            raise TypeError(f"Needed a SpatialGate, got {type(gate).__name__}.")
        self.conv = fold_convolution(gate.conv, gate.bn)

    def forward(self, x: Tensor, channel_dim: int, height: int, width: int) -> Tensor:
        """[R,T,C] with channel_dim 2 → [R,T,1]; [R,C,T] with channel_dim 1 → [R,1,T]."""
        pooled = torch.stack([x.amax(dim=channel_dim), x.mean(dim=channel_dim)], dim=1)  # [R,2,T]
        weights = torch.sigmoid(self.conv(pooled.reshape(-1, 2, height, width)))  # [R,1,H,W]
        return weights.flatten(1).unsqueeze(channel_dim)


class ChannelGateGraph(nn.Module):
    """`ChannelGate`'s weights of the channels, for features with their channels at any dimension."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        if not isinstance(gate, ChannelGate):
            raise TypeError(f"Needed a ChannelGate, got {type(gate).__name__}.")
        self.fc1, self.fc2 = gate.fc1, gate.fc2

    def forward(self, x: Tensor, channel_dim: int, height: int, width: int) -> Tensor:
        """[R,T,C] with channel_dim 2 → [R,1,C]; [R,C,T] with channel_dim 1 → [R,C,1]."""
        token_dim = 3 - channel_dim
        pooled = (x.mean(dim=token_dim), x.amax(dim=token_dim))  # [R,C] each
        average, maximum = (self.fc2(torch.relu(self.fc1(p))) for p in pooled)
        return torch.sigmoid(average + maximum).unsqueeze(token_dim)
