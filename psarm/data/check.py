"""Check a PRW data set file by file: what is broken is named, and nothing broken stops the check.

Errors are what would stop training or make figures wrong; warnings are what a person should know. A box that begins or
ends outside its image is clipped by readers and is ordinary in PRW, so it is a warning while at least half of it is
inside.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.console import track
from psarm.data import prw
from psarm.data.images import read_whole_image
from psarm.data.statistics import Statistics, describe
from psarm.data.types import UNLABELLED, Frame, Query
from psarm.errors import DataError

# Pixels a box may reach outside without a word: annotation tools round.
_SLACK = 1.0


@dataclass(frozen=True)
class Finding:
    """Something wrong with one file."""

    file: str
    """Path relative to the data set's root."""
    message: str


@dataclass(frozen=True, eq=False)
class CheckReport:
    """All findings, and statistics over what could be read."""

    root: Path
    statistics: Statistics
    errors: list[Finding]
    warnings: list[Finding]
    train: list[Frame]
    gallery: list[Frame]

    def to_dict(self) -> dict[str, Any]:
        """Statistics and findings as JSON values."""
        return {
            "root": str(self.root),
            **self.statistics.to_dict(),
            "errors": [asdict(finding) for finding in self.errors],
            "warnings": [asdict(finding) for finding in self.warnings],
        }


@dataclass(eq=False)
class _FrameCheck:
    """What became of one frame; `frame` is None when its name, image or annotation cannot be read."""

    name: str
    frame: Frame | None = None
    size: tuple[int, int] | None = None  # width, height
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)


def check_prw(root: str | Path) -> CheckReport:
    """Read every list, image, annotation and query of the PRW data set under `root`.

    Raises:
        DataError: `root` has no frames/ or no annotations/, so it is not a PRW data set; what is missing is named.
    """
    root = Path(root)
    if not all((root / folder).is_dir() for folder in (prw.FRAMES, prw.ANNOTATIONS)):
        prw.check_layout(root)
    errors: list[Finding] = []
    warnings: list[Finding] = []
    lists = {split: _read_list(root, split, errors) for split in prw.FRAME_LISTS}
    listed = {name for names in lists.values() for name in names or ()}
    images = prw.image_names(root)
    annotated = {path.name.removesuffix(".mat") for path in (root / prw.ANNOTATIONS).glob("*.mat")}
    extra = sorted({name for name in images | annotated if name.endswith(".jpg")} - listed)
    checked = {}
    for result in _check_frames(root, images, sorted(listed) + extra):
        checked[result.name] = result
        errors += result.errors
        warnings += result.warnings
    if None not in lists.values():
        warnings += _list_warnings(lists, extra, images)
    train, gallery = (
        [frame for name in names or () if (frame := checked[name].frame) is not None] for names in lists.values()
    )
    queries = _check_queries(root, images, checked, errors, warnings)
    warnings += _identity_warnings(root, train, gallery)
    sizes = Counter(result.size for result in checked.values() if result.size is not None)
    return CheckReport(root, describe(train, gallery, queries, sizes), errors, warnings, train, gallery)


def _read_list(root: Path, split: str, errors: list[Finding]) -> list[str] | None:
    try:
        return prw.read_frame_list(root, split)
    except DataError as error:
        errors.append(_finding(root, root / prw.FRAME_LISTS[split][0], error))
        return None


def _check_frames(root: Path, images: set[str], names: Sequence[str]) -> Iterator[_FrameCheck]:
    # Decoding dominates and OpenCV releases the interpreter while it decodes.
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        results = threads.map(partial(_check_frame, root, images), names)
        yield from track(results, "checking frames", total=len(names))
    finally:
        threads.shutdown(cancel_futures=True)


def _check_frame(root: Path, images: set[str], name: str) -> _FrameCheck:
    result = _FrameCheck(name)
    image = root / prw.FRAMES / name
    annotation = prw.annotation_path(root, name)
    try:
        camera = prw.camera_of(name)
    except DataError as error:
        result.errors.append(_finding(root, image if name in images else annotation, error))
        return result
    if name not in images:
        result.errors.append(_finding(root, image, "the image is missing."))
    else:
        try:
            height, width = read_whole_image(image).shape[:2]
            result.size = width, height
        except DataError as error:
            result.errors.append(_finding(root, image, error))
    try:
        boxes, identities = prw.read_annotation(annotation)
    except DataError as error:
        result.errors.append(_finding(root, annotation, error))
        return result
    for broken, message in _box_problems(boxes, identities, result.size):
        (result.errors if broken else result.warnings).append(_finding(root, annotation, message))
    read = prw.annotated_boxes(boxes)
    keep = prw.has_area(read)
    result.frame = Frame(name, image, camera, read[keep], identities[keep])
    return result


def _box_problems(
    boxes: NDArray[np.float64], identities: NDArray[np.int64], size: tuple[int, int] | None
) -> Iterator[tuple[bool, str]]:
    """Whether it is an error, and a sentence, for each problem of one annotation; `boxes` are x, y, w, h."""
    kept = prw.has_area(prw.annotated_boxes(boxes))
    for row, (x, y, w, h) in enumerate(boxes):
        problem = box_problem(np.array([x, y, x + w, y + h]), size)
        if problem is None and not kept[row]:
            problem = True, f"the box x {x:g}, y {y:g}, w {w:g}, h {h:g} has no area in whole pixels."
        if problem is not None:
            yield problem[0], f"row {row}: {problem[1]}"
    for identity, count in Counter(identities[identities != UNLABELLED].tolist()).items():
        if count > 1:
            yield True, f"identity {identity} appears {count} times in this frame."


def box_problem(box: NDArray[np.float64], size: tuple[int, int] | None) -> tuple[bool, str] | None:
    """What is wrong with a box.

    Args:
        box: float64 [4] xyxy, not clipped.
        size: width and height of the image; None when it cannot be read.

    Returns:
        Whether it is an error (else a warning), and a sentence; None when the box is fine.
    """
    text = f"the box x {box[0]:g}, y {box[1]:g}, w {box[2] - box[0]:g}, h {box[3] - box[1]:g}"
    if not np.isfinite(box).all():
        return True, f"{text} is not finite."
    sides = box[2:] - box[:2]
    if (sides <= 0).any():
        return True, f"{text} has no area."
    limit = np.array(size if size is not None else (np.inf, np.inf))
    inside = np.maximum(np.minimum(box[2:], limit) - np.maximum(box[:2], 0), 0)
    where = "the image" if size is None else f"the {size[0]}x{size[1]} image"
    if np.prod(inside) < 0.5 * np.prod(sides):
        return True, f"{text} lies {'mostly' if inside.all() else 'wholly'} outside {where}."
    reach = max(float(np.max(-box[:2])), float(np.max(box[2:] - limit)))
    if reach > _SLACK:
        return False, f"{text} reaches {reach:.3g} pixels outside {where}."
    return None


def _list_warnings(lists: dict[str, list[str] | None], extra: list[str], images: set[str]) -> list[Finding]:
    (train_file, _), (test_file, _) = prw.FRAME_LISTS.values()
    found = []
    for name in extra:
        file = f"{prw.FRAMES}/{name}" if name in images else f"{prw.ANNOTATIONS}/{name}.mat"
        found.append(Finding(file, f"the frame is listed neither in {train_file} nor in {test_file}."))
    for name in sorted(set(lists["train"] or ()) & set(lists["test"] or ())):
        found.append(Finding(test_file, f"{name} is listed for training too; a test frame should be new to the model."))
    return found


def _identity_warnings(root: Path, train: list[Frame], gallery: list[Frame]) -> list[Finding]:
    known = {int(i) for frame in train for i in frame.identities} - {UNLABELLED}
    tested = {int(i) for frame in gallery for i in frame.identities} - {UNLABELLED}
    shared = sorted(known & tested)
    if not shared:
        return []
    named = ", ".join(str(identity) for identity in shared[:10]) + (" …" if len(shared) > 10 else "")
    message = f"in training and test frames alike: {len(shared)} identities ({named}); test people should be unseen."
    return [_finding(root, root / prw.FRAME_LISTS["test"][0], message)]


def _check_queries(
    root: Path,
    images: set[str],
    checked: dict[str, _FrameCheck],
    errors: list[Finding],
    warnings: list[Finding],
) -> list[Query]:
    path = root / prw.QUERIES
    try:
        lines = prw.query_lines(root)
    except DataError as error:
        errors.append(_finding(root, path, error))
        return []
    queries = []
    for number, line in lines:
        try:
            identity, box, name = prw.parse_query(line)
            if name not in images:
                raise DataError(f"the frame {prw.FRAMES}/{name} is missing.")
        except DataError as error:
            errors.append(_finding(root, path, f"line {number}: {error}"))
            continue
        problem = box_problem(box, checked[name].size)
        if problem is not None:
            (errors if problem[0] else warnings).append(_finding(root, path, f"line {number}: {problem[1]}"))
        frame = checked[name].frame
        if frame is not None and identity not in frame.identities:
            message = f"line {number}: identity {identity} is not annotated in its frame {name}."
            warnings.append(_finding(root, path, message))
        queries.append(Query(name, root / prw.FRAMES / name, prw.camera_of(name), prw.query_box(box), identity))
    return queries


def _finding(root: Path, path: Path, problem: DataError | str) -> Finding:
    # The file is named beside the message; the reader's errors name it once more.
    message = str(problem).replace(f"{path}: ", "").replace(f"{path} ", "the file ")
    return Finding(path.relative_to(root).as_posix(), message)
