"""Labelled pictures as COCO json with an identity attribute → sources, one a camera.

An attribute is looked up in the entry itself, then in its `attributes` object (where CVAT's export has them). Numbers
may be written as text.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from psarm.data.convert.pictures import PictureFile, PictureFiles
from psarm.data.convert.sources import Box, ConvertSettings, Sighting, Source, visits_by_absence, visits_of_tracks
from psarm.data.json_file import as_box, as_whole, json_kind, read_json_object
from psarm.data.types import UNLABELLED
from psarm.data.visits import is_inside
from psarm.errors import DataError

CROWD, OTHER_CATEGORY = "iscrowd", "category other than people"
_FRAME_ATTRIBUTES = ("frame_id", "frame")
_PEOPLE = ("person", "people", "pedestrian")
_MISSING = object()


@dataclass(frozen=True)
class CocoLabels:
    """What to convert."""

    labels: Path
    images: Path
    """The folder that `file_name` is a path in."""
    id_attribute: str
    """Of an annotation: a whole number from 0 up, the same for a person everywhere; -1 or null for nobody known."""
    visit_attribute: str | None = None
    """Of an annotation: the same during a visit, another on the next; None: `ConvertSettings.visit_gap`."""
    camera_attribute: str | None = None
    """Of an image: the camera's number; None: there is one camera."""
    category: str | None = None
    """Name of the people's category; None: person, people or pedestrian, or the only one there is."""


@dataclass(frozen=True)
class _Image:
    id: int
    file_name: str
    size: tuple[int, int] | None
    camera: int
    frame: int | None


@dataclass(frozen=True)
class _Person:
    box: Box
    identity: int
    visit: Hashable


def coco_sources(data: CocoLabels, settings: ConvertSettings) -> list[Source]:
    """Sources of the cameras in a COCO file; labels are read, pictures are not.

    A camera's pictures are in order of their attribute `frame_id` or `frame`, without one in order of their names (with
    numbers in them as numbers). Absence is counted in these pictures.

    Raises:
        DataError: the file is malformed or lacks an attribute; the sentence names the entry and what was expected.
    """
    content = read_json_object(data.labels, "a COCO file with the lists images and annotations")
    try:
        images = _read_images(data, _entries(content, "images"))
        people, dropped = _read_people(data, content, images)
    except DataError as error:
        raise DataError(f"{data.labels}: {error}") from None
    cameras: dict[int, list[_Image]] = defaultdict(list)
    for image in images.values():
        cameras[image.camera].append(image)
    sources = [_source(data, camera, cameras[camera], people, settings) for camera in sorted(cameras)]
    # What was left out is not told by camera.
    return [replace(source, dropped=dropped if source is sources[0] else {}) for source in sources]


def _entries(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{key} is {json_kind(entries)}; expected an array.")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{key}[{index}] is {json_kind(entry)}; expected an object.")
    if not entries:
        raise DataError(f"{key} is empty; there is nothing to convert.")
    return entries


def _read_images(data: CocoLabels, entries: list[dict[str, Any]]) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    names: set[str] = set()
    for index, entry in enumerate(entries):
        where = f"images[{index}]"
        number, name = as_whole(entry.get("id")), entry.get("file_name")
        if number is None or number in images:
            raise DataError(f"{where}: the id is {entry.get('id')!r}; expected a whole number that no other image has.")
        if not isinstance(name, str) or not is_inside(name):
            raise DataError(f"{where}: file_name is {name!r}; expected the path of a file in {data.images}.")
        name = PurePosixPath(name).as_posix()  # ./f1.jpg is f1.jpg
        if name in names:
            raise DataError(f"{where}: the file_name {name!r} is listed more than once.")
        if not (data.images / name).is_file():
            raise DataError(f"{where}: the image {data.images / name} is missing; give its folder with --images.")
        names.add(name)
        width, height = as_whole(entry.get("width")), as_whole(entry.get("height"))
        images[number] = _Image(
            id=number,
            file_name=name,
            size=(width, height) if width and height else None,
            camera=1 if data.camera_attribute is None else _whole_attribute(entry, data.camera_attribute, where),
            frame=_frame_number(entry, where),
        )
    return images


def _read_people(
    data: CocoLabels, content: dict[str, Any], images: dict[int, _Image]
) -> tuple[dict[int, list[_Person]], dict[str, int]]:
    """Image id → people, and why annotations were left out → how many."""
    categories = _people_categories(data, content.get("categories"))
    people: dict[int, list[_Person]] = defaultdict(list)
    dropped: Counter[str] = Counter()
    for index, entry in enumerate(_entries(content, "annotations")):
        where = f"annotations[{index}]"
        image = as_whole(entry.get("image_id"))
        if image is None or image not in images:
            raise DataError(f"{where}: image_id is {entry.get('image_id')!r}; expected the id of one of the images.")
        if categories is not None and as_whole(entry.get("category_id")) not in categories:
            dropped[OTHER_CATEGORY] += 1
        elif _is_crowd(entry, where):
            dropped[CROWD] += 1
        else:
            person = _read_person(data, entry, where)
            there = people[image]
            if person.identity != UNLABELLED and any(person.identity == other.identity for other in there):
                name = images[image].file_name
                raise DataError(f"{where}: person {person.identity} is in {name} already; a person is there once.")
            there.append(person)
    return people, dict(dropped)


