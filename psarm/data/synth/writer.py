"""Pictures and MATLAB files, the same bytes for the same content."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from psarm.errors import DataError

# scipy writes the time into the 116-byte text header; a fixed text keeps equal data sets equal byte for byte.
_HEADER = b"MATLAB 5.0 MAT-file, written by psarm data synth".ljust(116)


def write_picture(path: Path, image: NDArray[np.uint8], quality: int) -> None:
    """Write an image (BGR uint8 [H,W,3]) as JPEG."""
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"A picture of {image.shape[1]}x{image.shape[0]} pixels could not be encoded as JPEG.")
    path.write_bytes(encoded.tobytes())


def write_mat(
    path: Path, variable: str, value: NDArray[np.float64] | NDArray[np.object_], *, compress: bool = False
) -> None:
    """Write one variable as a MATLAB 5 file."""
    savemat(str(path), {variable: value}, oned_as="column", do_compression=compress)
    with path.open("r+b") as file:
        file.write(_HEADER)


def cells(values: list[str] | list[NDArray[np.object_]]) -> NDArray[np.object_]:
    """A MATLAB cell column."""
    column = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        column[row, 0] = value
    return column
