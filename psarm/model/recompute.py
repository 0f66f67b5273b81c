"""Activation checkpointing: activations are computed again in the backward pass instead of kept (Chen et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from psarm.model.batchnorm import NotRecording

Output = TypeVar("Output")


def recompute(function: Callable[[Tensor], Output], x: Tensor, module: nn.Module) -> Output:
    """`function(x)`, of which only x is kept for the backward pass; `module` holds all layers that it runs.

    Dropout draws the same both times, and the second time running statistics stay.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), NotRecording(module)

    return checkpoint(function, x, use_reentrant=False, context_fn=contexts)  # type: ignore[no-any-return]
