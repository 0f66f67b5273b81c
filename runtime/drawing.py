"""Boxes and labels on frames (uint8 [H,W,3] BGR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

GREEN = (80, 200, 60)  # BGR
ORANGE = (30, 150, 250)
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_boxes(
    frame: NDArray[np.uint8], boxes: NDArray[np.float32], labels: Sequence[str], colour: tuple[int, int, int] = GREEN
) -> NDArray[np.uint8]:
    """A copy of `frame` with `boxes` [n,4] xyxy drawn and a short label at each; sizes follow the frame's."""
    canvas = np.ascontiguousarray(frame).copy()
    short_side = min(canvas.shape[:2])
    thickness = max(1, round(short_side / 300))
    scale = max(0.35, short_side / 1200)
    for box, label in zip(np.rint(boxes).astype(int).tolist(), labels, strict=True):
        x1, y1, x2, y2 = box
        cv2.rectangle(canvas, (x1, y1), (x2, y2), BLACK, thickness + 2)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)
        if label:
            _draw_label(canvas, label, x1, y1, colour, scale)
    return canvas


def crop(frame: NDArray[np.uint8], box: NDArray[Any]) -> NDArray[np.uint8]:
    """The part of `frame` inside `box` [4] xyxy (a view): at least one pixel, whatever lies outside is left out."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = box.tolist()
    left, top = int(min(max(x1, 0), width - 1)), int(min(max(y1, 0), height - 1))
    right, bottom = max(left + 1, min(round(x2), width)), max(top + 1, min(round(y2), height))
    return frame[top:bottom, left:right]


def shrink(frame: NDArray[np.uint8], longest: int) -> tuple[NDArray[np.uint8], float]:
    """The frame scaled down so that no side is above `longest` pixels, and the factor for its boxes (1 if it fits)."""
    height, width = frame.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return frame, 1.0
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def encode_jpeg(frame: NDArray[np.uint8], quality: int = 90) -> bytes:
    """The frame as a JPEG file."""
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def _draw_label(
    canvas: NDArray[np.uint8], label: str, x: int, y: int, colour: tuple[int, int, int], scale: float
) -> None:
    """Black text on a colour tag: above the point, or below it at the top border."""
    (width, height), baseline = cv2.getTextSize(label, FONT, scale, 1)
    top = y - height - baseline if y >= height + baseline else y
    left = max(0, min(x, canvas.shape[1] - width))
    cv2.rectangle(canvas, (left, top), (left + width, top + height + baseline), colour, cv2.FILLED)
    cv2.putText(canvas, label, (left, top + height), FONT, scale, BLACK, 1, cv2.LINE_AA)
