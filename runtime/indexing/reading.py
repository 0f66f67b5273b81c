"""What an indexer reads from: one protocol for videos, pictures and cameras.

Every frame that is due comes out once, as a picture or as a `Skip`, in the order of the frames' ids (see
`psarm.runtime.gallery.schema`). Images are uint8 [H,W,3] BGR, turned as the file says they are to be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from psarm.runtime.gallery.records import Source
from psarm.runtime.video import Frame

DAMAGED = "damaged"
"""Reason of a skip: the decoder could not make a whole picture of it."""


class TakenFrame(NamedTuple):
    """A frame that was due, decoded."""

    frame: int
    """Id."""
    time: datetime | None
    """When it was taken, UTC."""
    image: Frame


@dataclass(frozen=True)
class Skip:
    """Frames that were due and are not to be had."""

    frame: int
    """Id of the last of them."""
    reason: str
    """A few words, the same for all that were skipped for it: "damaged"."""
    count: int = 1


NoteEvent = Literal["gone", "back", "clock", "cut short", "gap"]
"""A camera went, it came back, a clock went wrong, a file is shorter than it says, or lacks frames in its middle."""


class Note(NamedTuple):
    """Something the user should know that ends nothing."""

    source: str
    """Its name."""
    event: NoteEvent
    text: str
    """One sentence."""


OnNote = Callable[[Note], None]


class SourceReader(Protocol):
    """Reads one source. `read` runs in one thread; `close` may be called from any."""

    @property
    def source(self) -> Source:
        """What is known of it so far: `start`, `rate` and `planned` may be None until `plan`."""

    def plan(self) -> Source:
        """Find out which frames are due; reads the whole of a video file, without decoding it.

        Raises `ImageError` when the source cannot be read. A camera that is away is waited for in `read`.
        """

    def read(self, after: int = -1) -> Iterator[TakenFrame | Skip]:
        """The due frames whose id is above `after`; plans where that was not done.

        `Source.planned` frames, counting skips, come out of a file or list from -1 on; a camera goes on until `close`.
        Raises `ImageError` when the source can no longer be read.
        """

    def close(self) -> None:
        """End `read` soon, wherever it is; it then returns."""


@runtime_checkable
class GrowingReader(SourceReader, Protocol):
    """A reader of what may have grown at its end since it was indexed."""

    def continues(self, signature: str) -> bool:
        """Whether the content that had this signature is still there unchanged, as the beginning of what there is."""


class Chunk(Protocol):
    """Part of a file or list that can be read by itself, in another process too: it can be pickled."""

    @property
    def source(self) -> str:
        """Name of the source."""

    def read(self) -> Iterator[TakenFrame | Skip]:
        """What `SourceReader.read` gives for this part."""


@runtime_checkable
class ChunkedReader(SourceReader, Protocol):
    """A reader of what lies there as a whole: a file or a list."""

    def chunks(self, frames_per_chunk: int, after: int = -1) -> list[Chunk]:
        """All that `read(after)` gives, in order, in parts of at least so many frames but for the last.

        Raises `ImageError` where it turns out not to lie there as a whole.
        """
