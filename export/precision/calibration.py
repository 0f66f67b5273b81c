"""Pictures that int8 is calibrated on, and others to compare precisions on: of a folder, or of a data set.

A data set's training frames are calibrated on and its test frames compared on. Of a folder, the pictures to compare on
are left out of those to calibrate on where enough remain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from psarm.data.layouts import LAYOUTS
from psarm.data.readers import read_dataset
from psarm.errors import UsageError
from psarm.runtime.images import IMAGE_SUFFIXES, read_image
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.preprocess import Batch, make_batch

MIN_FRAMES = 16
"""Ranges of activations that are learnt from fewer pictures do not hold for the next one."""
MAX_FRAMES = 32
"""More hardly change the ranges; every one is run through the fp32 graphs several times."""


@dataclass(frozen=True)
class Calibration:
    """Pictures, and how the graphs see them. Iterating reads them one at a time, each as a batch of one."""

    source: str
    """What the pictures are, for people: `32 of the 284 training frames of DIR`."""
    frames: tuple[Path, ...]
    compared: tuple[Path, ...]
    """Pictures to compare precisions on: others, or some of `frames` where there are too few."""
    compared_source: str
    """What those are, for people: `16 test frames of DIR, none of which int8 was calibrated on`."""
    rule: Preprocessing

    def __iter__(self) -> Iterator[Batch]:
        """Raises `ImageError` for a picture that cannot be read."""
        return (make_batch([read_image(path)], self.rule) for path in self.frames)

    def __len__(self) -> int:
        return len(self.frames)


def read_calibration(
    root: str | Path, rule: Preprocessing, limit: int = MAX_FRAMES, least: int = MIN_FRAMES, compare: int = 0
) -> Calibration:
    """At most `limit` pictures, spread evenly over the training frames of a data set or over the pictures of a folder.

    `rule` is the bundle's preprocessing, `compare` how many pictures precisions are to be compared on. Raises
    `UsageError` where there are fewer than `least` (`MIN_FRAMES` for int8, 1 to compare precisions on), `DataError` for
    a data set that cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"There is no folder {root} to calibrate int8 on; give a folder of pictures or a data set.")
    kind, files, tests = _find(root)
    if len(files) < least:
        found = f"only {len(files)}" if files else "no"
        noun = kind if len(files) != 1 else kind.removesuffix("s")
        needed = f"int8 is calibrated on at least {least} pictures" if least > 1 else "precisions are compared on some"
        raise UsageError(
            f"{root} holds {found} {noun}; {needed} of the scenes it will see, so give a folder with more of them or a "
            "data set."
        )
    held_out = spread(tests, compare)
    if not held_out and len(files) >= MIN_FRAMES + compare:
        held_out = spread(files, compare)
    left_out = set(held_out)
    frames = spread([file for file in files if file not in left_out], limit)
    share = f"all {len(files)}" if len(frames) == len(files) else f"{len(frames)} of the {len(files)}"
    compared = held_out or spread(frames, compare)
    what = "test frame" if tests else kind.removesuffix("s")
    source = f"{len(compared)} {what}{'s' if len(compared) != 1 else ''} of {root}"
    if least > 1:
        source += f", {'none' if held_out else 'all'} of which int8 was calibrated on"
    return Calibration(f"{share} {kind} of {root}", frames, compared, source, rule)


def spread(paths: Sequence[Path], count: int) -> tuple[Path, ...]:
    """At most `count` of them, evenly over all."""
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return tuple(paths[index] for index in chosen)


def _find(root: Path) -> tuple[str, list[Path], list[Path]]:
    """What the folder holds to calibrate on, for people, the files, and a data set's test frames."""
    for name, layout in LAYOUTS.items():
        if all((root / mark).exists() for mark in layout.marks):
            dataset = read_dataset(name, root)
            return "training frames", [frame.path for frame in dataset.train], [one.path for one in dataset.gallery]
    files = (path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return "pictures", sorted(path for path in files if not _is_hidden(path.relative_to(root))), []


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
