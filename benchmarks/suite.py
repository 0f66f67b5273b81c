"""Run a benchmark: open every engine, measure accuracy one by one, then time them interleaved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2

from psarm.benchmarks.baselines import UNTRAINED, histogram_row, untrained_row
from psarm.benchmarks.contenders import Contender, check_some_run, open_contenders
from psarm.benchmarks.engines import load_frames
from psarm.benchmarks.facts import gather_facts
from psarm.benchmarks.fresh_process import measure_in_fresh_process
from psarm.benchmarks.growth import measure_growth
from psarm.benchmarks.growth_curves import GrowthCurve
from psarm.benchmarks.report import PYTORCH, BenchReport, Row
from psarm.benchmarks.roofline import RooflineModel, reasons
from psarm.benchmarks.settings import BenchSettings
from psarm.benchmarks.timing import Case, Timing, spread, time_cases
from psarm.console import track
from psarm.data.readers import read_dataset
from psarm.data.types import PersonSearchDataset
from psarm.errors import DataError, ImageError, PsarmError
from psarm.evaluation import (
    SearchProtocol,
    evaluate_search,
    ground_truth_detections,
    score_detections,
    write_detections,
)
from psarm.evaluation.collect import collect_detections, embed_ground_truth
from psarm.runtime import Bundle, read_image


def run_benchmark(settings: BenchSettings) -> BenchReport:
    """Measure what `settings` ask for. A backend that does not run becomes a row that says why.

    Raises:
        UsageError: a setting cannot be meant: an unknown backend, data set or gallery, or other cameras where there is
            only one; or nothing of the backends and precisions that it names runs the bundle.
        DataError, ImageError: the data set cannot be read.
        BundleError, CheckpointError: the bundle or checkpoint cannot be opened, or they are not of the same weights.
        MissingExtraError: a checkpoint is given and torch is not installed.
    """
    dataset = read_dataset(settings.dataset, settings.data_root)
    protocol = SearchProtocol.from_dataset(dataset)
    for size in settings.gallery_sizes:
        protocol.check_gallery(size)
    if settings.cross_camera:
        protocol.check_cross_camera()
    check_some_run(settings)
    timed = spread([frame.path for frame in dataset.gallery], settings.frames)
    facts = gather_facts(dataset, settings.threads, timed)
    growth: list[GrowthCurve] = []
    notes: list[str] = []
    with ExitStack() as cleanup:
        cleanup.enter_context(_opencv_threads(facts.threads))
        contenders = open_contenders(settings, facts.threads, cleanup)
        _measure_accuracy(contenders, settings, dataset, protocol)
        measured = _measure_speed(contenders, settings, timed)
        if not settings.quick:
            notes += _measure_fresh(measured, settings, facts.threads, timed)
        model = None if settings.quick else _open_model(settings, facts.threads, timed, notes)
        if model is not None:
            notes += _measure_rooflines(measured, model)
        running = [(contender, row) for contender, row in measured if row.ok and not contender.is_torch]
        if settings.growth and settings.bundle is not None:
            engines = list({id(contender): contender for contender, _ in running}.values())
            growth = measure_growth(settings, engines, timed, facts.threads, model)
        rows = [row for _, row in measured]
        if settings.baselines:
            rows += _baselines(contenders, settings, dataset, protocol, facts.threads)
    if settings.save_detections is not None:
        _save(contenders, settings.save_detections)
    return BenchReport(settings, facts, rows, growth, notes)


def _measure_accuracy(
    contenders: list[Contender], settings: BenchSettings, dataset: PersonSearchDataset, protocol: SearchProtocol
) -> None:
    for contender in contenders:
        if contender.engine is None:
            continue
        try:
            found = collect_detections(contender.engine, dataset, load_frames, settings.cbgm, contender.title)
            contender.row.metrics = score_detections(protocol, found, gallery_sizes=settings.gallery_sizes)
            if settings.gt_boxes:
                embeddings = embed_ground_truth(contender.engine, dataset, load_frames, contender.title)
                truth = ground_truth_detections(protocol, embeddings)
                metrics = evaluate_search(protocol, truth, found.query_embeddings)
                contender.row.metrics["search_gt_boxes"] = metrics.to_dict()
        except (DataError, ImageError):  # the data's fault, not the engine's
            raise
        except PsarmError as error:
            contender.row.failure = str(error)
        else:
            contender.found = found


def _measure_speed(
    contenders: list[Contender], settings: BenchSettings, paths: list[Path]
) -> list[tuple[Contender, Row]]:
    """A row for every contender and workload; those of a contender that did not run say why."""
    measured = [
        (contender, dataclasses.replace(contender.row, workload=workload))
        for contender in contenders
        for workload in contender.workloads(settings)
    ]
    running = [(Case(c.engine, row.workload), row) for c, row in measured if c.engine is not None and row.ok]
    results = time_cases([case for case, _ in running], paths)
    for (_, row), result in zip(running, results, strict=True):
        if isinstance(result, Timing):
            row.timing = result
        else:
            row.failure = str(result)
    return measured


def _measure_fresh(
    measured: list[tuple[Contender, Row]], settings: BenchSettings, threads: int, paths: list[Path]
) -> list[str]:
    """Cold start and memory of every row that ran; why there are none of some."""
    failures = []
    running = [(contender, row) for contender, row in measured if row.ok]
    for contender, row in track(running, "cold start"):
        try:
            row.fresh = measure_in_fresh_process(contender.subject(settings, row, threads, paths))
        except PsarmError as error:
            failures.append((contender.title, str(error)))
    return [f"No cold start and memory of {note}" for note in reasons(failures)]


def _open_model(settings: BenchSettings, threads: int, paths: list[Path], notes: list[str]) -> RooflineModel | None:
    if settings.bundle is None:
        return None
    try:
        return RooflineModel(Bundle.open(settings.bundle), read_image(paths[0]), threads)
    except PsarmError as error:
        notes.append(f"No roofline: {error}")
        return None


def _measure_rooflines(measured: list[tuple[Contender, Row]], model: RooflineModel) -> list[str]:
    """The roofline of every row of the bundle; why there are none of some."""
    failures = []
    for contender, row in measured:
        if row.timing is None or contender.is_torch:
            continue
        try:
            row.roofline = model.of(row.name, row.precision, row.device, row.workload, row.timing)
        except PsarmError as error:
            failures.append((contender.title, str(error)))
    return [f"No roofline of {note}" for note in reasons(failures)]


def _baselines(
    contenders: list[Contender],
    settings: BenchSettings,
    dataset: PersonSearchDataset,
    protocol: SearchProtocol,
    threads: int,
) -> list[Row]:
    ran = [contender for contender in contenders if contender.found is not None]
    best = max(ran, key=lambda contender: contender.row.metric("search", "mAP") or 0.0, default=None)
    rows = []
    if best is not None and best.found is not None:
        rows.append(histogram_row(dataset, protocol, best.found, settings.gallery_sizes))
    if settings.checkpoint is None:
        rows.append(Row(UNTRAINED, failure="needs --checkpoint: a bundle does not hold the untrained architecture"))
    else:
        from psarm.model.checkpoint import read_checkpoint

        config = read_checkpoint(settings.checkpoint).config
        rows.append(untrained_row(dataset, protocol, config, threads, gallery_sizes=settings.gallery_sizes))
    return rows


def _save(contenders: list[Contender], path: Path) -> None:
    """Write what the bundle's first row found; without one, what PyTorch found."""
    ran = [c.found for c in sorted(contenders, key=lambda c: c.row.name == PYTORCH) if c.found is not None]
    if ran:
        write_detections(path, ran[0])


@contextmanager
def _opencv_threads(threads: int) -> Iterator[None]:
    """Let OpenCV resize with as many threads as the engines have."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
