"""Check a CUHK-SYSU data set file by file.

Boxes without width or height, of which the original has some, are a warning: readers leave them out. So are listed
boxes that are not in Images.mat: they give nobody an identity, but are searched for as they are listed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from psarm.data import cuhk_sysu as cuhk
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
from psarm.data.cuhk_files import Images, read_images, read_pool, read_train
from psarm.data.cuhk_labels import annotated_boxes, has_area
from psarm.data.cuhk_protocol import Protocol, cut, read_protocol
from psarm.data.statistics import describe
from psarm.data.types import Frame, Query
from psarm.errors import DataError

T = TypeVar("T")

_NAME = "cuhk-sysu"


def check_cuhk_sysu(root: str | Path) -> CheckReport:
    """Read every annotation file and image of the CUHK-SYSU data set under `root`.

    Raises:
        DataError: `root` has no Image/SSM/ or no Images.mat, so it is not a CUHK-SYSU data set; what is missing is
            named.
    """
    root = Path(root)
    if not (root / cuhk.PICTURES).is_dir() or not (root / cuhk.IMAGES).is_file():
        cuhk.check_layout(root)
    findings = Findings(root)
    images = _read(findings, cuhk.IMAGES, read_images) or Images([], np.zeros(0, np.int64), np.zeros((0, 4)))
    pool = _read(findings, cuhk.POOL, read_pool) or []
    sizes = _check_pictures(findings, images)
    _check_boxes(findings, images, sizes)
    for name in sorted(set(pool) - set(images.names)) if images.names else ():
        findings.error(root / cuhk.POOL, f"{name} is not in Images.mat.")
    protocols = _read_protocols(findings, pool or images.names)
    frames = _frames(root, images, _check_lists(findings, images, pool, protocols))
    for frame in frames.values():
        check_identities(findings, root / cuhk.IMAGES, frame.identities, frame.name)
    in_pool = set(pool)
    train = [frame for name, frame in frames.items() if name not in in_pool]
    gallery = [frames[name] for name in pool if name in frames]
    check_splits(findings, root / cuhk.PROTOCOLS[cuhk.DEFAULT_GALLERY], train, gallery)
    for size, protocol in protocols.items():
        _check_galleries(findings, root / cuhk.PROTOCOLS[size], protocol, gallery, pool or images.names)
    default = protocols.get(cuhk.DEFAULT_GALLERY)
    queries = _queries(root, default) if default is not None else []
    showing = _showing(default, gallery) if default is not None else []
    check_matches(findings, root / cuhk.PROTOCOLS[cuhk.DEFAULT_GALLERY], queries, showing)
    return CheckReport(
        dataset=_NAME,
        root=root,
        statistics=describe(train, gallery, queries, showing, Counter(sizes.values())),
        errors=findings.errors,
        warnings=findings.warnings,
        train=train,
        gallery=gallery,
        galleries={size: protocol.galleries() for size, protocol in protocols.items() if pool},
    )


def _read(findings: Findings, file: str, read: Callable[[Path], T]) -> T | None:
    path = findings.root / file
    try:
        return read(path)
    except DataError as error:
        findings.error(path, error)
        return None


def _check_pictures(findings: Findings, images: Images) -> Sizes:
    folder = findings.root / cuhk.PICTURES
    present = cuhk.image_names(findings.root)
    extra = sorted({name for name in present if name.endswith(".jpg")} - set(images.names))
    for name in extra if images.names else ():
        findings.warning(folder / name, "the image is not in Images.mat.")
    return check_images(findings, folder, [*images.names, *extra], present)


def _check_boxes(findings: Findings, images: Images, sizes: Sizes) -> None:
    path = findings.root / cuhk.IMAGES
    keep = has_area(images.boxes)
    names = np.repeat(np.array(images.names, object), images.counts)
    for name, kept, (x, y, w, h) in zip(names, keep, images.boxes, strict=True):
        if not kept:
            message = f"the box x {x:g}, y {y:g}, w {w:g}, h {h:g} has no area in whole pixels; it is left out."
            findings.warning(path, f"{name}: {message}")
        elif (problem := box_problem(np.array([x, y, x + w, y + h]), sizes.get(name))) is not None:
            (findings.error if problem[0] else findings.warning)(path, f"{name}: {problem[1]}")


def _read_protocols(findings: Findings, pool: list[str]) -> dict[str, Protocol]:
    """The protocols that can be read; of the default one, it is said where it is missing."""
    protocols = {}
    for size, file in cuhk.PROTOCOLS.items():
        wanted = (findings.root / file).is_file() or size == cuhk.DEFAULT_GALLERY
        if wanted and pool and (protocol := _read(findings, file, lambda path: read_protocol(path, pool))) is not None:
            protocols[size] = protocol
    if (default := protocols.get(cuhk.DEFAULT_GALLERY)) is not None:
        for size, protocol in protocols.items():
            try:
                cuhk.check_queries(findings.root / cuhk.PROTOCOLS[size], protocol, default)
            except DataError as error:
                findings.error(findings.root / cuhk.PROTOCOLS[size], error)
    return protocols


def _check_lists(
    findings: Findings, images: Images, pool: list[str], protocols: dict[str, Protocol]
) -> NDArray[np.int64]:
    """The identity of every box in Images.mat; int64 [boxes]."""
    identities, doubts = cuhk.label(images, pool, _read(findings, cuhk.TRAIN, read_train), protocols)
    for doubt in doubts if images.names else ():
        findings.warning(findings.root / doubt.file, doubt.message)
    return identities


def _frames(root: Path, images: Images, identities: NDArray[np.int64]) -> dict[str, Frame]:
    boxes, keep = annotated_boxes(images.boxes), has_area(images.boxes)
    frames = {}
    for name, rows in zip(images.names, cut(np.arange(len(boxes)), images.counts), strict=True):
        rows = rows[keep[rows]]
        frames[name] = Frame(name, root / cuhk.PICTURES / name, cuhk.CAMERA, boxes[rows], identities[rows])
    return frames


def _queries(root: Path, protocol: Protocol) -> list[Query]:
    people = protocol.queries
    boxes = annotated_boxes(people.boxes)
    return [
        Query(name, root / cuhk.PICTURES / name, cuhk.CAMERA, box, identity)
        for name, box, identity in zip(people.images, boxes, people.identities.tolist(), strict=True)
    ]


def _showing(protocol: Protocol, gallery: list[Frame]) -> list[NDArray[np.int64]]:
    """Of every query, the frames in which its gallery says the person is, as far as they can be read."""
    place = {frame.name: index for index, frame in enumerate(gallery)}
    found = cut(np.array(protocol.found.images, object), protocol.found_counts)
    return [np.array(sorted({place[name] for name in names if name in place}), np.int64) for names in found]


def _check_galleries(findings: Findings, path: Path, protocol: Protocol, gallery: list[Frame], pool: list[str]) -> None:
    places: dict[int, set[str]] = defaultdict(set)
    for frame in gallery:
        for identity in frame.identities.tolist():
            places[identity].add(frame.name)
    found = cut(np.array(protocol.found.images, object), protocol.found_counts)
    for row, (members, seen) in enumerate(zip(protocol.galleries(), found, strict=True)):
        identity, own = int(protocol.queries.identities[row]), protocol.queries.images[row]
        names = {pool[i] for i in members.tolist()}
        if len(names) < len(members):
            findings.warning(path, f"query {row} (p{identity}): its gallery lists an image more than once.")
        if own in names:
            findings.warning(path, f"query {row} (p{identity}): its own image {own} is in its gallery.")
        if hidden := sorted((places[identity] & names) - set(seen) - {own}):
            message = f"the person is in {hidden[0]} too, but that image's entry in the gallery has no box."
            findings.warning(path, f"query {row} (p{identity}): {message}")
