"""Where pictures come from: a video that is decoded, or files that are copied or linked as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from psarm.data.convert.sources import Picture, is_frame_rate
from psarm.data.images import read_whole_image
from psarm.errors import DataError, ImageError

JPEG_QUALITY = 95
MISSING_TOLERANCE = 0.9
"""Containers may overstate their frame count a little; fewer than this part of it is a broken file."""


class Video:
    """The frames of a video file, numbered from 1, to be written as JPEG.

    Args:
        path: any format OpenCV reads.
        prefix: file names are `<prefix>_000001.jpg`.

    Raises:
        ImageError: the file is no video; while iterating, that it breaks off or holds no frame.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        self.prefix = prefix
        capture = self._open()
        frame_rate = float(capture.get(cv2.CAP_PROP_FPS))
        self._stated = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        self.frame_rate = frame_rate if is_frame_rate(frame_rate) else None

    @property
    def expected(self) -> int | None:
        """How many frames the file says it has."""
        return int(self._stated) if self._stated > 0 else None

    def __iter__(self) -> Iterator[Picture]:
        capture = self._open()
        number = 0
        try:
            while capture.grab():
                number += 1
                yield self._picture(capture, number)
        finally:
            capture.release()
        if number == 0:
            raise ImageError(f"The video {self.path} holds no frame that can be decoded.")
        if number < MISSING_TOLERANCE * self._stated:
            raise ImageError(
                f"The video {self.path} breaks off after {number} of {self._stated:.0f} frames; a whole one is needed."
            )

    def _picture(self, capture: cv2.VideoCapture, number: int) -> Picture:
        def save(path: Path) -> tuple[int, int]:
            decoded, frame = capture.retrieve()
            if not decoded:
                raise ImageError(f"The video {self.path} is damaged: frame {number} cannot be decoded.")
            done, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            height, width = frame.shape[:2]
            if not done:
                raise ImageError(f"Frames of {width}x{height} pixels ({self.path}) cannot be written as JPEG.")
            path.write_bytes(encoded.tobytes())
            return width, height

        return Picture(number, number, f"{self.prefix}_{number:06d}.jpg", save)

    def _open(self) -> cv2.VideoCapture:
        if not self.path.is_file():
            raise ImageError(f"There is no video file {self.path}.")
        if self.path.stat().st_size == 0:
            raise ImageError(f"{self.path} is empty (0 bytes); a video file is needed.")
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise ImageError(f"{self.path} is damaged or not a video that OpenCV reads.")
        return capture


@dataclass(frozen=True)
class PictureFile:
    """A picture on disk and what the labels say of it."""

    path: Path
    number: int
    file_name: str
    """Where it goes."""
    size: tuple[int, int] | None = None
    """Width and height that the labels are for."""


class PictureFiles:
    """Picture files in order of time.

    Raises:
        DataError: on saving, that a file is missing, damaged, or not of the size that its labels are for.
    """

    def __init__(self, files: Sequence[PictureFile], link: bool) -> None:
        self.files = files
        self.link = link

    @property
    def expected(self) -> int:
        """How many there are."""
        return len(self.files)

    def __iter__(self) -> Iterator[Picture]:
        for position, file in enumerate(self.files, start=1):
            yield self._picture(file, position)

    def _picture(self, file: PictureFile, position: int) -> Picture:
        def save(path: Path) -> tuple[int, int]:
            try:
                height, width = read_whole_image(file.path).shape[:2]
            except DataError as error:
                raise DataError(f"{file.path}: {error}") from error
            if file.size not in (None, (width, height)):
                raise DataError(
                    f"{file.path} is {width}x{height} pixels, but its labels are for {file.size[0]}x{file.size[1]}; "
                    "give the pictures that were labelled."
                )
            if self.link:
                path.symlink_to(file.path.resolve())
            else:
                shutil.copyfile(file.path, path)
            return width, height

        return Picture(position, file.number, file.file_name, save)
