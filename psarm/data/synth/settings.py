"""What `psarm data synth` is asked for, and the seeded random streams everything is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from psarm.errors import UsageError

CAMERAS = 6
MIN_SIZE = (96, 54)
MAX_SIDE = 8192


class Stream(IntEnum):
    """Independent random streams: drawing more from one never changes another."""

    PLAN = 1
    CAST = 2
    DISTRACTOR = 3
    BACKGROUND = 4
    FRAME = 5
    QUERY = 6
    IMAGE_NUMBERS = 7
    GALLERY = 8


@dataclass(frozen=True)
class SynthSettings:
    """Size, amount and seed of a synthetic data set; every check names the flag that sets the value."""

    frames: int = 600
    """Frames of all six cameras together, training and test."""
    identities: int = 60
    """People with an identity, training and test together; the two share none."""
    test_fraction: float = 0.5
    """Share of the frames and of the identities that make the test set."""
    width: int = 960
    """Frame width in pixels."""
    height: int = 540
    """Frame height in pixels."""
    people_per_frame: float = 4.0
    """People in a frame on average, those without identity included."""
    seed: int = 0
    """The same seed and settings give the same files, byte for byte."""

    def __post_init__(self) -> None:
        if self.width < MIN_SIZE[0] or self.height < MIN_SIZE[1] or max(self.width, self.height) > MAX_SIDE:
            raise UsageError(
                f"--size {self.width}x{self.height} cannot be drawn; "
                f"choose from {MIN_SIZE[0]}x{MIN_SIZE[1]} up to {MAX_SIDE} pixels a side."
            )
        if not 0.6 <= self.width / self.height <= 4.0:
            raise UsageError(
                f"--size {self.width}x{self.height} has an aspect of {self.width / self.height:.2f}; "
                "choose a width between 0.6 and 4 times the height."
            )
        if not 0.1 <= self.test_fraction <= 0.9:
            raise UsageError(f"--test-fraction {self.test_fraction:g} is out of range; choose from 0.1 to 0.9.")
        if not 1.0 <= self.people_per_frame <= 12.0:
            raise UsageError(f"--people-per-frame {self.people_per_frame:g} is out of range; choose from 1 to 12.")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is negative; choose 0 or more.")
        self._check_amounts()

    def _check_amounts(self) -> None:
        if min(self.test_frames, self.train_frames) < CAMERAS:
            raise UsageError(
                f"--frames {self.frames} with --test-fraction {self.test_fraction:g} leaves a camera without training "
                f"or test frames; give at least {CAMERAS} frames to each side."
            )
        if min(self.test_identities, self.train_identities) < 2:
            raise UsageError(
                f"--identities {self.identities} with --test-fraction {self.test_fraction:g} is too few; "
                "training and test need at least 2 each."
            )

    @property
    def test_frames(self) -> int:
        """Frames of the test set."""
        return round(self.frames * self.test_fraction)

    @property
    def train_frames(self) -> int:
        """Frames of the training set."""
        return self.frames - self.test_frames

    @property
    def test_identities(self) -> int:
        """Identities of the test set."""
        return round(self.identities * self.test_fraction)

    @property
    def train_identities(self) -> int:
        """Identities of the training set."""
        return self.identities - self.test_identities

    def rng(self, stream: Stream, *key: int) -> np.random.Generator:
        """The generator of one stream and key (camera, sequence, frame, …)."""
        return np.random.default_rng([self.seed, int(stream), *key])
