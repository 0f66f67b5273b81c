"""One picture of many frames with their boxes and identities drawn in, to see at a glance that annotations fit."""

from __future__ import annotations

import colorsys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.data.images import read_whole_image
from psarm.data.types import UNLABELLED, Frame
from psarm.errors import DataError, UsageError
from psarm.files import atomic_path

FORMATS = (".jpg", ".jpeg", ".png")
_COLUMNS, _CELL, _GAP, _CAPTION = 4, (480, 270), 6, 22  # _CELL: width, height of a frame
_BACKGROUND, _TEXT, _GREY = (32, 32, 32), (235, 235, 235), (215, 215, 215)


def check_format(path: Path) -> None:
    """Raise UsageError unless the file name ends in a picture format we write."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"the contact sheet '{path}' must end in {', '.join(FORMATS)}.")


def write_contact_sheet(path: Path, frames: Sequence[Frame], count: int = 24) -> int:
    """Write a sheet of up to `count` frames, spread evenly over cameras and time; returns how many are on it.

    Frames whose image cannot be decoded are passed over.

    Raises:
        UsageError: the file name does not end in a picture format.
        DataError: no frame can be shown.
    """
    check_format(path)
    cells = []
    for frame in _spread(frames):
        with suppress(DataError):
            cells.append(_cell(frame, read_whole_image(frame.path)))
        if len(cells) == count:
            break
    if not cells:
        raise DataError("no frame can be shown on the contact sheet: none has both a readable image and annotation.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(path.suffix.lower(), _grid(cells))[1].tobytes())
    return len(cells)


def _spread(frames: Sequence[Frame]) -> list[Frame]:
    """All frames, one camera after the other in turn, each camera's in an order whose beginnings are spread evenly."""
    cameras = defaultdict(list)
    for frame in frames:
        cameras[frame.camera].append(frame)
    # Multiples of the golden ratio, modulo 1, fill an interval evenly wherever one stops.
    orders = [
        [cameras[camera][i] for i in np.argsort(np.argsort(np.arange(len(cameras[camera])) * 0.6180339887 % 1))]
        for camera in sorted(cameras)
    ]
    return [frame for frame in chain.from_iterable(zip_longest(*orders)) if frame is not None]


def _cell(frame: Frame, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame scaled into a cell with its boxes, and its name below."""
    height, width = image.shape[:2]
    scale = min(_CELL[0] / width, _CELL[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for box, identity in zip(frame.boxes, frame.identities, strict=True):
        _draw(small, np.clip(np.rint(box * scale), -10, 10_000).astype(int), int(identity))
    cell = np.full((_CELL[1] + _CAPTION, _CELL[0], 3), _BACKGROUND, np.uint8)
    cell[: size[1], : size[0]] = small
    people = f"{frame.name}  {len(frame.identities)} people"
    cv2.putText(cell, people, (4, _CELL[1] + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _TEXT, 1, cv2.LINE_AA)
    return cell


def _draw(image: NDArray[Any], box: NDArray[np.int_], identity: int) -> None:
    colour = _GREY if identity == UNLABELLED else _colour(identity)
    x1, y1, x2, y2 = (int(value) for value in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 1)
    label = "?" if identity == UNLABELLED else str(identity)
    (width, height), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    top = max(y1, height + 3)
    cv2.rectangle(image, (x1, top - height - 3), (x1 + width + 3, top), colour, -1)
    cv2.putText(image, label, (x1 + 2, top - 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)


def _colour(identity: int) -> tuple[int, int, int]:
    """A bright BGR colour that stays the same for an identity, neighbours far apart."""
    red, green, blue = colorsys.hsv_to_rgb(identity * 0.6180339887 % 1, 0.65, 1.0)
    return int(255 * blue), int(255 * green), int(255 * red)


def _grid(cells: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    height, width = cells[0].shape[0] + _GAP, cells[0].shape[1] + _GAP
    sheet = np.full((rows * height + _GAP, columns * width + _GAP, 3), _BACKGROUND, np.uint8)
    for index, cell in enumerate(cells):
        top, left = _GAP + index // columns * height, _GAP + index % columns * width
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet
