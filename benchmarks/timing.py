"""Time per image of several engines, interleaved: frame by frame, one engine after the other.

So a machine that slows down for a while slows all of them, and medians of the same frames are compared. Decoding the
picture file is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.engines import SearchEngine
from psarm.console import track
from psarm.errors import PsarmError
from psarm.runtime.images import read_image
from psarm.runtime.timing import STAGES

WARM_UP_FRAMES = 2
# Worker threads of torch and ONNX Runtime go on spinning for some milliseconds, at the cost of whoever runs next.
SETTLE_SECONDS = 0.02


@dataclass(frozen=True)
class Timing:
    """Milliseconds an image; medians over the timed frames."""

    stages_ms: dict[str, float] | None
    """By stage (preprocess, detect, nms, reid, post); None where the engine does not tell them apart."""
    total_ms: float
    total_p95_ms: float
    people: float
    """People found in a frame."""
    frames: int

    @property
    def fps(self) -> float:
        """Images a second at the median time."""
        return 1000 / self.total_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with `fps`."""
        return {**asdict(self), "fps": self.fps}


def spread(items: Sequence[Path], count: int) -> list[Path]:
    """`count` of the items, evenly spread over all of them; all when there are fewer."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def time_engines(
    engines: Sequence[SearchEngine],
    paths: Sequence[Path],
    clock: Callable[[], float] = time.perf_counter,
    settle: float = SETTLE_SECONDS,
) -> list[Timing | PsarmError]:
    """Timing of every engine, or the error that stopped it.

    Args:
        engines: run in this order on every frame.
        paths: at least one picture file; the first `WARM_UP_FRAMES` run once more, before, untimed.
        clock: seconds, for tests.
        settle: seconds to wait before each run.

    Raises:
        ImageError: a picture cannot be read.
    """
    samples: list[list[_Sample]] = [[] for _ in engines]
    errors: dict[int, PsarmError] = {}
    warm_up = list(paths[:WARM_UP_FRAMES])
    for number, path in enumerate(track([*warm_up, *paths], "timing")):
        frame = read_image(path)
        for index, engine in enumerate(engines):
            if index in errors:
                continue
            time.sleep(settle)
            try:
                sample = _run(engine, frame, clock)
            except PsarmError as error:
                errors[index] = error
                continue
            if number >= len(warm_up):
                samples[index].append(sample)
    return [errors.get(index) or _summary(taken) for index, taken in enumerate(samples)]


@dataclass(frozen=True)
class _Sample:
    total: float
    stages: dict[str, float]
    people: int


def _run(engine: SearchEngine, frame: NDArray[np.uint8], clock: Callable[[], float]) -> _Sample:
    start = clock()
    people = engine.detect(frame)
    total = clock() - start
    return _Sample(total, dict(engine.last_timings), len(people.scores))


def _summary(samples: Sequence[_Sample]) -> Timing:
    totals = 1000 * np.array([sample.total for sample in samples])
    separable = all(sample.stages for sample in samples)
    stages = {name: 1000 * _median(s.stages[name] for s in samples) for name in STAGES} if separable else None
    return Timing(
        stages_ms=stages,
        total_ms=float(np.median(totals)),
        total_p95_ms=float(np.percentile(totals, 95)),
        people=_median(sample.people for sample in samples),
        frames=len(samples),
    )


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))
