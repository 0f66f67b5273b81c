# mypy: allow-untyped-decorators
"""NMS of a batch with static shapes: no step on the host, nothing read back, so that a CUDA graph can hold it.

Two kernels. The first compares all pairs and keeps one bit a pair. The second, one program an image, walks through the
boxes, 64 at a time: which of the 64 survive is found by sweeps, each of which lets those live that no survivor of the
sweep before suppresses, until nothing changes (a sweep settles at least one box more, so that 64 suffice; few do);
then all that the survivors suppress is struck out at once.

N images, K boxes of each, W = K / 64 words of bits a box.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psarm.export.operators import float32_below

WORD = tl.constexpr(64)
ROW_BLOCK = 32


def nms(boxes: Tensor, valid: Tensor, threshold: float, limit: int) -> tuple[Tensor, Tensor]:
    """The first `limit` boxes of each image that overlap no better survivor by IoU > `threshold`.

    Args:
        boxes: float32 [N,K,4] xyxy, contiguous, best first.
        valid: bool [N,K]; others are ignored.
        threshold: of the IoU; the comparison is torchvision's on a CPU, to the last bit.
        limit: most survivors of an image.

    Returns:
        Positions of the survivors in order, int64 [N,limit], -1 behind the last one; their number, int64 [N].
    """
    images, count = valid.shape
    kept = torch.full((images, limit), -1, dtype=torch.int64, device=boxes.device)
    counts = torch.zeros(images, dtype=torch.int64, device=boxes.device)
    if images == 0 or count == 0 or limit == 0:
        return kept, counts
    words = triton.cdiv(count, 64)
    bits = torch.empty((images, count, words), dtype=torch.int64, device=boxes.device)
    # Without fused multiply-add the IoU is rounded as torchvision's on a CPU is.
    _compare[(images, triton.cdiv(count, ROW_BLOCK), words)](
        boxes.contiguous(),
        bits,
        count,
        words,
        float32_below(threshold),
        ROW_BLOCK=ROW_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )
    block = triton.next_power_of_2(words)
    _sweep[(images,)](
        bits, valid.contiguous(), kept, counts, count, words, limit, WORD_BLOCK=block, num_warps=1 if block <= 32 else 4
    )
    return kept, counts


@triton.jit
def _compare(
    boxes: tl.tensor, bits: tl.tensor, count: tl.tensor, words: tl.tensor, threshold: tl.tensor, ROW_BLOCK: tl.constexpr
) -> None:
    """One word of bits of each of some boxes: which of 64 later boxes it overlaps."""
    image, first_row, word = tl.program_id(0).to(tl.int64), tl.program_id(1) * ROW_BLOCK, tl.program_id(2)
    if first_row < (word + 1) * WORD:  # else every box of the word is better than every row: never read
        row = first_row + tl.arange(0, ROW_BLOCK)
        column = word * WORD + tl.arange(0, WORD)
        row_box = boxes + (image * count + row) * 4
        column_box = boxes + (image * count + column) * 4
        left, top = tl.load(row_box, row < count, 0.0), tl.load(row_box + 1, row < count, 0.0)
        right, bottom = tl.load(row_box + 2, row < count, 0.0), tl.load(row_box + 3, row < count, 0.0)
        x1, y1 = tl.load(column_box, column < count, 0.0), tl.load(column_box + 1, column < count, 0.0)
        x2, y2 = tl.load(column_box + 2, column < count, 0.0), tl.load(column_box + 3, column < count, 0.0)
        width = tl.minimum(right[:, None], x2[None]) - tl.maximum(left[:, None], x1[None])
        height = tl.minimum(bottom[:, None], y2[None]) - tl.maximum(top[:, None], y1[None])
        both = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
        area, other = (right - left) * (bottom - top), (x2 - x1) * (y2 - y1)
        union = area[:, None] + other[None] - both
        iou = tl.math.div_rn(both, tl.where(union == 0.0, 1.0, union))  # 0 / 0 suppresses nothing
        later = (column[None] > row[:, None]) & (column[None] < count)
        bit = tl.full([1, WORD], 1, tl.int64) << tl.arange(0, WORD)[None]
        packed = tl.sum(tl.where((iou > threshold) & later, bit, 0), axis=1)
        tl.store(bits + (image * count + row) * words + word, packed, row < count)


@triton.jit
def _sweep(
    bits: tl.tensor,
    valid: tl.tensor,
    kept: tl.tensor,
    counts: tl.tensor,
    count: tl.tensor,
    words: tl.tensor,
    limit: tl.tensor,
    WORD_BLOCK: tl.constexpr,
) -> None:
    """One image. `struck` holds a bit a box that a survivor suppresses."""
    image = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, WORD)
    word = tl.arange(0, WORD_BLOCK)
    struck = tl.zeros([WORD_BLOCK], tl.int64)
    found = tl.full([], 0, tl.int32)
    number = tl.full([], 0, tl.int32)  # of the word
    usable = tl.load(valid + image * count + lane, lane < count, 0)
    own = tl.load(bits + (image * count + lane) * words, lane < count, 0)
    while (number < words) & (found < limit):
        box = number * WORD + lane
        rows = bits + (image * count + box) * words
        out = tl.sum(tl.where(word == number, struck, 0), axis=0)
        candidate = (usable != 0) & (((out >> lane) & 1) == 0)
        alive = candidate
        changed = tl.full([], 1, tl.int32)
        while changed != 0:
            hit = tl.reduce_or(tl.where(alive, own, 0), axis=0)  # `own`: which later ones of the 64 each suppresses
            now = candidate & (((hit >> lane) & 1) == 0)
            changed = tl.sum((now != alive).to(tl.int32), axis=0)
            alive = now
        survives = alive.to(tl.int32)
        place = found + tl.cumsum(survives, axis=0) - survives
        tl.store(kept + image * limit + place, box.to(tl.int64), alive & (place < limit))
        found += tl.sum(survives, axis=0)
        later = box + WORD  # loaded here, so that the next round need not wait for them
        usable = tl.load(valid + image * count + later, later < count, 0)
        own = tl.load(rows + WORD * words + number + 1, later < count, 0)
        # Words before this one were never written.
        wanted = alive[:, None] & (word[None] > number) & (word[None] < words)
        struck |= tl.reduce_or(tl.load(rows[:, None] + word[None], wanted, 0), axis=0)
        number += 1
    tl.store(counts + image, tl.minimum(found, limit).to(tl.int64))
