"""http://…: a file or a camera, which only the server's answer tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath

from psarm.errors import ImageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing.live import LiveReader
from psarm.runtime.indexing.reading import Chunk, Skip, TakenFrame
from psarm.runtime.indexing.video_file import VideoReader
from psarm.runtime.video import NETWORK_TIMEOUT_MS, VIDEO_SUFFIXES


class WebReader:
    """Reads what is behind an HTTP address, as what it turns out to be when it is planned."""

    def __init__(self, address: str, video: VideoReader, live: LiveReader, surely_video: bool = False) -> None:
        """Of the same name and camera; `surely_video`: a camera is refused, because a start was given for a video."""
        self._address = address
        self._video = video
        self._live = live
        self._surely_video = surely_video
        self.unsure: str | None = None
        """Once planned: why the server could not be asked, so that a file may be behind what is taken for a camera."""

    @property
    def source(self) -> Source:
        """A video file until it is known for a camera."""
        return self._reader.source if "_reader" in self.__dict__ else self._video.source

    def plan(self) -> Source:
        """Ask the server. Raises `ImageError` where it has no video, or does not answer for an address that is surely a
        file's; behind any other there may be a camera, which is waited for in `read`."""
        return self._reader.plan()

    def read(self, after: int = -1) -> Iterator[TakenFrame | Skip]:
        """As the reader of a video file or of a camera."""
        return self._reader.read(after)

    def chunks(self, frames_per_chunk: int, after: int = -1) -> list[Chunk]:
        """Parts of a file; raises `ImageError` for a camera."""
        if isinstance(self._reader, LiveReader):
            if self.unsure:
                raise ImageError(f"{self.source.name} cannot be read: {self.unsure}.")
            raise ImageError(f"{self.source.name} is a camera, which only one process reads; index it without --ray.")
        return self._reader.chunks(frames_per_chunk, after)

    def close(self) -> None:
        """End `read`."""
        self._video.close()
        self._live.close()

    @cached_property
    def _reader(self) -> VideoReader | LiveReader:
        if self._is_file():
            return self._video
        if self._surely_video:
            raise ImageError(f"{self._video.source.name} is a camera, so it can be given no start.")
        return self._live

    def _is_file(self) -> bool:
        """Whether it has an end."""
        import av

        name = self._video.source.name
        try:
            with av.open(self._address, timeout=NETWORK_TIMEOUT_MS / 1000, metadata_errors="replace") as container:
                return bool(container.duration)
        except (av.error.ExitError, av.error.TimeoutError):
            reason, away = f"it was silent for {NETWORK_TIMEOUT_MS / 1000:g} seconds", True
        except av.error.FFmpegError as error:
            # Not str(error), which has the address with its password.
            reason, away = str(error.strerror), isinstance(error, OSError | av.error.HTTPServerError)
        parts = re.split("[?#&=]", self._address)  # …/get?file=a.mp4 too
        named_as_file = any(PurePosixPath(part).suffix.lower() in VIDEO_SUFFIXES for part in parts)
        if away and not named_as_file and not self._surely_video:
            self.unsure = reason
            return False  # should it be a file all the same, the camera's reader says so
        raise ImageError(f"{name} cannot be read: {reason}.")
