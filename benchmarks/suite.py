"""Run a benchmark: open every engine, measure accuracy one by one, then time them interleaved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from psarm.benchmarks.baselines import UNTRAINED, histogram_row, untrained_row
from psarm.benchmarks.engines import SearchEngine, load_frames
from psarm.benchmarks.facts import gather_facts
from psarm.benchmarks.report import PYTORCH, BenchReport, Row
from psarm.benchmarks.settings import BenchSettings
from psarm.benchmarks.timing import Timing, spread, time_engines
from psarm.data.readers import read_dataset
from psarm.data.types import PersonSearchDataset
from psarm.errors import DataError, ImageError, PsarmError
from psarm.evaluation import (
    DetectionsFile,
    SearchProtocol,
    evaluate_search,
    ground_truth_detections,
    score_detections,
    write_detections,
)
from psarm.evaluation.collect import collect_detections, embed_ground_truth
from psarm.extras import require
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.backends import BACKENDS, runnable


def run_benchmark(settings: BenchSettings) -> BenchReport:
    """Measure what `settings` ask for. A backend that does not run becomes a row that says why.

    Raises:
        UsageError: a setting cannot be meant: an unknown backend, data set or gallery, or other cameras where there is
            only one.
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
    timed = spread([frame.path for frame in dataset.gallery], settings.frames)
    facts = gather_facts(dataset, settings.threads, timed)
    with ExitStack() as cleanup:
        cleanup.enter_context(_opencv_threads(facts.threads))
        contenders = _open_torch(settings, facts.threads, cleanup) + _open_bundle(settings, facts.threads, cleanup)
        _measure_accuracy(contenders, settings, dataset, protocol)
        _measure_speed(contenders, timed)
        rows = [contender.row for contender in contenders]
        if settings.baselines:
            rows += _baselines(contenders, settings, dataset, protocol, facts.threads)
    if settings.save_detections is not None:
        _save(contenders, settings.save_detections)
    return BenchReport(settings, facts, rows)


@dataclass
class _Contender:
    """A row in the making."""

    row: Row
    engine: SearchEngine | None
    found: DetectionsFile | None = None

    @property
    def title(self) -> str:
        return f"{self.row.name} {self.row.precision}"


def _open_torch(settings: BenchSettings, threads: int, cleanup: ExitStack) -> list[_Contender]:
    if settings.checkpoint is None:
        return []
    require("torch", "torchvision", "safetensors", feature="A benchmark with --checkpoint", extra="train")
    from psarm.benchmarks.torch_engine import load_engine

    engine = load_engine(settings.checkpoint, threads)
    cleanup.callback(engine.close)
    if settings.bundle is not None:
        engine.check_exported_as(Bundle.open(settings.bundle))
    size = settings.checkpoint.stat().st_size
    return [_Contender(Row(PYTORCH, engine.precision, engine.device, size, requested=True), engine)]


def _open_bundle(settings: BenchSettings, threads: int, cleanup: ExitStack) -> list[_Contender]:
    if settings.bundle is None:
        return []
    bundle = Bundle.open(settings.bundle)
    contenders = []
    requested = bool(settings.backends or settings.precisions)
    for backend, precision in _choices(settings, bundle):
        try:
            engine = PersonSearch(bundle, backend, precision, threads)
        except PsarmError as error:
            contenders.append(_Contender(Row(backend, precision, failure=str(error), requested=requested), None))
            continue
        cleanup.callback(engine.close)
        size = bundle.graph_bytes(engine.precision)
        row = Row(engine.backend, engine.precision, engine.device, size, requested=requested)
        contenders.append(_Contender(row, engine))
    return contenders


def _choices(settings: BenchSettings, bundle: Bundle) -> list[tuple[str, str]]:
    """Backend and precision of every row: what was asked for by name, whether it runs or not, else all that run."""
    wanted = dict.fromkeys(settings.precisions)
    if settings.backends:
        return [
            (backend, precision)
            for backend in dict.fromkeys(settings.backends)
            for precision in wanted or (runnable(bundle, backend) if backend in BACKENDS else ()) or ("auto",)
        ]
    running = [(backend, precision) for backend in BACKENDS for precision in runnable(bundle, backend)]
    found = [choice for choice in running if not wanted or choice[1] in wanted]
    return found + [("auto", precision) for precision in wanted if precision not in {one for _, one in found}]


def _measure_accuracy(
    contenders: list[_Contender], settings: BenchSettings, dataset: PersonSearchDataset, protocol: SearchProtocol
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


def _measure_speed(contenders: list[_Contender], paths: list[Path]) -> None:
    running = [(c.row, c.engine) for c in contenders if c.engine is not None and c.row.ok]
    results = time_engines([engine for _, engine in running], paths)
    for (row, _), result in zip(running, results, strict=True):
        if isinstance(result, Timing):
            row.timing = result
        else:
            row.failure = str(result)


def _baselines(
    contenders: list[_Contender],
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


def _save(contenders: list[_Contender], path: Path) -> None:
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
