"""Ways to a camera: an address, with PyAV, or the number of one at this machine, with OpenCV."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from psarm.errors import ImageError
from psarm.runtime.indexing.decoding import decode, picture, video_stream
from psarm.runtime.video import NETWORK_TIMEOUT_MS, Frame

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream

SILENT_PART = 0.9
"""Of the time-out, after which an error is one of it."""


class Camera(Protocol):
    """Something that gives frames for as long as it is there."""

    def frames(self, keyframes: bool) -> Iterator[Callable[[], Frame | None]]:
        """Opens it; for each frame what makes a picture of it, None where it is damaged. `keyframes`: only those.

        Ends where the camera does; raises `ImageError` that says why, with no address in it.
        """


class AddressCamera:
    """rtsp://… or http://…, through TCP."""

    def __init__(self, address: str) -> None:
        self._address = address

    def frames(self, keyframes: bool) -> Iterator[Callable[[], Frame | None]]:
        """See `Camera`."""
        import av

        options = {"rtsp_transport": "tcp"} if self._address.startswith("rtsp") else {}
        timeout = NETWORK_TIMEOUT_MS / 1000
        since = time.monotonic()
        try:
            with av.open(self._address, options=options, timeout=timeout) as container:
                for frame in decode(*_packets(container), keyframes):
                    yield lambda frame=frame: None if frame.is_corrupt else picture(frame)  # type: ignore[misc]
                    since = time.monotonic()
        except (av.error.FFmpegError, OSError) as error:
            if time.monotonic() - since > SILENT_PART * timeout:  # FFmpeg has several errors for it
                raise ImageError(f"silent for {timeout:g} seconds") from None
            # Not str(error), nor the error itself: they have the address with its password.
            raise ImageError(error.strerror or type(error).__name__) from None


class LocalCamera:
    """Camera `number` of this machine."""

    def __init__(self, number: int) -> None:
        self._number = number

    def frames(self, keyframes: bool) -> Iterator[Callable[[], Frame | None]]:
        """See `Camera`; every frame is a keyframe."""
        capture = cv2.VideoCapture(self._number)
        try:
            if not capture.isOpened():
                raise ImageError("it cannot be opened; look whether it is there and nobody else holds it")
            while capture.grab():
                yield lambda: _retrieve(capture)
        finally:
            capture.release()


def _packets(container: InputContainer) -> tuple[VideoStream, Iterator[Packet[VideoStream]]]:
    stream = video_stream(container)
    if stream is None:
        raise ImageError("it sends no video that can be decoded")
    return stream, (packet for packet in container.demux(stream) if packet.size)


def _retrieve(capture: cv2.VideoCapture) -> Frame | None:
    decoded, frame = capture.retrieve()
    return np.asarray(frame, np.uint8) if decoded else None
