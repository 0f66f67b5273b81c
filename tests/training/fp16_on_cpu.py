"""fp16's loss scaling without a GPU: torch has the scaler for CPUs too, though Accelerate wants one for it."""

from accelerate import Accelerator
from torch import GradScaler


class ScalingAccelerator(Accelerator):
    """Scales losses as with fp16, and computes in float32; `scaling` are the scaler's arguments."""

    def __init__(self, **scaling):
        super().__init__(cpu=True)
        self.scaler = GradScaler("cpu", **scaling)

    def unscale_gradients(self, optimizer=None):
        """As Accelerate's own with fp16."""
        for one in self._optimizers:
            self.scaler.unscale_(one.optimizer)
