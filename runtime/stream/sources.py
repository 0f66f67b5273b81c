"""What a stream reads from: files, folders, cameras, addresses and anything that yields frames.

Frames are uint8 [H,W,3] BGR.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from psarm.errors import UsageError
from psarm.runtime.images import IMAGE_SUFFIXES, iter_images
from psarm.runtime.video import Frame, read_frames, without_password

OneSource = str | Path | int | Iterable[Frame]
StreamSource = OneSource | Sequence[OneSource] | Mapping[str, OneSource]
"""A video, a picture or a folder of pictures, an address (`rtsp://…`), a camera's number, or an iterable of frames; a
list of these, or a mapping of names to them, is several."""


class ReadFrame(NamedTuple):
    """One frame as its source gives it."""

    number: int
    """From 0."""
    seconds: float | None
    """Its place in the video file; None for a source that has no time of its own."""
    frame: Frame


@dataclass(frozen=True)
class Source:
    """One thing to read from."""

    name: str
    read: Callable[[], Generator[ReadFrame]]
    """Opens it; raises `ImageError`, or what an iterable of the caller's raises."""


def find_sources(source: StreamSource, every: int) -> list[Source]:
    """The sources meant by `source`, under different names; videos and cameras give every `every`-th frame.

    Raises `UsageError` for what is no source, a path that does not exist, and two sources of one name.
    """
    if isinstance(source, Mapping):
        sources = [_find(one, every, str(name)) for name, one in source.items()]
    elif isinstance(source, (list, tuple)) and not (source and isinstance(source[0], np.ndarray)):
        sources = [_find(one, every, name) for one, name in zip(source, _own_names(source), strict=True)]
    else:
        sources = [_find(source, every, _own_name(source) or "frames")]
    if not sources:
        raise UsageError("The list of sources is empty; give at least one video, camera or iterable of frames.")
    names = [one.name for one in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"Two sources are named {twice}; give a dictionary of different names to sources.")
    return sources


def _own_names(sources: Sequence[Any]) -> list[str]:
    """Of a list; addresses that differ only in what their names leave out are numbered from the second on."""
    names = []
    alike: dict[str, list[Any]] = {}
    for number, source in enumerate(sources):
        name = _own_name(source) or f"frames {number}"
        if _is_address(source):
            addresses = alike.setdefault(name, [])
            if source not in addresses:
                addresses.append(source)
            place = addresses.index(source) + 1
            name += f" ({place})" if place > 1 else ""
        names.append(name)
    return names


def _is_address(source: Any) -> bool:
    return isinstance(source, str) and "://" in source


def _own_name(source: Any) -> str | None:
    """What it is called where the caller gives no name; None for an iterable."""
    if isinstance(source, int):
        return f"camera {source}"
    if isinstance(source, (str, Path)):
        return without_password(str(source))
    return None


def _find(source: Any, every: int, name: str) -> Source:
    if isinstance(source, int) or _is_address(source):
        return Source(name, lambda: _live(source, every))
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            raise UsageError(f"There is no file or folder {path} to read frames from.")
        if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
            return Source(name, lambda: _pictures(path, every))
        return Source(name, lambda: _video(path, every))
    if isinstance(source, Iterable):
        return Source(name, lambda: _given(source))
    raise UsageError(
        f"A {type(source).__name__} is no source of frames; give a video, a folder of pictures, an address such as "
        "rtsp://…, a camera's number, or an iterable of frames uint8 [H,W,3] BGR."
    )


def _video(path: Path, every: int) -> Generator[ReadFrame]:
    return (ReadFrame(number, seconds, frame) for number, seconds, frame in read_frames(path, every))


def _live(source: str | int, every: int) -> Generator[ReadFrame]:
    # Drivers and servers mean different things by a frame's time.
    return (ReadFrame(number, None, frame) for number, _, frame in read_frames(source, every))


def _pictures(path: Path, every: int) -> Generator[ReadFrame]:
    return (ReadFrame(index, None, frame) for index, (_, frame) in enumerate(iter_images([path], every)))


def _given(frames: Iterable[Frame]) -> Generator[ReadFrame]:
    """A generator of the caller's is closed with this one, so that what it holds is freed."""
    iterator = iter(frames)
    try:
        for index, frame in enumerate(iterator):
            yield ReadFrame(index, None, frame)
    finally:
        if isinstance(iterator, Iterator) and hasattr(iterator, "close"):
            iterator.close()
