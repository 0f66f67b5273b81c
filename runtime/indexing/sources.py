"""What the user names → readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from psarm.runtime.indexing.reading import Chunk, OnNote, Skip, SourceReader, TakenFrame
from psarm.runtime.indexing.sampling import Sampling


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
    the readers. Raises `UsageError` for what is no source, and for two of one name; `ImageError` for an HTTP address
    that answers with a refusal.
    """
    raise NotImplementedError


def chunks(reader: SourceReader, frames_per_chunk: int, after: int = -1) -> list[Chunk]:
    """All that `reader.read(after)` gives, in order, in parts of at least so many due frames but for the last.

    Raises `UsageError` for a camera, which has no parts, and what `SourceReader.plan` raises.
    """
    raise NotImplementedError


def read_chunk(chunk: Chunk) -> Iterator[TakenFrame | Skip]:
    """Exactly what `SourceReader.read` gives for this part; in any process that sees the same files."""
    raise NotImplementedError
