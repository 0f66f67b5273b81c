"""Clips made of a few pictures, whole and damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, cycle, islice
from pathlib import Path

from psarm.errors import DataError
from psarm.runtime.video import Frame, read_video

RATE = 10
"""Frames a second."""
TICKS = 90_000
"""A second of MPEG-TS."""
KEYFRAME_EVERY = 12
MOST_PICTURES = 200


def read_pictures(video: Path) -> list[Frame]:
    """The first pictures of a video."""
    pictures = [frame for _, frame in islice(read_video(video), MOST_PICTURES)]
    if len(pictures) < 2:
        raise DataError(f"{video} has {len(pictures)} frames; a clip of at least 2 is needed.")
    return [frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in pictures]  # 4:2:0


def there_and_back(pictures: Sequence[Frame]) -> Iterator[Frame]:
    """Without end and without a cut: nobody jumps."""
    return cycle(chain(pictures, reversed(pictures[1:-1])))


def write_clip(pictures: Sequence[Frame], length: int, path: Path, start: int = 0) -> Path:
    """Write `length` frames as H.264, 10 a second, the first at `start` of 90,000 ticks a second."""
    import av

    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "12", "g": str(KEYFRAME_EVERY)}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        for number, picture in enumerate(islice(there_and_back(pictures), length)):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = start + number * TICKS // RATE, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damage_middle(path: Path, share: float = 0.05) -> int:
    """Overwrite a share of a file's bytes in its middle; gives how many."""
    content = bytearray(path.read_bytes())
    size = max(1, round(len(content) * share))
    begin = (len(content) - size) // 2
    content[begin : begin + size] = b"\xa5" * size
    path.write_bytes(content)
    return size


def join_with_backward_clock(first: Path, second: Path, target: Path) -> None:
    """Two MPEG-TS files after each other, as a recorder writes that begins anew; the second one's times are its own."""
    target.write_bytes(first.read_bytes() + second.read_bytes())
