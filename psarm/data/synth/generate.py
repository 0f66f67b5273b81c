"""A whole synthetic data set in PRW's on-disk format."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from psarm import __version__
from psarm.data.synth.cast import NO_IDENTITY, Cast, build_cast
from psarm.data.synth.jobs import Rows, draw_all
from psarm.data.synth.plan import FramePlan, plan_frames
from psarm.data.synth.settings import Stream, SynthSettings
from psarm.data.synth.writer import QueryBox, write_queries, write_split
from psarm.errors import UsageError
from psarm.files import atomic_directory, write_json


@dataclass(frozen=True)
class CameraSummary:
    """What one camera holds."""

    camera: int
    train_frames: int
    test_frames: int
    boxes: int
    identities: int
    queries: int


@dataclass(frozen=True)
class SynthSummary:
    """What was written."""

    root: Path
    train_frames: int
    test_frames: int
    boxes: int
    unlabelled: int
    """Boxes without identity (-2)."""
    train_identities: int
    test_identities: int
    queries: int
    cameras: tuple[CameraSummary, ...]


def generate_prw(out: Path, settings: SynthSettings, *, workers: int = 1, overwrite: bool = False) -> SynthSummary:
    """Write a synthetic data set to the directory `out` in PRW's format; the directory appears only when complete.

    The files depend on `settings` alone, not on the number of `workers` (processes). An existing non-empty `out` is
    refused unless `overwrite` is set and it holds a PRW data set. Raises UsageError.
    """
    if workers < 1:
        raise UsageError(f"--workers {workers} is too few; give 1 or more.")
    _check_target(out, overwrite)
    cast = build_cast(settings)
    plans = plan_frames(settings, cast)
    _check_everyone_is_seen(plans, cast, settings)
    with atomic_directory(out.resolve()) as root:
        for folder in ("frames", "annotations"):
            (root / folder).mkdir()
        annotations = draw_all(root, plans, settings, workers)
        write_split(root, [p.name for p in plans if not p.test], [p.name for p in plans if p.test])
        queries = _choose_queries(plans, annotations, settings)
        write_queries(root, queries)
        write_json(root / "synth.json", {"psarm_version": __version__, "settings": asdict(settings)})
    return _summarise(out, plans, annotations, queries)


def looks_like_prw(root: Path) -> bool:
    """Whether a directory holds a PRW data set (ours or the real one)."""
    return all((root / name).exists() for name in ("frames", "annotations", "frame_train.mat", "frame_test.mat"))


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; give a directory that does not exist yet.")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{out} exists and is not empty; choose another directory or pass --overwrite.")
    if not looks_like_prw(out):
        raise UsageError(
            f"{out} holds something else than a PRW data set and is not overwritten; choose another directory."
        )


def _check_everyone_is_seen(plans: list[FramePlan], cast: Cast, settings: SynthSettings) -> None:
    seen = Counter(placement.person for plan in plans for placement in plan.people)
    missed = sum(seen[row] < 2 for row in range(len(cast.pids)))
    if missed:
        raise UsageError(
            f"--identities {settings.identities} is too many for {settings.frames} frames with "
            f"{settings.people_per_frame:g} people each: {missed} would not be seen twice; "
            "raise --frames or --people-per-frame, or lower --identities."
        )


def _choose_queries(plans: list[FramePlan], annotations: dict[str, Rows], settings: SynthSettings) -> list[QueryBox]:
    """One query for each test identity and camera it was seen in; the identity is in other test frames too."""
    seen: dict[int, list[tuple[int, QueryBox]]] = defaultdict(list)
    for plan in plans:
        for pid, x, y, w, h in annotations[plan.name] if plan.test else ():
            if pid != NO_IDENTITY:
                seen[int(pid)].append((plan.camera, QueryBox(int(pid), (x, y, w, h), plan.name)))
    queries = []
    for pid in sorted(seen):
        by_camera: dict[int, list[QueryBox]] = defaultdict(list)
        for camera, query in seen[pid]:
            by_camera[camera].append(query)
        if len(seen[pid]) < 2:
            continue
        rng = settings.rng(Stream.QUERY, pid)
        queries += [options[int(rng.integers(len(options)))] for _, options in sorted(by_camera.items())]
    if not queries:
        raise UsageError("No test identity is seen twice, so there is nothing to search for; raise --frames.")
    return queries


def _summarise(
    root: Path, plans: list[FramePlan], annotations: dict[str, Rows], queries: list[QueryBox]
) -> SynthSummary:
    cameras = []
    asked = Counter(int(query.frame[1 : query.frame.index("s")]) for query in queries)
    pids: dict[bool, set[float]] = {False: set(), True: set()}
    for number in sorted({plan.camera for plan in plans}):
        own = [plan for plan in plans if plan.camera == number]
        rows = [row for plan in own for row in annotations[plan.name]]
        tests = sum(plan.test for plan in own)
        named = {row[0] for row in rows} - {NO_IDENTITY}
        cameras.append(CameraSummary(number, len(own) - tests, tests, len(rows), len(named), asked[number]))
    for plan in plans:
        pids[plan.test] |= {row[0] for row in annotations[plan.name]} - {NO_IDENTITY}
    everything = np.array([row[0] for rows in annotations.values() for row in rows])
    return SynthSummary(
        root=root,
        train_frames=sum(camera.train_frames for camera in cameras),
        test_frames=sum(camera.test_frames for camera in cameras),
        boxes=len(everything),
        unlabelled=int((everything == NO_IDENTITY).sum()),
        train_identities=len(pids[False]),
        test_identities=len(pids[True]),
        queries=len(queries),
        cameras=tuple(cameras),
    )
