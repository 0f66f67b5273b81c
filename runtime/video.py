"""Videos and cameras → frames as OpenCV has them: uint8 [H,W,3], BGR."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.errors import ImageError

Frame = NDArray[np.uint8]  # [H,W,3] BGR
VIDEO_SUFFIXES = frozenset([".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".mts"])
MISSING_TOLERANCE = 0.9
"""Containers may overstate their frame count a little; fewer than this part of it is a broken file."""
NETWORK_TIMEOUT_MS = 10_000
"""How long an address may be silent, when it is opened and before each frame."""


class VideoFrame(NamedTuple):
    """One frame of a video or camera."""

    number: int
    """From 0."""
    seconds: float
    """Its place in the video; of a camera, whatever the driver says."""
    frame: Frame


def read_video(path: str | Path, every: int = 1) -> Iterator[tuple[int, Frame]]:
    """Yield (frame number from 0, frame) for every `every`-th frame.

    Raises `ImageError` when the file is no video, and after the last frame when it breaks off early.
    """
    return ((number, frame) for number, _, frame in read_frames(Path(path), every))


def read_frames(source: Path | str | int, every: int = 1) -> Iterator[VideoFrame]:
    """Every `every`-th frame of a video file (`Path`), an address such as rtsp://… (`str`) or a camera (its number).

    Raises `ImageError` when it cannot be opened, and after the last frame when it breaks off: a file or address that
    gives fewer frames than it says it has, a live source whenever it ends.
    """
    title = _title(source)
    capture = _open(source)
    try:
        expected = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        number = 0
        while capture.grab():
            if number % every == 0:
                decoded, frame = capture.retrieve()
                if not decoded:
                    break
                yield VideoFrame(number, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, np.asarray(frame, np.uint8))
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise ImageError(f"{title} holds no frame that can be decoded.")
    if not isinstance(source, Path) and expected <= 0:
        raise ImageError(f"{title} broke off after {number} frames; open it again.")
    if number < MISSING_TOLERANCE * expected:
        raise ImageError(f"{title} breaks off after {number} of {expected:.0f} frames.")


def without_password(address: str) -> str:
    """rtsp://user:password@host/path?more → rtsp://host/path, which may be shown and logged.

    What may hold a password goes: all before the last @, all from ? or # on and, as some cameras have it in the path,
    from the first part with a = on. Where an @ comes after a ? or #, either may be of the password: rtsp://… is left.
    """
    scheme, found, rest = address.partition("://")
    if not found:
        return address
    if re.search("[?#].*@", rest):
        return f"{scheme}://…"
    return f"{scheme}://" + re.sub("[?#].*|[^/?#]*=.*", "", rest.rpartition("@")[2])


def read_frame(path: str | Path, number: int) -> Frame:
    """Frame `number` (from 0) of a video, found by counting: seeking is not exact with every codec."""
    capture = _open(Path(path))
    try:
        for _ in range(number):
            capture.grab()
        decoded, frame = capture.read()
    finally:
        capture.release()
    if not decoded:
        raise ImageError(f"The video {path} has no frame {number}.")
    return np.asarray(frame, np.uint8)


def _title(source: Path | str | int) -> str:
    if isinstance(source, int):
        return f"The camera {source}"
    return f"The address {without_password(source)}" if isinstance(source, str) else f"The video {source}"


def _open(source: Path | str | int) -> cv2.VideoCapture:
    if isinstance(source, Path):
        if source.is_file() and source.stat().st_size == 0:
            raise ImageError(f"{source} is empty (0 bytes); a video file is needed.")
        capture = cv2.VideoCapture(str(source))
        if not capture.isOpened():
            raise ImageError(f"{source} is damaged or not a video that OpenCV reads.")
        return capture
    if isinstance(source, int):
        capture = cv2.VideoCapture(source)
    else:
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC]
        settings = [value for timeout in timeouts for value in (timeout, NETWORK_TIMEOUT_MS)]
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, settings)
    if not capture.isOpened():
        raise ImageError(f"{_title(source)} cannot be opened; look whether it is there and nobody else holds it.")
    return capture
