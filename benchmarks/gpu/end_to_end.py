"""Rows of a frame in host memory to `Detections`, by the host's clock: what an app gets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from psarm.benchmarks.gpu.contenders import DTYPES
from psarm.benchmarks.gpu.engines import literal_detect, open_engine
from psarm.benchmarks.gpu.journal import Journal, Row
from psarm.benchmarks.gpu.measure import take_turns
from psarm.export.torch_graphs import device_precisions
from psarm.model import PersonSearchModel
from psarm.runtime import Bundle, PersonSearch

WARM_UPS = 3
"""The second call records; the third replays."""


class EndToEnd:
    """Engines of one bundle on one frame, in turns."""

    def __init__(
        self, journal: Journal, device: torch.device, rounds: int, bundle: Bundle, frame: NDArray[np.uint8]
    ) -> None:
        self.journal, self.device, self.rounds = journal, device, rounds
        self.bundle, self.frame = bundle, frame
        self.precision = device_precisions()[-1]  # fp16 on a GPU
        self._modes: dict[float, str] = {}
        self._warnings: dict[str, list[str]] = {}

    def measure(self, batch: int, modes: Sequence[str], model: PersonSearchModel | None) -> None:
        """A row for each mode of the torch backend, and one for the literal `model`, frame by frame."""
        base: Row = {"group": "end to end", "precision": self.precision, "batch": batch}
        frames = [self.frame] * batch
        functions: dict[str, Callable[[], Any]] = {}
        engines: dict[str, PersonSearch] = {}
        with ExitStack() as stack:
            for mode in modes:
                with self.journal.guarded({**base, "name": f"engine, {mode}"}):
                    engine = stack.enter_context(open_engine(self.bundle, self.precision, mode))
                    with warnings.catch_warnings(record=True) as told:
                        warnings.simplefilter("always")
                        functions[mode] = _warm(partial(engine.detect, frames))
                    self._warnings[mode] = [str(one.message) for one in told]
                    engines[mode] = engine
            if model is not None:
                with self.journal.guarded({**base, "name": "literal eager, autocast"}):
                    detect = literal_detect(model.to(self.device), DTYPES[self.precision])
                    functions["literal"] = _warm(partial(detect, self.frame))
            times = take_turns(functions, self.device, self.rounds, host=True)
            for key, taken in times.items():
                row = {**base, "name": f"engine, {key}" if key in engines else "literal eager, autocast"}
                row.update(ms=taken.median, ms_best=taken.best, ms_worst=taken.worst, samples=taken.samples)
                row["frames_per_second"] = 1000 * batch / taken.median
                if key in engines:
                    row.update(_about(engines[key], frames), warnings=self._warnings[key])
                    self._modes[taken.median / batch] = key
                self.journal.add(row)

    def fastest(self) -> str:
        """The mode that took least."""
        return self._modes[min(self._modes)] if self._modes else "graphs"


def _warm(function: Callable[[], Any]) -> Callable[[], Any]:
    for _ in range(WARM_UPS):
        function()
    return function


def _about(engine: PersonSearch, frames: list[NDArray[np.uint8]]) -> Row:
    people = engine.detect(frames)
    stages = {name: 1000 * seconds for name, seconds in engine.last_timings.items()}
    return {"stages_ms": stages, "people_found": len(people[0]), "device": engine.device}
