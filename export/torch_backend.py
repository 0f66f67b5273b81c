"""The torch backend: a bundle's checkpoint as the graphs' fused modules; on a GPU they replay CUDA graphs.

Shapes of frames and numbers of people that come for the second time are recorded; `PSARM_TORCH=eager` leaves that out,
`PSARM_TORCH=compile` lets torch.compile have the modules first (minutes, when shapes are recorded).

Importable without torch, which only `TorchBackend` itself needs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from psarm.errors import PsarmError, UsageError
from psarm.machine import usable_cores
from psarm.runtime.backends.base import Backend, DetectInputs, Tensors
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import Preprocessing

MODE = "PSARM_TORCH"
"""Environment variable: how a GPU runs the modules, one of `psarm.export.torch_graphs.MODES`."""


class TorchBackend(Backend):
    """PyTorch on the GPU that it can use, else on the CPU."""

    name = "torch"
    title = "PyTorch"

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        """Load the bundle's checkpoint; `threads` CPU threads (None: every core this process may use).

        `precision`: fp32, bf16, or (CUDA) fp16. Torch has one number of threads for the whole process; it is set for
        the length of each call and put back. Raises `UsageError` for a bundle without checkpoint or a precision that
        this device lacks, `BundleError` for a checkpoint of another model than the graphs'.
        """
        super().__init__(bundle, precision)
        if bundle.manifest.weights is None:
            raise UsageError(
                f"The bundle {bundle.path} holds no checkpoint for the torch backend; make one that does with: "
                "psarm export CHECKPOINT --out DIR --torch-weights."
            )
        from psarm.export.torch_graphs import TorchGraphs, device_precisions

        if precision not in device_precisions():
            raise UsageError(
                f"The torch backend has no {precision} on {_device()}, only {', '.join(device_precisions())}."
            )
        self.threads = threads or usable_cores()
        self.device = _device() if _device() != "CPU" else f"CPU, {self.threads} thread{'s' * (self.threads > 1)}"
        mode = _mode() if _device() != "CPU" else "eager"
        self._graphs: TorchGraphs | None = TorchGraphs(bundle, bundle.manifest.weights, precision, self.threads, mode)

    def make_batch(self, frames: Sequence[NDArray[np.uint8]], rule: Preprocessing) -> DetectInputs:
        """On a GPU frames are resized there."""
        if self._graphs is None or self._graphs.device.type == "cpu":
            return super().make_batch(frames, rule)
        from torch import OutOfMemoryError

        try:
            return DetectInputs(*self._graphs.upload(frames, rule))
        except OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    @staticmethod
    def probe() -> tuple[bool, str]:
        """Whether torch loads here, and its version and device or what went wrong."""
        try:
            import torch
            import torchvision
        except (ImportError, OSError) as error:  # OSError: a library that a wheel was built for is missing
            return False, f"torch does not load ({error}); install it with: pip install 'psarm[train]'"
        detail = f"torch {torch.__version__} and torchvision {torchvision.__version__} on {_device()}"
        return True, detail

    @staticmethod
    def precisions(bundle: Bundle) -> tuple[str, ...]:
        """What can be run of `bundle` here: nothing where it holds no checkpoint."""
        if bundle.manifest.weights is None:
            return ()
        from psarm.export.torch_graphs import device_precisions

        return device_precisions()

    def close(self) -> None:
        """Free the weights."""
        self._graphs = None

    def _run(self, graph: str, feeds: Tensors) -> Tensors:
        if self._graphs is None:
            raise PsarmError("This engine is closed; make a new PersonSearch.")
        return self._graphs.run(graph, feeds)


def _mode() -> str:
    from psarm.export.torch_graphs import MODES

    mode = os.environ.get(MODE) or "graphs"
    if mode not in MODES:
        raise UsageError(f"{MODE} is {mode!r}; needed one of {', '.join(MODES)}.")
    return mode


def _device() -> str:
    import torch

    return f"CUDA, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU"
