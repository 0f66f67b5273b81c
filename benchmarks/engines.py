"""What a benchmark runs: every backend of a bundle and the PyTorch model, behind one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from psarm.evaluation.collect import Engine
from psarm.runtime.images import read_image

Frame = NDArray[np.uint8]  # [H,W,3] BGR


class SearchEngine(Engine[Frame], Protocol):
    """An engine that takes frames and can be timed: `PersonSearch` of the runtime, `TorchEngine` of this package."""

    last_timings: dict[str, float]
    """Seconds of the last `detect` by stage; empty where the engine does not tell them apart."""

    @property
    def device(self) -> str:
        """Where it runs, for people."""

    def close(self) -> None:
        """Free it."""


def load_frames(paths: Sequence[Path]) -> Iterator[Frame]:
    """Frames of picture files, read as they are asked for; raises `ImageError`."""
    return map(read_image, paths)
