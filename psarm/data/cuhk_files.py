"""CUHK-SYSU's Images.mat, pool.mat and Train.mat as arrays, each file by itself.

Boxes are x, y, w, h as the files have them; identities are the numbers in their names, 1234 of `p1234`. Whatever is
wrong with a file is a `DataError` that names the file and the place in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.data.matlab import load_variable
from psarm.errors import DataError

_IDENTITY_NAME = re.compile(r"p?(\d{1,18})")


@dataclass(frozen=True, eq=False)
class Images:
    """Images.mat: every image with its boxes."""

    names: list[str]
    counts: NDArray[np.int64]  # [images], how many boxes each has
    boxes: NDArray[np.float64]  # [sum of counts, 4]


@dataclass(frozen=True, eq=False)
class Appearances:
    """Where people with an identity are: n boxes."""

    images: list[str]
    boxes: NDArray[np.float64]  # [n,4]
    identities: NDArray[np.int64]  # [n]


def read_images(path: Path) -> Images:
    """The content of Images.mat; boxes may be without area, but they are finite."""
    content = load_variable(path, "Img", "describe the images")
    with _naming(path):
        images = _records(content, "Img", "imname", "box")
        names = [_text(cell, f"the name of image {row}") for row, cell in enumerate(images["imname"])]
        _check_once(names)
        counts, boxes = [], []
        for name, cell in zip(names, images["box"], strict=True):
            # An image without boxes has an empty matrix in place of the struct.
            own = _records(cell, f"the boxes of {name}", "idlocate")["idlocate"] if np.size(cell) else ()
            counts.append(len(own))
            boxes += [_box(box, name) for box in own]
    return Images(names, np.array(counts, np.int64), np.array(boxes, np.float64).reshape(-1, 4))


def read_pool(path: Path) -> list[str]:
    """Names of the gallery's images."""
    content = load_variable(path, "pool", "list the gallery's images")
    with _naming(path):
        names = [_text(cell, f"entry {row} of pool") for row, cell in enumerate(np.ravel(content))]
        _check_once(names)
        if not names:
            raise DataError("pool is empty; it should list the gallery's images.")
    return names


def read_train(path: Path) -> Appearances:
    """Where the training identities are."""
    content = load_variable(path, "Train", "list the training identities")
    images, boxes, identities = [], [], []
    with _naming(path):
        for row, cell in enumerate(np.ravel(content)):
            person = _records(cell, f"entry {row} of Train", "idname", "scene")
            if len(person) != 1:
                raise DataError(f"entry {row} of Train should be one identity, but it is {len(person)}.")
            name = _text(person["idname"][0], f"the name of identity {row}")
            scenes = _records(person["scene"][0], f"the scenes of {name}", "imname", "idlocate")
            images += [_text(image, f"an image of {name}") for image in scenes["imname"]]
            boxes += [_box(box, name) for box in scenes["idlocate"]]
            identities += [identity_number(name)] * len(scenes)
    return Appearances(images, np.array(boxes, np.float64).reshape(-1, 4), np.array(identities, np.int64))


def identity_number(name: str) -> int:
    """1234 of `p1234`; raises `DataError` for a name without number."""
    match = _IDENTITY_NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} names no identity; expected p and a number, such as p1234.")
    return int(match[1])


def finite_box(numbers: NDArray[np.float64], owner: str) -> NDArray[np.float64]:
    """The numbers of a box [4]; raises `DataError` where they are not four, or not finite."""
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        found = ", ".join(f"{number:g}" for number in numbers[:8])
        raise DataError(f"a box of {owner} should be four finite numbers x, y, w, h, but it is [{found}].")
    return numbers


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _records(value: Any, what: str, *fields: str) -> NDArray[Any]:
    """A struct array that has the fields, flat."""
    array = np.asarray(value)
    found = array.dtype.names or ()
    if not set(fields) <= set(found):
        kind = f"a struct of {', '.join(found)}" if found else f"{array.dtype} of shape {list(array.shape)}"
        raise DataError(f"{what} should be a struct with {', '.join(fields)}, but it is {kind}.")
    return array.ravel()


def _text(cell: Any, what: str) -> str:
    value = np.ravel(cell)
    if value.size != 1 or not isinstance(value[0], str):
        raise DataError(f"{what} should be text, but it is {value.dtype} of shape {list(np.shape(cell))}.")
    return str(value[0])


def _box(cell: Any, owner: str) -> NDArray[np.float64]:
    value = np.ravel(cell)
    if value.dtype.kind not in "iuf":
        raise DataError(f"a box of {owner} should be four numbers x, y, w, h, but it is {value.dtype}.")
    return finite_box(value.astype(np.float64), owner)


def _check_once(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"{twice} is listed more than once; every image should be listed once.")
