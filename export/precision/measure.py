"""Every precision of a fresh bundle beside fp32: on a few frames, and on a data set where one is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psarm.data.readers import read_dataset
from psarm.data.types import PersonSearchDataset
from psarm.errors import ExportError
from psarm.evaluation.collect import collect_detections
from psarm.evaluation.scoring import score_detections
from psarm.export.precision.answers import (
    Answers,
    Frame,
    open_engine,
    people_threshold,
    run_people,
    run_tensors,
    runnable,
)
from psarm.export.precision.calibration import Calibration
from psarm.export.precision.drift import Drift, compare
from psarm.export.precision.settings import PrecisionSettings
from psarm.export.tracing import TracedGraph
from psarm.export.verify_inputs import make_frame
from psarm.runtime.bundle import Bundle
from psarm.runtime.images import read_image
from psarm.runtime.manifest import Preprocessing

FRAMES = 4
"""Frames that people and tensors are compared on."""
SEED = 20230104

Accuracy = dict[str, dict[str, float]]
"""As `score_detections` gives it: fractions."""


@dataclass(frozen=True)
class PrecisionReport:
    """What one precision costs."""

    precision: str
    drift: Drift | None
    """Against fp32; None of fp32 itself."""
    accuracy: Accuracy | None
    """On the data set; None where none was given."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "precision": self.precision,
            "drift": None if self.drift is None else self.drift.to_dict(),
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class MeasuringData:
    """What precisions are measured on."""

    dataset: PersonSearchDataset | None
    pictures: tuple[Path, ...]
    """Files to take frames from; none: frames are made up."""

    @classmethod
    def read(cls, settings: PrecisionSettings, calibration: Calibration | None) -> MeasuringData:
        """Raises `DataError` for a data set that cannot be used."""
        if settings.data_root is not None:
            dataset = read_dataset(settings.dataset, settings.data_root)
            return cls(dataset, _spread([frame.path for frame in dataset.gallery]))
        return cls(None, () if calibration is None else _spread(calibration.frames))

    def frames(self, rule: Preprocessing) -> list[Frame]:
        """Real frames where there are some, else textures of the size that the model takes; raises `ImageError`."""
        if self.pictures:
            return [read_image(path) for path in self.pictures]
        rng = np.random.default_rng(SEED)
        shapes = [(0.9, 0.9), (1.1, 0.7), (0.5, 0.95), (0.8, 0.8)][:FRAMES]
        return [make_frame(int(a * rule.min_size), int(b * rule.max_size), rng) for a, b in shapes]


def measure_precisions(
    directory: Path,
    graphs: Sequence[TracedGraph],
    settings: PrecisionSettings,
    data: MeasuringData,
    say: Callable[[str], None] = lambda message: None,
) -> list[PrecisionReport]:
    """fp32 and every other precision of the bundle in `directory`, made of the traced `graphs`.

    Raises `ExportError` where a precision's answers are no numbers, or keep less of fp32's mAP than asked for.
    """
    bundle = Bundle.open(directory)
    reports = [PrecisionReport("fp32", None, _accuracy(bundle, "fp32", data.dataset))]
    if not settings.reduced:
        return reports
    frames = data.frames(bundle.manifest.preprocessing)
    say(f"comparing {', '.join(settings.reduced)} with fp32 on {len(frames)} frames…")
    tensors = run_tensors(bundle, "fp32", frames)
    threshold = people_threshold(tensors, bundle.manifest.thresholds.score)
    exact = Answers(tensors, *run_people(bundle, "fp32", frames, threshold))
    boxes = [found.boxes for found in exact.people]
    for precision in settings.reduced:
        with runnable(bundle, precision, graphs) as form:
            rough_tensors = run_tensors(form, precision, frames)
            rough = Answers(rough_tensors, *run_people(form, precision, frames, threshold, boxes))
            drift = compare(precision, exact, rough)
            reports.append(PrecisionReport(precision, drift, _accuracy(form, precision, data.dataset)))
        if settings.min_map_ratio is not None:
            _require_ratio(reports[0], reports[-1], settings.min_map_ratio)
    return reports


def _accuracy(bundle: Bundle, precision: str, dataset: PersonSearchDataset | None) -> Accuracy | None:
    if dataset is None:
        return None
    with open_engine(bundle, precision) as engine:
        found = collect_detections(
            engine, dataset, lambda paths: map(read_image, paths), cbgm=True, title=f"measuring {precision}"
        )
    return score_detections(dataset, found)


def _require_ratio(exact: PrecisionReport, report: PrecisionReport, ratio: float) -> None:
    if exact.accuracy is None or report.accuracy is None:
        raise ValueError("A ratio of mAP needs a data set.")
    wanted, found = (one["search"]["mAP"] for one in (exact.accuracy, report.accuracy))
    if not wanted > 0:
        raise ExportError(
            "fp32 itself has a mAP of 0 on this data set, so that --min-map-ratio has nothing to compare."
        )
    if found < ratio * wanted:
        figures = f"a mAP of {100 * found:.2f} where fp32 has {100 * wanted:.2f}"
        raise ExportError(
            f"{report.precision} has {figures}, {found / wanted:.4f} of it and less than --min-map-ratio {ratio:g}; "
            "nothing was written."
        )


def _spread(paths: Sequence[Path]) -> tuple[Path, ...]:
    """A few of them, evenly over all."""
    chosen = np.linspace(0, len(paths) - 1, min(FRAMES, len(paths))).round().astype(int)
    return tuple(paths[index] for index in chosen)
