"""Which frames of a source are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psarm.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """At most one of the three; without any, every frame is taken. Raises `UsageError`."""

    fps: float | None = None
    """So many a second: of every 1/fps seconds, counted from the first frame, the first frame. Not of pictures."""
    every: int | None = None
    """Every N-th, from the first."""
    keyframes: bool = False
    """Those a decoder can begin at. Pictures are all taken."""

    def __post_init__(self) -> None:
        if (self.fps is not None) + (self.every is not None) + self.keyframes > 1:
            raise UsageError("Frames are taken at a rate, every N-th, or the keyframes; give one of the three.")
        if self.fps is not None and not 0 < self.fps < 1000:
            raise UsageError(f"The rate is {self.fps} frames a second; a number above 0 and below 1000 is needed.")
        if self.every is not None and self.every < 1:
            raise UsageError(f"Every {self.every} frames cannot be taken; a whole number from 1 is needed.")

    def settings(self) -> Mapping[str, Any]:
        """As a source's record keeps it."""
        if self.keyframes:
            return {"keyframes": True}
        return {"every": self.every or 1} if self.fps is None else {"fps": self.fps}
