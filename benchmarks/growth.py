"""How the cost of an image grows with its people, its size and the batch: measured, and predicted beside it.

The prediction takes one point as measured and adds what the work of the others takes longer on the machine's roofline,
at the share of it that the graphs reached at that one point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from psarm.benchmarks.contenders import Contender
from psarm.benchmarks.engines import SearchEngine
from psarm.benchmarks.growth_curves import GrowthCurve, GrowthPoint
from psarm.benchmarks.growth_gallery import gallery_curve
from psarm.benchmarks.memory import free_memory, peak_memory
from psarm.benchmarks.roofline import RooflineModel
from psarm.benchmarks.settings import BenchSettings
from psarm.benchmarks.timing import Case, Timing, detect, spread, time_cases
from psarm.benchmarks.workloads import Workload, size_name
from psarm.console import err
from psarm.errors import PsarmError
from psarm.runtime import Bundle, PersonSearch, read_image
from psarm.runtime.manifest import Preprocessing

PEOPLE = (0, 5, 20, 50, 100, 200, 300)
SIZES = ((854, 480), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160))
BATCHES = (1, 2, 4, 8, 16, 32)
GALLERIES = (10**3, 10**4, 10**5, 10**6, 10**7)
FRAMES = 5
"""Timed at every point, at most."""


@dataclass(frozen=True)
class _Place:
    """One point of a curve, before it is measured."""

    x: float
    label: str
    workload: Workload
    rule: Preprocessing | None = None
    """How to resize frames, where not as the bundle does."""


@dataclass(frozen=True)
class _Series:
    """The places of one curve."""

    kind: str
    suffix: str
    explanation: str
    places: list[_Place]
    base: int
    """The place that the prediction takes as measured."""


def measure_growth(
    settings: BenchSettings,
    contenders: Sequence[Contender],
    paths: Sequence[Path],
    threads: int,
    model: RooflineModel | None,
) -> list[GrowthCurve]:
    """The curves that `settings` ask for, of every contender (all of the bundle); no predictions without `model`.

    Raises `ImageError`. What cannot be measured is a point that says why.
    """
    assert settings.bundle is not None
    bundle = Bundle.open(settings.bundle)
    frames = spread(paths, min(FRAMES, settings.frames))
    curves: list[GrowthCurve] = []
    for kind in dict.fromkeys(settings.growth):
        if kind == "gallery":
            curves.append(gallery_curve(bundle.manifest.embedding.size, threads, GALLERIES))
            continue
        for series in _series(kind, bundle):
            err.print(f"growth: {kind}{series.suffix}…")
            points = _measure(series, bundle, contenders, frames, threads)
            curves += [
                _curve(series, contender, [row[number] for row in points], model)
                for number, contender in enumerate(contenders)
            ]
    return curves


def _series(kind: str, bundle: Bundle) -> list[_Series]:
    if kind == "people":
        places = [_Place(count, str(count), Workload(people=count)) for count in PEOPLE]
        why = "every person adds the same multiply-adds in the re-id head"
        return [_Series(kind, "", why, places, PEOPLE.index(20))]
    if kind == "batch":
        places = [_Place(batch, str(batch), Workload(batch)) for batch in BATCHES]
        why = "the work of an image stays the same; only the weights' bytes are shared by a batch"
        return [_Series(kind, "", why, places, 0)]
    resized = [_Place(w * h, str(size_name((w, h))), Workload(size=(w, h))) for w, h in SIZES]
    rule = bundle.manifest.preprocessing
    full = [
        dataclasses.replace(
            place, rule=dataclasses.replace(rule, min_size=min(place.workload.size), max_size=max(place.workload.size))
        )
        for place in resized
        if place.workload.size is not None
    ]
    base = SIZES.index((1920, 1080))
    limits = f"{rule.min_size} and {rule.max_size}"
    return [
        _Series(kind, ", resized", f"the bundle resizes every frame to sides of {limits}", resized, base),
        _Series(kind, ", full size", "the backbone's work grows with the pixels, the heads' does not", full, base),
    ]


Result = Timing | PsarmError


def _measure(
    series: _Series, bundle: Bundle, contenders: Sequence[Contender], paths: Sequence[Path], threads: int
) -> list[list[Result]]:
    """For every place the result of every contender."""
    engines = [contender.engine for contender in contenders if contender.engine is not None]
    if any(place.rule for place in series.places):  # an engine for every size: they cannot take turns
        held, reason = len(series.places), ""
        rows: list[list[Result]] = []
        for number, place in enumerate(series.places):
            if reason := _obstacle(series, number):
                held = number
                break
            rows.append(_measure_resized(place, bundle, contenders, paths, threads))
    else:
        held, reason = _try(series, engines, paths)
        flat = time_cases([Case(engine, place.workload) for place in series.places[:held] for engine in engines], paths)
        rows = [flat[start : start + len(engines)] for start in range(0, len(flat), len(engines))]
    return rows + [[PsarmError(reason)] * len(engines) for _ in series.places[held:]]


def _try(series: _Series, engines: Sequence[SearchEngine], paths: Sequence[Path]) -> tuple[int, str]:
    """One call of every place, smallest first: how many fit into memory, and why no more."""
    image = read_image(paths[0])
    for number, place in enumerate(series.places):
        if reason := _obstacle(series, number):
            return number, reason
        for engine in engines:
            with suppress(PsarmError), place.workload.imposed_on(engine):  # timing meets the error again and keeps it
                detect(engine, place.workload.frames([image]))
    return len(series.places), ""


def _obstacle(series: _Series, number: int) -> str:
    """Why a place is too large after the one before it; people take next to nothing."""
    if number == 0 or series.kind == "people":
        return ""
    return too_large(series.places[number].x / series.places[number - 1].x, peak_memory(), free_memory())


def too_large(times: float, peak: int | None, free: int | None) -> str:
    """Why a step that makes everything `times` as large is not tried; empty where memory holds it or is not known.

    `peak`: bytes the steps so far took at most; `free`: bytes left.
    """
    if peak is None or free is None or (times - 1) * peak <= free:
        return ""
    return (
        f"not measured: the steps so far took up to {peak / 2**30:.1f} GiB, and {times:.2g} times as much may not fit "
        f"into the {free / 2**30:.1f} GiB left."
    )


def _measure_resized(
    place: _Place, bundle: Bundle, contenders: Sequence[Contender], paths: Sequence[Path], threads: int
) -> list[Result]:
    """With engines of their own, that resize frames as the place says."""
    assert place.rule is not None
    changed = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, preprocessing=place.rule))
    results: dict[int, Result] = {}
    cases: dict[int, Case] = {}
    with ExitStack() as cleanup:
        for number, contender in enumerate(contenders):
            try:
                engine = PersonSearch(changed, contender.row.name, contender.row.precision, threads)
            except PsarmError as error:
                results[number] = error
                continue
            cleanup.callback(engine.close)
            cases[number] = Case(engine, place.workload)
        results |= dict(zip(cases, time_cases(list(cases.values()), paths), strict=True))
    return [results[number] for number in range(len(contenders))]


def _curve(series: _Series, contender: Contender, results: list[Result], model: RooflineModel | None) -> GrowthCurve:
    row = contender.row
    predict: Callable[[_Place, Timing], float | None] = _no_prediction
    explanation = "no prediction: no roofline was measured"
    if model is not None:
        try:
            predict = _predictor(series, contender, results, model)
            explanation = series.explanation
        except PsarmError as error:
            explanation = f"no prediction: {error}"
    points = []
    for place, result in zip(series.places, results, strict=True):
        if not isinstance(result, Timing):
            points.append(GrowthPoint(place.x, place.label, failure=str(result)))
            continue
        predicted = None
        try:
            predicted = predict(place, result)
        except PsarmError as error:  # what was measured is worth keeping
            explanation += f"; none at {place.label}: {str(error).rstrip('.')}"
        points.append(GrowthPoint(place.x, place.label, result.total_ms, predicted))
    return GrowthCurve(series.kind, f"{row.name} {row.precision}{series.suffix}", explanation, points)


def _no_prediction(place: _Place, timing: Timing) -> float | None:
    return None


def _predictor(
    series: _Series, contender: Contender, results: list[Result], model: RooflineModel
) -> Callable[[_Place, Timing], float | None]:
    """Milliseconds of a place by its work; raises `PsarmError` where no point was measured that it could start from."""
    row = contender.row
    ceiling = model.ceiling(row.name, row.precision, row.device)

    def floor(place: _Place, people: float) -> float:
        return model.floor_ms(ceiling, row.precision, place.workload, people, place.rule)

    order = [series.base, *range(len(results))]
    for number in order:
        timing, place = results[number], series.places[number]
        if isinstance(timing, Timing) and timing.network_ms is not None:
            at_base, factor = floor(place, timing.people), timing.network_ms / floor(place, timing.people)
            total = timing.total_ms
            return lambda where, found: total + factor * (floor(where, found.people) - at_base)
    raise PsarmError("no point was measured to start from.")
