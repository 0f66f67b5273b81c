"""The relation mixer in the layout that runtimes multiply fastest in, with its BatchNorm folded.

R RoIs, T = H·W tokens, C channels (reduced).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from psarm.export.folding import fold_convolution
from psarm.model.arm import ChannelGate, RelationMixer, SpatialGate, simam, to_map


def mixer_graph(mixer: nn.Module) -> nn.Module:
    """The form to export of what stands between ARM's two 1x1 convolutions: [R,C,H,W] → [R,C,H,W]."""
    return MixerGraph(mixer) if isinstance(mixer, RelationMixer) else copy.deepcopy(mixer)


class MixerGraph(nn.Module):
    """What `RelationMixer` computes, on cells with their channels first for as long as possible."""

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
        cells = x.flatten(2)  # [R,C,T]
        cells = cells + self._mix_tokens(self._gate(cells, self.spatial_gate, height, width))
        tokens = cells.transpose(1, 2)  # [R,T,C]
        tokens = tokens + self._mix_channels(self._gate(cells, self.channel_gate, height, width))
        mixed = to_map(tokens, height, width, self.layout)
        if self.attention is not None:
            mixed = mixed + self.attention(x)
        return mixed + x if self.reuse else mixed

    def _gate(self, cells: Tensor, gate: nn.Module | None, height: int, width: int) -> Tensor:
        """What is normed next, [R,C,T]."""
        if gate is None:
            return cells
        if self.layout == "paper":
            return cells * gate(cells, height, width)  # type: ignore[no-any-return]
        scrambled = to_map(cells.transpose(1, 2), height, width, "released").flatten(2)  # [R,C,T]
        return scrambled * gate(scrambled, height, width) + cells  # type: ignore[no-any-return]

    def _mix_tokens(self, gated: Tensor) -> Tensor:
        """Norm and the token MLP, [R,C,T] → [R,C,T].

        Tokens come last and weights second: as W @ [T,C] OpenVINO would neither fuse the bias nor use bfloat16.
        """
        mixer = self.token_mixer
        normed = mixer.norm(gated.transpose(1, 2)).transpose(1, 2)
        return mixer.mlp.fc2(functional.gelu(mixer.mlp.fc1(normed)))  # type: ignore[no-any-return]

    def _mix_channels(self, gated: Tensor) -> Tensor:
        """Norm and the channel MLP, [R,C,T] → [R,T,C]."""
        mixer = self.channel_mixer
        normed = mixer.norm(gated.transpose(1, 2))
        return mixer.mlp.fc2(functional.gelu(mixer.mlp.fc1(normed)))  # type: ignore[no-any-return]


class SimAMGraph(nn.Module):
    """`simam` as a module, so that its nodes can be told apart: squares and variances stay in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W]."""
        return simam(x)


class SpatialGateGraph(nn.Module):
    """`SpatialGate`'s weights of the cells."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        if not isinstance(gate, SpatialGate):
            raise TypeError(f"Needed a SpatialGate, got {type(gate).__name__}.")
        self.conv = fold_convolution(gate.conv, gate.bn)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """[R,C,T] → [R,1,T]."""
        pooled = torch.stack([x.amax(dim=1), x.mean(dim=1)], dim=1)  # [R,2,T]
        return torch.sigmoid(self.conv(pooled.reshape(-1, 2, height, width))).flatten(2)


class ChannelGateGraph(nn.Module):
    """`ChannelGate`'s weights of the channels."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        if not isinstance(gate, ChannelGate):
            raise TypeError(f"Needed a ChannelGate, got {type(gate).__name__}.")
        self.fc1, self.fc2 = gate.fc1, gate.fc2

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """[R,C,T] → [R,C,1]."""
        pooled = (x.mean(dim=2), x.amax(dim=2))  # [R,C] each
        average, maximum = (self.fc2(torch.relu(self.fc1(p))) for p in pooled)
        return torch.sigmoid(average + maximum).unsqueeze(2)
