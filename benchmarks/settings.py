"""What to measure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from psarm.benchmarks.workloads import Workload, size_name
from psarm.errors import UsageError
from psarm.runtime.backends import BACKENDS, PRECISIONS

TIMING_FRAMES = 30
GROWTHS = ("people", "size", "batch", "gallery")
"""What a curve of growing cost can be measured over."""


@dataclass(frozen=True)
class BenchSettings:
    """One benchmark: a bundle, a checkpoint or both, on one data set. Raises `UsageError` for what cannot be meant."""

    data_root: Path
    bundle: Path | None = None
    checkpoint: Path | None = None
    """PyTorch model to compare with: the one the bundle was exported from."""
    dataset: str = "prw"
    gallery_sizes: tuple[str, ...] = ()
    """Galleries to search in beside the data set's default one: a name it gives them, or "full"."""
    backends: tuple[str, ...] = ()
    """Names of `psarm.runtime.backends`; empty = all that load here."""
    precisions: tuple[str, ...] = ()
    """Empty = all in which a backend runs the bundle."""
    cbgm: bool = False
    """Measure search with context bipartite graph matching as well, in every gallery."""
    cross_camera: bool = False
    """Show search in other cameras' frames only as well."""
    gt_boxes: bool = False
    """Measure search among the ground-truth boxes of the default gallery as well (another pass over the images)."""
    baselines: bool = False
    """Add colour-histogram matching of the best row's boxes, and the untrained network."""
    threads: int | None = None
    """CPU threads of every engine; None = OMP_NUM_THREADS or every usable core."""
    frames: int = TIMING_FRAMES
    """How many gallery frames are timed, at most."""
    batches: tuple[int, ...] = (1,)
    """Frames a call; a row for each."""
    people: tuple[int | None, ...] = (None,)
    """People to embed in every frame, None: those found; a row for each."""
    image_sizes: tuple[tuple[int, int] | None, ...] = (None,)
    """Width and height that frames are brought to before they are timed, None: as they are; a row for each."""
    quick: bool = False
    """Leave out what takes a process or a product of its own: cold start, memory, roofline."""
    growth: tuple[str, ...] = ()
    """Of `GROWTHS`: curves to measure besides."""
    save_detections: Path | None = None
    """Where to write the detections of the first row that ran."""

    def __post_init__(self) -> None:
        if self.bundle is None and self.checkpoint is None:
            raise UsageError("There is nothing to measure; give a BUNDLE, a --checkpoint, or a file of --detections.")
        if self.bundle is None and (self.backends or self.precisions):
            raise UsageError("--backend and --precision choose how a bundle is run; give a BUNDLE with them.")
        unknown = [name for name in self.backends if name not in ("auto", *BACKENDS)]
        if unknown:
            known = ", ".join(["auto", *BACKENDS])
            raise UsageError(f"--backend {unknown[0]}: there is no backend of that name; available: {known}.")
        unknown = [name for name in self.precisions if name not in PRECISIONS]
        if unknown:
            known = ", ".join(PRECISIONS)
            raise UsageError(f"--precision {unknown[0]}: there is no precision of that name; available: {known}.")
        self._check_workloads()
        for name in ("frames", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} is {value}; needed 1 or more.")

    def _check_workloads(self) -> None:
        """Raise `UsageError` for batches, people, sizes and curves that cannot be meant."""
        asked = {"batch": self.batches != (1,), "people": self.people != (None,), "growth": bool(self.growth)}
        if self.bundle is None and any(asked.values()):
            names = ", ".join(f"--{name}" for name, given in asked.items() if given)
            raise UsageError(f"{names} tell how a bundle is run; give a BUNDLE with them.")
        if min(self.batches) < 1:
            raise UsageError(f"--batch is {min(self.batches)}; needed 1 or more.")
        if any(count is not None and count < 0 for count in self.people):
            raise UsageError("--people is a negative number; needed 0 or more.")
        if any(size is not None and min(size) < 1 for size in self.image_sizes):
            raise UsageError("--image-size has a side below 1; needed WIDTHxHEIGHT in pixels.")
        unknown = [name for name in self.growth if name not in GROWTHS]
        if unknown:
            raise UsageError(f"--growth {unknown[0]}: there is no curve of that name; available: {', '.join(GROWTHS)}.")

    def workloads(self) -> list[Workload]:
        """Every combination that was asked for."""
        return [
            Workload(batch, people, size)
            for size in self.image_sizes
            for people in self.people
            for batch in self.batches
        ]

    def command(self) -> str:
        """The command line that measures this again (without where to write)."""
        words = ["psarm", "bench", *([str(self.bundle)] if self.bundle else [])]
        words += ["--dataset", self.dataset, "--data-root", str(self.data_root)]
        words += [word for size in self.gallery_sizes for word in ("--gallery-size", size)]
        words += ["--checkpoint", str(self.checkpoint)] if self.checkpoint else []
        words += [word for name in self.backends for word in ("--backend", name)]
        words += [word for name in self.precisions for word in ("--precision", name)]
        words += [word for batch in self.batches if self.batches != (1,) for word in ("--batch", str(batch))]
        words += [word for count in self.people if count is not None for word in ("--people", str(count))]
        words += [word for size in self.image_sizes if size for word in ("--image-size", str(size_name(size)))]
        words += ["--growth", ",".join(self.growth)] if self.growth else []
        flags = ("cbgm", "cross_camera", "gt_boxes", "baselines", "quick")
        words += [f"--{flag.replace('_', '-')}" for flag in flags if getattr(self, flag)]
        words += ["--threads", str(self.threads)] if self.threads else []
        return shlex.join([*words, "--frames", str(self.frames)])
