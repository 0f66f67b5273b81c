"""Frames of sources that were indexed, read again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from psarm.errors import ImageError, UsageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing.reading import GrowingReader, SourceReader, TakenFrame
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers
from psarm.runtime.video import Frame


class FramesAgain:
    """Reads frames by source and id; a video is looked through once, when the first of its frames is wanted."""

    def __init__(self) -> None:
        self._readers: dict[str, SourceReader] = {}
        self._errors: dict[str, ImageError] = {}

    def read(self, source: Source, frame: int) -> Frame:
        """The frame, uint8 [H,W,3] BGR; raises `ImageError` where it is not to be had any more."""
        if source.name in self._errors:
            raise self._errors[source.name]
        if source.name not in self._readers:
            try:
                self._readers[source.name] = _open(source)
            except ImageError as error:
                self._errors[source.name] = error
                raise
        taken = next(self._readers[source.name].read(frame - 1), None)
        if not isinstance(taken, TakenFrame) or taken.frame != frame:
            raise ImageError(f"{source.name} does not give frame {frame} any more.")
        return taken.image

    def close(self) -> None:
        """Let go of the files."""
        for reader in self._readers.values():
            reader.close()


def _open(source: Source) -> SourceReader:
    if source.kind == "live":
        raise ImageError("A camera keeps no frames.")
    if "://" in source.name:
        raise ImageError("Frames are read again from files only.")
    if not Path(source.name).exists():
        raise ImageError(f"{source.name} is not there any more.")
    sampling = {field.name: source.settings[field.name] for field in fields(Sampling) if field.name in source.settings}
    try:
        (reader,) = find_readers([source.name], [source.camera], Sampling(**sampling))
    except UsageError as error:
        raise ImageError(str(error)) from error
    grown = isinstance(reader, GrowingReader) and reader.continues(source.signature)
    if not grown and reader.plan().signature != source.signature:
        raise ImageError(f"{source.name} is not what was indexed any more.")
    return reader
