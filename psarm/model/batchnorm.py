"""BatchNorm whose statistics in training come from the rows of all processes (torch's SyncBatchNorm refuses CPUs).

Alone, or with `synchronised` off, it is torch's BatchNorm. Parameters and buffers have torch's names either way.

P processes, C channels, m values of a channel in this process and M in all of them.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from psarm.model.processes import gather, sum_across, world_size


class SyncBatchNorm(_BatchNorm):
    """What `SyncBatchNorm1d` and `SyncBatchNorm2d` share; affine, with running statistics and a momentum."""

    synchronised = True
    """Take the statistics over all processes in training."""
    recording = True
    """Let batches in training move the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """[m,C] or [N,C,H,W] → the same, normalised; a process may bring no rows at all.

        Raises `ValueError` in training where all processes together bring less than two values a channel.
        """
        if not self.training:
            return super().forward(input)
        if self.synchronised and world_size() > 1:
            self._check_input_dim(input)  # type: ignore[no-untyped-call]
            mean, variance, total = statistics(input)
            self._record(mean, variance * (total / (total - 1)))
            return _Normalise.apply(input, self.weight, self.bias, mean, variance, total, self.eps)  # type: ignore[no-any-return, no-untyped-call]
        if self.recording or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        # Into copies: with none, autograd would keep fewer tensors, which activation checkpointing takes for an error.
        scratch = self.running_mean.clone(), self.running_var.clone()
        return functional.batch_norm(input, *scratch, self.weight, self.bias, training=True, eps=self.eps)

    @torch.no_grad()
    def _record(self, mean: Tensor, variance: Tensor) -> None:
        if not self.recording:
            return
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            raise ValueError("A synchronised BatchNorm needs running statistics and a momentum.")
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class SyncBatchNorm1d(SyncBatchNorm, nn.BatchNorm1d):
    """BatchNorm1d over all processes."""


class SyncBatchNorm2d(SyncBatchNorm, nn.BatchNorm2d):
    """BatchNorm2d over all processes."""


class NotRecording:
    """A context in which the running statistics of a module's BatchNorms stay; it can be entered again and again."""

    def __init__(self, module: nn.Module) -> None:
        self.norms = [part for part in module.modules() if isinstance(part, SyncBatchNorm)]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.recording = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm in self.norms:
            norm.recording = True


@torch.no_grad()
def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and M over all processes, in float32 or better; x is [m,C] or [N,C,H,W]."""
    x = x.to(_precise(x.dtype))
    over = [axis for axis in range(x.dim()) if axis != 1]
    count = x.numel() // x.shape[1]
    # Sums of squares about the mean of each process: about zero they would cancel where the mean is large.
    if count:
        variance, mean = torch.var_mean(x, over, correction=0)
    else:
        variance = mean = x.new_zeros(x.shape[1])
    facts = gather(torch.cat([mean, variance, mean.new_tensor([count])]))  # [P,2C+1]
    means, variances, counts = torch.split(facts, [len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    if count < 2 and total < 2:  # then every process looks, and stops; else no GPU is waited for
        raise ValueError("Expected more than 1 value per channel when training, in all processes together.")
    weights = counts / total  # [P,1]
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0), total


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) · weight + bias, differentiated through mean and variance of all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, total: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.total = total
        return functional.batch_norm(x, mean, variance, weight.to(mean.dtype), bias.to(mean.dtype), eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        over = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = gradient.to(mean.dtype)
        normalised = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        of_bias = wide.sum(over)
        of_weight = (wide * normalised).sum(over)
        of_x = None
        if ctx.needs_input_grad[0]:
            # Every value moves the mean and variance that all processes divide by.
            both = sum_across(torch.stack([of_bias, of_weight])) / ctx.total
            common = normalised.mul_(both[1].view(shape)).add_(both[0].view(shape))
            of_x = (wide - common).mul_((weight.to(mean.dtype) * scale).view(shape)).to(x.dtype)
        return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None, None, None, None


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
