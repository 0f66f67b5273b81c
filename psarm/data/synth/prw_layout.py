"""PRW's files: one annotation matrix a frame, the two frame lists, the queries and their crops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from psarm.data.prw import ANNOTATIONS, FRAME_LISTS, FRAMES, QUERIES
from psarm.data.synth.layout import Picture, QueryBox
from psarm.data.synth.plan import FramePlan
from psarm.data.synth.settings import SynthSettings
from psarm.data.synth.writer import cells, write_mat, write_picture
from psarm.errors import DataError

_CROPS = "query_box"
_CROP_QUALITY = 95


class PrwLayout:
    """The layout that `psarm.data.prw` reads."""

    query_per_camera = True

    def files(self, plans: list[FramePlan], settings: SynthSettings) -> list[str]:
        """`frames/c1s1_000151.jpg`."""
        return [f"{FRAMES}/{plan.name}.jpg" for plan in plans]

    def write(self, root: Path, pictures: list[Picture], queries: list[QueryBox], settings: SynthSettings) -> None:
        """Write annotations, frame lists, `query_info.txt` ("pid x y w h frame", CRLF) and crops in `query_box/`."""
        (root / ANNOTATIONS).mkdir()
        for picture in pictures:
            rows = np.array(picture.rows, np.float64).reshape(-1, 5)
            write_mat(root / ANNOTATIONS / f"{picture.plan.name}.jpg.mat", "box_new", rows)
        for split, (file, variable) in FRAME_LISTS.items():
            names = [picture.plan.name for picture in pictures if picture.plan.test == (split == "test")]
            write_mat(root / file, variable, cells(names))
        lines = [
            " ".join([str(query.pid), *(f"{value:g}" for value in query.box), query.picture.plan.name])
            for query in queries
        ]
        (root / QUERIES).write_bytes("".join(f"{line}\r\n" for line in lines).encode("ascii"))
        _write_crops(root, queries)


def _write_crops(root: Path, queries: Sequence[QueryBox]) -> None:
    (root / _CROPS).mkdir()
    for query in queries:
        image = cv2.imread(str(root / query.picture.file))
        if image is None:
            raise DataError(f"{query.picture.file} cannot be read back after writing; check the disk.")
        x, y, w, h = (int(value) for value in query.box)
        crop = np.ascontiguousarray(image[y : y + h, x : x + w], dtype=np.uint8)
        write_picture(root / _CROPS / f"{query.pid}_{query.picture.plan.name}.jpg", crop, _CROP_QUALITY)
