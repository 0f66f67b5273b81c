"""Reading one image of a data set, strictly: a damaged file is an error, never a grey picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.errors import DataError


def read_whole_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file completely.

    Returns:
        uint8 [H,W,3], BGR, turned as its EXIF orientation says.

    Raises:
        DataError: the file is missing, empty, cut off or no image; the sentence does not name the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"the image cannot be read ({error.strerror}).") from error
    if not data:
        raise DataError("the image is empty (0 bytes).")
    # Decoders fill the rest of a cut-off JPEG with grey and call it a success.
    if data.startswith(b"\xff\xd8") and not _has_end_marker(data):
        raise DataError("the image is cut off: the JPEG has no end marker.")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DataError(f"the image cannot be decoded ({error.err}).") from error
    if image is None:
        raise DataError("the image cannot be decoded; it is damaged or no picture.")
    return image.astype(np.uint8, copy=False)


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image of a data set, uint8 [h,w,3] BGR; raises `DataError` naming the file."""
    try:
        return read_whole_image(path)
    except DataError as error:
        reason = str(error).rstrip(".")
        raise DataError(f"Cannot read {path} ({reason}); psarm data check names every broken file.") from error


def _has_end_marker(data: bytes) -> bool:
    """Whether the pixels of a JPEG end; bytes after that are allowed, and a thumbnail before them has its own end."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xDA:  # start of scan; in the pixels that follow, 0xFF is never before 0xD9
            return data.find(b"\xff\xd9", position) >= 0
        if data[position + 1] == 0xFF:  # padding
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return False
