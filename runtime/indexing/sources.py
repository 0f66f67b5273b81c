"""What the user names → readers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from psarm.errors import ImageError, UsageError
from psarm.extras import require
from psarm.runtime.gallery.records import Source
from psarm.runtime.images import IMAGE_SUFFIXES
from psarm.runtime.indexing.cameras import AddressCamera, Camera, LocalCamera
from psarm.runtime.indexing.live import LiveReader
from psarm.runtime.indexing.pictures import PicturesReader
from psarm.runtime.indexing.reading import Chunk, ChunkedReader, OnNote, Skip, SourceReader, TakenFrame
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.video_file import VideoReader
from psarm.runtime.video import NETWORK_TIMEOUT_MS, without_password

Item = TypeVar("Item")
SAMPLE_BYTES = 1 << 20
"""Of the beginning, middle and end of a file make up its signature, however large it is."""


def find_readers(
    sources: Sequence[str],
    cameras: Sequence[str] = (),
    sampling: Sampling | None = None,
    starts: Sequence[datetime] = (),
    give_up_after: float | None = None,
    on_note: OnNote | None = None,
) -> list[SourceReader]:
    """A reader for each of `sources`: a video, picture, folder of pictures, list of them (.txt, a path a line), address
    (rtsp://…, http://…) or camera's number.

    `cameras` and `starts` (aware; of videos): none, one for all, or one a source. A camera that is away for
    `give_up_after` seconds (None: however long) ends its `read` with `ImageError`. `on_note` is called in threads of
    the readers. An address that holds a password or query is named without and with its camera: `http://host [door]`.
    Raises `UsageError` for what is no source, and for two of one name; `ImageError` for a file that cannot be read and
    an HTTP address that answers with a refusal; `MissingExtraError`.
    """
    if not sources:
        raise UsageError("The list of sources is empty; give at least one video, folder, list or camera.")
    given_cameras = _one_each(cameras, len(sources), "cameras")
    given_starts = _one_each(starts, len(sources), "starts")
    if any(start is not None and start.tzinfo is None for start in given_starts):
        raise UsageError("A start needs a time zone: 2025-06-01T08:00:00+02:00.")
    finder = _Finder(sampling or Sampling(), give_up_after, on_note or (lambda note: None))
    readers = [finder.find(*one) for one in zip(sources, given_cameras, given_starts, strict=True)]
    names = [reader.source.name for reader in readers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"Two sources are named {twice}; give each once, and addresses that differ a camera each.")
    return readers


def chunks(reader: SourceReader, frames_per_chunk: int, after: int = -1) -> list[Chunk]:
    """All that `reader.read(after)` gives, in order, in parts of at least so many due frames but for the last.

    Raises `UsageError` for a camera, which has no parts, and what `SourceReader.plan` raises.
    """
    if not isinstance(reader, ChunkedReader):
        raise UsageError(f"{reader.source.name} is a camera, which cannot be read in parts; index it by itself.")
    return reader.chunks(frames_per_chunk, after)


def read_chunk(chunk: Chunk) -> Iterator[TakenFrame | Skip]:
    """What `SourceReader.read` gives for this part: the same ids, times and skips; in any process that sees the files.

    Pictures are the same too, but for what a decoder makes up where a file is damaged and does not say so.
    """
    return chunk.read()


class _Finder:
    def __init__(self, sampling: Sampling, give_up_after: float | None, on_note: OnNote) -> None:
        self._sampling = sampling
        self._give_up_after = give_up_after
        self._on_note = on_note

    def find(self, source: str, camera: str | None, start: datetime | None) -> SourceReader:
        if "://" in source:
            return self._address(source, camera, start)
        if source.isdecimal():
            name = f"camera {int(source)}"
            return self._live(LocalCamera(int(source)), name, camera or name)
        path = Path(source).absolute()
        if not path.exists():
            raise UsageError(f"There is no file or folder {path} to read frames from.")
        if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES | {".txt"}:
            every = self._sampling.every or 1
            pictures = Source(str(path), camera or path.stem, "pictures", settings={"every": every})
            return PicturesReader(path, pictures, every)
        return self._video(str(path), str(path), camera or path.stem, start, _signature(path))

    def _address(self, address: str, camera: str | None, start: datetime | None) -> SourceReader:
        require("av", feature="Reading video", extra="gallery")
        name = without_password(address)
        own_camera = camera or urlsplit(name).hostname or name
        if camera and name != address:
            name += f" [{camera}]"  # what was left out may be all that tells two apart
        if address.lower().startswith(("http://", "https://")) and (signature := _finite(address, name)):
            return self._video(address, name, own_camera, start, signature)
        return self._live(AddressCamera(address), name, own_camera)

    def _video(self, address: str, name: str, camera: str, start: datetime | None, signature: str) -> SourceReader:
        require("av", feature="Reading video", extra="gallery")
        settings = {**self._sampling.settings(), **({"start": start.isoformat()} if start else {})}
        source = Source(name, camera, "video", signature, settings, start)
        return VideoReader(address, source, self._sampling, self._on_note)

    def _live(self, way: Camera, name: str, camera: str) -> SourceReader:
        source = Source(name, camera, "live", settings=self._sampling.settings())
        return LiveReader(way, source, self._sampling, self._give_up_after, self._on_note)


def _one_each(given: Sequence[Item], count: int, what: str) -> Sequence[Item | None]:
    if len(given) not in (0, 1, count):
        raise UsageError(f"{len(given)} {what} are given for {count} sources; give one for all, or one each.")
    return list(given) * count if len(given) == 1 else list(given) or [None] * count


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


def _finite(address: str, name: str) -> str:
    """A signature of a file behind HTTP; empty for what has no end, or is not there now and so may be a camera."""
    import av

    try:
        with av.open(address, timeout=NETWORK_TIMEOUT_MS / 1000) as container:
            return f"{container.size} bytes, {container.duration} us" if container.duration else ""
    except av.error.HTTPClientError as error:
        raise ImageError(f"{name} cannot be read: the server says {error.strerror}.") from None
    except (av.error.FFmpegError, OSError):
        return ""
