"""Time the search metrics on a synthetic case of PRW's size: 2,057 queries × 6,112 frames.

    python -m psarm.benchmarks.evaluation_speed --json benchmarks/results/evaluation_speed.json

Boxes and embeddings are drawn at random (seeded); the counts are those of PRW's test set with a detector that finds
everyone, some of them twice.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from psarm.console import out
from psarm.evaluation import DetectionSet, SearchProtocol, evaluate_detection, evaluate_search
from psarm.evaluation.types import Floating
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions

FRAMES, QUERIES, IDENTITIES, CAMERAS, EMBEDDING_SIZE = 6112, 2057, 450, 6, 256
PEOPLE_PER_FRAME = 4.2


def synthetic_case(seed: int = 0) -> tuple[SearchProtocol, DetectionSet, Floating, DetectionSet]:
    """Protocol, gallery detections, query embeddings and CBGM contexts of PRW's size."""
    rng = np.random.default_rng(seed)
    counts = np.clip(rng.poisson(PEOPLE_PER_FRAME, FRAMES), 1, 20)
    total = int(counts.sum())
    images = np.repeat(np.arange(FRAMES), counts)
    identities = np.where(rng.random(total) < 0.2, -1, rng.integers(0, IDENTITIES, total))
    corner = rng.uniform(0, [1800, 800], (total, 2))
    boxes = np.concatenate([corner, corner + rng.uniform([20, 60], [150, 400], (total, 2))], axis=1)
    prototypes = rng.normal(size=(IDENTITIES, EMBEDDING_SIZE))
    people = prototypes[identities] + 1.5 * rng.normal(size=(total, EMBEDDING_SIZE))
    people = (people / np.linalg.norm(people, axis=1, keepdims=True)).astype(np.float32)
    chosen = rng.choice(np.flatnonzero(identities >= 0), QUERIES, replace=False)
    names = [f"{i}.jpg" for i in range(FRAMES)]
    cameras = rng.integers(1, CAMERAS + 1, FRAMES)
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
    )
    # The query first, then the others of its frame.
    frames = [np.flatnonzero(images == images[person]) for person in chosen]
    rows = [np.concatenate([[person], frame[frame != person]]) for person, frame in zip(chosen, frames, strict=True)]
    flat = np.concatenate(rows)
    lengths = np.array([len(row) for row in rows])
    context = DetectionSet(lengths, boxes[flat], np.ones(len(flat), np.float32), people[flat])
    return protocol, _detections(rng, images, boxes, people), people[chosen], context


def _detections(
    rng: np.random.Generator, images: np.ndarray[Any, Any], boxes: Floating, people: Floating
) -> DetectionSet:
    """Every person slightly off, one in three found twice, scores mostly high."""
    doubled = np.sort(np.concatenate([np.arange(len(images)), rng.choice(len(images), len(images) // 3)]))
    scores = rng.beta(8, 1, len(doubled)).astype(np.float32)
    found = boxes[doubled] + rng.normal(0, 4, (len(doubled), 4))
    counts = np.bincount(images[doubled], minlength=FRAMES)
    return DetectionSet(counts, found.astype(np.float32), scores, people[doubled] * scores[:, None])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--repeats", default=5, show_default=True, help="Timed runs of each metric, after one to warm up.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(repeats: int, json_path: Path | None) -> None:
    """Time the search metrics on a synthetic case of PRW's size."""
    protocol, detections, queries, context = synthetic_case()
    runs: dict[str, Callable[[], object]] = {
        "detection": lambda: evaluate_detection(protocol, detections),
        "search": lambda: evaluate_search(protocol, detections, queries),
        "search_cross_camera": lambda: evaluate_search(protocol, detections, queries, cross_camera=True),
        "search_cbgm": lambda: evaluate_search(protocol, detections, queries, context=context),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - cpu_start)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    for name, times in seconds.items():
        cpu = median(cpu_seconds[name])
        out.print(f"{name:20} {median(times):6.2f} s  ({min(times):.2f} to {max(times):.2f}), {cpu:.2f} s of CPU time")
    if json_path is not None:
        report = {
            "command": shlex.join(["python", "-m", "psarm.benchmarks.evaluation_speed", *sys.argv[1:]]),
            "machine": asdict(describe_machine()),
            "packages": package_versions(),
            "case": {
                "queries": QUERIES,
                "frames": FRAMES,
                "detections": len(detections.scores),
                "detections_searched": int((detections.scores >= 0.5).sum()),
                "embedding_size": EMBEDDING_SIZE,
                "context_people": len(context.scores),
            },
            "repeats": repeats,
            # Other work on the machine makes the wall clock slower, hardly the CPU time.
            "load_average": load,
            "median_cpu_seconds": {name: round(median(times), 3) for name, times in cpu_seconds.items()},
            "median_seconds": {name: round(median(times), 3) for name, times in seconds.items()},
            "seconds": {name: [round(value, 3) for value in times] for name, times in seconds.items()},
        }
        write_json(json_path, report)


if __name__ == "__main__":
    main()
