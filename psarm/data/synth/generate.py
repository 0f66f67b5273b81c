"""A whole synthetic data set in the on-disk format of PRW or CUHK-SYSU."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from psarm import __version__
from psarm.data.json_file import read_json_object
from psarm.data.synth.cast import NO_IDENTITY, Cast, build_cast
from psarm.data.synth.cuhk_layout import CuhkLayout
from psarm.data.synth.jobs import draw_all
from psarm.data.synth.layout import Layout, Picture, QueryBox
from psarm.data.synth.plan import FramePlan, plan_frames
from psarm.data.synth.prw_layout import PrwLayout
from psarm.data.synth.settings import Stream, SynthSettings
from psarm.errors import DataError, UsageError
from psarm.files import atomic_directory, is_taken, refuse_unwritable, write_json

LAYOUTS: dict[str, Layout] = {"prw": PrwLayout(), "cuhk-sysu": CuhkLayout()}
_MANIFEST = "synth.json"


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
    """Boxes without identity."""
    train_identities: int
    test_identities: int
    queries: int
    cameras: tuple[CameraSummary, ...]


def generate_dataset(
    out: Path, settings: SynthSettings, layout: str = "prw", *, workers: int = 1, overwrite: bool = False
) -> SynthSummary:
    """Write a synthetic data set to the directory `out`, which appears only when complete.

    The files depend on `settings` and `layout` (one of `LAYOUTS`) alone, not on the number of `workers` (processes);
    what is drawn depends on `settings` alone. An existing non-empty `out` is refused unless `overwrite` is set and it
    holds a data set that this wrote. Raises UsageError.
    """
    if workers < 1:
        raise UsageError(f"--workers {workers} is too few; give 1 or more.")
    _check_target(out, overwrite)
    cast = build_cast(settings)
    plans = plan_frames(settings, cast)
    _check_everyone_is_seen(plans, cast, settings)
    form = LAYOUTS[layout]
    files = form.files(plans, settings)
    with atomic_directory(out.resolve()) as root:
        (root / files[0]).parent.mkdir(parents=True)
        rows = draw_all(root, dict(zip(files, plans, strict=True)), settings, workers)
        pictures = [Picture(plan, file, rows[file]) for plan, file in zip(plans, files, strict=True)]
        queries = _choose_queries(pictures, settings, form.query_per_camera)
        form.write(root, pictures, queries, settings)
        write_json(root / _MANIFEST, {"psarm_version": __version__, "settings": asdict(settings)})
    return _summarise(out, pictures, queries)


def _check_target(out: Path, overwrite: bool) -> None:
    refuse_unwritable(out)
    if not is_taken(out):
        return
    if not overwrite:
        raise UsageError(f"{out} exists and is not empty; choose another directory or pass --overwrite.")
    if not is_synthetic(out):
        raise UsageError(
            f"{out} holds something else than a synthetic data set (no {_MANIFEST} of psarm in it) and is not "
            "overwritten; choose another directory."
        )


def is_synthetic(folder: Path) -> bool:
    """Whether a directory holds the manifest of a data set that `generate_dataset` drew."""
    try:
        content = read_json_object(folder / _MANIFEST, "a manifest")
    except DataError:
        return False
    return content.keys() >= {"psarm_version", "settings"}


def _check_everyone_is_seen(plans: list[FramePlan], cast: Cast, settings: SynthSettings) -> None:
    seen = Counter(placement.person for plan in plans for placement in plan.people)
    missed = sum(seen[row] < 2 for row in range(len(cast.pids)))
    if missed:
        raise UsageError(
            f"--identities {settings.identities} is too many for {settings.frames} frames with "
            f"{settings.people_per_frame:g} people each: {missed} would not be seen twice; "
            "raise --frames or --people-per-frame, or lower --identities."
        )


def _choose_queries(pictures: list[Picture], settings: SynthSettings, per_camera: bool) -> list[QueryBox]:
    """One query for each test identity that is in two test frames or more, or for each camera it was seen in."""
    seen: dict[int, list[QueryBox]] = defaultdict(list)
    for picture in pictures:
        for pid, x, y, w, h in picture.rows if picture.plan.test else ():
            if pid != NO_IDENTITY:
                seen[int(pid)].append(QueryBox(int(pid), (x, y, w, h), picture))
    queries = []
    for pid in sorted(seen):
        groups: dict[int, list[QueryBox]] = defaultdict(list)
        for query in seen[pid]:
            groups[query.picture.plan.camera if per_camera else 0].append(query)
        if len(seen[pid]) < 2:
            continue
        rng = settings.rng(Stream.QUERY, pid)
        queries += [options[int(rng.integers(len(options)))] for _, options in sorted(groups.items())]
    if not queries:
        raise UsageError("No test identity is seen twice, so there is nothing to search for; raise --frames.")
    return queries


def _summarise(root: Path, pictures: list[Picture], queries: list[QueryBox]) -> SynthSummary:
    cameras = []
    asked = Counter(query.picture.plan.camera for query in queries)
    for number in sorted({picture.plan.camera for picture in pictures}):
        own = [picture for picture in pictures if picture.plan.camera == number]
        identities = [row[0] for picture in own for row in picture.rows]
        tests = sum(picture.plan.test for picture in own)
        named = set(identities) - {NO_IDENTITY}
        cameras.append(CameraSummary(number, len(own) - tests, tests, len(identities), len(named), asked[number]))
    sides = {
        test: {row[0] for picture in pictures if picture.plan.test == test for row in picture.rows} - {NO_IDENTITY}
        for test in (False, True)
    }
    everything = np.array([row[0] for picture in pictures for row in picture.rows])
    return SynthSummary(
        root=root,
        train_frames=sum(camera.train_frames for camera in cameras),
        test_frames=sum(camera.test_frames for camera in cameras),
        boxes=len(everything),
        unlabelled=int((everything == NO_IDENTITY).sum()),
        train_identities=len(sides[False]),
        test_identities=len(sides[True]),
        queries=len(queries),
        cameras=tuple(cameras),
    )
