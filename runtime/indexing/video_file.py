"""A video file, or one behind HTTP, read with PyAV; its signature too.

What is due is known before anything is decoded (`plan`). Reading goes from keyframe to keyframe in runs that hold due
frames, so that a sparse rate decodes little; a resumed reading and a chunk are runs that begin later.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from psarm.errors import ImageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing.decoding import OpenVideo, decode, in_order, picture, timed
from psarm.runtime.indexing.plan import VideoPlan, make_plan, to_id
from psarm.runtime.indexing.reading import DAMAGED, Chunk, Note, OnNote, Skip, TakenFrame
from psarm.runtime.indexing.sampling import Sampling

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.stream import VideoStream

CUT_OFF = "cut off"
"""Reason: the file ends before it."""
UNSET_YEAR, LAST_YEAR = 1970, 9998
SAMPLE_BYTES = 1 << 20
"""Of the beginning, middle and end of a file make up its signature, however large it is."""


class VideoReader:
    """Reads a video file, or an address that can be read from its beginning as often as one likes."""

    def __init__(self, address: str, source: Source, sampling: Sampling, on_note: OnNote) -> None:
        self._address = address
        self._source = source
        self._sampling = sampling
        self._on_note = on_note
        self._stop = Event()

    @property
    def source(self) -> Source:
        """As far as it is known."""
        return self._source

    def plan(self) -> Source:
        """Read the file's packets."""
        planned = len(self._plan.due) + self._plan.missing
        self._source = replace(self._source, planned=planned, rate=self._plan.rate)
        return self._source

    def read(self, after: int = -1) -> Iterator[TakenFrame | Skip]:
        """Decode the frames that are due."""
        return self._whole(after).read(self._stop)

    def chunks(self, frames_per_chunk: int, after: int = -1) -> list[Chunk]:
        """Parts that begin at keyframes."""
        return list(self._whole(after).split(frames_per_chunk))

    def close(self) -> None:
        """End `read`."""
        self._stop.set()

    @cached_property
    def _plan(self) -> VideoPlan:
        name = self._source.name
        signature = "" if "://" in self._address else _signature(Path(self._address))
        with closing(OpenVideo(self._address, name)) as video:
            signature = signature or f"{video.container.size} bytes, {video.container.duration} us"
            self._source = replace(self._source, signature=signature)
            plan = make_plan(video.container, video.stream, name, self._sampling)
            if self._source.start is None:
                self._source = replace(self._source, start=_creation_time(video))
        for event, text in plan.warnings:
            self._on_note(Note(name, event, f"{name}: {text}."))
        return plan

    def _whole(self, after: int) -> VideoChunk:
        self.plan()
        plan = self._plan
        first = int(np.searchsorted(to_id(plan.due, plan.zero, plan.time_base), after, side="right"))
        due = plan.due[first:]
        tail_id = to_id(plan.last, plan.zero, plan.time_base) + 1
        return VideoChunk(
            source=self._source.name,
            address=self._address,
            start=self._source.start,
            frames=due,
            begins=np.maximum(np.searchsorted(plan.keys, due, side="right") - 1, 0),
            keys=plan.keys,
            zero=plan.zero,
            time_base=plan.time_base,
            seekable=plan.seekable,
            in_file_order=plan.in_file_order and not self._sampling.keyframes,
            keyframes=self._sampling.keyframes,
            tail=Skip(tail_id, CUT_OFF, plan.missing) if plan.missing and tail_id > after else None,
        )


