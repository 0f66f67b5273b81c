"""Faults on purpose while a gallery is written and read, with the real commands in processes of their own.

    python -m psarm.benchmarks.gallery_drills BUNDLE --work DIR --json drills.json

In every drill each frame has to be accounted for: indexed, skipped with a reason, or still to do. The exit code is 1
where a check fails. Some drills mount file systems, which only root may.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

import psarm
from psarm.benchmarks.drills.cameras import backward_wall_clock, camera_away
from psarm.benchmarks.drills.clips import read_pictures, write_clip
from psarm.benchmarks.drills.crashes import killed, readers
from psarm.benchmarks.drills.files import backward_clock_in_file, damaged_video, eight_sources, index_whole
from psarm.benchmarks.drills.outcome import Outcome, Setting
from psarm.benchmarks.drills.storage import full_disk, read_only_gallery, two_writers
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.runs import run_psarm
from psarm.benchmarks.script import run
from psarm.console import err, out
from psarm.errors import PsarmError, UsageError
from psarm.files import write_json
from psarm.machine import default_threads, describe_machine, package_versions
from psarm.runtime.images import read_image
from psarm.runtime.video import Frame

DRILLS: dict[str, Callable[[Setting], Outcome]] = {
    "damaged": damaged_video,
    "camera-away": camera_away,
    "full-disk": full_disk,
    "read-only": read_only_gallery,
    "two-writers": two_writers,
    "killed": killed,
    "readers": readers,
    "clock-in-file": backward_clock_in_file,
    "wall-clock": backward_wall_clock,
    "eight-sources": eight_sources,
}
SPEED_SECONDS = 10.0
SYNTHETIC = ["--frames", "60", "--identities", "12", "--size", "384x216", "--seed", "7"]


def run_drill(name: str, setting: Setting) -> dict[str, Any]:
    """One drill; where it breaks off, why."""
    setting.work.mkdir()
    start = time.perf_counter()
    try:
        outcome = DRILLS[name](setting)
    except PsarmError as error:
        outcome = Outcome(failure=str(error))
    seconds = round(time.perf_counter() - start, 1)
    out.print(f"{name}: {'passed' if outcome.passed else 'FAILED'}, {seconds:.0f} s", style="bold", markup=False)
    for check, passed in outcome.checks.items():
        out.print(f"  {'ok    ' if passed else 'FAILED'} {check}", markup=False)
    if outcome.failure:
        out.print(f"  broke off: {outcome.failure}", markup=False, soft_wrap=True)
    return {"name": name, "passed": outcome.passed, "seconds": seconds, **asdict(outcome)}


def drawn_pictures(work: Path) -> list[Frame]:
    """Synthetic street scenes."""
    run_psarm(["data", "synth", str(work / "synthetic"), *SYNTHETIC])
    return [read_image(path) for path in sorted((work / "synthetic" / "frames").glob("c1*.jpg"))]


def measured_rate(setting: Setting) -> float:
    """Frames a second that `psarm index` does here, without its start: of a clip that takes some seconds.

    Raises `UsageError` where nobody is found: the drills look at what becomes of people.
    """
    rate = 0.0
    for number in range(2):
        length = replace(setting, rate=rate).length_of(SPEED_SECONDS)
        clip = write_clip(setting.frames, length, setting.work / f"speed{number}.mkv")
        [report] = index_whole(setting, [clip], setting.work / f"speed{number}.gallery")["sources"]
        if not report["people"]:
            raise UsageError(f"{setting.bundle} finds nobody in the pictures; give a --video of people that it finds.")
        rate = report["new"] / report["seconds"]
    return rate


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="An empty directory.")
@click.option("--drill", "names", multiple=True, type=click.Choice(list(DRILLS)), help="Only this; repeatable.")
@click.option(
    "--video",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of people that the bundle finds; clips are made of its frames  [default: synthetic scenes are drawn].",
)
@click.option("--length", default=120, show_default=True, type=click.IntRange(16), help="Frames of a clip.")
@click.option("--outage", default=60.0, show_default=True, type=click.FloatRange(0), help="Seconds a camera is away.")
@click.option("--kills", default=10, show_default=True, type=click.IntRange(1), help="Processes that are killed.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of the moments they are killed at.")
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1))
@click.option("--threads", type=click.IntRange(1), help="CPU threads  [default: OMP_NUM_THREADS or all cores].")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(
    bundle: Path,
    work: Path,
    names: tuple[str, ...],
    video: Path | None,
    length: int,
    outage: float,
    kills: int,
    seed: int,
    batch: int,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Run the drills with BUNDLE; exit code 1 where a check fails."""
    if work.exists() and any(work.iterdir()):
        raise UsageError(f"--work {work} is not empty; give a directory that is.")
    work.mkdir(parents=True, exist_ok=True)
    load = [os.getloadavg()[0]]
    pictures = drawn_pictures(work) if video is None else read_pictures(video)
    options = ("--batch", str(batch), "--threads", str(threads or default_threads()))
    setting = Setting(bundle.absolute(), work.absolute(), pictures, length, 0.0, outage, kills, options, seed)
    setting = replace(setting, rate=measured_rate(setting))
    err.print(f"psarm index does {setting.rate:.1f} frames/s here.")
    rows = [run_drill(name, replace(setting, work=setting.work / name)) for name in names or DRILLS]
    load.append(os.getloadavg()[0])
    if json_path:
        height, width = pictures[0].shape[:2]
        report = {
            "command": "python -m psarm.benchmarks.gallery_drills BUNDLE --work DIR" + " --video VIDEO" * bool(video),
            "settings": {"length": length, "outage": outage, "kills": kills, "seed": seed, "options": options},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
            "machine": asdict(describe_machine()),
            "versions": package_versions(),
            "load_average": load,
            "bundle": bundle.name,
            "pictures": "synthetic scenes" if video is None else video.name,
            "frame": [height, width],
            "frames_a_second": round(setting.rate, 2),
            # Where it was is nobody's concern.
            "drills": json.loads(json.dumps(rows, ensure_ascii=False).replace(f"{setting.work}/", "")),
        }
        write_json(json_path, report)
    failed = [row["name"] for row in rows if not row["passed"]]
    if failed:
        raise PsarmError(f"{len(failed)} of {len(rows)} drills failed: {', '.join(failed)}.")


if __name__ == "__main__":
    run(main)
