"""A stream against the sequential loop, at the same backend, precision and threads.

    python -m psarm.benchmarks.streaming BUNDLE --json benchmarks/results/streaming.json

They take turns on one video, whole passes of it, a stream's filling and emptying included; ratios are those of medians.
The loop decodes a frame, detects, decodes the next. Then the stream's memory over many small frames is watched.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
import cv2

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.script import run
from psarm.benchmarks.streaming_memory import WARM_UP, memory_over, with_small_frames
from psarm.console import err, out
from psarm.files import write_json
from psarm.machine import default_threads, describe_machine, package_versions
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.timing import STAGES
from psarm.runtime.video import read_video

FRAME_RATE = 25.0
SMALL_SIDE = 64


@dataclass(frozen=True)
class Pass:
    """One way through the video."""

    seconds: float
    cpu_seconds: float
    """Of all threads."""
    people: list[int]
    """Found in each frame."""
    stages: dict[str, float]
    """Seconds of work by stage, all frames together."""

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return len(self.people) / self.seconds


def sequential_pass(engine: PersonSearch, video: Path) -> Pass:
    """Frame by frame: decode, detect, and so on."""
    return _timed((len(engine.detect(frame)), engine.last_timings) for _, frame in read_video(video))


def stream_pass(engine: PersonSearch, video: Path, batch: int, requests: int | None) -> Pass:
    """The same frames through `PersonSearch.stream`; loading graphs for it is not timed, as the engine's is not."""
    with engine.stream(video, batch=batch, max_wait=None, requests=requests) as stream:
        return _timed((len(result.detections), result.seconds) for result in stream)


def _timed(frames: Iterator[tuple[int, dict[str, float]]]) -> Pass:
    people, stages = [], dict.fromkeys(STAGES, 0.0)
    start, cpu_start = time.perf_counter(), time.process_time()
    for count, seconds in frames:
        people.append(count)
        stages = {name: stages[name] + seconds[name] for name in STAGES}
    return Pass(time.perf_counter() - start, time.process_time() - cpu_start, people, stages)


def compare(ways: dict[str, Callable[[], Pass]], rounds: int) -> dict[str, list[Pass]]:
    """`rounds` passes of each way, in turns, after one round to warm up."""
    passes: dict[str, list[Pass]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            taken = way()
            if number:
                passes[name].append(taken)
                err.print(f"round {number}: {name} {taken.frame_rate:.2f} frames/s")
    return passes


def summarise(passes: list[Pass]) -> dict[str, Any]:
    """Medians over the passes of one way."""
    frames = len(passes[0].people)
    return {
        "frames_per_second": round(median(one.frame_rate for one in passes), 3),
        "frame_ms": [round(1000 * one.seconds / frames, 3) for one in passes],
        "cpu_seconds_per_frame": round(median(one.cpu_seconds for one in passes) / frames, 5),
        "stages_ms": {name: round(1000 * median(one.stages[name] for one in passes) / frames, 3) for name in STAGES},
        "people": sum(passes[0].people),
    }


@contextmanager
def drawn_video(frames: int, width: int, height: int) -> Iterator[Path]:
    """A video of drawn people in a temporary folder."""
    from psarm.data.synth.cast import build_cast
    from psarm.data.synth.plan import plan_frames
    from psarm.data.synth.scene import draw_frame
    from psarm.data.synth.settings import SynthSettings

    settings = SynthSettings(frames=frames, identities=8, width=width, height=height)
    cast = build_cast(settings)
    with tempfile.TemporaryDirectory(prefix="psarm-streaming-") as folder:
        path = Path(folder) / f"drawn_{width}x{height}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FRAME_RATE, (width, height))
        for plan in plan_frames(settings, cast):
            writer.write(draw_frame(plan, cast, settings).image)
        writer.release()
        yield path


def measure(engine: PersonSearch, video: Path, batch: int, requests: int | None, rounds: int) -> dict[str, Any]:
    """Both ways over `video`, and how they compare."""
    passes = compare(
        {
            "sequential": lambda: sequential_pass(engine, video),
            "stream": lambda: stream_pass(engine, video, batch, requests),
        },
        rounds,
    )
    ways = {name: summarise(taken) for name, taken in passes.items()}
    counts = zip(*(taken[0].people for taken in passes.values()), strict=True)
    work = ways["sequential"]["stages_ms"]
    return {
        **ways,
        "frames_with_other_people": sum(loop != stream for loop, stream in counts),
        "times_as_fast": round(ways["stream"]["frames_per_second"] / ways["sequential"]["frames_per_second"], 3),
        "preprocessing_share": round(work["preprocess"] / sum(work.values()), 4),
    }


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    width, _, height = value.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise click.BadParameter(f"{value!r} is not of the form WIDTHxHEIGHT, such as 1920x1080.")
    return int(width), int(height)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--video", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: one is drawn.")
