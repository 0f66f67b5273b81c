"""Time of several engines, interleaved: frame by frame, one engine after the other.

So a machine that slows down for a while slows all of them, and medians of the same frames are compared: larger batches
are fewer calls over the same frames. Decoding the picture file is not timed, nor bringing it to another size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from psarm.benchmarks.engines import Frame, SearchEngine
from psarm.benchmarks.workloads import AS_FOUND, Workload
from psarm.console import track
from psarm.errors import PsarmError
from psarm.evaluation.collect import People
from psarm.runtime import PersonSearch
from psarm.runtime.images import read_image
from psarm.runtime.timing import STAGES

WARM_UP_FRAMES = 2
# Worker threads of torch and ONNX Runtime go on spinning for some milliseconds, at the cost of whoever runs next.
SETTLE_SECONDS = 0.02


MIN_CALLS = 5
"""Of a large batch, whatever the number of frames."""
UNSETTLED_P95 = 2.0
"""Times the median; on a quiet machine, frames of few and of many people bring p95 to 1.8 times."""
UNSETTLED_STAGES = 0.25
"""Of the time of an image, by which the stages may add up to more or less."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds; medians over the timed calls."""

    stages_ms: dict[str, float] | None
    """An image, by stage (preprocess, detect, nms, reid, post); None where the engine does not tell them apart.

    Each is a median by itself: where every call is held up in another stage, they add up to less than the total.
    """
    total_ms: float
    """An image: a call's time by its number of frames."""
    p50_ms: float
    """A call, as the two below."""
    p95_ms: float
    p99_ms: float
    people: float
    """People found in a frame."""
    frames: int
    """How many of those given were timed, each once or more."""

    @property
    def fps(self) -> float:
        """Images a second at the median time."""
        return 1000 / self.total_ms

    @property
    def network_ms(self) -> float | None:
        """An image in the graphs alone."""
        return None if self.stages_ms is None else self.stages_ms["detect"] + self.stages_ms["reid"]

    @property
    def unsettled(self) -> str | None:
        """Why these figures would come out otherwise in another run; None where nothing says so."""
        if self.p95_ms > UNSETTLED_P95 * self.p50_ms:
            return f"p95 of a call is {self.p95_ms / self.p50_ms:.1f} times its median"
        if self.stages_ms is not None:
            together = sum(self.stages_ms.values())
            if abs(together - self.total_ms) > UNSETTLED_STAGES * self.total_ms:
                return f"the stages add up to {together / self.total_ms:.0%} of the time"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with `fps` and `unsettled`."""
        return {**asdict(self), "fps": self.fps, "unsettled": self.unsettled}


@dataclass(frozen=True)
class Case:
    """An engine with what it is given."""

    engine: SearchEngine
    workload: Workload = AS_FOUND

    def calls(self, frames: int) -> int:
        """How many calls it takes to time `frames` frames, but not less than `MIN_CALLS` of a batch."""
        needed = math.ceil(frames / self.workload.batch)
        return min(frames, max(needed, MIN_CALLS))


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
    """`time_cases` of engines that are given the frames one by one as they are."""
    return time_cases([Case(engine) for engine in engines], paths, clock, settle)


def time_cases(
    cases: Sequence[Case],
    paths: Sequence[Path],
    clock: Callable[[], float] = time.perf_counter,
    settle: float = SETTLE_SECONDS,
) -> list[Timing | PsarmError]:
    """Timing of every case, or the error that stopped it.

    Args:
        cases: called in this order in every round; each goes through the frames in order, over and over, a batch a
            call.
        paths: at least one picture file; the first `WARM_UP_FRAMES` run once more, before, untimed.
        clock: seconds, for tests.
        settle: seconds to wait before each call.

    Raises:
        ImageError: a picture cannot be read.
    """
    held = sum({case.workload.batch for case in cases})  # cases of one batch get the same frames in a round
    read = lru_cache(min(held, len(paths)))(read_image)
    samples: list[list[_Sample]] = [[] for _ in cases]
    errors: dict[int, PsarmError] = {}
    warm_up = range(-min(WARM_UP_FRAMES, len(paths)), 0)
    for number in track([*warm_up, *range(len(paths))], "timing"):
        for index, case in enumerate(cases):
            if index in errors or number >= case.calls(len(paths)):
                continue
            first = number * case.workload.batch if number >= 0 else number - warm_up.start
            images = [read(paths[(first + place) % len(paths)]) for place in range(case.workload.batch)]
            frames = case.workload.frames(images)
            time.sleep(settle)
            try:
                sample = _run(case, frames, clock)
            except PsarmError as error:
                errors[index] = error
                continue
            if number >= 0:
                samples[index].append(sample)
    return [errors.get(index) or _summary(case, samples[index], len(paths)) for index, case in enumerate(cases)]


@dataclass(frozen=True)
class _Sample:
    """Of a call."""

    total: float
    stages: dict[str, float]
    people: list[int]
    """Of each frame of the batch."""


def _run(case: Case, frames: list[Frame], clock: Callable[[], float]) -> _Sample:
    with case.workload.imposed_on(case.engine):
        start = clock()
        found = detect(case.engine, frames)
        total = clock() - start
    return _Sample(total, dict(case.engine.last_timings), [len(people.scores) for people in found])


def detect(engine: SearchEngine, frames: list[Frame]) -> Sequence[People]:
    """People of every frame; more than one frame are a batch, which a bundle's engine takes only."""
    return [engine.detect(frames[0])] if len(frames) == 1 else cast(PersonSearch, engine).detect(frames)


def _summary(case: Case, samples: Sequence[_Sample], frames: int) -> Timing | PsarmError:
    wanted, batch = case.workload.people, case.workload.batch
    fewest = min(people for sample in samples for people in sample.people)
    if wanted is not None and fewest < wanted:
        return PsarmError(
            f"{wanted} people were asked for; the detection stage proposes {fewest} in one of the frames."
        )
    people = _median(float(np.mean(sample.people)) for sample in samples)
    totals = 1000 * np.array([sample.total for sample in samples])
    p50, p95, p99 = (float(value) for value in np.percentile(totals, [50, 95, 99]))
    separable = all(sample.stages for sample in samples)
    stages = {name: 1000 * _median(s.stages[name] for s in samples) / batch for name in STAGES} if separable else None
    return Timing(stages, p50 / batch, p50, p95, p99, people, min(frames, batch * len(samples)))


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))
