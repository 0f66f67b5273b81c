"""PRW's files: one annotation matrix a frame, the two frame lists, the queries and their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from psarm.errors import DataError

# scipy writes the time into the 116-byte text header; a fixed text keeps equal data sets equal byte for byte.
_HEADER = b"MATLAB 5.0 MAT-file, written by psarm data synth".ljust(116)


@dataclass(frozen=True)
class QueryBox:
    """A line of query_info.txt; `box` is x, y, w, h."""

    pid: int
    box: tuple[float, float, float, float]
    frame: str


def write_frame(root: Path, name: str, image: NDArray[np.uint8], rows: NDArray[np.float64], quality: int) -> None:
    """Write `frames/<name>.jpg` (image BGR uint8) and `annotations/<name>.jpg.mat` (rows [n,5] id, x, y, w, h)."""
    (root / "frames" / f"{name}.jpg").write_bytes(_jpeg(image, quality))
    _write_mat(root / "annotations" / f"{name}.jpg.mat", "box_new", rows)


def write_split(root: Path, train: Sequence[str], test: Sequence[str]) -> None:
    """Write `frame_train.mat` and `frame_test.mat`: frame names without .jpg as MATLAB cell columns."""
    for file, variable, names in (
        ("frame_train.mat", "img_index_train", train),
        ("frame_test.mat", "img_index_test", test),
    ):
        cells = np.empty((len(names), 1), dtype=object)
        cells[:, 0] = names
        _write_mat(root / file, variable, cells)


def write_queries(root: Path, queries: Sequence[QueryBox]) -> None:
    """Write `query_info.txt` ("pid x y w h frame", CRLF) and the crops of `query_box/`."""
    (root / "query_box").mkdir()
    lines = []
    for query in queries:
        lines.append(" ".join([str(query.pid), *(f"{value:g}" for value in query.box), query.frame]))
        image = cv2.imread(str(root / "frames" / f"{query.frame}.jpg"))
        if image is None:
            raise DataError(f"{query.frame}.jpg cannot be read back after writing; check the disk.")
        x, y, w, h = (int(value) for value in query.box)
        crop = np.ascontiguousarray(image[y : y + h, x : x + w], dtype=np.uint8)
        (root / "query_box" / f"{query.pid}_{query.frame}.jpg").write_bytes(_jpeg(crop, 95))
    (root / "query_info.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode("ascii"))


def _jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"A picture of {image.shape[1]}x{image.shape[0]} pixels could not be encoded as JPEG.")
    return encoded.tobytes()


def _write_mat(path: Path, variable: str, value: NDArray[np.float64] | NDArray[np.object_]) -> None:
    savemat(str(path), {variable: value}, oned_as="column")
    with path.open("r+b") as file:
        file.write(_HEADER)
