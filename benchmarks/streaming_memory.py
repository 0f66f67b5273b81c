"""Whether a stream's memory stays what it is over many frames."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from psarm.errors import PsarmError
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.video import Frame

STATUS = Path("/proc/self/statm")
SAMPLES = 40
WARM_UP = 0.25
"""Share of the frames after which memory should have reached its level."""
KINDS = 16
"""Different pictures; more people in one of them than ever before may take memory."""


def with_small_frames(bundle: Bundle, side: int) -> Bundle:
    """`bundle`, made to resize frames to `side` pixels: its graphs take any size, and so they run quickly."""
    rule = dataclasses.replace(bundle.manifest.preprocessing, min_size=side, max_size=2 * side)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, preprocessing=rule))


def memory_over(engine: PersonSearch, frames: int, side: int, batch: int = 1) -> dict[str, Any]:
    """Resident bytes at `SAMPLES` places of a stream of `frames` frames, and their growth after the warm-up.

    Every frame is a new array [side,side,3], as from a camera. Raises `PsarmError` where the system does not tell.
    """
    every = max(1, frames // SAMPLES)
    samples: list[tuple[int, int]] = []
    with engine.stream(_camera(frames, side), batch=batch, max_wait=None) as stream:
        for number, _ in enumerate(stream, start=1):
            if number % every == 0:
                samples.append((number, resident_bytes()))
    level = [(number, taken) for number, taken in samples if number >= WARM_UP * frames]
    numbers, taken = np.array(level, np.float64).T
    slope = float(np.polyfit(numbers, taken, 1)[0])
    return {
        "frames": frames,
        "side": side,
        "batch": batch,
        "frame_bytes": 3 * side * side,
        "resident_bytes": [size for _, size in samples],
        "growth_bytes": level[-1][1] - level[0][1],
        "growth_bytes_per_frame": round(slope, 2),
    }


def resident_bytes() -> int:
    """Memory this process has in use now."""
    if not STATUS.exists():
        raise PsarmError(f"This system has no {STATUS}, which tells the memory in use; measure it on Linux.")
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _camera(frames: int, side: int) -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (KINDS, side, side, 3), dtype=np.uint8)
    for number in range(frames):
        yield pictures[number % KINDS].copy()
