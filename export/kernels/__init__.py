"""Triton kernels for what torch's own kernels do in several passes over memory, each beside a PyTorch form.

`reference` holds the PyTorch forms, functions of the same names that say what a kernel has to compute. Triton is
optional: this package imports without it, a kernel's module does not; ask `available` first. On a CPU the kernels run
in Triton's interpreter alone (TRITON_INTERPRET=1, set before triton is imported), which is slow and for tests.

Their speed on a GPU has not been measured yet: ``python -m psarm.benchmarks.gpu_kernels`` times each against its
PyTorch form, and one that does not win should go.

- `roi_align`: RoIAlign of maps in 16 bits or float32, summed in float32, with the bias that follows.
- `suppression`: NMS of a batch with static shapes.
- `frames`: uint8 frames → the network's input.
- `mixer`: what lies between the matrix products of ARM's relation mixer.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def available(device: torch.device) -> bool:
    """Whether the kernels run on `device`: CUDA GPUs from Ampere on; a CPU only in Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        return False
    import torch
    import triton

    if triton.knobs.runtime.interpret:
        return device.type == "cpu"
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
