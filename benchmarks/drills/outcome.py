"""What a drill is given, and what it came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psarm.runtime.video import Frame


@dataclass(frozen=True, eq=False)
class Setting:
    """The same for all drills."""

    bundle: Path
    work: Path
    """A directory of the drill's own."""
    frames: Sequence[Frame]
    """Pictures with people that the bundle finds; clips are made of them."""
    length: int
    """Frames of a clip."""
    rate: float
    """Frames a second at which `psarm index` gets through a clip here."""
    outage: float
    """Seconds that a camera is away."""
    kills: int
    options: tuple[str, ...] = ()
    """Of `psarm index`: threads, batch."""
    seed: int = 0

    def length_of(self, seconds: float) -> int:
        """Frames of a clip that takes so long to index, or a few more."""
        return max(self.length, round(self.rate * seconds))


@dataclass
class Outcome:
    """Checks that passed or not, and figures."""

    checks: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    """Why it broke off; empty when it did not."""

    def check(self, name: str, passed: bool, **found: Any) -> None:
        """Note a check, and with it what was found; one that failed once stays failed."""
        self.checks[name] = bool(passed) and self.checks.get(name, True)
        self.figures |= found

    @property
    def passed(self) -> bool:
        """Whether it ran and every check passed."""
        return not self.failure and bool(self.checks) and all(self.checks.values())
