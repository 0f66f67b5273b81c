"""Which frames make up which batch, for any number of training processes.

Legend: B batch size of a process, A batches accumulated to a step, P processes, G = B·A·P frames of a step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

POOL = 64
"""Steps whose frames are drawn at random and then sorted by shape: enough for batches of about one shape, and few
enough for other company in every epoch."""


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """Yields the batches of one process as lists of (epoch, index).

    What the steps are made of depends on the seed, the epoch and G only: of the G frames of a step, process p takes for
    its batch a those from (a·P + p)·B on. An epoch is floor(N / G) steps; the frames left over, others in every epoch,
    are dropped, as in the released recipe.

    Args:
        length: N, the number of frames.
        seed: of the order.
        batch_size: B.
        accumulate: A.
        process: p, which process this is.
        processes: P.
        aspects: float [N], width / height of every frame: a step's frames then have about the same. None = any frames.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        batch_size: int,
        accumulate: int = 1,
        process: int = 0,
        processes: int = 1,
        aspects: NDArray[np.float64] | None = None,
    ) -> None:
        self.length = length
        self.seed = seed
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.process = process
        self.processes = processes
        self.aspects = aspects
        self.epoch = 0

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.length // (self.batch_size * self.accumulate * self.processes)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shape = (self.steps, self.accumulate, self.processes, self.batch_size)
        mine = self.frames_of_steps().reshape(shape)[:, :, self.process].reshape(-1, self.batch_size)
        epoch = self.epoch  # of this iteration, whatever comes while it goes on
        return iter([[(epoch, index) for index in batch] for batch in mine.tolist()])

    def frames_of_steps(self) -> NDArray[np.int64]:
        """int64 [steps,G]: the frames of every step, of all processes together."""
        rng = np.random.default_rng([self.seed, self.epoch])
        size = self.batch_size * self.accumulate * self.processes
        frames = rng.permutation(self.length)[: self.steps * size]
        if self.aspects is None or self.steps == 0:
            return frames.reshape(self.steps, size)
        steps = np.concatenate([self._sorted(pool) for pool in np.array_split(frames.reshape(-1, size), self._pools)])
        rng.shuffle(steps)  # whole steps
        return steps

    @property
    def _pools(self) -> int:
        return -(-self.steps // POOL)

    def _sorted(self, pool: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same frames [n,G] in order of their shape; as drawn where that is the same."""
        assert self.aspects is not None
        frames = pool.ravel()
        return frames[np.argsort(self.aspects[frames], kind="stable")].reshape(pool.shape)
