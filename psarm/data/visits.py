"""Reader of `visits`, the format that `psarm data convert` writes: labelled footage, split by visit.

::

    ROOT/annotations.json   COCO's layout:
        info          psarm_version, the sources' names and the settings they were converted with
        categories    [{id: 1, name: "person"}]
        images        [{id, file_name, width, height, camera, source, frame, time, split}]
        annotations   [{id, image_id, category_id: 1, bbox: [x, y, w, h], area, iscrowd: 0, identity, visit}]
    ROOT/queries.json       [{image_id, file_name, bbox, identity, visit}]
    ROOT/images/            the pictures; `file_name` is a path in this folder

Of an image, `source` is the video or folder it comes from, `frame` its number there, `time` seconds or null, and
`split` "train" or "gallery". Boxes lie inside their picture. An identity is any whole number from 0 up, -1 for a person
without one; a visit (one continuous presence of a person before one camera) is a number from 0 up that is unique in the
data set, -1 where the identity is -1.

A query is a person on their first visit; it may lie in a training frame. It is searched in all gallery frames except
those that show its own visit, so that nearly the same picture is never a hit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.data.json_file import as_box, as_number, as_whole, json_kind, read_json, read_json_object
from psarm.data.types import UNLABELLED, Frame, PersonSearchDataset, Query
from psarm.errors import DataError

NAME = "visits"
ANNOTATIONS = "annotations.json"
QUERIES = "queries.json"
IMAGES = "images"
SPLITS = ("train", "gallery")
PERSON = 1
"""`category_id` of every annotation."""
CBGM = (30, 4)
"""k1 and k2 of context matching: as on PRW, the other data set made of a few cameras' video."""
_FAR = 1e9  # pixels; no picture is that large


@dataclass(frozen=True)
class ImageRecord:
    """An entry of `images`."""

    id: int
    file_name: str
    path: Path
    width: int
    height: int
    camera: int
    source: str
    frame: int
    time: float | None
    split: str


@dataclass(frozen=True, eq=False)
class BoxRecord:
    """An entry of `annotations`, or of `queries.json`."""

    image: ImageRecord
    box: NDArray[np.float32]  # [4] xyxy, not compared with the picture's size
    identity: int
    visit: int


@dataclass(frozen=True)
class Problem:
    """What is wrong with one entry of a file."""

    path: Path
    message: str
    """A sentence that begins with the entry: `images[3]: …`."""


@dataclass(frozen=True, eq=False)
class VisitsRecords:
    """Every entry of a data set that can be used, and what is wrong with the others."""

    images: list[ImageRecord]
    boxes: dict[int, list[BoxRecord]]
    """Image id → the people in it."""
    queries: list[BoxRecord]
    problems: list[Problem]

    def split(self, name: str) -> list[ImageRecord]:
        """The images of a split, in the file's order."""
        return [image for image in self.images if image.split == name]

    def frames(self, split: str) -> list[Frame]:
        """The images of a split with their people, as readers hand them out."""
        return [_frame(image, self.boxes[image.id]) for image in self.split(split)]

    def galleries(self) -> list[NDArray[np.int64]]:
        """For every query, the indices among the gallery's images of those that do not show the query's own visit.

        Queries that leave out the same images, such as none, share one array. Otherwise it is 8 bytes an image and
        query: 2 GB for 5,000 queries whose first visits all reach into a gallery of 50,000 images.
        """
        images = self.split("gallery")
        shown = defaultdict(list)
        for index, image in enumerate(images):
            for person in self.boxes[image.id]:
                shown[person.identity, person.visit].append(index)
        everything = np.arange(len(images))
        left_out = [tuple(shown.get((query.identity, query.visit), ())) for query in self.queries]
        lists = {indices: np.delete(everything, indices) for indices in set(left_out)}
        return [lists[indices] for indices in left_out]


