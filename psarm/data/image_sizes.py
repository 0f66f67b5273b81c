"""Sizes of many images, from the files' headers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from psarm.console import track
from psarm.data.images import read_image
from psarm.errors import DataError

_ORIENTATION = 0x0112  # EXIF's tag
_TURNED = range(5, 9)  # its values for a picture that lies on its side
_THREADS = 8  # files on a network disk are waited for, not worked on


def read_image_sizes(paths: Sequence[Path], skip_unreadable: bool = False) -> NDArray[np.int64]:
    """Width and height of images as `read_image` would give them.

    Only the EXIF orientation of a PNG that has it after its pixels, where few programs write it, is not seen.

    Args:
        paths: the images.
        skip_unreadable: give 1 x 1 for an image that cannot be read.

    Returns:
        int64 [n,2].

    Raises:
        DataError: an image cannot be read; the sentence names it.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = pool.map(partial(_read_size, skip_unreadable=skip_unreadable), paths)
        found = list(track(sizes, "Reading image sizes", total=len(paths)))
    return np.array(found, np.int64).reshape(-1, 2)


def _read_size(path: Path, skip_unreadable: bool) -> tuple[int, int]:
    size = _size_in_header(path)
    if size is not None:
        return size
    try:  # the header is but a quick way: what counts is whether the training can decode the image
        height, width = read_image(path).shape[:2]
    except DataError:
        if skip_unreadable:
            return 1, 1
        raise
    return width, height


def _size_in_header(path: Path) -> tuple[int, int] | None:
    """None where the header alone does not tell."""
    try:
        with Image.open(path) as image:
            exif = Image.Exif()  # image.getexif() would decode a PNG, and listen to XMP, which OpenCV does not
            exif.load(image.info.get("exif", b""))
            turned = exif.get(_ORIENTATION) in _TURNED
            (width, height), kind = image.size, image.format
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return None
    if not turned:
        return width, height
    # Whether OpenCV turns pictures of other formats depends on the format and on its version.
    return (height, width) if kind in ("JPEG", "MPO") else None
