"""Time the search metrics on synthetic cases of the size of PRW's and CUHK-SYSU's test sets.

    python -m psarm.benchmarks.evaluation_speed --json benchmarks/results/evaluation_speed.json

Boxes and embeddings are drawn at random (seeded); the counts are those of the data sets, with a detector that finds
everyone, a third of them twice. CUHK-SYSU's galleries say where the person is, PRW's truth are the identities.

Search is timed in turns with the literal loop (`psarm.benchmarks.literal_search`) on a sample of the queries, spread
over all: its time for all queries is the sample's, scaled. Results are compared on the sample in float64, because
float32's similarities of two detections may differ in the last bit between two ways to multiply, and change places.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import psarm
from psarm.benchmarks import script
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.literal_search import LiteralSearch
from psarm.console import out
from psarm.data.types import Located
from psarm.evaluation import DetectionSet, SearchProtocol, evaluate_detection, rank_queries
from psarm.evaluation.types import Floating
from psarm.extras import require
from psarm.files import write_json
from psarm.machine import default_threads, describe_machine, package_versions

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
    listed: dict[str, list[NDArray[np.int64]]] = {str(length): [] for length in size.galleries}
    located: dict[str, list[Located]] = {str(length): [] for length in size.galleries}
    for name, galleries in listed.items():
        for person in chosen:
            others = (identities == identities[person]) & (images != images[person])
            holding, first = np.unique(images[others], return_index=True)
            items = np.arange(min(len(holding), int(name)))
            galleries.append(_gallery(rng, holding, images[person], size.frames, int(name)))
            located[name].append(Located(items, boxes[others][first][items].astype(np.float32)))
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
        located=located,
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


def _gallery(
    rng: np.random.Generator, holding: NDArray[np.int64], own: int, frames: int, length: int
) -> NDArray[np.int64]:
    """`length` images without the query's own, those `holding` the person first, as the data set lists them."""
    others = rng.permutation(np.setdiff1d(np.arange(frames), [*holding, own]))
    return np.concatenate([holding, others])[:length]


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


def search_options(case: SyntheticCase) -> dict[str, dict[str, Any]]:
    """What each search is told, by the name that `score_detections` gives its metrics."""
    options: dict[str, dict[str, Any]] = {}
    for gallery in (*case.protocol.galleries, "full"):
        options[f"search_{gallery}"] = {"gallery": gallery}
        options[f"search_{gallery}_cbgm"] = {"gallery": gallery, "context": case.context}
    if case.protocol.cross_camera:
        options["search_cross_camera"] = {"cross_camera": True}
    return options


def literal_runs(
    case: SyntheticCase, literal: LiteralSearch, options: dict[str, Any], queries: Sequence[int]
) -> list[tuple[float, int]]:
    """The literal loop's AP and rank of each of `queries`."""
    context, others = options.get("context"), {name: value for name, value in options.items() if name != "context"}
    around = {query: None if context is None else context.of_image(query).embeddings for query in queries}
    return [literal.search(query, case.queries[query], context=around[query], **others) for query in queries]


def measure(case: SyntheticCase, options: dict[str, Any], sample: list[list[int]]) -> dict[str, Any]:
    """Wall and CPU seconds of one search, and of the literal loop scaled from a sample to all queries, in turns.

    Other work on the machine makes the wall clock slower, hardly the CPU time. One round for each list of `sample`, and
    one before to warm up; there is no literal loop for an empty list.
    """
    literal = LiteralSearch(case.protocol, case.detections)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for number, queries in enumerate([sample[0][:1], *sample]):
        taken = _taken(lambda: rank_queries(case.protocol, case.detections, case.queries, **options))
        of_sample = _taken(functools.partial(literal_runs, case, literal, options, queries))
        if number:
            ours.append(taken)
            scale = len(case.queries) / max(1, len(queries))
            theirs.append((of_sample[0] * scale, of_sample[1] * scale))
    result: dict[str, Any] = {}
    for place, prefix in enumerate(("", "cpu_")):
        pairs = [(one[place], other[place]) for one, other in zip(ours, theirs, strict=True)]
        result[f"{prefix}seconds"] = [round(one, 3) for one, _ in pairs]
        result[f"median_{prefix}seconds"] = round(median(one for one, _ in pairs), 3)
        if sample[0]:
            result[f"literal_{prefix}seconds"] = [round(other, 1) for _, other in pairs]
            result[f"{prefix}ratios"] = ratios = [round(other / one, 1) for one, other in pairs]
            result[f"{prefix}times_as_fast"] = median(ratios)
    return result