def read_visits(root: str | Path) -> PersonSearchDataset:
    """Read the data set under `root`; images are not opened, only checked for presence.

    Raises:
        DataError: `root` is not such a data set, or a file in it is missing or malformed; the sentence names the file,
            the entry and what was expected.
    """
    root = Path(root)
    records = read_records(root)
    if records.problems:
        first, *more = records.problems
        rest = f" ({len(more)} more problems: psarm data check {root})" if more else ""
        raise DataError(f"{first.path}: {first.message}{rest}")
    queries = [
        Query(query.image.file_name, query.image.path, query.image.camera, query.box, query.identity)
        for query in records.queries
    ]
    return PersonSearchDataset(
        name=NAME,
        root=root,
        train=records.frames("train"),
        gallery=records.frames("gallery"),
        queries=queries,
        galleries={NAME: records.galleries()},
        default_gallery=NAME,
        cbgm=CBGM,
    )


def looks_like_visits(root: Path) -> bool:
    """Whether a directory holds the files of this format."""
    return (root / IMAGES).is_dir() and all((root / name).is_file() for name in (ANNOTATIONS, QUERIES))


def check_layout(root: Path) -> None:
    """Raise `DataError` unless `root` holds the folder and files of this format."""
    if not root.is_dir():
        raise DataError(f"{root} is not a directory; pass a folder that `psarm data convert` wrote.")
    missing = [name for name in (ANNOTATIONS, QUERIES) if not (root / name).is_file()]
    missing += [] if (root / IMAGES).is_dir() else [f"{IMAGES}/"]
    if missing:
        raise DataError(
            f"{root} is not a converted data set: {', '.join(missing)} not found in it; "
            "pass a folder that `psarm data convert` wrote."
        )


def read_records(root: str | Path) -> VisitsRecords:
    """All entries under `root`; those that cannot be used are left out and named in `problems`.

    Raises:
        DataError: a file or a whole list is missing or no JSON, so that there are no entries to look at.
    """
    root = Path(root)
    check_layout(root)
    path = root / ANNOTATIONS
    content = read_json_object(path, "an object with the arrays images and annotations")
    queries = read_json(root / QUERIES, "an array of queries")
    entries = _Entries(root)
    entries.add_all(path, "images", content.get("images"), entries.add_image)
    entries.add_all(path, "annotations", content.get("annotations"), entries.add_annotation)
    entries.add_all(root / QUERIES, "queries", queries, entries.add_query)
    return VisitsRecords(list(entries.images.values()), entries.boxes, entries.queries, entries.problems)


