"""Which frames of a video file are due, found by reading its packets without decoding them.

Ticks are the file's own unit of time; a frame's id is its time in microseconds since the first frame.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from psarm.errors import ImageError
from psarm.runtime.indexing.reading import NoteEvent
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.video import MISSING_TOLERANCE

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream

Ticks = TypeVar("Ticks", int, NDArray[np.int64])
MOST_FAILURES = 1000
"""Packets in a row that cannot be read before a file counts as at its end."""
MOST_ROUNDING_S = 0.0005
"""Containers keep times in units as coarse as a millisecond."""
LEAP_S = 10
"""A clock that leaps ahead by more may be coming back from a leap backwards; by less, frames were only far apart."""

FEWEST_STEPS, EVEN_SHARE = 20, 0.95
"""From one frame to the next, and which part of them must be alike for others to be gaps."""


@dataclass(frozen=True, eq=False)
class VideoPlan:
    """What of a video file is to be read. Times of frames in ticks."""

    due: NDArray[np.int64]
    """The frames that are due, rising."""
    keys: NDArray[np.int64]
    """The frames that a decoder can begin at, rising; also such as the file says not to show."""
    zero: int
    """The first frame."""
    time_base: Fraction
    """Seconds a tick."""
    rate: float | None
    seekable: bool
    """Whether the packets' own times tell them apart, so that reading may begin anywhere."""
    in_file_order: bool
    """Whether frames have the times of their packets, though they are shown in another order: AVI knows no other."""
    missing: int
    """Frames that are due by the file's word on its length, beyond its end."""
    last: int
    """The last frame."""
    warnings: tuple[tuple[NoteEvent, str], ...]
    """For notes, what follows "…: "."""


class PacketClock:
    """Gives the packets of a file, read from its beginning, times that do not go backwards.

    MPEG-TS wraps around after 26.5 hours, and recorders that restart begin at 0 again. Where the decoding time falls,
    all that follows is moved so that it goes on right after the frames before.
    """

    def __init__(self, ticks_a_second: Fraction) -> None:
        self._leap = LEAP_S * ticks_a_second
        self._offset = 0
        self._earlier_offset = 0
        self._last: int | None = None  # decoding time
        self._latest = 0  # time to be shown
        self._step = 1
        self.falls = 0
        self.unstamped = 0

    def stamp(self, packet: Packet[VideoStream]) -> int:
        """Set the packet's times, moved where needed, and give the one that tells it apart."""
        if packet.pts is None and packet.dts is None:
            self.unstamped += 1
            packet.pts = packet.dts = (self._latest + self._step if self._last is not None else 0) - self._offset
        self._follow(packet)
        if packet.pts is not None:
            packet.pts += self._offset
        if packet.dts is not None:
            packet.dts += self._offset
            if self._last is not None and packet.dts > self._last:
                self._step = packet.dts - self._last
            self._last = packet.dts
        own = own_time(packet)
        self._latest = own if self._last is None else max(self._latest, own)
        return own

    def _follow(self, packet: Packet[VideoStream]) -> None:
        if packet.dts is None or self._last is None:
            return
        moved = packet.dts + self._offset
        if moved < self._last:
            self.falls += 1
            step = packet.duration or self._step
            self._earlier_offset = self._offset
            self._offset = max(self._latest + step - own_time(packet), self._last + step - packet.dts)
        elif moved > self._last + self._leap and 0 <= packet.dts + self._earlier_offset - self._last < self._leap:
            self._offset, self._earlier_offset = self._earlier_offset, self._offset


def own_time(packet: Packet[VideoStream]) -> int:
    """The time that tells a packet apart, in ticks: when it is shown, or decoded where that is all that is known."""
    time = packet.pts if packet.pts is not None else packet.dts
    assert time is not None  # PacketClock gives one
    return time


def to_id(ticks: Ticks, zero: int, time_base: Fraction) -> Ticks:
    """Microseconds since `zero`, rounded; of one time or of many."""
    scale = time_base * 1_000_000
    return ((ticks - zero) * (2 * scale.numerator) + scale.denominator) // (2 * scale.denominator)


def read_packets(container: InputContainer, stream: VideoStream, name: str) -> Iterator[Packet[VideoStream] | None]:
    """The packets of the stream that hold anything; None for each damaged place. Ends at the end of the file.

    Raises `ImageError` where it is not the content that is wrong: the server or the disk does not go on.
    """
    import av

    failures = 0
    while failures < MOST_FAILURES:
        try:
            for packet in container.demux(stream):
                failures = 0
                if packet.size:
                    yield packet
            return
        except (av.error.InvalidDataError, av.error.MemoryError):  # the latter for lengths that damage made huge
            failures += 1
            yield None
        except (av.error.ExitError, av.error.TimeoutError):
            silent = "" if container.read_timeout is None else f" for {container.read_timeout:g} seconds"
            text = f"The video {name} could not be read further: it was silent{silent}."
            raise ImageError(text) from None
        except av.error.FFmpegError as error:
            # Not str(error), which has the address with its password.
            raise ImageError(f"The video {name} could not be read further: {error.strerror}.") from None