def _taken(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    start, cpu_start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - cpu_start


def greatest_difference(case: SyntheticCase, options: dict[str, Any], queries: list[int]) -> dict[str, float | int]:
    """By how much AP and rank differ from the literal loop's on `queries`, in float64."""
    exact = dataclasses.replace(
        case, detections=_exact(case.detections), queries=case.queries.astype(np.float64), context=_exact(case.context)
    )
    options = options | ({"context": exact.context} if "context" in options else {})
    ranks = rank_queries(exact.protocol, exact.detections, exact.queries, **options)
    expected = literal_runs(exact, LiteralSearch(exact.protocol, exact.detections), options, queries)
    aps, first = np.array([ap for ap, _ in expected]), np.array([rank for _, rank in expected])
    return {
        "average_precision": float(np.abs(ranks.average_precisions[queries] - aps).max()),
        "queries_with_another_rank": int(np.count_nonzero(ranks.first_ranks[queries] != first)),
    }


def _exact(people: DetectionSet) -> DetectionSet:
    return dataclasses.replace(people, embeddings=people.embeddings.astype(np.float64))


def _case_report(name: str, repeats: int, sampled: int) -> dict[str, Any]:
    case = synthetic_case(CASES[name])
    spread = np.linspace(0, len(case.queries) - 1, sampled * repeats).astype(int).reshape(sampled, repeats).T.tolist()
    runs = {}
    for run, options in search_options(case).items():
        runs[run] = taken = measure(case, options, spread)
        line = f"{name:10} {run:20} {taken['median_seconds']:6.2f} s, {taken['median_cpu_seconds']:.2f} s of the CPU"
        if sampled:
            taken["difference"] = greatest_difference(case, options, [query for queries in spread for query in queries])
            line += (
                f"; {taken['times_as_fast']:.0f} times as fast as the literal loop, by CPU time "
                f"{taken['cpu_times_as_fast']:.0f}; AP differs by {taken['difference']['average_precision']:.0e}"
            )
        out.print(line, soft_wrap=True)
    return {
        "case": {
            **asdict(CASES[name]),
            "boxes": len(case.protocol.gt_boxes),
            "detections": len(case.detections.scores),
            "detections_searched": int((case.detections.scores >= 0.5).sum()),
            "embedding_size": EMBEDDING_SIZE,
            "context_people": len(case.context.scores),
        },
        "detection_seconds": _time_detection(case, repeats),
        "searches": runs,
    }


def _time_detection(case: SyntheticCase, repeats: int) -> list[float]:
    runs = [_taken(lambda: evaluate_detection(case.protocol, case.detections)) for _ in range(repeats)]
    return [round(seconds, 3) for seconds, _ in runs]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Rounds, after one to warm up.")
@click.option(
    "--literal",
    "sampled",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Queries of each round that the literal loop searches for, 0 for none.",
)
@click.option("--case", "names", type=click.Choice(list(CASES)), multiple=True, help="Of these only  [default: all].")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(repeats: int, sampled: int, names: tuple[str, ...], json_path: Path | None) -> None:
    """Time search on synthetic cases of the size of PRW and CUHK-SYSU, in turns with a literal loop."""
    if sampled:
        require("sklearn", feature="the literal loop", extra="dev")
    load = [_load_average()]
    cases = {name: _case_report(name, repeats, sampled) for name in names or CASES}
    load.append(_load_average())
    if json_path is not None:
        report = {
            "command": shlex.join(["python", "-m", "psarm.benchmarks.evaluation_speed", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
            "machine": asdict(describe_machine()),
            "packages": package_versions(),
            "threads": default_threads(),  # of the matrix products; all else runs on one
            "repeats": repeats,
            "literal_queries": repeats * sampled,
            # Before and after; the script itself makes up to the number of threads.
            "load_average": load,
            "cases": cases,
        }
        write_json(json_path, report)


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    script.run(main)
