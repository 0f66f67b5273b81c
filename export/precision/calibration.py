"""Pictures that int8 is calibrated on: a folder of them, or a data set's training frames."""

from __future__ import annotations

from collections.abc import Iterator
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
    others: tuple[Path, ...]
    """The rest of what is there."""
    rule: Preprocessing

    def __iter__(self) -> Iterator[Batch]:
        """Raises `ImageError` for a picture that cannot be read."""
        return (make_batch([read_image(path)], self.rule) for path in self.frames)

    def __len__(self) -> int:
        return len(self.frames)


def read_calibration(
    root: str | Path, rule: Preprocessing, limit: int = MAX_FRAMES, least: int = MIN_FRAMES
) -> Calibration:
    """At most `limit` pictures, spread evenly over the training frames of a data set or over all pictures of a folder.

    `rule` is the bundle's preprocessing. Raises `UsageError` where there are fewer than `least` (`MIN_FRAMES` for
    int8, 1 to compare precisions on), `DataError` for a data set that cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"There is no folder {root} to calibrate int8 on; give a folder of pictures or a data set.")
    kind, files = _find(root)
    if len(files) < least:
        found = f"only {len(files)}" if files else "no"
        noun = kind if len(files) != 1 else kind.removesuffix("s")
        needed = f"int8 is calibrated on at least {least} pictures" if least > 1 else "precisions are compared on some"
        raise UsageError(
            f"{root} holds {found} {noun}; {needed} of the scenes it will see, so give a folder with more of them or a "
            "data set."
        )
    chosen = np.unique(np.linspace(0, len(files) - 1, min(limit, len(files))).round().astype(int))
    frames = tuple(files[position] for position in chosen)
    others = tuple(file for position, file in enumerate(files) if position not in set(chosen.tolist()))
    share = f"{len(frames)} of the {len(files)}" if others else f"all {len(files)}"
    return Calibration(f"{share} {kind} of {root}", frames, others, rule)


def _find(root: Path) -> tuple[str, list[Path]]:
    """What the folder holds, for people, and the files."""
    for name, layout in LAYOUTS.items():
        if all((root / mark).exists() for mark in layout.marks):
            return "training frames", [frame.path for frame in read_dataset(name, root).train]
    files = (path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return "pictures", sorted(path for path in files if not _is_hidden(path.relative_to(root)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