class _Entries:
    """Takes the entries one by one: images first, then annotations, then queries."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: dict[int, ImageRecord] = {}
        self.boxes: dict[int, list[BoxRecord]] = {}
        self.queries: list[BoxRecord] = []
        self.problems: list[Problem] = []
        self._paths: set[Path] = set()

    def add_all(self, path: Path, what: str, entries: Any, add: Callable[[dict[str, Any]], None]) -> None:
        """Hand every entry to `add`; those it refuses become problems of the file."""
        if not isinstance(entries, list):
            raise DataError(f"{path}: {what} is {json_kind(entries)}; expected an array.")
        for index, entry in enumerate(entries):
            try:
                if not isinstance(entry, dict):
                    raise DataError(f"expected an object, got {json_kind(entry)}.")
                add(entry)
            except DataError as error:
                self.problems.append(Problem(path, f"{what}[{index}]: {error}"))

    def add_image(self, entry: dict[str, Any]) -> None:
        """Raises `DataError` for an image that cannot be used."""
        image = _parse_image(entry, self.root)
        if image.id in self.images:
            raise DataError(f"the id {image.id} is taken by another image.")
        if image.path in self._paths:
            raise DataError(f"the file_name {image.file_name!r} is listed more than once.")
        if not image.path.is_file():
            raise DataError(f"the image {image.path} is missing.")
        self.images[image.id] = image
        self.boxes[image.id] = []
        self._paths.add(image.path)

    def add_annotation(self, entry: dict[str, Any]) -> None:
        """Raises `DataError` for a person that cannot be used."""
        category = entry.get("category_id")
        if category != PERSON:
            raise DataError(f"category_id is {category!r}; expected {PERSON}, a person.")
        identity, visit = _whole(entry, "identity", UNLABELLED), _whole(entry, "visit", UNLABELLED)
        if (identity == UNLABELLED) != (visit == UNLABELLED):
            raise DataError(f"identity is {identity} and visit {visit}; expected both -1 (no identity) or neither.")
        image = self._image_of(entry)
        there = self.boxes[image.id]
        if identity != UNLABELLED and any(identity == other.identity for other in there):
            raise DataError(f"identity {identity} is in {image.file_name} already; expected nobody twice in a picture.")
        there.append(BoxRecord(image, _box(entry), identity, visit))

    def add_query(self, entry: dict[str, Any]) -> None:
        """Raises `DataError` for a query that cannot be used."""
        image = self._image_of(entry)
        if entry.get("file_name") != image.file_name:
            raise DataError(f"file_name is {entry.get('file_name')!r}, but image_id {image.id} is {image.file_name!r}.")
        query = BoxRecord(image, _box(entry), _whole(entry, "identity", 0), _whole(entry, "visit", 0))
        if all((query.identity, query.visit) != (person.identity, person.visit) for person in self.boxes[image.id]):
            raise DataError(
                f"identity {query.identity} on visit {query.visit} is not annotated in {image.file_name}; "
                "expected a query to be a person of its image."
            )
        self.queries.append(query)

    def _image_of(self, entry: dict[str, Any]) -> ImageRecord:
        number = _whole(entry, "image_id", None)
        if number not in self.images:
            raise DataError(f"image_id is {number}; expected the id of an image that can be used.")
        return self.images[number]


def _parse_image(entry: dict[str, Any], root: Path) -> ImageRecord:
    name = entry.get("file_name")
    if not isinstance(name, str) or not is_inside(name):
        raise DataError(f"file_name is {name!r}; expected the path of a file in {IMAGES}/.")
    split = entry.get("split")
    if split not in SPLITS:
        raise DataError(f"split is {split!r}; expected one of {', '.join(SPLITS)}.")
    time, source = entry.get("time"), entry.get("source")
    if time is not None and as_number(time) is None:
        raise DataError(f"time is {time!r}; expected seconds or null.")
    if not isinstance(source, str):
        raise DataError(f"source is {source!r}; expected the name of the video or folder the image comes from.")
    return ImageRecord(
        id=_whole(entry, "id", None),
        file_name=name,
        path=root / IMAGES / name,
        width=_whole(entry, "width", 1),
        height=_whole(entry, "height", 1),
        camera=_whole(entry, "camera", None),
        source=source,
        frame=_whole(entry, "frame", None),
        time=as_number(time),
        split=split,
    )


def _frame(image: ImageRecord, people: Sequence[BoxRecord]) -> Frame:
    boxes = np.stack([person.box for person in people]) if people else np.zeros((0, 4), np.float32)
    return Frame(image.file_name, image.path, image.camera, boxes, np.array([p.identity for p in people], np.int64))


def _box(entry: dict[str, Any]) -> NDArray[np.float32]:
    box = as_box(entry.get("bbox"))
    if box is not None and max(map(abs, box)) < _FAR:
        x, y, w, h = box
        corners = np.array([x, y, x + w, y + h], np.float32)
        if (corners[2:] > corners[:2]).all():
            return corners
    raise DataError(f"bbox is {entry.get('bbox')!r}; expected pixels [x, y, w, h] with w and h above 0.")


def _whole(entry: dict[str, Any], key: str, least: int | None) -> int:
    """A whole number of an entry, `least` or more."""
    number = as_whole(entry.get(key))
    if number is None or isinstance(entry[key], str) or (least is not None and number < least):
        needed = "a whole number" if least is None else f"a whole number from {least} up"
        raise DataError(f"{key} is {entry.get(key)!r}; expected {needed}.")
    return number


def is_inside(name: str) -> bool:
    """Whether `name` is a relative path that stays in the folder it is taken in."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and "\0" not in name
