"""What the user names → readers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISDIR
from typing import TypeVar
from urllib.parse import urlsplit

from psarm.errors import UsageError
from psarm.extras import require
from psarm.runtime.gallery.records import Source
from psarm.runtime.images import IMAGE_SUFFIXES
from psarm.runtime.indexing.cameras import AddressCamera, Camera, LocalCamera
from psarm.runtime.indexing.live import LiveReader
from psarm.runtime.indexing.pictures import PicturesReader
from psarm.runtime.indexing.reading import OnNote, SourceReader
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.video_file import VideoReader
from psarm.runtime.indexing.web import WebReader
from psarm.runtime.video import without_password

Item = TypeVar("Item")
FIRST_START, LAST_START = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def find_readers(
    sources: Sequence[str],
    cameras: Sequence[str] = (),
    sampling: Sampling | None = None,
    starts: Sequence[datetime | None] = (),
    give_up_after: float | None = None,
    on_note: OnNote | None = None,
) -> list[SourceReader]:
    """A reader for each of `sources`: a video, picture, folder of pictures, list of them (.txt, a path a line), address
    (rtsp://…, http://…) or camera's number.

    `cameras`: none, one for all, or one a source. `starts` (aware): none, one for all videos, or one a source, all of
    them videos then; cameras have the times at which frames come, pictures none. A camera that is away for
    `give_up_after` seconds (None: however long) ends its `read` with `ImageError`. `on_note` is called in threads of
    the readers. An address that holds a password or query is named without and with its camera: `http://host [door]`.
    Raises `UsageError` for what is no source, two of one name, a start without a video, and `give_up_after` without a
    camera; `MissingExtraError`. Nothing is opened: what cannot be read fails in its reader's `plan`.
    """
    if not sources:
        raise UsageError("The list of sources is empty; give at least one video, folder, list or camera.")
    given_cameras = _one_each(cameras, len(sources), "cameras")
    given_starts = _one_each(starts, len(sources), "starts")
    _check_starts(given_starts)
    shared_start = len(starts) == 1 and len(sources) > 1 and starts[0] is not None
    finder = _Finder(sampling or Sampling(), shared_start, give_up_after, on_note or (lambda note: None))
    readers = [finder.find(*one) for one in zip(sources, given_cameras, given_starts, strict=True)]
    if shared_start and not any(isinstance(reader, VideoReader | WebReader) for reader in readers):
        raise UsageError("A start is for videos, and none of the sources is one; leave it out.")
    if give_up_after is not None and not any(isinstance(reader, LiveReader | WebReader) for reader in readers):
        raise UsageError("To give up after a while is for cameras, and none of the sources is one; leave it out.")
    names = [reader.source.name for reader in readers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"Two sources are named {twice}; give each once, and addresses that differ a camera each.")
    return readers


class _Finder:
    def __init__(self, sampling: Sampling, shared_start: bool, give_up_after: float | None, on_note: OnNote) -> None:
        """`shared_start`: what `find` gets is for all videos among the sources, and not for this one by itself."""
        self._sampling = sampling
        self._shared_start = shared_start
        self._give_up_after = give_up_after
        self._on_note = on_note

    def find(self, source: str, camera: str | None, start: datetime | None) -> SourceReader:
        _check_text(source, camera)
        if "://" in source:
            return self._address(source, camera, start)
        if source.isdecimal():
            name = f"camera {int(source)}"
            self._check_no_start(name, start)
            return self._live(LocalCamera(int(source)), name, camera or name)
        path = Path(source).absolute()
        if _is_folder(path) or path.suffix.lower() in IMAGE_SUFFIXES | {".txt"}:
            self._check_no_start(str(path), start)
            every = self._sampling.every or 1
            pictures = Source(str(path), camera or path.stem, "pictures", settings={"every": every})
            return PicturesReader(path, pictures, every)
        return self._video(str(path), str(path), camera or path.stem, start)

    def _address(self, address: str, camera: str | None, start: datetime | None) -> SourceReader:
        require("av", feature="Reading video", extra="gallery")
        name = without_password(address)
        try:
            host = urlsplit(name).hostname
        except ValueError:
            raise UsageError(f"{name} is no address; one such as rtsp://host/path is needed.") from None
        own_camera = camera or host or name
        if camera and name != address:
            name += f" [{camera}]"  # what was left out may be all that tells two apart
        if address.lower().startswith(("http://", "https://")):
            video = self._video(address, name, own_camera, start)
            live = self._live(AddressCamera(address), name, own_camera)
            return WebReader(address, video, live, surely_video=start is not None and not self._shared_start)
        self._check_no_start(name, start)
        return self._live(AddressCamera(address), name, own_camera)

    def _video(self, address: str, name: str, camera: str, start: datetime | None) -> VideoReader:
        require("av", feature="Reading video", extra="gallery")
        begin = {"start": start.astimezone(UTC).isoformat()} if start else {}
        source = Source(name, camera, "video", settings={**self._sampling.settings(), **begin}, start=start)
        return VideoReader(address, source, self._sampling, self._on_note)

    def _live(self, way: Camera, name: str, camera: str) -> LiveReader:
        source = Source(name, camera, "live", settings=self._sampling.settings())
        return LiveReader(way, source, self._sampling, self._give_up_after, self._on_note)

    def _check_no_start(self, name: str, start: datetime | None) -> None:
        if start is not None and not self._shared_start:
            raise UsageError(f"{name} is no video file, so it can be given no start; leave it out or give one for all.")


def _check_starts(starts: Sequence[datetime | None]) -> None:
    for start in starts:
        if start is None:
            continue
        if start.tzinfo is None:
            raise UsageError("A start needs a time zone: 2025-06-01T08:00:00+02:00.")
        if not FIRST_START <= start < LAST_START:
            raise UsageError(f"A start is {start.isoformat()}; one from the years 1900 to 9998 is needed.")


def _check_text(*texts: str | None) -> None:
    """What is no UTF-8 cannot be kept in a gallery."""
    for text in texts:
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            shown = (text or "").encode(errors="backslashreplace").decode()
            raise UsageError(f"The name {shown} is not UTF-8; rename it.") from None


def _is_folder(path: Path) -> bool:
    """Raises `UsageError` where there is nothing; of what only cannot be looked at, the reader says why."""
    try:
        return S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UsageError(f"There is no file or folder {path} to read frames from.") from None
    except OSError:
        return False


def _one_each(given: Sequence[Item], count: int, what: str) -> Sequence[Item | None]:
    if len(given) not in (0, 1, count):
        raise UsageError(f"{len(given)} {what} are given for {count} sources; give one for all, or one each.")
    return list(given) * count if len(given) == 1 else list(given) or [None] * count
