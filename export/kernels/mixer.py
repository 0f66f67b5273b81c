# mypy: allow-untyped-decorators
"""The pointwise chain of ARM's relation mixer: what lies between its matrix products, each activation read once.

Activations are tokens [R,T,C], which is what a map [R,C,H,W] with its channels last is in memory: nothing is
transposed, and a map of the released layout (`to_map`) is another way of reading the same memory. They may be of 16
bits or float32; sums, means, norms and gates are computed in float32.

Activations (30 MB in 16 bits at 300 RoIs x 256 channels x 14x14 cells) that the mixer of the paper's layout reads and
writes, one operator after another: those of PyTorch's operators in `export.mixer.MixerGraph` on maps with their
channels last, and those of `fused_mixer.FusedMixer`. Hidden layers count three.

| step                               | PyTorch | here |              |
| ---------------------------------- | ------- | ---- | ------------ |
| spatial gate: maximum and mean     |       2 |    1 | `pool`       |
| gate, LayerNorm                    |       4 |    2 | `gate_norm`  |
| token MLP: transpose               |       2 |    - |              |
| - first product                    |       4 |    4 |              |
| - its bias, GELU                   |      12 |    6 | `bias_gelu_` |
| - second product                   |       4 |    4 |              |
| residual, channel gate's pooling   |       5 |    3 | `pool`       |
| gate, LayerNorm                    |       4 |    2 | `gate_norm`  |
| channel MLP, its GELU being 6      |      14 |   14 |              |
| residual                           |       3 |    - |              |
| SimAM                              |      15 |    - |              |
| sums of both and the input         |       6 |    4 | `add_simam`  |
| together                           |      75 |   40 |              |

R RoIs, T = H·W tokens, C channels (reduced): T and C are a model's, so kernels are compiled for them.
"""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

Over = Literal["channels", "tokens"]


