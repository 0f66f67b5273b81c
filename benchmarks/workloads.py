"""What an engine is given in one call: how many frames, of what size, with how many people to embed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from psarm.benchmarks.engines import Frame, SearchEngine
from psarm.runtime import PersonSearch
from psarm.runtime.manifest import Thresholds


@dataclass(frozen=True)
class Workload:
    """One way to call an engine."""

    batch: int = 1
    """Frames a call."""
    people: int | None = None
    """People to embed in every frame, the best proposals whoever they are; None: those that are found."""
    size: tuple[int, int] | None = None
    """Width and height that frames are brought to before they are given to the engine; None: as they are."""

    @property
    def plain(self) -> bool:
        """Whether any engine can do it: frame by frame, with the people found."""
        return self.batch == 1 and self.people is None

    def frames(self, images: Sequence[Frame]) -> list[Frame]:
        """The frames of a call: as many as the batch has, over and over where `images` are fewer."""
        chosen = [images[place % len(images)] for place in range(self.batch)]
        if self.size is None:
            return chosen
        return [np.asarray(cv2.resize(one, self.size, interpolation=cv2.INTER_AREA), np.uint8) for one in chosen]

    @contextmanager
    def imposed_on(self, engine: SearchEngine) -> Iterator[None]:
        """Let a bundle's engine embed as many people as wanted within the body."""
        if self.people is None:
            yield
            return
        assert isinstance(engine, PersonSearch), "only a bundle's engine can be told whom to embed"
        thresholds = engine.thresholds
        engine.thresholds = take_best(self.people)
        try:
            yield
        finally:
            engine.thresholds = thresholds

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `batch`, `people`, and `size` as `640x360` (None: as found, as they are)."""
        return {"batch": self.batch, "people": self.people, "size": size_name(self.size)}


AS_FOUND = Workload()
"""Frame by frame as they are, with the people found."""


def take_best(people: int) -> Thresholds:
    """Thresholds that let the `people` best proposals of every frame through, whatever their scores and overlaps."""
    if people == 0:
        return Thresholds(score=1, detection_nms=1, final_nms=1, detections_per_image=1, min_box_side=0)
    return Thresholds(score=0, detection_nms=1, final_nms=1, detections_per_image=people, min_box_side=0)


def row_name(engine: str, precision: str, batch: int, people: int | None, size: str | None) -> str:
    """A row of a report in words: `openvino int8, batch 4, 20 people, 1920x1080`."""
    parts = [f"{engine} {precision}".strip()]
    parts += [f"batch {batch}"] if batch > 1 else []
    parts += [f"{people} people"] if people is not None else []
    return ", ".join(parts + ([size] if size else []))


def size_name(size: tuple[int, int] | None) -> str | None:
    """Width and height as they are typed: `640x360`."""
    return None if size is None else f"{size[0]}x{size[1]}"