def _read_person(data: CocoLabels, entry: dict[str, Any], where: str) -> _Person:
    box = as_box(entry.get("bbox"))
    if box is None:
        raise DataError(f"{where}: bbox is {entry.get('bbox')!r}; expected four numbers [x, y, w, h].")
    x, y, w, h = box
    value = _attribute(entry, data.id_attribute, where)
    identity = UNLABELLED if value is None else as_whole(value)
    if identity is None or identity < UNLABELLED:
        raise DataError(
            f"{where}: {data.id_attribute} is {value!r}; expected a whole number from 0 up, "
            "or -1 or null for a person whom nobody knows."
        )
    visit: int | str | None = None
    if data.visit_attribute is not None and identity != UNLABELLED:
        visit = _visit_attribute(entry, data.visit_attribute, where)
    return _Person((x, y, x + w, y + h), identity, visit)


def _visit_attribute(entry: dict[str, Any], name: str, where: str) -> int | str:
    value = _attribute(entry, name, where)
    number = as_whole(value)
    if number is not None:
        return number
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {value!r}; expected a whole number or a text.")
    return value


def _is_crowd(entry: dict[str, Any], where: str) -> bool:
    value = entry.get(CROWD)
    if value is None or isinstance(value, bool):
        return bool(value)
    number = as_whole(value)
    if number not in (0, 1):
        raise DataError(f"{where}: {CROWD} is {value!r}; expected 0 or 1.")
    return number == 1


def _people_categories(data: CocoLabels, categories: Any) -> set[int | None] | None:
    """Ids of the people's categories; None where the file names no category at all."""
    if categories is None or categories == []:
        return None
    if not isinstance(categories, list) or not all(isinstance(category, dict) for category in categories):
        raise DataError(f"categories is {json_kind(categories)}; expected an array of objects.")
    wanted = _PEOPLE if data.category is None else (data.category.lower(),)
    for index, category in enumerate(categories):
        if as_whole(category.get("id")) is None:
            raise DataError(f"categories[{index}]: the id is {category.get('id')!r}; expected a whole number.")
    ids = [(as_whole(category["id"]), str(category.get("name")).lower()) for category in categories]
    found = {number for number, name in ids if name in wanted}
    if not found and data.category is None and len(ids) == 1:
        found = {ids[0][0]}
    if not found:
        names = ", ".join(str(category.get("name")) for category in categories)
        raise DataError(f"no category is named {' or '.join(wanted)}; give the people's with --category: {names}.")
    return found


def _source(
    data: CocoLabels, camera: int, images: list[_Image], people: dict[int, list[_Person]], settings: ConvertSettings
) -> Source:
    ordered = list(enumerate(_in_order(data.labels, camera, images), start=1))
    rows = [(position, person) for position, image in ordered for person in people.get(image.id, [])]
    if settings.visit_gap is None:
        visits = visits_of_tracks([(person.identity, person.visit) for _, person in rows])
    else:
        positions = [position for position, _ in rows]
        visits = visits_by_absence([person.identity for _, person in rows], positions, settings.visit_gap)
    files = [
        PictureFile(
            path=data.images / image.file_name,
            number=position if image.frame is None else image.frame,
            file_name=image.file_name,
            size=image.size,
        )
        for position, image in ordered
    ]
    return Source(
        name=data.images.resolve().name,
        camera=camera,
        pictures=PictureFiles(files, settings.link),
        sightings=[
            Sighting(position, person.box, person.identity, UNLABELLED if person.identity == UNLABELLED else visit)
            for (position, person), visit in zip(rows, visits, strict=True)
        ],
        labels=data.labels,
    )


def _in_order(path: Path, camera: int, images: list[_Image]) -> list[_Image]:
    """A camera's images in order of time."""
    numbered = [image for image in images if image.frame is not None]
    if not numbered:
        return sorted(images, key=lambda image: _natural(image.file_name))
    if len(numbered) < len(images):
        bare = next(image for image in images if image.frame is None)
        raise DataError(
            f"{path}: {bare.file_name} has no frame_id or frame, and other images have; expected all or none to."
        )
    ordered = sorted(numbered, key=lambda image: image.frame or 0)
    for before, after in pairwise(ordered):
        if before.frame == after.frame:
            raise DataError(
                f"{path}: {before.file_name} and {after.file_name} are both frame {after.frame} of camera {camera}; "
                "name the attribute that tells cameras apart with --camera-attribute."
            )
    return ordered


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that takes runs of digits as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts]


def _frame_number(entry: dict[str, Any], where: str) -> int | None:
    for name in _FRAME_ATTRIBUTES:
        if _find(entry, name) is not _MISSING:
            return _whole_attribute(entry, name, where)
    return None


def _whole_attribute(entry: dict[str, Any], name: str, where: str) -> int:
    value = _attribute(entry, name, where)
    number = as_whole(value)
    if number is None:
        raise DataError(f"{where}: {name} is {value!r}; expected a whole number.")
    return number


def _attribute(entry: dict[str, Any], name: str, where: str) -> Any:
    value = _find(entry, name)
    if value is _MISSING:
        inner = entry.get("attributes")
        known = [*entry, *(f"attributes: {key}" for key in (inner if isinstance(inner, dict) else ()))]
        raise DataError(f"{where} has no attribute {name!r}; it has {', '.join(known)}.")
    return value


def _find(entry: dict[str, Any], name: str) -> Any:
    inner = entry.get("attributes")
    return entry.get(name, inner.get(name, _MISSING) if isinstance(inner, dict) else _MISSING)
