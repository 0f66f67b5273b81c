"""Video files → frames as OpenCV has them: uint8 [H,W,3], BGR."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.errors import ImageError

Frame = NDArray[np.uint8]  # [H,W,3] BGR
VIDEO_SUFFIXES = frozenset([".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".mts"])
MISSING_TOLERANCE = 0.9
"""Containers may overstate their frame count a little; fewer than this part of it is a broken file."""


def read_video(path: str | Path, every: int = 1) -> Iterator[tuple[int, Frame]]:
    """Yield (frame number from 0, frame) for every `every`-th frame.

    Raises `ImageError` when the file is no video, and after the last frame when it breaks off early.
    """
    path = Path(path)
    capture = _open(path)
    try:
        expected = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        number = 0
        while capture.grab():
            if number % every == 0:
                decoded, frame = capture.retrieve()
                if not decoded:
                    break
                yield number, np.asarray(frame, np.uint8)
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise ImageError(f"The video {path} holds no frame that can be decoded.")
    if number < MISSING_TOLERANCE * expected:
        raise ImageError(f"The video {path} breaks off after {number} of {expected:.0f} frames.")


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


def _open(path: Path) -> cv2.VideoCapture:
    if path.is_file() and path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); a video file is needed.")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ImageError(f"{path} is damaged or not a video that OpenCV reads.")
    return capture
