"""Every precision of a fresh bundle beside fp32: on some frames, and on a data set where one is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psarm.data.readers import read_dataset
from psarm.data.types import PersonSearchDataset
from psarm.evaluation.collect import collect_detections
from psarm.evaluation.scoring import score_detections
from psarm.export.precision.answers import (
    Answers,
    Frame,
    Way,
    find_ways,
    open_engine,
    people_threshold,
    run_people,
    run_tensors,
    runnable,
)
from psarm.export.precision.calibration import Calibration, spread
from psarm.export.precision.drift import Drift, compare
from psarm.export.precision.settings import PrecisionSettings
from psarm.export.tracing import TracedGraph
from psarm.export.verify_inputs import make_frame
from psarm.runtime.bundle import Bundle
from psarm.runtime.engine import PersonSearch
from psarm.runtime.images import read_image
from psarm.runtime.manifest import Preprocessing

SEED = 20230104
MADE_UP = ((0.9, 0.9), (1.1, 0.7), (0.5, 0.95), (0.8, 0.8))
"""Frames for bundles that come without pictures: sides as shares of the model's."""

Accuracy = dict[str, dict[str, float]]
"""As `score_detections` gives it: fractions."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class PrecisionReport:
    """What one precision costs in one runtime."""

    precision: str
    title: str
    """With the runtime, for people: `int8 on OpenVINO`."""
    device: str
    """What that ran on, for people: `CPU, 2 threads, the rest in bf16`."""
    drift: Drift | None
    """Against fp32; None of fp32 itself."""
    accuracy: Accuracy | None
    """On the data set; None where none was given."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "precision": self.precision,
            "title": self.title,
            "device": self.device,
            "drift": None if self.drift is None else self.drift.to_dict(),
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class MeasuringData:
    """What precisions are measured on."""

    dataset: PersonSearchDataset | None
    pictures: tuple[Path, ...]
    """Files to take frames from; none: frames are made up."""
    source: str
    """What the frames are, for people: `16 test frames of DIR`."""

    @classmethod
    def read(cls, settings: PrecisionSettings, calibration: Calibration | None) -> MeasuringData:
        """Raises `DataError` for a data set that cannot be used."""
        count = settings.frames_to_compare
        if settings.data_root is not None:
            dataset = read_dataset(settings.dataset, settings.data_root)
            pictures = spread([frame.path for frame in dataset.gallery], count)
            return cls(dataset, pictures, _count(len(pictures), f"of {settings.data_root}"))
        if calibration is None:
            return cls(None, (), _count(min(count, len(MADE_UP)), "made up"))
        return cls(None, calibration.compared, calibration.compared_source)

    def frames(self, rule: Preprocessing, count: int) -> list[Frame]:
        """Real frames, else `count` textures of sizes that the model takes; raises `ImageError`."""
        if self.pictures:
            return [read_image(path) for path in self.pictures]
        rng = np.random.default_rng(SEED)
        return [make_frame(int(a * rule.min_size), int(b * rule.max_size), rng) for a, b in MADE_UP[:count]]


def measure_precisions(
    directory: Path,
    graphs: Sequence[TracedGraph],
    settings: PrecisionSettings,
    data: MeasuringData,
    say: Say = lambda message: None,
) -> list[PrecisionReport]:
    """fp32 and every other precision of the bundle in `directory`, made of the traced `graphs`.

    Raises `ExportError` where a precision's answers are no numbers.
    """
    bundle = Bundle.open(directory)
    ways, left_out = find_ways(settings.precisions)
    frames: list[Frame] = []
    if settings.reduced:
        frames = data.frames(bundle.manifest.preprocessing, settings.frames_to_compare)
        say(f"comparing {', '.join(settings.reduced)} with fp32 on {data.source}…")
    if left_out is not None:
        say(f"int8 is measured on ONNX Runtime only, not as {left_out.name} runs it: {left_out.detail}")
    exact: _Exact | None = None
    reports = []
    for number, way in enumerate(ways, start=1):
        with runnable(bundle, way.precision, graphs) as form, open_engine(form, way) as engine:
            drift = accuracy = None
            if exact is not None:
                drift = compare(way.precision, exact.answers, exact.asked_of(form, way, engine, frames))
            elif frames:
                exact = _Exact.find(form, way, engine, frames)
            if data.dataset is not None:
                accuracy = _accuracy(engine, data.dataset, f"measuring {way.title} ({number} of {len(ways)})", say)
            rounding = ", rounded to half after every operator" if way.precision == "fp16" else ""
            reports.append(PrecisionReport(way.precision, way.title, engine.device + rounding, drift, accuracy))
    return reports


def find_loss(reports: Sequence[PrecisionReport], ratio: float) -> str | None:
    """A sentence where precisions keep less than this share of fp32's mAP, the first of the reports."""
    exact, *others = ((report, report.accuracy["search"]["mAP"]) for report in reports if report.accuracy is not None)
    wanted = exact[1]
    if not wanted > 0:
        return "fp32 itself has a mAP of 0 on this data set, so that --min-map-ratio has nothing to compare."
    lost = [
        f"{report.title} has {100 * found:.2f}, {found / wanted:.4f} of it"
        for report, found in others
        if found < ratio * wanted
    ]
    if not lost:
        return None
    return (
        f"--min-map-ratio {ratio:g} does not hold: fp32 has a mAP of {100 * wanted:.2f}, {', '.join(lost)}; "
        "nothing was written."
    )


@dataclass(frozen=True)
class _Exact:
    """What fp32 says, and above which score."""

    answers: Answers
    threshold: float

    @classmethod
    def find(cls, bundle: Bundle, way: Way, engine: PersonSearch, frames: Sequence[Frame]) -> _Exact:
        tensors = run_tensors(bundle, way, frames)
        threshold = people_threshold(tensors, bundle.manifest.thresholds.score)
        return cls(Answers(tensors, *run_people(engine, frames, threshold, way.title)), threshold)

    def asked_of(self, bundle: Bundle, way: Way, engine: PersonSearch, frames: Sequence[Frame]) -> Answers:
        """What another precision says to the same questions."""
        boxes = [found.boxes for found in self.answers.people]
        people = run_people(engine, frames, self.threshold, way.title, boxes)
        return Answers(run_tensors(bundle, way, frames), *people)


def _accuracy(engine: PersonSearch, dataset: PersonSearchDataset, what: str, say: Say) -> Accuracy:
    """On the whole data set, whose size and time are said before."""
    frame = read_image(dataset.gallery[0].path)
    engine.detect(frame)  # the first takes longer
    start = time.perf_counter()
    engine.detect(frame)
    passes = len(dataset.gallery) + len(dataset.queries)
    duration = _duration((time.perf_counter() - start) * passes)
    say(f"{what} on {len(dataset.gallery)} frames and around {len(dataset.queries)} queries, about {duration}…")
    found = collect_detections(engine, dataset, lambda paths: map(read_image, paths), cbgm=True, title=what)
    return score_detections(dataset, found)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _count(frames: int, what: str) -> str:
    return f"{frames} frame{'s' if frames != 1 else ''} {what}"
