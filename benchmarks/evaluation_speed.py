"""Time the search metrics on synthetic cases of the size of PRW's and CUHK-SYSU's test sets.

    python -m psarm.benchmarks.evaluation_speed --json benchmarks/results/evaluation_speed.json

Boxes and embeddings are drawn at random (seeded); the counts are those of the data sets, with a detector that finds
everyone, a third of them twice.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from psarm.console import out
from psarm.evaluation import DetectionSet, SearchProtocol, evaluate_detection, evaluate_search
from psarm.evaluation.types import Floating
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions

EMBEDDING_SIZE = 256


@dataclass(frozen=True)
class CaseSize:
    """Counts of a test set."""

    queries: int
    frames: int
    people_per_frame: float
    identities: int
    labelled: float
    """Share of the people with an identity."""
    cameras: int
    cbgm: tuple[int, int]
    galleries: tuple[int, ...] = ()
    """Sizes of listed galleries: the images that hold the person, filled up at random."""


CASES = {
    "prw": CaseSize(2057, 6112, 4.2, 450, 0.8, 6, (30, 4)),
    "cuhk-sysu": CaseSize(2900, 6978, 40871 / 6978, 2900, 0.25, 1, (10, 3), (100, 4000)),
}


@dataclass(frozen=True, eq=False)
class SyntheticCase:
    """What the metrics take."""

    protocol: SearchProtocol
    detections: DetectionSet
    queries: Floating  # [Q,D]
    context: DetectionSet


def synthetic_case(size: CaseSize, seed: int = 0) -> SyntheticCase:
    """A case of the given counts; the queries are people of the gallery, one of each identity as far as that goes."""
    rng = np.random.default_rng(seed)
    counts = np.clip(rng.poisson(size.people_per_frame, size.frames), 1, 20)
    total = int(counts.sum())
    images = np.repeat(np.arange(size.frames), counts)
    identities = np.where(rng.random(total) < size.labelled, rng.integers(0, size.identities, total), -1)
    corner = rng.uniform(0, [1800, 800], (total, 2))
    boxes = np.concatenate([corner, corner + rng.uniform([20, 60], [150, 400], (total, 2))], axis=1)
    prototypes = rng.normal(size=(size.identities, EMBEDDING_SIZE))
    people = prototypes[identities] + 1.5 * rng.normal(size=(total, EMBEDDING_SIZE))
    people = (people / np.linalg.norm(people, axis=1, keepdims=True)).astype(np.float32)
    chosen = _query_people(rng, identities, size.queries)
    names = [f"{i}.jpg" for i in range(size.frames)]
    cameras = rng.integers(1, size.cameras + 1, size.frames)
    listed = {
        str(length): [_gallery(rng, images[identities == identities[person]], size.frames, length) for person in chosen]
        for length in size.galleries
    }
    protocol = SearchProtocol(
        gallery_names=names,
        gallery_cameras=cameras,
        gt_images=images,
        gt_boxes=boxes,
        gt_identities=identities,
        query_names=[names[image] for image in images[chosen]],
        query_cameras=cameras[images[chosen]],
        query_boxes=boxes[chosen],
        query_identities=identities[chosen],
        galleries=listed,
        default_gallery=next(iter(listed), None),
        cbgm=size.cbgm,
    )
    # The query first, then the others of its frame.
    frames = [np.flatnonzero(images == images[person]) for person in chosen]
    rows = [np.concatenate([[person], frame[frame != person]]) for person, frame in zip(chosen, frames, strict=True)]
    flat = np.concatenate(rows)
    lengths = np.array([len(row) for row in rows])
    context = DetectionSet(lengths, boxes[flat], np.ones(len(flat), np.float32), people[flat])
    return SyntheticCase(protocol, _detections(rng, counts, boxes, people), people[chosen], context)


def _query_people(rng: np.random.Generator, identities: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` different labelled people, as many different identities among them as there are."""
    shuffled = rng.permutation(np.flatnonzero(identities >= 0))
    _, first = np.unique(identities[shuffled], return_index=True)
    people: NDArray[np.int64] = np.concatenate([shuffled[first], np.delete(shuffled, first)])[:count]
    return people


