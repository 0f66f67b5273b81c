"""Files and addresses opened with PyAV → packets from a keyframe on → frames, uint8 [H,W,3] BGR."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import chain, takewhile
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from psarm.errors import ImageError
from psarm.runtime.indexing.plan import PacketClock, own_time, read_packets
from psarm.runtime.video import NETWORK_TIMEOUT_MS, Frame

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

SEEK_BACK_S = 3
"""How far before a keyframe to seek where seeking to it went beyond."""
MOST_REORDERED = 16
"""Frames that may be shown before one that comes before them in the file, in any codec."""
MOST_THREADS = 4
"""That decode one file; more are of little use, and each keeps frames of its own."""


class OpenVideo:
    """A file that is open, and its pictures' stream. Raises `ImageError`."""

    def __init__(self, address: str, name: str, stop: Event | None = None) -> None:
        """`stop` ends its packets."""
        self._address = address
        self._name = name
        self._stop = stop or Event()
        self.container, self.stream = self._open()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def _open(self) -> tuple[InputContainer, VideoStream]:
        import av

        # FFmpeg takes an MPEG-TS clock that falls by a minute or more for one that wrapped after 26.5 hours.
        options = {"correct_ts_overflow": "0"}
        timeout = None
        if "://" in self._address:
            timeout = NETWORK_TIMEOUT_MS / 1000
            options["rw_timeout"] = str(NETWORK_TIMEOUT_MS * 1000)  # PyAV has no time-out for seeking
        try:
            container = av.open(self._address, options=options, timeout=timeout, metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            # Not str(error), which has the address with its password.
            raise ImageError(f"The video {self._name} cannot be opened: {error.strerror}.") from None
        stream = video_stream(container)
        if stream is None:
            container.close()
            raise ImageError(f"{self._name} holds no video that can be decoded; give a video file.")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(MOST_THREADS, os.cpu_count() or 1)
        return container, stream

    def packets_from(self, key: int, seekable: bool) -> Iterator[Packet[VideoStream]]:
        """Packets from the keyframe at time `key` (ticks) on; raises `ImageError` as `read_packets` does."""
        import av

        assert self.stream.time_base is not None
        back = int(SEEK_BACK_S / self.stream.time_base)
        for target in (key, key - back) if seekable else ():
            try:
                self.container.seek(target, stream=self.stream)
            except av.error.FFmpegError:
                continue  # some formats cannot seek: read from the beginning
            packets = (packet for packet in self._packets() if packet is not None)
            for packet in packets:
                if packet.is_keyframe and own_time(packet) >= key:
                    if own_time(packet) > key:
                        break
                    return chain([packet], packets)
        return self._packets_counted(key)

    def _packets_counted(self, key: int) -> Iterator[Packet[VideoStream]]:
        """The same, found by reading from the beginning with the times that the plan has."""
        if self._stop.is_set():
            return
        self.close()
        self.container, self.stream = self._open()
        assert self.stream.time_base is not None
        clock = PacketClock(1 / self.stream.time_base)
        found = False
        for packet in self._packets():
            if packet is not None:
                found |= clock.stamp(packet) == key
                if found:
                    yield packet

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        # Before failures are left out: they too may go on for long.
        return takewhile(lambda _: not self._stop.is_set(), read_packets(self.container, self.stream, self._name))


def decode(stream: VideoStream, packets: Iterable[Packet[VideoStream]], keyframes: bool) -> Iterator[VideoFrame | None]:
    """Frames in the order in which they are shown; None where decoding fails. `keyframes`: only those."""
    context = stream.codec_context
    for packet in packets:
        if not keyframes:
            yield from _decode(context, packet)
        elif packet.is_keyframe:
            yield from _decode(context, packet)
            yield from _decode(context, None)
            context.flush_buffers()
    yield from _decode(context, None)


def timed(frames: Iterable[VideoFrame | None]) -> Iterator[tuple[int, VideoFrame]]:
    """With their times in ticks, as far as these are known; the frames that are missed are skipped by their times."""
    for frame in frames:
        if frame is None:
            continue
        time = frame.pts if frame.pts is not None else frame.dts
        if time is not None:
            yield time, frame


def in_order(frames: Iterable[tuple[int, VideoFrame]]) -> Iterator[tuple[int, VideoFrame]]:
    """Frames that come in the order in which they are shown, but with each other's times: times in rising order."""
    waiting: deque[VideoFrame] = deque()
    times: list[int] = []
    for time, frame in frames:
        waiting.append(frame)
        heappush(times, time)
        if len(waiting) > MOST_REORDERED:
            yield heappop(times), waiting.popleft()
    while waiting:
        yield heappop(times), waiting.popleft()


def video_stream(container: InputContainer) -> VideoStream | None:
    """The pictures' stream of a file or camera that can be decoded, not a cover; the others are not read."""
    from av.stream import Discard, Disposition

    pictures = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    chosen = next((one for one in pictures if one.codec_context is not None), None)
    for stream in container.streams:
        if stream is not chosen:
            stream.discard = Discard.all
    return chosen


def picture(frame: VideoFrame) -> Frame:
    """uint8 [H,W,3] BGR, turned as it is to be shown."""
    image = frame.to_ndarray(format="bgr24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def _decode(context: VideoCodecContext, packet: Packet[VideoStream] | None) -> Sequence[VideoFrame | None]:
    import av

    try:
        return context.decode(packet)
    except av.error.FFmpegError:
        return [None]
