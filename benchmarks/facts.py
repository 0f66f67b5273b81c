"""Where, when and on what a benchmark ran: without these its numbers mean little."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import psarm
from psarm.data.synth.generate import is_synthetic
from psarm.data.types import PersonSearchDataset
from psarm.evaluation.protocol import FULL
from psarm.machine import Machine, default_threads, describe_machine, package_versions
from psarm.runtime.images import read_image


@dataclass(frozen=True)
class DatasetFacts:
    """What was searched."""

    name: str
    root: str
    gallery_frames: int
    queries: int
    image_sizes: list[str]
    """Width x height of the timed frames, the commonest first."""
    people_per_frame: float
    """Median of the annotated people of the gallery frames."""
    default_gallery: str
    """Where each query is searched unless a column says otherwise: `100`, or `full`, every frame but its own."""
    drawn: bool = False
    """By `psarm data synth`, in the format of the data set that `name` says."""


@dataclass(frozen=True)
class Facts:
    """Everything about a benchmark but its rows."""

    date: str
    """UTC, ISO 8601."""
    commit: str | None
    """Of the checkout psarm runs from, `+changes` when it differs; None when it is installed."""
    machine: Machine
    threads: int
    """CPU threads of every engine."""
    versions: dict[str, str | None]
    dataset: DatasetFacts


def gather_facts(dataset: PersonSearchDataset, threads: int | None, timed: Sequence[Path]) -> Facts:
    """Read the facts. `threads` None = OMP_NUM_THREADS or every usable core; `timed` are the frames to time.

    Raises `ImageError`.
    """
    machine = describe_machine()
    sizes = Counter("{1}x{0}".format(*read_image(path).shape) for path in timed)
    return Facts(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=git_commit(Path(psarm.__file__).resolve().parents[1]),
        machine=machine,
        threads=threads or default_threads(),
        versions=package_versions(),
        dataset=DatasetFacts(
            name=dataset.name,
            root=str(dataset.root),
            gallery_frames=len(dataset.gallery),
            queries=len(dataset.queries),
            image_sizes=[size for size, _ in sizes.most_common()],
            people_per_frame=float(np.median([len(frame.boxes) for frame in dataset.gallery])),
            default_gallery=dataset.default_gallery or FULL[0],
            drawn=is_synthetic(dataset.root),
        ),
    )


def git_commit(root: Path) -> str | None:
    """Short commit of the checkout `root`, `+changes` where a file differs from it or configs/ has more files than it.

    None when it is no checkout, or git is missing.
    """
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
        # A recipe that is not committed decides what is measured; other new files may be the results.
        changes += _git(root, "status", "--porcelain", "--untracked-files=all", "--", "configs")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changes else commit


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return result.stdout.strip()