def _gallery(rng: np.random.Generator, holding: NDArray[np.int64], frames: int, length: int) -> NDArray[np.int64]:
    """`length` images, those `holding` the person first, as the data set lists them."""
    others = rng.permutation(np.setdiff1d(np.arange(frames), holding))
    return np.concatenate([np.unique(holding), others])[:length]


def _detections(
    rng: np.random.Generator, frame_counts: NDArray[np.int64], boxes: Floating, people: Floating
) -> DetectionSet:
    """Every person slightly off, one in three found twice, scores mostly high."""
    images = np.repeat(np.arange(len(frame_counts)), frame_counts)
    doubled = np.sort(np.concatenate([np.arange(len(images)), rng.choice(len(images), len(images) // 3)]))
    scores = rng.beta(8, 1, len(doubled)).astype(np.float32)
    found = boxes[doubled] + rng.normal(0, 4, (len(doubled), 4))
    counts = np.bincount(images[doubled], minlength=len(frame_counts))
    return DetectionSet(counts, found.astype(np.float32), scores, people[doubled] * scores[:, None])


def metric_runs(case: SyntheticCase) -> dict[str, Callable[[], object]]:
    """The metrics by the name that `score_detections` gives them."""

    def search(**options: Any) -> Callable[[], object]:
        return lambda: evaluate_search(case.protocol, case.detections, case.queries, **options)

    runs: dict[str, Callable[[], object]] = {"detection": lambda: evaluate_detection(case.protocol, case.detections)}
    galleries = {f"search_{name}": name for name in (*case.protocol.galleries, "full")}
    for key, gallery in galleries.items():
        runs[key] = search(gallery=gallery)
        runs[f"{key}_cbgm"] = search(gallery=gallery, context=case.context)
    if case.protocol.cross_camera:
        runs["search_cross_camera"] = search(cross_camera=True)
    return runs


def measure(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Wall and CPU seconds of each run, `repeats` times one after the other, after one round to warm up."""
    taken: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "cpu_seconds": []} for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            if repeat:
                taken[name]["seconds"].append(time.perf_counter() - start)
                taken[name]["cpu_seconds"].append(time.process_time() - cpu_start)
    return taken


def _case_report(name: str, repeats: int) -> dict[str, Any]:
    case = synthetic_case(CASES[name])
    taken = measure(metric_runs(case), repeats)
    for run, times in taken.items():
        wall, cpu = times["seconds"], median(times["cpu_seconds"])
        out.print(
            f"{name:10} {run:20} {median(wall):6.2f} s  ({min(wall):.2f} to {max(wall):.2f}), {cpu:.2f} s of CPU time"
        )
    return {
        "case": {
            **asdict(CASES[name]),
            "boxes": len(case.protocol.gt_boxes),
            "detections": len(case.detections.scores),
            "detections_searched": int((case.detections.scores >= 0.5).sum()),
            "embedding_size": EMBEDDING_SIZE,
            "context_people": len(case.context.scores),
        },
        # Other work on the machine makes the wall clock slower, hardly the CPU time.
        "median_cpu_seconds": {run: round(median(times["cpu_seconds"]), 3) for run, times in taken.items()},
        "median_seconds": {run: round(median(times["seconds"]), 3) for run, times in taken.items()},
        "seconds": {run: [round(value, 3) for value in times["seconds"]] for run, times in taken.items()},
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--repeats", default=5, show_default=True, help="Timed runs of each metric, after one to warm up.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(repeats: int, json_path: Path | None) -> None:
    """Time the search metrics on synthetic cases of the size of PRW and CUHK-SYSU."""
    load = [_load_average()]
    cases = {name: _case_report(name, repeats) for name in CASES}
    load.append(_load_average())
    if json_path is not None:
        report = {
            "command": shlex.join(["python", "-m", "psarm.benchmarks.evaluation_speed", *sys.argv[1:]]),
            "machine": asdict(describe_machine()),
            "packages": package_versions(),
            "repeats": repeats,
            # Before and after; the script itself makes up to the number of threads.
            "load_average": load,
            "cases": cases,
        }
        write_json(json_path, report)


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    main()