@click.option("--frames", default=48, show_default=True, type=click.IntRange(12), help="Frames of the drawn video.")
@click.option("--size", default="1920x1080", show_default=True, callback=_size, help="Of the drawn video.")
@click.option("--backend", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option(
    "--threads", type=click.IntRange(1), help="CPU threads  [default: OMP_NUM_THREADS, or every usable core]."
)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1))
@click.option("--requests", type=click.IntRange(1), help="Batches in the network at a time  [default: the stream's].")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="After one to warm up.")
@click.option("--memory-frames", default=20000, show_default=True, type=click.IntRange(0), help="0: not measured.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(
    bundle: Path,
    video: Path | None,
    frames: int,
    size: tuple[int, int],
    backend: str,
    precision: str,
    threads: int | None,
    batch: int,
    requests: int | None,
    rounds: int,
    memory_frames: int,
    json_path: Path | None,
) -> None:
    """Compare a stream of BUNDLE with the sequential loop, and watch its memory."""
    threads = threads or default_threads()
    opened = Bundle.open(bundle)
    load = [os.getloadavg()[0]]
    with PersonSearch(opened, backend, precision, threads) as engine:
        err.print(f"Running on {engine.summary}.", markup=False)
        engine_facts = {"backend": engine.backend, "precision": engine.precision, "device": engine.device}
        if video:
            speed = measure(engine, video, batch, requests, rounds)
        else:
            with drawn_video(frames, *size) as drawn:
                speed = measure(engine, drawn, batch, requests, rounds)
    load.append(os.getloadavg()[0])
    memory = None
    if memory_frames:
        small = with_small_frames(opened, SMALL_SIDE)
        with PersonSearch(small, engine_facts["backend"], engine_facts["precision"], threads) as engine:
            memory = memory_over(engine, memory_frames, SMALL_SIDE, batch)
    report = {
        "command": shlex.join(["python", "-m", "psarm.benchmarks.streaming", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
        "machine": asdict(describe_machine()),
        "versions": package_versions(),
        "load_average": load,
        "engine": {**engine_facts, "threads": threads},
        "video": str(video.name) if video else f"drawn, {frames} frames of {size[0]}x{size[1]}",
        "settings": {"batch": batch, "requests": requests, "rounds": rounds},
        "speed": speed,
        "memory": memory,
    }
    _print(speed, memory)
    if json_path:
        write_json(json_path, report)


def _print(speed: dict[str, Any], memory: dict[str, Any] | None) -> None:
    for name in ("sequential", "stream"):
        way = speed[name]
        out.print(
            f"{name:10} {way['frames_per_second']:8.2f} frames/s, "
            f"{1000 * way['cpu_seconds_per_frame']:.1f} ms of CPU time a frame"
        )
    out.print(
        f"{speed['times_as_fast']:.2f} times as fast; preprocessing is {speed['preprocessing_share']:.1%} of the frame"
    )
    if memory:
        out.print(
            f"memory: {memory['growth_bytes'] / 2**20:+.1f} MiB over the last {1 - WARM_UP:.0%} of {memory['frames']} "
            f"frames, {memory['growth_bytes_per_frame']:+.1f} bytes a frame",
            soft_wrap=True,
        )


if __name__ == "__main__":
    run(main)
