"""Run the paper's suite: measure what earlier runs left, and write the report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from psarm.benchmarks.facts import gather_facts
from psarm.benchmarks.paper.conditions import Conditions, common_key
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
from psarm.machine import default_threads, describe_machine


def run_paper_suite(settings: PaperSettings) -> PaperReport:
    """Measure every checkpoint, write OUT/report.html and OUT/report.json, and give back what is in them.

    What OUT/work holds of earlier runs is not measured again; a run that was killed goes on where it stopped.

    Raises:
        UsageError: OUT holds something else or another run writes to it, or two checkpoints have the same name.
        DataError, ImageError: the data set cannot be read.
        CheckpointError: a checkpoint cannot be loaded, or is replaced while the suite runs.
        MissingExtraError: torch or matplotlib is not installed.
    """
    require("torch", "torchvision", "safetensors", "yaml", "matplotlib", feature="--suite paper", extra="paper")
    from psarm.benchmarks.paper.page import paper_page
    from psarm.benchmarks.torch_engine import device_name

    WorkFolder.check(settings.out, settings.fresh)
    dataset = read_dataset(settings.dataset, settings.data_root)
    protocol = SearchProtocol.from_dataset(dataset)
    common = common_key(dataset_digest(dataset), device_name())
    contenders = read_contenders(settings.checkpoints)
    with WorkFolder(settings.out, settings.fresh) as work:
        try:
            report = _measure(settings, dataset, protocol, common, contenders, work)
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
    common: Key,
    contenders: Sequence[Contender],
    work: WorkFolder,
) -> PaperReport:
    threads = settings.threads or default_threads()
    scored = [_score(contender, dataset, protocol, work, common, threads) for contender in contenders]
    speed = _speed(contenders, dataset, settings, work, common, threads)
    rows = published_rows(settings.dataset)
    results = [
        Result(
            contender, scores["metrics"], Conditions(**scores["measured"]), timing, matching_row(contender.model, rows)
        )
        for contender, (scores, _), timing in zip(contenders, scored, speed["timings"], strict=True)
    ]
    return PaperReport(
        settings=settings,
        facts=asdict(gather_facts(dataset, threads, _timed(dataset, settings.frames))),
        speed=Conditions(**speed["measured"]),
        results=results,
        galleries=_galleries(protocol),
        published=rows,
        warning=not_comparable(dataset.name, len(dataset.gallery), len(dataset.queries)),
        examples=make_examples(dataset, [found for _, found in scored], settings.examples, settings.seed),
    )


def _score(
    contender: Contender,
    dataset: PersonSearchDataset,
    protocol: SearchProtocol,
    work: WorkFolder,
    common: Key,
    threads: int,
) -> tuple[dict[str, Any], QueryHits]:
    """`metrics` and when they were `measured`, and best hits of one checkpoint; it runs only where one is missing."""
    key = {**common, "checkpoint": contender.sha256}
    keys = [{**key, "step": "scores"}, {**key, "step": "hits"}]
    if all(work.has(one) for one in keys):
        err.print(f"{contender.name}: accuracy was measured before and is kept.", markup=False)
    found = cache(partial(find_people, contender, dataset, work, key, threads))
    scores = work.values(
        keys[0],
        lambda: {"metrics": score(protocol, found()), "measured": asdict(Conditions.now(common["device"]))},
    )
    return scores, QueryHits(**work.arrays(keys[1], lambda: hits(protocol, found())))


def _speed(
    contenders: Sequence[Contender],
    dataset: PersonSearchDataset,
    settings: PaperSettings,
    work: WorkFolder,
    common: Key,
    threads: int,
) -> dict[str, Any]:
    """The `timings` of all checkpoints, interleaved (all are timed again beside a new one), and when `measured`."""
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
    with ExitStack() as cleanup:
        engines = []
        for contender in contenders:
            engines.append(contender.open(threads))
            cleanup.callback(engines[-1].close)
        timings = []
        for contender, timing in zip(contenders, time_engines(engines, _timed(dataset, frames)), strict=True):
            if not isinstance(timing, Timing):
                raise PsarmError(f"{contender.name} could not be timed: {timing}") from timing
            timings.append(timing.to_dict())
        return {"timings": timings, "measured": asdict(Conditions.now(engines[0].device))}


def _timed(dataset: PersonSearchDataset, frames: int) -> list[Path]:
    return spread([frame.path for frame in dataset.gallery], frames)


def _galleries(protocol: SearchProtocol) -> list[Gallery]:
    """All galleries by size; none where there is but one to search in."""
    names = galleries(protocol)
    if len(names) < 3:  # the listed one and the full one of other data sets are not a series of sizes
        return []
    found = [Gallery(name, gallery_frames(protocol, name), group(protocol, name, cbgm=False)) for name in names]
    return sorted(found, key=lambda gallery: gallery.frames)