@dataclass(frozen=True, eq=False)
class VideoChunk:
    """Frames of a video file that are due, from one on. Times in ticks."""

    source: str
    address: str = field(repr=False)  # may hold a password
    start: datetime | None
    frames: NDArray[np.int64]  # [n] due
    begins: NDArray[np.int64]  # [n] for each, which of `keys` it is decoded from
    keys: NDArray[np.int64]
    zero: int
    time_base: Fraction
    seekable: bool
    in_file_order: bool
    keyframes: bool
    """Whether only keyframes are due, so that each is decoded alone."""
    tail: Skip | None
    """What the file says it has beyond its end."""

    def split(self, frames_per_chunk: int) -> Iterator[VideoChunk]:
        """Parts of at least so many frames that begin at different keyframes; nothing where nothing is due."""
        starts = np.flatnonzero(np.diff(self.begins, prepend=-1))  # of what is decoded from one keyframe
        first = 0
        while first < len(self.frames) or (self.tail and first == 0):
            later = starts[starts >= first + frames_per_chunk]
            end = int(later[0]) if len(later) else len(self.frames)
            begins = self.begins[first:end]
            yield replace(
                self,
                frames=self.frames[first:end],
                begins=begins - begins[0] if len(begins) else begins,
                keys=self.keys[begins[0] : begins[-1] + 1] if len(begins) else self.keys[:0],
                tail=self.tail if end == len(self.frames) else None,
            )
            first = max(end, 1)

    def read(self, stop: Event | None = None) -> Iterator[TakenFrame | Skip]:
        """Decode the frames; `stop` ends it. Raises `ImageError` where the file does not go on as it was planned."""
        stop = stop or Event()
        if len(self.frames):
            with closing(OpenVideo(self.address, self.source, stop)) as video:
                for run in self._runs():
                    yield from self._read_run(video, run, stop)
        if self.tail and not stop.is_set():
            yield self.tail

    def _runs(self) -> list[NDArray[np.int64]]:
        """Places in `frames`: apart where between two there is a keyframe to seek to with nothing due before it."""
        places = np.arange(len(self.frames))
        return np.split(places, np.flatnonzero(np.diff(self.begins) > 1) + 1) if self.seekable else [places]

    def _read_run(self, video: OpenVideo, run: NDArray[np.int64], stop: Event) -> Iterator[TakenFrame | Skip]:
        due = deque(self.frames[run].tolist())
        packets = _Seen(video.packets_from(int(self.keys[self.begins[run[0]]]), self.seekable))
        frames = timed(decode(video.stream, packets, self.keyframes))
        for time, frame in in_order(frames) if self.in_file_order else frames:
            while due and due[0] < time:
                yield self._skip(due.popleft())
            if due and due[0] == time:
                yield self._take(due.popleft(), frame)
            if not due:
                return
        if stop.is_set():
            return
        if packets.latest is None or packets.latest < due[-1]:
            # The plan knows of a packet there: it is not damage, and what is due is not skipped for it.
            raise ImageError(f"The video {self.source} ended early: it holds less than when it was looked through.")
        while due:
            yield self._skip(due.popleft())

    def _take(self, time: int, frame: VideoFrame) -> TakenFrame | Skip:
        if frame.is_corrupt:
            return self._skip(time)
        number = to_id(time, self.zero, self.time_base)
        taken = None if self.start is None else self.start + timedelta(microseconds=number)
        return TakenFrame(number, taken, picture(frame))

    def _skip(self, time: int) -> Skip:
        return Skip(to_id(time, self.zero, self.time_base), DAMAGED)


class _Seen:
    """Packets, and the latest time of those that were taken, ticks."""

    def __init__(self, packets: Iterator[Packet[VideoStream]]) -> None:
        self._packets = packets
        self.latest: int | None = None

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        for packet in self._packets:
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                self.latest = time if self.latest is None else max(self.latest, time)
            yield packet


def _signature(path: Path) -> str:
    """Of a file: its size and parts of its content."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            for place in sorted({0, max(0, size // 2), max(0, size - SAMPLE_BYTES)}):
                file.seek(place)
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise ImageError(f"The video {path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _creation_time(video: OpenVideo) -> datetime | None:
    """When the recording began, as the file says; cameras whose clock was never set say 1904 or 1970."""
    text = video.container.metadata.get("creation_time") or video.stream.metadata.get("creation_time")
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if not UNSET_YEAR <= time.year <= LAST_YEAR:
        return None
    time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    return time if time.year > UNSET_YEAR else None