def pool(
    x: Tensor, over: Over, scrambled: bool, addend: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum of two activations, and the maximum and mean of it that a gate looks at.

    Args:
        x: [R,T,C], contiguous.
        over: `channels` for the spatial gate, `tokens` for the channel gate.
        scrambled: whether the gate reads [R,T,C] as [R,C,T] without transposing, as in the released layout.
        addend: added to `x`, likewise [R,T,C]; None for nothing.
        bias: of each token, added with `addend`, float32 [T].

    Returns:
        The sum [R,T,C] (`x` itself without `addend`) and maxima and means, float32 [R,2,T] or [R,2,C].
    """
    count, tokens, channels = x.shape
    kept, reduced = (tokens, channels) if over == "channels" else (channels, tokens)
    pooled = x.new_empty(count, 2, kept, dtype=torch.float32)
    total = x if addend is None else torch.empty_like(x)
    if x.numel() == 0:
        return total, pooled
    strides = {"channels": (1, tokens) if scrambled else (channels, 1)}
    strides["tokens"] = (tokens, 1) if scrambled else (1, channels)
    kept_stride, reduced_stride = strides[over]
    kept_last = kept_stride == 1
    kept_block = 64 if kept_last else 16
    _pool[(count, triton.cdiv(kept, kept_block))](
        x,
        addend,
        bias,
        total,
        pooled,
        KEPT=kept,
        REDUCED=reduced,
        KEPT_STRIDE=kept_stride,
        REDUCED_STRIDE=reduced_stride,
        CHANNELS=channels,
        KEPT_LAST=kept_last,
        KEPT_BLOCK=kept_block,
        REDUCED_BLOCK=32 if kept_last else 256,
        num_warps=4,
    )
    return total, pooled


def gate_norm(
    x: Tensor, logits: Tensor | None, scrambled: bool, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """LayerNorm over the channels of gated tokens.

    Args:
        x: [R,T,C], contiguous.
        logits: of the gate, float32: [R,T,1] weigh tokens, [R,1,C] channels; None: not gated.
        scrambled: whether the gate weighs [R,T,C] read as [R,C,T] and `x` is added, as in the released layout.
        weight: of the norm, float32 [C].
        bias: of the norm, float32 [C].
        eps: of the norm.
        dtype: of the answer.

    Returns:
        [R,T,C], contiguous.
    """
    count, tokens, channels = x.shape
    out = torch.empty_like(x, dtype=dtype)
    if x.numel() == 0:
        return out
    channel_block = triton.next_power_of_2(channels)
    token_block = max(1, 4096 // channel_block)
    _gate_norm[(count, triton.cdiv(tokens, token_block))](
        x,
        logits,
        weight,
        bias,
        out,
        eps,
        TOKENS=tokens,
        CHANNELS=channels,
        BY_TOKEN=logits is not None and logits.shape[1] == tokens and logits.shape[2] == 1,
        SCRAMBLED=scrambled and logits is not None,
        TOKEN_BLOCK=token_block,
        CHANNEL_BLOCK=channel_block,
        num_warps=4,
    )
    return out


def bias_gelu_(x: Tensor, bias: Tensor) -> Tensor:
    """GELU (erf) of x [R,J,C] plus a bias of each row, float32 [J], in place; gives `x`."""
    count, rows, channels = x.shape
    if x.numel() == 0:
        return x
    block = 2048
    _bias_gelu[(count, triton.cdiv(rows * channels, block))](
        x, bias, SIZE=rows * channels, CHANNELS=channels, BLOCK=block, num_warps=4
    )
    return x


def add_simam(x: Tensor, tokens: Tensor, mixed: Tensor, scrambled: bool, attend: bool, reuse: bool) -> Tensor:
    """The mixer's answer: tokens + mixed, plus SimAM of its input x (`attend`), plus x (`reuse`).

    All [R,T,C] and contiguous; `scrambled`: tokens and mixed are read as [R,C,T] without transposing. Gives [R,T,C] of
    the type of x.
    """
    count, cells, channels = x.shape
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    cell_block = triton.next_power_of_2(cells)
    channel_block = max(1, min(8192 // cell_block, triton.next_power_of_2(channels)))
    _add_simam[(count, triton.cdiv(channels, channel_block))](
        x,
        tokens,
        mixed,
        out,
        CELLS=cells,
        CHANNELS=channels,
        SCRAMBLED=scrambled,
        ATTEND=attend,
        REUSE=reuse,
        CELL_BLOCK=cell_block,
        CHANNEL_BLOCK=channel_block,
        num_warps=8 if cell_block * channel_block >= 8192 else 4,
    )
    return out


@triton.jit
def _pool(
    x: tl.tensor,
    addend: tl.tensor,
    bias: tl.tensor,
    total: tl.tensor,
    pooled: tl.tensor,
    KEPT: tl.constexpr,
    REDUCED: tl.constexpr,
    KEPT_STRIDE: tl.constexpr,
    REDUCED_STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    KEPT_LAST: tl.constexpr,
    KEPT_BLOCK: tl.constexpr,
    REDUCED_BLOCK: tl.constexpr,
) -> None:
    """Some rows of one RoI over all columns; what is contiguous in memory lies along the tile's last side."""
    roi = tl.program_id(0).to(tl.int64)
    slab = roi * KEPT * REDUCED
    row = tl.program_id(1) * KEPT_BLOCK + tl.arange(0, KEPT_BLOCK)
    highest = tl.full([KEPT_BLOCK], float("-inf"), tl.float32)
    sums = tl.zeros([KEPT_BLOCK], tl.float32)
    axis: tl.constexpr = 0 if KEPT_LAST else 1
    for start in range(0, REDUCED, REDUCED_BLOCK):
        column = start + tl.arange(0, REDUCED_BLOCK)
        if KEPT_LAST:
            offset = row[None, :] * KEPT_STRIDE + column[:, None] * REDUCED_STRIDE
            mask = (row < KEPT)[None, :] & (column < REDUCED)[:, None]
        else:
            offset = row[:, None] * KEPT_STRIDE + column[None, :] * REDUCED_STRIDE
            mask = (row < KEPT)[:, None] & (column < REDUCED)[None, :]
        value = tl.load(x + slab + offset, mask, 0.0).to(tl.float32)
        if addend is not None:
            value += tl.load(addend + slab + offset, mask, 0.0).to(tl.float32)
            if bias is not None:
                value += tl.load(bias + offset // CHANNELS, mask, 0.0)
            tl.store(total + slab + offset, value.to(total.dtype.element_ty), mask)
        highest = tl.maximum(highest, tl.max(tl.where(mask, value, float("-inf")), axis=axis))
        sums += tl.sum(tl.where(mask, value, 0.0), axis=axis)
    target = pooled + roi * 2 * KEPT + row
    tl.store(target, highest, row < KEPT)
    tl.store(target + KEPT, sums / REDUCED, row < KEPT)


@triton.jit
def _gate_norm(
    x: tl.tensor,
    logits: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BY_TOKEN: tl.constexpr,
    SCRAMBLED: tl.constexpr,
    TOKEN_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
) -> None:
    """Some tokens of one RoI with all their channels."""
    roi = tl.program_id(0).to(tl.int64)
    slab = roi * TOKENS * CHANNELS
    token = tl.program_id(1) * TOKEN_BLOCK + tl.arange(0, TOKEN_BLOCK)[:, None]
    channel = tl.arange(0, CHANNEL_BLOCK)[None, :]
    mask = (token < TOKENS) & (channel < CHANNELS)
    own = tl.load(x + slab + token * CHANNELS + channel, mask, 0.0).to(tl.float32)
    value = own
    if SCRAMBLED:
        value = tl.load(x + slab + channel * TOKENS + token, mask, 0.0).to(tl.float32)
    if logits is not None:
        if BY_TOKEN:
            value *= tl.sigmoid(tl.load(logits + roi * TOKENS + token, token < TOKENS, 0.0))
        else:
            value *= tl.sigmoid(tl.load(logits + roi * CHANNELS + channel, channel < CHANNELS, 0.0))
    if SCRAMBLED:
        value += own
    mean = tl.sum(value, axis=1)[:, None] / CHANNELS
    deviation = tl.where(mask, value - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1)[:, None] / CHANNELS
    normed = deviation * tl.rsqrt(variance + eps)
    normed = normed * tl.load(weight + channel, channel < CHANNELS, 0.0)
    normed += tl.load(bias + channel, channel < CHANNELS, 0.0)
    tl.store(out + slab + token * CHANNELS + channel, normed.to(out.dtype.element_ty), mask)


@triton.jit
def _bias_gelu(x: tl.tensor, bias: tl.tensor, SIZE: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Some values of one RoI."""
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    target = x + tl.program_id(0).to(tl.int64) * SIZE + place
    value = tl.load(target, place < SIZE, 0.0).to(tl.float32) + tl.load(bias + place // CHANNELS, place < SIZE, 0.0)
    value = 0.5 * value * (1.0 + tl.math.erf(value * 0.7071067811865476))
    tl.store(target, value.to(x.dtype.element_ty), place < SIZE)


@triton.jit
def _add_simam(
    x: tl.tensor,
    tokens: tl.tensor,
    mixed: tl.tensor,
    out: tl.tensor,
    CELLS: tl.constexpr,
    CHANNELS: tl.constexpr,
    SCRAMBLED: tl.constexpr,
    ATTEND: tl.constexpr,
    REUSE: tl.constexpr,
    CELL_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
) -> None:
    """Some channels of one RoI with all their cells: SimAM's means stay in registers."""
    slab = tl.program_id(0).to(tl.int64) * CELLS * CHANNELS
    channel = tl.program_id(1) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)[None, :]
    cell = tl.arange(0, CELL_BLOCK)[:, None]
    mask = (cell < CELLS) & (channel < CHANNELS)
    place = slab + cell * CHANNELS + channel
    source = slab + channel * CELLS + cell if SCRAMBLED else place
    total = tl.load(tokens + source, mask, 0.0).to(tl.float32) + tl.load(mixed + source, mask, 0.0).to(tl.float32)
    if ATTEND or REUSE:
        value = tl.load(x + place, mask, 0.0).to(tl.float32)
        if REUSE:
            total += value
        if ATTEND:
            mean = tl.sum(value, axis=0)[None, :] / CELLS
            deviation = tl.where(cell < CELLS, value - mean, 0.0)
            deviation *= deviation
            variance = tl.sum(deviation, axis=0)[None, :] / (CELLS - 1)
            total += value * tl.sigmoid(deviation / (4.0 * (variance + 1e-4)) + 0.5)
    tl.store(out + place, total.to(out.dtype.element_ty), mask)
