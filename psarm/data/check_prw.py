"""Check a PRW data set file by file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psarm.data import prw
from psarm.data.check import (
    CheckReport,
    Findings,
    Sizes,
    box_problem,
    check_identities,
    check_images,
    check_matches,
    check_splits,
)
from psarm.data.statistics import describe, frames_with_person
from psarm.data.types import Frame, Query
from psarm.errors import DataError

_NAME = "prw"


def check_prw(root: str | Path) -> CheckReport:
    """Read every list, image, annotation and query of the PRW data set under `root`.

    Raises:
        DataError: `root` has no frames/ or no annotations/, so it is not a PRW data set; what is missing is named.
    """
    root = Path(root)
    if not all((root / folder).is_dir() for folder in (prw.FRAMES, prw.ANNOTATIONS)):
        prw.check_layout(root)
    findings = Findings(root)
    lists = {split: _read_list(findings, split) for split in prw.FRAME_LISTS}
    listed = {name for names in lists.values() for name in names or ()}
    images = prw.image_names(root)
    annotated = {path.name.removesuffix(".mat") for path in (root / prw.ANNOTATIONS).glob("*.mat")}
    extra = sorted({name for name in images | annotated if name.endswith(".jpg")} - listed)
    names = sorted(listed) + [name for name in extra if _has_camera(findings, name, images)]
    sizes = check_images(findings, root / prw.FRAMES, names, images)
    frames = {name: frame for name in names if (frame := _check_frame(findings, name, sizes)) is not None}
    if None not in lists.values():
        _check_lists(findings, lists, extra, images)
    train, gallery = ([frames[name] for name in split or () if name in frames] for split in lists.values())
    queries = _check_queries(findings, images, frames, sizes)
    check_splits(findings, root / prw.FRAME_LISTS["test"][0], train, gallery)
    showing = frames_with_person(gallery, queries)
    check_matches(findings, root / prw.QUERIES, queries, showing)
    statistics = describe(train, gallery, queries, showing, Counter(sizes.values()))
    return CheckReport(_NAME, root, statistics, findings.errors, findings.warnings, train, gallery)


def _read_list(findings: Findings, split: str) -> list[str] | None:
    try:
        return prw.read_frame_list(findings.root, split)
    except DataError as error:
        findings.error(findings.root / prw.FRAME_LISTS[split][0], error)
        return None


def _has_camera(findings: Findings, name: str, images: set[str]) -> bool:
    try:
        prw.camera_of(name)
    except DataError as error:
        image = findings.root / prw.FRAMES / name
        findings.error(image if name in images else prw.annotation_path(findings.root, name), error)
        return False
    return True


def _check_frame(findings: Findings, name: str, sizes: Sizes) -> Frame | None:
    """The frame as far as it can be used; None where its annotation cannot be read."""
    path = prw.annotation_path(findings.root, name)
    try:
        boxes, identities = prw.read_annotation(path)
    except DataError as error:
        findings.error(path, error)
        return None
    read = prw.annotated_boxes(boxes)
    keep = prw.has_area(read)
    _check_boxes(findings, path, boxes, keep, sizes.get(name))
    check_identities(findings, path, identities)
    image = findings.root / prw.FRAMES / name
    return Frame(name, image, prw.camera_of(name), read[keep], identities[keep])


@np.errstate(over="ignore", invalid="ignore")  # absurd boxes are findings, not warnings of numpy
def _check_boxes(
    findings: Findings, path: Path, boxes: NDArray[np.float64], keep: NDArray[np.bool_], size: tuple[int, int] | None
) -> None:
    for row, (x, y, w, h) in enumerate(boxes):
        problem = box_problem(np.array([x, y, x + w, y + h]), size)
        if problem is None and not keep[row]:
            problem = True, f"the box x {x:g}, y {y:g}, w {w:g}, h {h:g} has no area in whole pixels."
        if problem is not None:
            broken, message = problem
            (findings.error if broken else findings.warning)(path, f"row {row}: {message}")


def _check_lists(findings: Findings, lists: dict[str, list[str] | None], extra: list[str], images: set[str]) -> None:
    (train_file, _), (test_file, _) = prw.FRAME_LISTS.values()
    for name in extra:
        image = findings.root / prw.FRAMES / name
        path = image if name in images else prw.annotation_path(findings.root, name)
        findings.warning(path, f"the frame is listed neither in {train_file} nor in {test_file}.")
    for name in sorted(set(lists["train"] or ()) & set(lists["test"] or ())):
        message = f"{name} is listed for training too; a test frame should be new to the model."
        findings.warning(findings.root / test_file, message)


@np.errstate(over="ignore", invalid="ignore")
def _check_queries(findings: Findings, images: set[str], frames: dict[str, Frame], sizes: Sizes) -> list[Query]:
    path = findings.root / prw.QUERIES
    try:
        lines = prw.query_lines(findings.root)
    except DataError as error:
        findings.error(path, error)
        return []
    queries = []
    for number, line in lines:
        try:
            identity, box, name = prw.parse_query(line)
            if name not in images:
                raise DataError(f"the frame {prw.FRAMES}/{name} is missing.")
        except DataError as error:
            findings.error(path, f"line {number}: {error}")
            continue
        problem = box_problem(box, sizes.get(name))
        if problem is not None:
            (findings.error if problem[0] else findings.warning)(path, f"line {number}: {problem[1]}")
        if name in frames and identity not in frames[name].identities:
            findings.warning(path, f"line {number}: identity {identity} is not annotated in its frame {name}.")
        image = findings.root / prw.FRAMES / name
        queries.append(Query(name, image, prw.camera_of(name), prw.query_box(box), identity))
    return queries