def make_plan(container: InputContainer, stream: VideoStream, name: str, sampling: Sampling) -> VideoPlan:
    """Read all packets of a file that was just opened. Raises `ImageError` where there is none, or not all are read."""
    time_base = stream.time_base
    assert time_base is not None  # of a stream that is read
    clock = PacketClock(1 / time_base)
    shown, keys = array("q"), array("q")
    packets = failures = 0
    risen = True
    for packet in read_packets(container, stream, name):
        if packet is None:
            failures += 1
            continue
        packets += 1
        time = clock.stamp(packet)
        if packet.is_keyframe:
            keys.append(time)
        if not packet.is_discard:
            risen &= not shown or time > shown[-1]
            shown.append(time)
    if not shown:
        raise ImageError(f"The video {name} cannot be used: it holds no frame.")
    ticks = np.unique(np.frombuffer(shown, np.int64))
    key_ticks = np.unique(np.frombuffer(keys, np.int64)) if keys else ticks[:1]
    rate = float(stream.average_rate) if stream.average_rate else None
    lost = _lost(container, stream, packets, failures)
    warnings = [
        *_clock_warnings(clock),
        *(() if lost else _gap_warnings(ticks, time_base)),  # gaps before the end are of the end
        *_end_warnings(container, lost, failures, ticks, time_base),
    ]
    return VideoPlan(
        due=_due(ticks, key_ticks, time_base, sampling),
        keys=key_ticks,
        zero=int(ticks[0]),
        time_base=time_base,
        rate=rate,
        seekable=not clock.falls and not clock.unstamped,
        in_file_order=risen and stream.codec_context.has_b_frames,
        missing=_missing(len(ticks), lost, sampling, rate),
        last=int(ticks[-1]),
        warnings=tuple(warnings),
    )


def _lost(container: InputContainer, stream: VideoStream, packets: int, failures: int) -> int:
    """How many frames the file says it has beyond those that it holds."""
    if "mp4" in container.format.name and stream.frames:
        return max(0, len(stream.index_entries) - packets)  # not `frames`, of which some may be cut away on purpose
    overstated = not failures and packets >= MISSING_TOLERANCE * stream.frames
    return 0 if overstated else max(0, stream.frames - packets)


def _due(
    ticks: NDArray[np.int64], keys: NDArray[np.int64], time_base: Fraction, sampling: Sampling
) -> NDArray[np.int64]:
    """Those of `ticks` that are taken; a frame counts as at k/fps also where its time was rounded down."""
    if sampling.keyframes:
        return np.intersect1d(ticks, keys)
    if sampling.fps is None:
        return ticks[:: sampling.every or 1].copy()
    tick = float(time_base)
    tolerance = min(tick / 2, MOST_ROUNDING_S) + 1e-6
    slots = np.floor(((ticks - ticks[0]) * tick + tolerance) * sampling.fps).astype(np.int64)
    first_of_slot: NDArray[np.bool_] = np.diff(slots, prepend=-1) > 0
    return ticks[first_of_slot]


def _missing(there: int, lost: int, sampling: Sampling, rate: float | None) -> int:
    """How many of `lost` frames after the `there` that a file holds would have been due; by its mean rate for `fps`."""
    if sampling.keyframes or not lost:
        return 0
    every = sampling.every or 1
    if sampling.fps is not None and rate:
        every = max(1, round(rate / sampling.fps))
    return len(range(there + -there % every, there + lost, every))


def _clock_warnings(clock: PacketClock) -> Iterator[tuple[NoteEvent, str]]:
    if clock.falls:
        times = "once" if clock.falls == 1 else f"{clock.falls} times"
        yield "clock", f"its clock goes backwards {times}; what follows is taken to go on right after the frames before"
    if clock.unstamped:
        yield "clock", f"{clock.unstamped} of its frames have no time; they are taken to follow each other evenly"


def _gap_warnings(ticks: NDArray[np.int64], time_base: Fraction) -> Iterator[tuple[NoteEvent, str]]:
    """Where frames that come evenly do not: damage may leave nothing else behind."""
    steps = np.diff(ticks)
    usual = float(np.median(steps)) if len(steps) else 0.0
    wide = np.flatnonzero(steps > 1.5 * usual + 1)
    even = np.abs(steps - usual) <= 1  # times are rounded
    if len(steps) < FEWEST_STEPS or not len(wide) or even.mean() < EVEN_SHARE:
        return
    count = int(np.rint(steps[wide] / steps[even].mean() - 1).sum())
    seconds = float((int(ticks[wide[0]]) - int(ticks[0])) * time_base)
    more = {1: "", 2: " and one more place"}.get(len(wide), f" and {len(wide) - 1} more places")
    yield "gap", f"about {count} frames are missing at {seconds:.1f} s{more}"


def _end_warnings(
    container: InputContainer, lost: int, failures: int, ticks: NDArray[np.int64], time_base: Fraction
) -> Iterator[tuple[NoteEvent, str]]:
    seconds = float((int(ticks[-1]) - int(ticks[0])) * time_base)
    stated = (container.duration or 0) / 1e6
    if lost:
        yield "cut short", f"it holds {len(ticks)} of the {len(ticks) + lost} frames that it says it has"
    elif seconds < MISSING_TOLERANCE * stated - 1:
        yield "cut short", f"its frames end after {seconds:.0f} of the {stated:.0f} seconds that it says it lasts"
    elif failures:
        yield "cut short", f"parts of it cannot be read ({failures} failures); what they held is not known"
