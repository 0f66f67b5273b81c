"""What a layout on disk has to offer the generator, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from psarm.data.synth.plan import FramePlan
from psarm.data.synth.settings import SynthSettings

Rows = list[tuple[float, ...]]
"""A frame's annotation: id (-2: none), x, y, w, h of each box."""


@dataclass(frozen=True)
class Picture:
    """A drawn frame."""

    plan: FramePlan
    file: str
    """Where its picture lies, relative to the data set's root."""
    rows: Rows


@dataclass(frozen=True)
class QueryBox:
    """A person to search for; `box` is x, y, w, h."""

    pid: int
    box: tuple[float, float, float, float]
    picture: Picture


class Layout(Protocol):
    """A data set's format on disk."""

    query_per_camera: bool
    """Whether a test identity is searched for once in every camera it was seen in, or once in all."""

    def files(self, plans: list[FramePlan], settings: SynthSettings) -> list[str]:
        """Where the picture of each frame goes, relative to the root; all in one folder."""
        ...

    def write(self, root: Path, pictures: list[Picture], queries: list[QueryBox], settings: SynthSettings) -> None:
        """Write everything but the pictures."""
        ...
