"""What checking a data set file by file has in common: what is broken is named, and nothing broken stops the check.

Errors are what would stop training or make figures wrong; warnings are what a person should know. A box that begins or
ends outside its image is ordinary in annotated footage, so it is a warning while at least half of it is inside; so is a
person twice in a frame, of which the official data sets have some.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.console import track
from psarm.data.images import read_whole_image
from psarm.data.statistics import Statistics
from psarm.data.types import UNLABELLED, Frame, Query
from psarm.errors import DataError

Sizes = dict[str, tuple[int, int]]
"""Name of an image → its width and height."""

# Pixels a box may reach outside without a word: annotation tools round.
_SLACK = 1.0


@dataclass(frozen=True)
class Finding:
    """Something wrong with one file."""

    file: str
    """Path relative to the data set's root."""
    message: str


@dataclass(eq=False)
class Findings:
    """What has been found wrong so far."""

    root: Path
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def error(self, path: Path, problem: DataError | str) -> None:
        """Add an error of the file at `path`."""
        self.errors.append(self._finding(path, problem))

    def warning(self, path: Path, problem: DataError | str) -> None:
        """Add a warning about the file at `path`."""
        self.warnings.append(self._finding(path, problem))

    def _finding(self, path: Path, problem: DataError | str) -> Finding:
        # The file is named beside the message; the reader's errors name it once more.
        message = str(problem).replace(f"{path}: ", "").replace(f"{path} ", "the file ")
        return Finding(path.relative_to(self.root).as_posix(), message)


@dataclass(frozen=True, eq=False)
class CheckReport:
    """All findings, and statistics over what could be read."""

    dataset: str
    root: Path
    statistics: Statistics
    errors: list[Finding]
    warnings: list[Finding]
    train: list[Frame]
    gallery: list[Frame]
    galleries: Mapping[str, Sequence[NDArray[np.int64]]] = field(default_factory=dict)
    """As `PersonSearchDataset.galleries`."""

    def gallery_sizes(self) -> dict[str, tuple[int, int]]:
        """Name of a gallery → frames in the smallest and the largest there is for a query."""
        sizes = {name: [len(rows) for rows in lists] or [0] for name, lists in self.galleries.items()}
        return {name: (min(lengths), max(lengths)) for name, lengths in sizes.items()}

    def to_dict(self) -> dict[str, Any]:
        """Statistics and findings as JSON values."""
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            **self.statistics.to_dict(),
            "galleries": {name: list(sizes) for name, sizes in self.gallery_sizes().items()},
            "errors": [asdict(finding) for finding in self.errors],
            "warnings": [asdict(finding) for finding in self.warnings],
        }


def check_images(findings: Findings, folder: Path, names: Sequence[str], present: set[str]) -> Sizes:
    """Decode images under a progress bar and name those that are missing or broken.

    Args:
        findings: gets the errors.
        folder: where the images lie.
        names: images to look at.
        present: names of the files there are.

    Returns:
        The sizes of all images that can be read.
    """
    sizes: Sizes = {}
    # Decoding dominates and OpenCV releases the interpreter while it decodes.
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        found = [name for name in names if name in present]
        for name in names:
            if name not in present:
                findings.error(folder / name, "the image is missing.")
        results = threads.map(_image_size, [folder / name for name in found])
        for name, size in zip(found, track(results, "checking images", total=len(found)), strict=True):
            if isinstance(size, DataError):
                findings.error(folder / name, size)
            else:
                sizes[name] = size
    finally:
        threads.shutdown(cancel_futures=True)
    return sizes


def _image_size(path: Path) -> tuple[int, int] | DataError:
    try:
        height, width = read_whole_image(path).shape[:2]
    except DataError as error:
        return error
    return width, height


def check_identities(findings: Findings, path: Path, identities: NDArray[np.int64], place: str = "this frame") -> None:
    """Name people who are in one frame more than once; `path` is the file that says so."""
    for identity, count in Counter(identities[identities != UNLABELLED].tolist()).items():
        if count > 1:
            findings.warning(path, f"identity {identity} appears {count} times in {place}.")


def check_matches(
    findings: Findings, path: Path, queries: Sequence[Query], showing: Sequence[NDArray[np.int64]]
) -> None:
    """Name queries without a frame to find them in.

    Args:
        findings: gets the warnings.
        path: the file that lists the queries.
        queries: people searched for.
        showing: for every query, the frames of its gallery that hold the person.
    """
    for row, (query, frames) in enumerate(zip(queries, showing, strict=True)):
        if len(frames) == 0:
            message = (
                f"query {row} (identity {query.identity} in {query.name}): nowhere in its gallery, so never found."
            )
            findings.warning(path, message)


def check_splits(findings: Findings, path: Path, train: Sequence[Frame], gallery: Sequence[Frame]) -> None:
    """Name people who are in training and test frames alike; `path` is the file that lists the test."""
    known = {int(i) for frame in train for i in frame.identities} - {UNLABELLED}
    tested = {int(i) for frame in gallery for i in frame.identities} - {UNLABELLED}
    shared = sorted(known & tested)
    if shared:
        named = ", ".join(str(identity) for identity in shared[:10]) + (" …" if len(shared) > 10 else "")
        message = (
            f"in training and test frames alike: {len(shared)} identities ({named}); test people should be unseen."
        )
        findings.warning(path, message)


def box_problem(box: NDArray[np.float64], size: tuple[int, int] | None) -> tuple[bool, str] | None:
    """What is wrong with a box.

    Args:
        box: float64 [4] xyxy, not clipped.
        size: width and height of the image; None when it cannot be read.

    Returns:
        Whether it is an error (else a warning), and a sentence; None when the box is fine.
    """
    text = f"the box x {box[0]:g}, y {box[1]:g}, w {box[2] - box[0]:g}, h {box[3] - box[1]:g}"
    if not np.isfinite(box).all():
        return True, f"{text} is not finite."
    sides = box[2:] - box[:2]
    if (sides <= 0).any():
        return True, f"{text} has no area."
    limit = np.array(size if size is not None else (np.inf, np.inf))
    inside = np.maximum(np.minimum(box[2:], limit) - np.maximum(box[:2], 0), 0)
    where = "the image" if size is None else f"the {size[0]}x{size[1]} image"
    if np.prod(inside) < 0.5 * np.prod(sides):
        return True, f"{text} lies {'mostly' if inside.all() else 'wholly'} outside {where}."
    reach = max(float(np.max(-box[:2])), float(np.max(box[2:] - limit)))
    if reach > _SLACK:
        return False, f"{text} reaches {reach:.3g} pixels outside {where}."
    return None
