"""Ways to a camera: an address, with PyAV, or the number of one at this machine, with OpenCV."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from psarm.errors import ImageError, UsageError
from psarm.runtime.indexing.decoding import MOST_REORDERED, decode, picture, video_stream
from psarm.runtime.video import NETWORK_TIMEOUT_MS, Frame

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream

SILENT_PART = 0.9
"""Of the time-out, after which an error is one of it."""


class Camera(Protocol):
    """Something that gives frames for as long as it is there."""

    def frames(self, keyframes: bool) -> Iterator[Callable[[], Frame | None] | None]:
        """Opens it; for each frame what makes a picture of it, None where it is damaged. `keyframes`: only those.

        None for what came and could not even be decoded; where nothing else comes for long, that is an error.
        Ends where the camera does; raises `ImageError` that says why, with no address in it, and `UsageError` where it
        is none.
        """


class AddressCamera:
    """rtsp://… through TCP, http://… or what else FFmpeg opens."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._rtsp = address.lower().startswith("rtsp")

    def frames(self, keyframes: bool) -> Iterator[Callable[[], Frame | None] | None]:
        """See `Camera`."""
        import av

        options = {"rtsp_transport": "tcp"} if self._rtsp else {}
        timeout = NETWORK_TIMEOUT_MS / 1000
        since = time.monotonic()
        try:
            with av.open(self._address, options=options, timeout=timeout) as container:
                stream = video_stream(container)
                if stream is None:
                    raise ImageError("it sends no video that can be decoded")
                if container.duration and not self._rtsp:  # recorders have an end over RTSP too
                    raise UsageError(
                        "it has an end, so it is a file and no camera; give a path or an http address, or the same "
                        "again where its server did not answer before"
                    )
                packets = _Watched(container, stream, keyframes)
                for frame in decode(stream, packets, keyframes):
                    if frame is None:
                        yield None
                    else:
                        packets.answered()
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


class _Watched:
    """A camera's packets; raises `ImageError` where a decoder makes no frame of them for as long as the time-out."""

    def __init__(self, container: InputContainer, stream: VideoStream, keyframes: bool) -> None:
        self._container = container
        self._stream = stream
        self._keyframes = keyframes
        self._most = 1 if keyframes else MOST_REORDERED  # a decoder may hold so many back
        self._since = 0.0
        self._unanswered = 0

    def answered(self) -> None:
        """A frame came out."""
        self._unanswered = 0

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        for packet in self._container.demux(self._stream):
            if not packet.size or (self._keyframes and not packet.is_keyframe):
                continue
            if not self._unanswered:
                self._since = time.monotonic()
            timeout = NETWORK_TIMEOUT_MS / 1000
            if self._unanswered >= self._most and time.monotonic() - self._since > timeout:
                raise ImageError(f"no frame of it can be decoded for {timeout:g} seconds")
            self._unanswered += 1
            yield packet


def _retrieve(capture: cv2.VideoCapture) -> Frame | None:
    decoded, frame = capture.retrieve()
    return np.asarray(frame, np.uint8) if decoded else None
