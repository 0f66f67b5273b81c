"""ARM's relation mixer for GPUs: torch's matrix products, and between them the kernels of `mixer`.

R RoIs, T = H·W tokens, C channels (reduced).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from psarm.export.kernels.mixer import add_simam, bias_gelu_, gate_norm, pool
from psarm.export.mixer import MixerGraph


class FusedMixer(nn.Module):
    """What `MixerGraph` computes, with activations of `dtype`; gates and norms in float32.

    It keeps weights as they are when made: make it on the device and for the type that it is to run in.
    """

    def __init__(self, mixer: MixerGraph, dtype: torch.dtype) -> None:
        super().__init__()
        self.scrambled = mixer.layout == "released"
        self.attend = mixer.attention is not None
        self.reuse = mixer.reuse
        self.dtype = dtype
        self.spatial_gate = mixer.spatial_gate and mixer.spatial_gate.conv.float()
        self.channel_gate = mixer.channel_gate and mixer.channel_gate.float()
        self.token_norm, self.channel_norm = mixer.token_mixer.norm.float(), mixer.channel_mixer.norm.float()
        tokens, channels = mixer.token_mixer.mlp, mixer.channel_mixer.mlp
        self.first, self.second = (aligned(layer.weight, dtype) for layer in (tokens.fc1, tokens.fc2))  # [3T,T], [T,3T]
        self.first_bias, self.second_bias = (layer.bias.detach().float() for layer in (tokens.fc1, tokens.fc2))
        self.widen, self.narrow = channels.fc1.to(dtype), channels.fc2.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[R,C,H,W] → [R,C,H,W] of `dtype`, its channels last in memory; best given like that."""
        height, width = x.shape[2:]
        start = x.to(self.dtype).permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # [R,T,C]
        tokens, channel_logits = self._mix_tokens(start, height, width)
        mixed = self._mix_channels(tokens, channel_logits)
        answer = add_simam(start, tokens, mixed, self.scrambled, self.attend, self.reuse)
        return answer.reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2)

    def _mix_tokens(self, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor | None]:
        """[R,T,C] → the same mixed, and the logits of the gate that follows."""
        logits = None
        if self.spatial_gate is not None:
            _, pooled = pool(x, "channels", self.scrambled)
            logits = self.spatial_gate(pooled.reshape(-1, 2, height, width)).flatten(1)[..., None]  # [R,T,1]
        normed = self._norm(x, logits, self.token_norm)
        count = x.shape[0]
        hidden = bias_gelu_(torch.bmm(self.first.expand(count, -1, -1), normed), self.first_bias)  # [R,3T,C]
        mixed = torch.bmm(self.second.expand(count, -1, -1), hidden)
        tokens, pooled = pool(x, "tokens", self.scrambled, mixed, self.second_bias)
        if self.channel_gate is None:
            return tokens, None
        gate = self.channel_gate
        return tokens, gate.fc2(torch.relu(gate.fc1(pooled))).sum(dim=1, keepdim=True)  # [R,1,C]

    def _mix_channels(self, tokens: Tensor, logits: Tensor | None) -> Tensor:
        normed = self._norm(tokens, logits, self.channel_norm)
        return self.narrow(functional.gelu(self.widen(normed)))  # type: ignore[no-any-return]

    def _norm(self, x: Tensor, logits: Tensor | None, norm: nn.LayerNorm) -> Tensor:
        return gate_norm(x, logits, self.scrambled, norm.weight, cast(Tensor, norm.bias), norm.eps, self.dtype)


def aligned(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix whose rows begin at multiples of 16 bytes, which tensor cores are fed fastest from."""
    rows, columns = weight.shape
    return weight.new_zeros(rows, -(-columns // 8) * 8, dtype=dtype).copy_(
        functional.pad(weight.detach(), (0, -columns % 8))
    )[:, :columns]
