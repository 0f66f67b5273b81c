"""Checks of the arrays users hand in, all in one place; what passes here is trusted inside.

Frames are uint8 [H,W,3] BGR (OpenCV's order); boxes are float32 [n,4] xyxy in frame pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError


def check_frame(frame: Any) -> NDArray[np.uint8]:
    """Return `frame` if it is a uint8 [H,W,3] array with at least one pixel, else raise `UsageError`."""
    if not isinstance(frame, np.ndarray):
        raise UsageError(
            f"A frame must be a numpy array [H,W,3] uint8 in BGR order, got a {type(frame).__name__}; "
            "read picture files with psarm.runtime.read_image."
        )
    if frame.ndim == 4:
        raise UsageError(
            f"A frame must be [H,W,3], got a stack of shape {_shape(frame)}; pass a list of frames: list(stack)."
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise UsageError(
            f"A frame must be [H,W,3] in BGR order, got shape {_shape(frame)}; "
            "convert it with cv2.cvtColor, or read picture files with psarm.runtime.read_image."
        )
    if frame.dtype != np.uint8:
        raise UsageError(f"A frame must be uint8 with values 0 to 255, got {frame.dtype}; scale and convert it first.")
    return frame


def check_boxes(boxes: Any) -> NDArray[np.float32]:
    """Return `boxes` as float32 [n,4] with finite xyxy corners (x1 <= x2, y1 <= y2), else raise `UsageError`.

    An empty list is zero boxes.
    """
    array = _as_float32(boxes, "Boxes")
    if array.size == 0 and array.ndim <= 2:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise UsageError(f"Boxes must be [n,4] as x1,y1,x2,y2, got shape {_shape(array)}.")
    if not np.isfinite(array).all():
        raise UsageError("Boxes must be finite numbers, got NaN or infinity.")
    wrong = np.flatnonzero((array[:, :2] > array[:, 2:]).any(axis=1))
    if wrong.size:
        raise UsageError(
            "Boxes are x1,y1,x2,y2 (not x,y,width,height) with x1 <= x2 and y1 <= y2, got "
            f"{array[wrong[0]].tolist()}{f' as number {wrong[0]}' if len(array) > 1 else ''}."
        )
    return array


def check_person_boxes(boxes: Any, width: int, height: int) -> NDArray[np.float32]:
    """As `check_boxes`, and every box must have an area and lie at least partly inside the frame."""
    array = check_boxes(boxes)
    for index, (x1, y1, x2, y2) in enumerate(array.tolist()):
        name = f"Box {index}" if len(array) > 1 else "The box"
        if x1 >= x2 or y1 >= y2:
            raise UsageError(f"{name} is empty: {[x1, y1, x2, y2]}; needed x1 < x2 and y1 < y2.")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise UsageError(f"{name} {[x1, y1, x2, y2]} lies outside the {width}x{height} picture.")
    return array


def check_scores(scores: Any, count: int) -> NDArray[np.float32]:
    """Return `scores` as float32 [count], else raise `UsageError`."""
    array = _as_float32(scores, "Scores")
    if array.shape != (count,):
        raise UsageError(f"Scores must be [{count}], one a box, got shape {_shape(array)}.")
    return array


def check_embeddings(embeddings: Any, count: int) -> NDArray[np.float32]:
    """Return `embeddings` as float32 [count,D], else raise `UsageError`."""
    array = _as_float32(embeddings, "Embeddings")
    if array.ndim != 2 or len(array) != count:
        raise UsageError(f"Embeddings must be [{count},D], one row a box, got shape {_shape(array)}.")
    return array


def _as_float32(values: Any, what: str) -> NDArray[np.float32]:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} must be numbers in a rectangular array: {error}.") from error


def _shape(array: NDArray[Any]) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"
