"""A picture, a folder of pictures or a list of them: ids are their numbers from 0."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event

from psarm.errors import ImageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.images import IMAGE_SUFFIXES, find_files, read_image
from psarm.runtime.indexing.reading import Chunk, Skip, TakenFrame

UNREADABLE = "not a readable picture"
"""Reason."""


def find_pictures(path: Path) -> list[Path]:
    """The pictures that `path` stands for: itself, those under a folder by name, or those a list (.txt) names.

    A list has a path a line, seen from the folder it lies in. Raises `ImageError` where there is none.
    """
    if path.suffix.lower() == ".txt":
        return _listed(path)
    try:
        pictures = [file for file in find_files([path]) if file.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error
    if not pictures:
        raise ImageError(f"The folder {path} holds no picture; name the videos in it one by one.")
    return pictures


class PicturesReader:
    """Reads pictures; `every` takes one of so many. What is added behind the last one is indexed with the next run."""

    def __init__(self, path: Path, source: Source, every: int) -> None:
        self._path = path
        self._source = source
        self._every = every
        self._stop = Event()

    @property
    def source(self) -> Source:
        """As far as it is known."""
        return self._source

    def plan(self) -> Source:
        """Look for the pictures; opens none."""
        count = len(self._pictures)
        planned = len(range(0, count, self._every))
        self._source = replace(self._source, signature=self._signature(count), planned=planned)
        return self._source

    def continues(self, signature: str) -> bool:
        """Whether the list of that signature is the beginning of this one, or all of it."""
        count = signature.partition(":")[0]
        return count.isdecimal() and int(count) <= len(self._pictures) and self._signature(int(count)) == signature

    def read(self, after: int = -1) -> Iterator[TakenFrame | Skip]:
        """Read the pictures that are due."""
        for chunk in self._parts(1, after):
            if self._stop.is_set():
                return
            yield from chunk.read()

    def chunks(self, frames_per_chunk: int, after: int = -1) -> list[Chunk]:
        """Parts of so many pictures."""
        return list(self._parts(frames_per_chunk, after))

    def close(self) -> None:
        """End `read`."""
        self._stop.set()

    @cached_property
    def _pictures(self) -> list[Path]:
        return find_pictures(self._path)

    def _signature(self, count: int) -> str:
        """Of the first so many pictures: how many they are, and a digest of their names and sizes."""
        digest = hashlib.sha256()
        for path in self._pictures[:count]:
            size = path.stat().st_size if path.is_file() else -1
            digest.update(f"{os.path.relpath(path, self._path.parent)}\0{size}\0".encode(errors="surrogateescape"))
        return f"{count}:{digest.hexdigest()}"

    def _parts(self, frames_per_chunk: int, after: int) -> Iterator[PicturesChunk]:
        numbers = range(0, len(self._pictures), self._every)[max(0, after // self._every + 1) :]
        for first in range(0, len(numbers), frames_per_chunk):
            part = numbers[first : first + frames_per_chunk]
            yield PicturesChunk(
                self._source.name, self._path, tuple((number, self._pictures[number]) for number in part)
            )


@dataclass(frozen=True)
class PicturesChunk:
    """Some of the pictures, with their numbers."""

    source: str
    path: Path
    """What the source is: a picture, a folder or a list."""
    pictures: tuple[tuple[int, Path], ...]

    def read(self) -> Iterator[TakenFrame | Skip]:
        """Read the pictures. Raises `ImageError` where the whole source has gone away."""
        for number, path in self.pictures:
            try:
                image = read_image(path)
            except (ImageError, ValueError):  # the latter for names with a NUL
                self._check_there()
                yield Skip(number, UNREADABLE)
            else:
                yield TakenFrame(number, None, image)

    def _check_there(self) -> None:
        """A folder that was unmounted is gone, or empty."""
        try:
            there = any(self.path.iterdir()) if self.path.is_dir() else self.path.exists()
        except OSError:
            there = False
        if not there:
            raise ImageError(f"{self.path} went away while it was read.")


def _listed(path: Path) -> list[Path]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ImageError(f"The list {path} cannot be read: {error.strerror}.") from error
    pictures = [path.parent / line.strip() for line in text.splitlines() if line.strip()]
    if not pictures:
        raise ImageError(f"The list {path} is empty; it needs the path of a picture on each line.")
    return pictures
