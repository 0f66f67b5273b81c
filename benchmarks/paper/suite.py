"""Run the paper's suite: measure what earlier runs left, and write the report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from typing import Any

from psarm.benchmarks.facts import gather_facts
from psarm.benchmarks.paper.contender import Contender, read_contenders
from psarm.benchmarks.paper.examples import make_examples
from psarm.benchmarks.paper.identity import dataset_digest
from psarm.benchmarks.paper.measure import find_people
from psarm.benchmarks.paper.published import matching_row, not_comparable, published_rows
from psarm.benchmarks.paper.report import Gallery, PaperReport, Result
from psarm.benchmarks.paper.scores import galleries, gallery_frames, group, hits, score
from psarm.benchmarks.paper.settings import PaperSettings
from psarm.benchmarks.paper.work import Key, WorkFolder
from psarm.benchmarks.timing import Timing, spread, time_engines
from psarm.console import err
from psarm.data.readers import read_dataset
from psarm.data.types import PersonSearchDataset
from psarm.errors import PsarmError
from psarm.evaluation import QueryHits, SearchProtocol
from psarm.extras import require
from psarm.files import write_json, write_text
from psarm.machine import describe_machine, package_versions

SCHEMA = 1
"""Of the results in work/: raise it when they come to mean something else."""


def run_paper_suite(settings: PaperSettings) -> PaperReport:
    """Measure every checkpoint, write OUT/report.html and OUT/report.json, and give back what is in them.

    What OUT/work holds of earlier runs is not measured again; a run that was killed goes on where it stopped.

    Raises:
        UsageError: OUT holds something else, or two checkpoints have the same name.
        DataError, ImageError: the data set cannot be read.
        CheckpointError: a checkpoint cannot be loaded.
        MissingExtraError: torch or matplotlib is not installed.
    """
    require("torch", "torchvision", "safetensors", "yaml", "matplotlib", feature="--suite paper", extra="paper")
    from psarm.benchmarks.paper.page import paper_page

    WorkFolder.check(settings.out)
    dataset = read_dataset(settings.dataset, settings.data_root)
    protocol = SearchProtocol.from_dataset(dataset)
    digest = dataset_digest(dataset)
    contenders = read_contenders(settings.checkpoints)
    work = WorkFolder(settings.out, settings.fresh)
    try:
        report = _measure(settings, dataset, protocol, digest, contenders, work)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("What was measured is kept; run the same command again to go on.") from None
    write_json(settings.out / "report.json", report.to_dict())
    write_text(settings.out / "report.html", paper_page(report))
    err.print(f"{work.kept} results of earlier runs were kept, {work.measured} were measured now.")
    return report


def _measure(
    settings: PaperSettings,
    dataset: PersonSearchDataset,
    protocol: SearchProtocol,
    digest: str,
    contenders: Sequence[Contender],
    work: WorkFolder,
) -> PaperReport:
    versions = package_versions()
    common = {"schema": SCHEMA, "psarm": versions["psarm"], "torch": versions["torch"], "dataset": digest}
    threads = settings.threads or describe_machine().threads
    scored = [_score(contender, dataset, protocol, work, common, threads) for contender in contenders]
    speed = _speed(contenders, dataset, settings, work, common, threads)
    rows = published_rows(settings.dataset)
    results = [
        Result(contender, metrics, timing, matching_row(contender.model, rows))
        for contender, (metrics, _), timing in zip(contenders, scored, speed["timings"], strict=True)
    ]
    return PaperReport(
        settings=settings,
        facts=speed["facts"],
        device=speed["device"],
        results=results,
        galleries=_galleries(protocol),
        published=rows,
        warning=not_comparable(dataset),
        examples=make_examples(dataset, [found for _, found in scored], settings.examples, settings.seed),
    )


def _score(
    contender: Contender,
    dataset: PersonSearchDataset,
    protocol: SearchProtocol,
    work: WorkFolder,
    common: Key,
    threads: int,
) -> tuple[dict[str, dict[str, float]], QueryHits]:
    """Metrics and best hits of one checkpoint; it runs only where one of them is not there yet."""
    key = {**common, "checkpoint": contender.sha256}
    keys = [{**key, "step": "scores"}, {**key, "step": "hits"}]
    if all(work.has(one) for one in keys):
        err.print(f"{contender.name}: accuracy was measured before and is kept.", markup=False)
    found = cache(partial(find_people, contender, dataset, work, key, threads))
    metrics = work.values(keys[0], lambda: score(protocol, found()))
    return metrics, QueryHits(**work.arrays(keys[1], lambda: hits(protocol, found())))


def _speed(
    contenders: Sequence[Contender],
    dataset: PersonSearchDataset,
    settings: PaperSettings,
    work: WorkFolder,
    common: Key,
    threads: int,
) -> dict[str, Any]:
    """`facts`, `device`, and the `timings` of all checkpoints, interleaved: all are timed again beside a new one."""
    machine = describe_machine()
    key = {
        **common,
        "step": "speed",
        "checkpoints": [contender.sha256 for contender in contenders],
        "machine": [machine.system, machine.cpu, machine.cores, *machine.gpus],
        "threads": threads,
        "frames": settings.frames,
    }
    if work.has(key):
        err.print("Speed was measured here before and is kept.")
    result: dict[str, Any] = work.values(key, partial(_time, contenders, dataset, settings.frames, threads))
    return result


def _time(contenders: Sequence[Contender], dataset: PersonSearchDataset, frames: int, threads: int) -> dict[str, Any]:
    from psarm.benchmarks.torch_engine import load_engine

    timed = spread([frame.path for frame in dataset.gallery], frames)
    facts = gather_facts(dataset, threads, timed)
    with ExitStack() as cleanup:
        engines = []
        for contender in contenders:
            engines.append(load_engine(contender.path, threads))
            cleanup.callback(engines[-1].close)
        timings = []
        for contender, timing in zip(contenders, time_engines(engines, timed), strict=True):
            if not isinstance(timing, Timing):
                raise PsarmError(f"{contender.name} could not be timed: {timing}") from timing
            timings.append(timing.to_dict())
        return {"facts": asdict(facts), "device": engines[0].device, "timings": timings}


def _galleries(protocol: SearchProtocol) -> list[Gallery]:
    """All galleries by size; none where there is but one to search in."""
    names = galleries(protocol)
    if len(names) < 3:  # the listed one and the full one of other data sets are not a series of sizes
        return []
    found = [Gallery(name, gallery_frames(protocol, name), group(protocol, name, cbgm=False)) for name in names]
    return sorted(found, key=lambda gallery: gallery.frames)
