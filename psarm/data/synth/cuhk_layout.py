"""CUHK-SYSU's files, nested as the official ones are, so that other readers take them too.

Images are numbered at random: s1.jpg and s2.jpg are neighbours in nothing. Only people in two images or more have an
identity there, as in the original, and each test identity is searched for once. A gallery lists the images with the
person first, then others at random. Its size is the protocol's, except where there is less or more to list: at most
all other images of the pool, at least all images with the person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psarm.data.cuhk_sysu import IMAGES, PICTURES, POOL, PROTOCOLS, TRAIN
from psarm.data.synth.cast import NO_IDENTITY
from psarm.data.synth.layout import Picture, QueryBox
from psarm.data.synth.plan import FramePlan
from psarm.data.synth.settings import Stream, SynthSettings
from psarm.data.synth.writer import cells, write_mat

_PEOPLE = "annotation/Person.mat"
_ALWAYS = ("50", "100")  # protocols written for the smallest pool too
_NOT_HARD = 0  # `ishard`: 1 in the original for people who are hard to recognise
_Place = tuple[str, tuple[float, ...] | None]
"""Name of an image, and the person's box x, y, w, h in it."""


class CuhkLayout:
    """The layout that `psarm.data.cuhk_sysu` reads."""

    query_per_camera = False

    def files(self, plans: list[FramePlan], settings: SynthSettings) -> list[str]:
        """`Image/SSM/s1.jpg`, numbered at random."""
        numbers = settings.rng(Stream.IMAGE_NUMBERS).permutation(len(plans)) + 1
        return [f"{PICTURES}/s{number}.jpg" for number in numbers]

    def write(self, root: Path, pictures: list[Picture], queries: list[QueryBox], settings: SynthSettings) -> None:
        """Write Images.mat, pool.mat, Person.mat, Train.mat and the protocols the pool is large enough for."""
        (root / TRAIN).parent.mkdir(parents=True)
        pictures = sorted(pictures, key=_number)
        write_mat(root / IMAGES, "Img", _images(pictures), compress=True)
        pool = [_name(picture) for picture in pictures if picture.plan.test]
        write_mat(root / POOL, "pool", cells(pool), compress=True)
        train = _people([picture for picture in pictures if not picture.plan.test])
        test = _people([picture for picture in pictures if picture.plan.test])
        write_mat(root / TRAIN, "Train", cells([_person(*item) for item in train.items()]), compress=True)
        everyone = [_person(pid, places) for pid, places in sorted((train | test).items())]
        write_mat(root / _PEOPLE, "Person", np.concatenate(everyone, axis=1), compress=True)
        for size, file in PROTOCOLS.items():
            if size in _ALWAYS or int(size) < len(pool):
                searches = [_search(query, test[query.pid], pool, int(size), settings) for query in queries]
                write_mat(root / file, Path(file).stem, _structs("Query", "Gallery", rows=searches), compress=True)


def _search(
    query: QueryBox, places: list[_Place], pool: list[str], size: int, settings: SynthSettings
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """One query and its gallery."""
    rng = settings.rng(Stream.GALLERY, query.pid, size)
    own = _name(query.picture)
    found = [place for place in places if place[0] != own]
    others = sorted(set(pool) - {name for name, _ in found} - {own})
    fill = rng.permutation(len(others))[: max(0, size - len(found))]
    gallery: list[_Place] = [found[i] for i in rng.permutation(len(found))]
    gallery += [(others[i], None) for i in fill]
    person = (own, _box(query.box), _NOT_HARD, f"p{query.pid}")
    return _structs("imname", "idlocate", "ishard", "idname", rows=[person]), _scenes(gallery)


def _people(pictures: list[Picture]) -> dict[int, list[_Place]]:
    """Identity, rising → where it is, for those in two pictures or more."""
    places: dict[int, list[_Place]] = defaultdict(list)
    for picture in pictures:
        for pid, *box in picture.rows:
            if pid != NO_IDENTITY:
                places[int(pid)].append((_name(picture), tuple(box)))
    return {pid: places[pid] for pid in sorted(places) if len(places[pid]) > 1}


def _person(pid: int, places: list[_Place]) -> NDArray[np.object_]:
    return _structs("idname", "nAppear", "scene", rows=[(f"p{pid}", len(places), _scenes(places))])


def _images(pictures: list[Picture]) -> NDArray[np.object_]:
    rows = []
    for picture in pictures:
        boxes = _structs("idlocate", "ishard", rows=[(_box(tuple(box)), _NOT_HARD) for _, *box in picture.rows])
        rows.append((_name(picture), len(picture.rows), boxes))
    return _structs("imname", "nAppear", "box", rows=rows)


def _scenes(places: list[_Place]) -> NDArray[np.object_]:
    return _structs("imname", "idlocate", "ishard", rows=[(name, _box(box), _NOT_HARD) for name, box in places])


def _structs(*fields: str, rows: Sequence[tuple[object, ...]]) -> NDArray[np.object_]:
    """A MATLAB struct array of one row."""
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for column, row in enumerate(rows):
        array[0, column] = row
    return array


def _box(box: tuple[float, ...] | None) -> NDArray[np.uint16]:
    """[1,4]; no box is [1,0], as readers that take the first row of everything need it."""
    return np.array([box if box is not None else ()], np.uint16)


def _name(picture: Picture) -> str:
    return picture.file.rpartition("/")[2]


def _number(picture: Picture) -> int:
    return int(_name(picture)[1:].removesuffix(".jpg"))
